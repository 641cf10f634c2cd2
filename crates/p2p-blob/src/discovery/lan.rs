//! Peers that mDNS finds in the local network.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use libp2p::{Multiaddr, PeerId};
#[cfg(feature = "mdns")]
use libp2p::{mdns, swarm::behaviour::toggle::Toggle};

use crate::discovery::record::Contact;
#[cfg(feature = "mdns")]
use crate::discovery::record::MAX_ADDRS;

/// Peers remembered.
#[cfg(feature = "mdns")]
const MAX_PEERS: usize = 512;

/// The behaviour, unless it is not wanted, or the system does not let it.
#[cfg(feature = "mdns")]
pub(crate) fn behaviour(local: PeerId, is_wanted: bool) -> Toggle<mdns::tokio::Behaviour> {
    let started = is_wanted.then(|| mdns::tokio::Behaviour::new(mdns::Config::default(), local));
    let started = started.and_then(|started| {
        started
            .inspect_err(|error| tracing::warn!(%error, "peers in the local network are not found: no mDNS"))
            .ok()
    });
    Toggle::from(started)
}

/// The peers that are in the local network now.
#[derive(Debug, Default)]
pub(crate) struct Nearby(Mutex<HashMap<PeerId, Vec<Multiaddr>>>);

impl Nearby {
    fn peers(&self) -> MutexGuard<'_, HashMap<PeerId, Vec<Multiaddr>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(feature = "mdns")]
    pub(crate) fn on_event(&self, event: mdns::Event) {
        let mut peers = self.peers();
        match event {
            mdns::Event::Discovered(found) => {
                for (peer, addr) in found {
                    if peers.len() >= MAX_PEERS && !peers.contains_key(&peer) {
                        continue;
                    }
                    let addrs = peers.entry(peer).or_default();
                    if addrs.len() < MAX_ADDRS && !addrs.contains(&addr) {
                        tracing::debug!(%peer, %addr, "is in the local network");
                        addrs.push(addr);
                    }
                }
            }
            mdns::Event::Expired(gone) => {
                for (peer, addr) in gone {
                    if let Some(addrs) = peers.get_mut(&peer) {
                        addrs.retain(|one| *one != addr);
                        if addrs.is_empty() {
                            peers.remove(&peer);
                        }
                    }
                }
            }
        }
    }

    /// All of them.
    pub(crate) fn contacts(&self) -> Vec<Contact> {
        self.peers().iter().map(|(peer, addrs)| Contact::new(*peer, addrs)).collect()
    }
}

#[cfg(all(test, feature = "mdns"))]
mod tests {
    use super::*;

    #[test]
    fn peers_come_and_go_and_are_bounded() {
        let nearby = Nearby::default();
        let addr = |port: usize| format!("/ip4/192.0.2.7/tcp/{port}").parse::<Multiaddr>().unwrap();
        let peer = PeerId::random();
        let many = (1..=2 * MAX_ADDRS).map(|port| (peer, addr(port))).collect();
        nearby.on_event(mdns::Event::Discovered(many));
        assert_eq!(nearby.contacts()[0].addrs.len(), MAX_ADDRS);
        nearby.on_event(mdns::Event::Expired((1..=MAX_ADDRS).map(|port| (peer, addr(port))).collect()));
        assert!(nearby.contacts().is_empty());
        nearby.on_event(mdns::Event::Discovered(
            (0..2 * MAX_PEERS).map(|_| (PeerId::random(), addr(1))).collect(),
        ));
        assert_eq!(nearby.contacts().len(), MAX_PEERS);
    }
}
