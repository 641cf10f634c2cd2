//! The addresses that slots are shared by.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};

use crate::discovery::address::{self, Scope};

/// Where a peer connects from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Origin {
    /// An IPv4 address, or the /64 network of an IPv6 one, which has one owner.
    Ip(IpAddr),
    /// A relay, or a transport without an address: all of them count as one.
    Relayed,
}

impl Origin {
    /// Of a peer connected at `addr`.
    pub(crate) fn of(addr: &Multiaddr) -> Self {
        if addr.iter().any(|part| part == Protocol::P2pCircuit) {
            return Self::Relayed;
        }
        match address::ip_of(addr) {
            Some(IpAddr::V6(ip)) => Self::Ip(cut_v6(ip, 64).into()),
            Some(ip) => Self::Ip(ip),
            None => Self::Relayed,
        }
    }

    /// The prefix that most likely has one owner: the /24 or /48 of a global address. Others stand for themselves.
    pub(crate) fn prefix(self) -> Self {
        match self {
            Self::Ip(ip) if address::scope_of_ip(ip) == Some(Scope::World) => Self::Ip(match ip {
                IpAddr::V4(ip) => Ipv4Addr::from_bits(ip.to_bits() & 0xFFFF_FF00).into(),
                IpAddr::V6(ip) => cut_v6(ip, 48).into(),
            }),
            other => other,
        }
    }
}

fn cut_v6(ip: Ipv6Addr, bits: u32) -> Ipv6Addr {
    Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << (128 - bits)))
}

/// A peer, and where it connects from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Asker {
    pub(crate) peer: PeerId,
    pub(crate) origin: Origin,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefixes(addr: &str) -> (String, String) {
        let origin = Origin::of(&addr.parse().unwrap());
        let show = |origin| match origin {
            Origin::Ip(ip) => ip.to_string(),
            Origin::Relayed => "relayed".to_owned(),
        };
        (show(origin), show(origin.prefix()))
    }

    #[test]
    fn global_addresses_belong_to_a_prefix_and_others_stand_for_themselves() {
        let relay = format!("/ip4/8.8.4.4/tcp/1/p2p/{}/p2p-circuit", PeerId::random());
        for (addr, origin, prefix) in [
            ("/ip4/8.8.4.4/tcp/1", "8.8.4.4", "8.8.4.0"),
            ("/ip6/::ffff:8.8.4.4/tcp/1", "8.8.4.4", "8.8.4.0"),
            ("/ip4/127.0.0.9/udp/1/quic-v1", "127.0.0.9", "127.0.0.9"),
            ("/ip4/10.1.2.3/tcp/1", "10.1.2.3", "10.1.2.3"),
            ("/ip6/2a00:1:2:3:4:5:6:7/tcp/1", "2a00:1:2:3::", "2a00:1:2::"),
            ("/ip6/fd00:1:2:3:4::/tcp/1", "fd00:1:2:3::", "fd00:1:2:3::"),
            (&relay, "relayed", "relayed"),
            ("/memory/1", "relayed", "relayed"),
        ] {
            assert_eq!(prefixes(addr), (origin.to_owned(), prefix.to_owned()), "{addr}");
        }
    }
}
