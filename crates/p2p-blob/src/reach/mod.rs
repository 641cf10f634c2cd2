//! Whom this node dials: one check for all addresses, whoever has told them, when it is known what they stand for.
//!
//! What the user names is dialled. What others name must be reached from where they are: a peer out in the world names
//! global addresses, one in a private network may name that network's. And it is not dialled more than now and then, so
//! that nobody is attacked through this node.

mod pace;
mod resolved;

use std::collections::HashSet;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};

use self::pace::Pace;
use crate::discovery::address::{self, Scope};
use crate::discovery::record::Contact;

pub(crate) use self::resolved::Resolved;

/// Relays that are remembered as named by the user.
const MAX_RELAYS: usize = 64;
/// Dials of what others name: to one IP address, and to one port there. A burst, then so many in a minute.
const PER_ADDRESS: (u32, u32) = (64, 60);
const PER_PORT: (u32, u32) = (8, 4);
/// Peers that one peer can name.
const PER_ADVISER: (u32, u32) = (128, 32);

/// Who has told an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// The user, or this node has reached it before.
    Named,
    /// A peer, and the address means something where that peer is.
    Advised,
    /// Nobody knows: a part of libp2p has heard it from somebody.
    Overheard,
}

/// What is known while dials begin.
#[derive(Debug)]
pub(crate) struct Reach(Mutex<State>);

#[derive(Debug)]
struct State {
    /// Of the dial that begins now.
    told: Told,
    /// From how far away anybody was connected so far.
    widest: Scope,
    /// Those that the user has named, without their peer ids.
    relays: HashSet<Multiaddr>,
    addresses: Pace<std::net::IpAddr>,
    ports: Pace<(std::net::IpAddr, u16)>,
    advisers: Pace<PeerId>,
}

impl Default for Reach {
    fn default() -> Self {
        Self(Mutex::new(State {
            told: Told::Overheard,
            widest: Scope::Host,
            relays: HashSet::new(),
            addresses: Pace::new(PER_ADDRESS),
            ports: Pace::new(PER_PORT),
            advisers: Pace::new(PER_ADVISER),
        }))
    }
}

impl Reach {
    /// Begins dials of what was told so; `dial` does not wait.
    pub(crate) fn during<T>(&self, told: Told, dial: impl FnOnce() -> T) -> T {
        self.state().told = told;
        let done = dial();
        self.state().told = Told::Overheard;
        done
    }

    /// The user has named this address: the relay in it, if there is one, may be dialled.
    pub(crate) fn named(&self, addr: &Multiaddr) {
        let mut state = self.state();
        if let Some(relay) = relay_of(addr)
            && state.relays.len() < MAX_RELAYS
        {
            state.relays.insert(relay);
        }
    }

    /// Somebody is connected at this address. Whoever comes through a relay is no nearer than that, which is connected, too.
    pub(crate) fn connected(&self, remote: &Multiaddr) {
        let is_relayed = matches!(remote.iter().next(), None | Some(Protocol::P2p(_)));
        if is_relayed || relay_of(remote).is_some() {
            return;
        }
        let scope = address::scope(remote).unwrap_or(Scope::World);
        let mut state = self.state();
        state.widest = state.widest.max(scope);
    }

    /// From how far away anybody was connected so far: whoever tells an address is no nearer than that, for all we know.
    pub(crate) fn widest(&self) -> Scope {
        self.state().widest
    }

    /// As many of these as the peer may still name.
    pub(crate) fn advised(&self, by: PeerId, mut contacts: Vec<Contact>) -> Vec<Contact> {
        let (mut state, now) = (self.state(), Instant::now());
        contacts.retain(|_| state.advisers.take(by, now));
        contacts
    }

    /// What a dial of this address is to be checked for once the address is resolved; an error, when that is known already.
    pub(crate) fn begin(&self, addr: &Multiaddr) -> io::Result<Check> {
        let state = self.state();
        let is_relay =
            state.relays.contains(&address::split_peer(addr.clone()).map_or(addr.clone(), |(addr, _)| addr));
        let told = if is_relay { Told::Named } else { state.told };
        match (told, address::ip_of(addr), address::scope(addr)) {
            (Told::Named, _, _) => Ok(Check::Nothing),
            // Its relay is dialled on its own.
            _ if relay_of(addr).is_some() => Ok(Check::Nothing),
            (_, None, _) if matches!(addr.iter().next(), Some(Protocol::Dnsaddr(_))) => Err(unwanted(addr)),
            (_, None, _) => Ok(Check::Global),
            (Told::Advised, Some(_), Some(_)) => Ok(Check::Pace),
            (_, Some(_), Some(scope)) if scope >= state.widest => Ok(Check::Pace),
            _ => Err(unwanted(addr)),
        }
    }

    /// Checks what an address stands for.
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
    /// How often it is dialled.
    Pace,
    /// That too, and that it is global: it was a name, which can stand for anything.
    Global,
}

fn unwanted(addr: &Multiaddr) -> io::Error {
    io::Error::other(format!(
        "{addr} is not dialled: whoever told it is further away than it can be reached from"
    ))
}

/// The address of the relay in one that goes through a relay, without the relay's name.
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

    /// Whether an address is dialled that was told so, and stands for this one.
    fn dials(reach: &Reach, told: Told, text: &str, resolved: &str) -> bool {
        let check = reach.during(told, || reach.begin(&addr(text)));
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
                assert_eq!(dials(&reach, Told::Overheard, text, text), near_is_dialled, "{remote} {text}");
            }
            for text in private {
                assert_eq!(dials(&reach, Told::Overheard, text, text), private_is, "{remote} {text}");
            }
            for text in nowhere {
                assert!(!dials(&reach, Told::Overheard, text, text), "{remote} {text}");
            }
            assert!(dials(&reach, Told::Overheard, "/ip4/8.8.4.4/tcp/1", "/ip4/8.8.4.4/tcp/1"));
            assert!(dials(&reach, Told::Named, local[0], local[0]), "the user has named it");
        }
    }

    #[test]
    fn names_that_others_tell_stand_for_global_addresses() {
        let reach = Reach::default();
        for told in [Told::Advised, Told::Overheard] {
            let name = "/dns4/example.org/tcp/1";
            for (resolved, may) in [
                ("/ip4/127.0.0.1/tcp/1", false),
                ("/ip4/10.0.0.1/tcp/1", false),
                ("/ip4/8.8.8.8/tcp/1", true),
            ] {
                assert_eq!(dials(&reach, told, name, resolved), may, "{told:?} {resolved}");
                assert!(dials(&reach, Told::Named, name, resolved));
            }
            assert!(!dials(&reach, told, "/dnsaddr/example.org", "/ip4/8.8.8.8/tcp/1"));
        }
    }

    #[test]
    fn one_victim_is_not_dialled_again_and_again() {
        let reach = Reach::default();
        let count = |at: &dyn Fn(u16) -> String| {
            (0..2560u16).filter(|number| dials(&reach, Told::Advised, &at(*number), &at(*number))).count()
        };
        assert_eq!(count(&|_| "/ip4/8.8.8.8/tcp/1".to_owned()), 8);
        assert_eq!(count(&|number| format!("/ip4/8.8.8.9/tcp/{}", number + 1)), 64);
        assert_eq!(
            (0..100)
                .filter(|_| dials(&reach, Told::Named, "/ip4/8.8.8.8/tcp/1", "/ip4/8.8.8.8/tcp/1"))
                .count(),
            100
        );
        let contact = Contact { peer: PeerId::random(), addrs: Vec::new() };
        assert_eq!(reach.advised(PeerId::random(), vec![contact; 256]).len(), 128);
    }

    #[test]
    fn the_relay_that_the_user_has_named_is_dialled() {
        let (reach, relay) = (Reach::default(), PeerId::random());
        reach.connected(&addr("/ip4/8.8.8.8/tcp/5"));
        let at = format!("/ip4/10.0.0.1/tcp/1/p2p/{relay}");
        assert!(!dials(&reach, Told::Overheard, &at, &at));
        reach.named(&addr(&format!("{at}/p2p-circuit")));
        assert!(dials(&reach, Told::Overheard, &at, &at));
    }
}
