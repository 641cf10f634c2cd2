//! The dial policy: one check for all addresses, whatever their source, after names are resolved.
//!
//! Addresses from the user are dialed. Those from peers must have a scope that includes the peer: a remote peer names
//! global addresses, one in a private network may name that network's. And their dials are rate limited, so that this
//! node is no amplifier of attacks.

mod resolved;
mod token_buckets;

use std::collections::HashSet;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};

use self::token_buckets::TokenBuckets;
use crate::discovery::address::{self, Scope};
use crate::discovery::record::Contact;

pub(crate) use self::resolved::Resolved;

/// Relays remembered as given by the user.
const MAX_RELAYS: usize = 64;
/// Dials of addresses from peers: to one IP address, and to one port there. A burst, then so many in a minute.
const PER_ADDRESS: (u32, u32) = (64, 60);
const PER_PORT: (u32, u32) = (8, 4);
/// Peers that one peer can name.
const PER_PEER: (u32, u32) = (128, 32);

/// Where an address comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AddrSource {
    /// The user, or this node has reached it before.
    User,
    /// A peer, in whose scope the address is.
    Peer,
    /// A behaviour of libp2p, from an unknown peer.
    Unknown,
}

/// The state of the policy.
#[derive(Debug)]
pub(crate) struct Reach(Mutex<State>);

#[derive(Debug)]
struct State {
    /// Of the dial that begins now.
    source: AddrSource,
    /// The widest scope of all peers connected so far.
    widest: Scope,
    /// Relays given by the user, without their peer ids.
    relays: HashSet<Multiaddr>,
    addresses: TokenBuckets<std::net::IpAddr>,
    ports: TokenBuckets<(std::net::IpAddr, u16)>,
    peers: TokenBuckets<PeerId>,
}

impl Default for Reach {
    fn default() -> Self {
        Self(Mutex::new(State {
            source: AddrSource::Unknown,
            widest: Scope::Host,
            relays: HashSet::new(),
            addresses: TokenBuckets::new(PER_ADDRESS),
            ports: TokenBuckets::new(PER_PORT),
            peers: TokenBuckets::new(PER_PEER),
        }))
    }
}

impl Reach {
    /// Begins dials of addresses from `source`; `dial` does not wait.
    pub(crate) fn during<T>(&self, source: AddrSource, dial: impl FnOnce() -> T) -> T {
        self.state().source = source;
        let done = dial();
        self.state().source = AddrSource::Unknown;
        done
    }

    /// The user has given this address: the relay in it, if there is one, may be dialed.
    pub(crate) fn named(&self, addr: &Multiaddr) {
        let mut state = self.state();
        if let Some(relay) = relay_of(addr)
            && state.relays.len() < MAX_RELAYS
        {
            state.relays.insert(relay);
        }
    }

    /// A peer is connected at this address. A relayed one has no narrower scope than its relay, which is connected, too.
    pub(crate) fn connected(&self, remote: &Multiaddr) {
        let is_relayed = matches!(remote.iter().next(), None | Some(Protocol::P2p(_)));
        if is_relayed || relay_of(remote).is_some() {
            return;
        }
        let scope = address::scope(remote).unwrap_or(Scope::World);
        let mut state = self.state();
        state.widest = state.widest.max(scope);
    }

    /// The widest scope of all peers connected so far: an address from an unknown peer may come from there.
    pub(crate) fn widest(&self) -> Scope {
        self.state().widest
    }

    /// As many of these as the peer's rate limit allows.
    pub(crate) fn limit_named(&self, by: PeerId, mut contacts: Vec<Contact>) -> Vec<Contact> {
        let (mut state, now) = (self.state(), Instant::now());
        contacts.retain(|_| state.peers.take(by, now));
        contacts
    }

    /// The check that a dial of this address needs once it is resolved; an error, when it is refused already.
    pub(crate) fn begin(&self, addr: &Multiaddr) -> io::Result<Check> {
        let state = self.state();
        let is_relay =
            state.relays.contains(&address::split_peer(addr.clone()).map_or(addr.clone(), |(addr, _)| addr));
        let source = if is_relay { AddrSource::User } else { state.source };
        match (source, address::ip_of(addr), address::scope(addr)) {
            (AddrSource::User, _, _) => Ok(Check::Nothing),
            // Its relay is dialed and checked on its own.
            _ if relay_of(addr).is_some() => Ok(Check::Nothing),
            (_, None, _) if matches!(addr.iter().next(), Some(Protocol::Dnsaddr(_))) => Err(unwanted(addr)),
            (_, None, _) => Ok(Check::Global),
            (AddrSource::Peer, Some(_), Some(_)) => Ok(Check::Rate),
            (_, Some(_), Some(scope)) if scope >= state.widest => Ok(Check::Rate),
            _ => Err(unwanted(addr)),
        }
    }

    /// Checks a resolved address.
    fn check(&self, addr: &Multiaddr, check: Check) -> io::Result<()> {
        let (Some(ip), false) = (address::ip_of(addr), check == Check::Nothing) else { return Ok(()) };
        if check == Check::Global && address::scope_of_ip(ip) != Some(Scope::World) {
            return Err(unwanted(addr));
        }
        let port = addr.iter().find_map(|part| match part {
            Protocol::Tcp(port) | Protocol::Udp(port) => Some(port),
            _ => None,
        });
        let (mut state, now) = (self.state(), Instant::now());
        let may = state.ports.take((ip, port.unwrap_or(0)), now) && state.addresses.take(ip, now);
        may.then_some(()).ok_or_else(|| io::Error::other(format!("{addr} was dialled often enough for now")))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an address is checked for once it is resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Check {
    Nothing,
    /// The rate limit.
    Rate,
    /// That too, and that it is global: it was a name, which can resolve to anything.
    Global,
}

fn unwanted(addr: &Multiaddr) -> io::Error {
    io::Error::other(format!(
        "{addr} is not dialled: whoever told it is further away than it can be reached from"
    ))
}

/// The relay's address in a relayed one, without the relay's peer id.
fn relay_of(addr: &Multiaddr) -> Option<Multiaddr> {
    addr.iter().any(|part| part == Protocol::P2pCircuit).then(|| {
        addr.iter().take_while(|part| !matches!(part, Protocol::P2p(_) | Protocol::P2pCircuit)).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    /// Whether an address from `source` is dialed that resolves to this one.
    fn dials(reach: &Reach, source: AddrSource, text: &str, resolved: &str) -> bool {
        let check = reach.during(source, || reach.begin(&addr(text)));
        check.and_then(|check| reach.check(&addr(resolved), check)).is_ok()
    }

    #[test]
    fn nobody_far_away_makes_this_node_dial_what_is_near() {
        let local = ["/ip4/127.0.0.1/tcp/1", "/ip6/::1/tcp/1", "/ip6/::ffff:127.0.0.1/tcp/1"];
        let private = [
            "/ip4/10.0.0.1/tcp/1",
            "/ip4/192.168.1.1/udp/1/quic-v1",
            "/ip4/169.254.1.1/tcp/1",
            "/ip6/fd00::1/tcp/1",
        ];
        let nowhere = [
            "/ip4/0.0.0.0/tcp/1",
            "/ip4/224.0.0.1/udp/1/quic-v1",
            "/ip6/::/tcp/1",
            "/ip6/64:ff9b::7f00:1/tcp/1",
            "/ip6/2002:7f00:1::1/tcp/1",
        ];
        let reach = Reach::default();
        for (remote, near_is_dialled, private_is) in [
            ("/ip4/127.0.0.9/tcp/5", true, true),
            ("/ip4/10.0.0.9/tcp/5", false, true),
            ("/ip4/8.8.8.8/tcp/5", false, false),
            // Once is enough.
            ("/ip4/127.0.0.9/tcp/5", false, false),
        ] {
            reach.connected(&addr(remote));
            for text in local {
                assert_eq!(
                    dials(&reach, AddrSource::Unknown, text, text),
                    near_is_dialled,
                    "{remote} {text}"
                );
            }
            for text in private {
                assert_eq!(dials(&reach, AddrSource::Unknown, text, text), private_is, "{remote} {text}");
            }
            for text in nowhere {
                assert!(!dials(&reach, AddrSource::Unknown, text, text), "{remote} {text}");
            }
            assert!(dials(&reach, AddrSource::Unknown, "/ip4/8.8.4.4/tcp/1", "/ip4/8.8.4.4/tcp/1"));
            assert!(dials(&reach, AddrSource::User, local[0], local[0]), "the user has named it");
        }
    }

    #[test]
    fn names_that_others_tell_stand_for_global_addresses() {
        let reach = Reach::default();
        for source in [AddrSource::Peer, AddrSource::Unknown] {
            let name = "/dns4/example.org/tcp/1";
            for (resolved, may) in [
                ("/ip4/127.0.0.1/tcp/1", false),
                ("/ip4/10.0.0.1/tcp/1", false),
                ("/ip4/8.8.8.8/tcp/1", true),
            ] {
                assert_eq!(dials(&reach, source, name, resolved), may, "{source:?} {resolved}");
                assert!(dials(&reach, AddrSource::User, name, resolved));
            }
            assert!(!dials(&reach, source, "/dnsaddr/example.org", "/ip4/8.8.8.8/tcp/1"));
        }
    }

    #[test]
    fn one_victim_is_not_dialled_again_and_again() {
        let reach = Reach::default();
        let count = |at: &dyn Fn(u16) -> String| {
            (0..2560u16).filter(|number| dials(&reach, AddrSource::Peer, &at(*number), &at(*number))).count()
        };
        assert_eq!(count(&|_| "/ip4/8.8.8.8/tcp/1".to_owned()), 8);
        assert_eq!(count(&|number| format!("/ip4/8.8.8.9/tcp/{}", number + 1)), 64);
        assert_eq!(
            (0..100)
                .filter(|_| dials(&reach, AddrSource::User, "/ip4/8.8.8.8/tcp/1", "/ip4/8.8.8.8/tcp/1"))
                .count(),
            100
        );
        let contact = Contact { peer: PeerId::random(), addrs: Vec::new() };
        assert_eq!(reach.limit_named(PeerId::random(), vec![contact; 256]).len(), 128);
    }

    #[test]
    fn the_relay_that_the_user_has_named_is_dialled() {
        let (reach, relay) = (Reach::default(), PeerId::random());
        reach.connected(&addr("/ip4/8.8.8.8/tcp/5"));
        let at = format!("/ip4/10.0.0.1/tcp/1/p2p/{relay}");
        assert!(!dials(&reach, AddrSource::Unknown, &at, &at));
        reach.named(&addr(&format!("{at}/p2p-circuit")));
        assert!(dials(&reach, AddrSource::Unknown, &at, &at));
    }
}
