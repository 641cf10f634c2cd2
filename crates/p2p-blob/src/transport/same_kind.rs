//! Which peers have shown to be nodes of this kind.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use libp2p::PeerId;

/// Handshakes that have ended and whose connections nobody has asked for yet. With more of them some count as other peers,
/// which are agreed with in one round trip more.
const MAX_PEERS: usize = 1024;

/// The peers whose handshakes have just shown what they are, until their connections are taken over.
#[derive(Debug, Default)]
pub(crate) struct SameKind(Mutex<HashSet<PeerId>>);

impl SameKind {
    pub(super) fn note(&self, peer: PeerId, is_same_kind: bool) {
        let mut peers = self.peers();
        if !is_same_kind {
            peers.remove(&peer);
        } else if peers.len() < MAX_PEERS {
            peers.insert(peer);
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
