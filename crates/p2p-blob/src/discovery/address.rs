//! Multiaddresses: which ones this node can dial, their peer ids, and their scope.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};

/// Whether there is a transport for `addr`: TCP or (feature `quic`) QUIC, by IP address or name, with or without a peer id;
/// or (feature `nat`), through a relay that is named by such an address with its peer id, `/p2p-circuit`.
pub fn is_dialable(addr: &Multiaddr) -> bool {
    let mut relay = Multiaddr::empty();
    let mut parts = addr.iter();
    for part in parts.by_ref() {
        if part == Protocol::P2pCircuit {
            let rest = matches!((parts.next(), parts.next()), (None | Some(Protocol::P2p(_)), None));
            return cfg!(feature = "nat") && rest && peer_of(&relay).is_some() && is_direct(&relay);
        }
        relay.push(part);
    }
    is_direct(addr)
}

/// Whether `addr` is one of TCP or QUIC.
fn is_direct(addr: &Multiaddr) -> bool {
    let mut parts = addr.iter();
    match parts.next() {
        Some(Protocol::Dnsaddr(_)) => return true,
        Some(
            Protocol::Ip4(_) | Protocol::Ip6(_) | Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_),
        ) => {}
        _ => return false,
    }
    let has_transport = match parts.next() {
        Some(Protocol::Tcp(_)) => true,
        Some(Protocol::Udp(_)) => cfg!(feature = "quic") && parts.next() == Some(Protocol::QuicV1),
        _ => false,
    };
    has_transport && matches!((parts.next(), parts.next()), (None | Some(Protocol::P2p(_)), None))
}

/// The peer that `addr` names at its end.
pub(crate) fn peer_of(addr: &Multiaddr) -> Option<PeerId> {
    match addr.iter().last() {
        Some(Protocol::P2p(peer)) => Some(peer),
        _ => None,
    }
}

/// `addr` without the peer that it names at its end, and that peer; `None` when it names none.
pub fn split_peer(mut addr: Multiaddr) -> Option<(Multiaddr, PeerId)> {
    let peer = peer_of(&addr)?;
    addr.pop();
    Some((addr, peer))
}

/// `addr` with the peer's name at its end.
pub(crate) fn with_peer(addr: Multiaddr, peer: PeerId) -> Multiaddr {
    addr.with_p2p(peer).unwrap_or_else(|addr| addr)
}

/// The longest address that is accepted from a peer.
const MAX_ADDR_BYTES: usize = 256;

/// The scope of an address: where it can be reached from. Each includes the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scope {
    /// From the same machine.
    Host,
    /// From the same private network.
    Site,
    /// From everywhere.
    World,
}

/// The scope of `addr`; `None`: unreachable, or unknown. A name is assumed to be global.
pub(crate) fn scope(addr: &Multiaddr) -> Option<Scope> {
    match addr.iter().next()? {
        Protocol::Ip4(_) | Protocol::Ip6(_) => scope_of_ip(ip_of(addr)?),
        Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_) | Protocol::Dnsaddr(_) => Some(Scope::World),
        _ => None,
    }
}

/// The IP address that `addr` begins with; an IPv4 one also when it is written as IPv6.
pub(crate) fn ip_of(addr: &Multiaddr) -> Option<IpAddr> {
    match addr.iter().next()? {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(IpAddr::V6(ip).to_canonical()),
        _ => None,
    }
}

/// The IP version that a name is resolved to, when it is only one.
pub(crate) fn family(addr: &Multiaddr) -> Option<&'static str> {
    match addr.iter().next()? {
        Protocol::Dns4(_) => Some("IPv4"),
        Protocol::Dns6(_) => Some("IPv6"),
        _ => None,
    }
}

/// The same as [`scope`], for an IP address.
pub(crate) fn scope_of_ip(ip: IpAddr) -> Option<Scope> {
    match ip {
        IpAddr::V4(ip) => scope_of_v4(ip),
        IpAddr::V6(ip) => scope_of_v6(ip),
    }
}

fn scope_of_v4(ip: Ipv4Addr) -> Option<Scope> {
    // Carrier-grade NAT (RFC 6598): not reachable from elsewhere.
    let is_shared = ip.octets()[0] == 100 && ip.octets()[1] & 0xC0 == 64;
    match ip {
        ip if ip.is_loopback() => Some(Scope::Host),
        // "This" network, multicast, and what is reserved, broadcast included.
        ip if matches!(ip.octets()[0], 0 | 224..) => None,
        ip if ip.is_private() || ip.is_link_local() || is_shared => Some(Scope::Site),
        _ => Some(Scope::World),
    }
}

fn scope_of_v6(ip: Ipv6Addr) -> Option<Scope> {
    match ip {
        ip if ip.is_loopback() => Some(Scope::Host),
        // A link-local address means nothing without its interface.
        ip if ip.is_unspecified() || ip.is_multicast() || ip.is_unicast_link_local() => None,
        ip if ip.is_unique_local() => Some(Scope::Site),
        // It is translated to an IPv4 address, whose scope may be narrower.
        ip => match embedded_v4(ip).map(scope_of_v4) {
            None | Some(Some(Scope::World)) => Some(Scope::World),
            Some(_) => None,
        },
    }
}

/// The IPv4 address in one of NAT64 (RFC 6052, 8215), 6to4 (RFC 3056), Teredo (RFC 4380) or the old compatible form.
fn embedded_v4(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, _, _, g, h] = ip.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    match (a, b, c, d) {
        (0x64, 0xFF9B, 0 | 1, _) | (0, 0, 0, 0) => Some(v4(g, h)),
        (0x2002, high, low, _) => Some(v4(high, low)),
        (0x2001, 0, ..) => Some(v4(!g, !h)),
        _ => None,
    }
}

/// `addr` as it is passed on for `peer`: without the peer id at its end. `None` when it cannot be dialed, is another
/// peer's, is too long, or resolves to any number of others (`/dnsaddr`).
pub(crate) fn passable(addr: &Multiaddr, peer: &PeerId) -> Option<Multiaddr> {
    let is_fit = addr.len() <= MAX_ADDR_BYTES
        && is_dialable(addr)
        && !matches!(addr.iter().next(), Some(Protocol::Dnsaddr(_)))
        && !addr.iter().any(|part| matches!(part, Protocol::Tcp(0) | Protocol::Udp(0)));
    if !is_fit || scope(addr).is_none() {
        return None;
    }
    let mut addr = addr.clone();
    match peer_of(&addr) {
        Some(named) if named != *peer => return None,
        Some(_) => drop(addr.pop()),
        None => {}
    }
    Some(addr)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tcp_and_quic_are_dialable() {
        let peer = PeerId::random();
        for good in [
            "/ip4/127.0.0.1/tcp/1",
            "/ip6/::1/udp/1/quic-v1",
            "/dns/example.org/tcp/1",
            "/dns4/example.org/udp/1/quic-v1",
            "/dnsaddr/example.org",
        ] {
            let addr: Multiaddr = good.parse().unwrap();
            assert!(is_dialable(&addr), "{good}");
            assert_eq!(peer_of(&addr), None);
            let addr = with_peer(addr, peer);
            assert!(is_dialable(&addr), "{addr}");
            assert_eq!(peer_of(&addr), Some(peer));
        }
        for bad in [
            "",
            "/tcp/1",
            "/ip4/127.0.0.1",
            "/ip4/127.0.0.1/udp/1",
            "/ip4/127.0.0.1/udp/1/quic",
            "/ip4/127.0.0.1/tcp/1/ws",
            "/ip4/127.0.0.1/sctp/1",
            "/unix/a",
        ] {
            assert!(!is_dialable(&bad.parse().unwrap()), "{bad}");
        }
    }

    #[test]
    fn scopes_widen_and_what_nobody_reaches_has_none() {
        for (text, expected) in [
            ("/ip4/127.0.0.9/tcp/1", Some(Scope::Host)),
            ("/ip6/::1/tcp/1", Some(Scope::Host)),
            ("/ip6/::ffff:127.0.0.1/tcp/1", Some(Scope::Host)),
            ("/ip4/10.1.2.3/tcp/1", Some(Scope::Site)),
            ("/ip4/192.168.1.1/tcp/1", Some(Scope::Site)),
            ("/ip4/169.254.1.1/tcp/1", Some(Scope::Site)),
            ("/ip4/100.64.0.1/tcp/1", Some(Scope::Site)),
            ("/ip6/fd00::2/tcp/1", Some(Scope::Site)),
            ("/ip4/100.128.0.1/tcp/1", Some(Scope::World)),
            ("/ip4/192.0.2.7/tcp/1", Some(Scope::World)),
            ("/ip6/2001:db8::1/tcp/1", Some(Scope::World)),
            ("/dns/example.org/tcp/1", Some(Scope::World)),
            ("/ip4/0.0.0.0/tcp/1", None),
            ("/ip4/224.0.0.251/udp/1", None),
            ("/ip4/255.255.255.255/udp/1", None),
            ("/ip6/::/tcp/1", None),
            ("/ip6/fe80::1/tcp/1", None),
            ("/ip4/0.1.2.3/tcp/1", None),
            ("/ip4/240.0.0.1/tcp/1", None),
            ("/ip6/64:ff9b::7f00:1/tcp/1", None),
            ("/ip6/64:ff9b::808:808/tcp/1", Some(Scope::World)),
            ("/ip6/2002:a00:1::1/tcp/1", None),
            ("/ip6/2001:0:1::80ff:fffe/tcp/1", None),
            ("/memory/1", None),
        ] {
            assert_eq!(scope(&text.parse().unwrap()), expected, "{text}");
        }
        assert!(Scope::Host < Scope::Site && Scope::Site < Scope::World);
    }

    #[test]
    fn only_a_peers_own_short_address_is_passed_on() {
        let (peer, other) = (PeerId::random(), PeerId::random());
        let plain: Multiaddr = "/ip4/192.0.2.7/tcp/1".parse().unwrap();
        assert_eq!(passable(&plain, &peer), Some(plain.clone()));
        assert_eq!(passable(&with_peer(plain.clone(), peer), &peer), Some(plain.clone()));
        assert_eq!(passable(&with_peer(plain, other), &peer), None);
        let long = format!("/dns/{}/tcp/1", "a".repeat(MAX_ADDR_BYTES));
        for bad in
            [long.as_str(), "/dnsaddr/example.org", "/ip4/192.0.2.7/tcp/0", "/ip4/0.0.0.0/tcp/1", "/memory/1"]
        {
            assert_eq!(passable(&bad.parse().unwrap(), &peer), None, "{bad}");
        }
    }
}
