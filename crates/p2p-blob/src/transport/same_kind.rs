//! Which peers have shown to be nodes of this kind.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use libp2p::PeerId;

/// Handshakes that have ended and whose connections were not taken over yet, or were denied. With more of them all are forgotten:
/// they count as other peers, which are agreed with in one round trip more.
const MAX_PEERS: usize = 1024;

/// The peers whose handshakes have just shown what they are, until their connections are taken over.
#[derive(Debug, Default)]
pub(crate) struct SameKind(Mutex<HashSet<PeerId>>);

impl SameKind {
    pub(super) fn note(&self, peer: PeerId, is_same_kind: bool) {
        let mut peers = self.peers();
        if peers.len() >= MAX_PEERS {
            peers.clear();
        }
        if is_same_kind {
            peers.insert(peer);
        } else {
            peers.remove(&peer);
        }
    }

    /// Whether the handshake of a connection that begins now has shown a node of this kind.
    pub(crate) fn take(&self, peer: &PeerId) -> bool {
        self.peers().remove(peer)
    }

    fn peers(&self) -> MutexGuard<'_, HashSet<PeerId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
