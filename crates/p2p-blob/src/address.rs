//! Multiaddresses: which ones this node can dial, and whom they name.

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};

/// Whether there is a transport for `addr`: TCP or QUIC, by IP address or name, with or without a peer id.
pub fn is_dialable(addr: &Multiaddr) -> bool {
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
        Some(Protocol::Udp(_)) => parts.next() == Some(Protocol::QuicV1),
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

/// `addr` with the peer's name at its end.
pub(crate) fn with_peer(addr: Multiaddr, peer: PeerId) -> Multiaddr {
    addr.with_p2p(peer).unwrap_or_else(|addr| addr)
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
}
