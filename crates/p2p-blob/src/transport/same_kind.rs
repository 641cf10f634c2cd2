//! What handshakes have shown of peers: which are nodes of this kind, and how their connections are secured.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use libp2p::PeerId;

/// Handshakes that have ended and whose connections were not taken over yet, or were denied. With more of them all are forgotten:
/// they count as other peers, which are agreed with in one round trip more.
const MAX_PEERS: usize = 1024;

/// What the last handshakes over TCP have shown.
#[derive(Debug, Default)]
pub(crate) struct SameKind(Mutex<Shown>);

#[derive(Debug, Default)]
struct Shown {
    /// Nodes of this kind, until their connections are taken over.
    same_kind: HashSet<PeerId>,
    /// Who is talked to over TLS.
    over_tls: HashSet<PeerId>,
}

impl SameKind {
    pub(super) fn note(&self, peer: PeerId, is_same_kind: bool, is_tls: bool) {
        let mut shown = self.shown();
        let Shown { same_kind, over_tls } = &mut *shown;
        for (peers, is_one) in [(same_kind, is_same_kind), (over_tls, is_tls)] {
            if peers.len() >= MAX_PEERS {
                peers.clear();
            }
            if is_one {
                peers.insert(peer);
            } else {
                peers.remove(&peer);
            }
        }
    }

    /// Whether the handshake of a connection that begins now has shown a node of this kind.
    pub(crate) fn take(&self, peer: &PeerId) -> bool {
        self.shown().same_kind.remove(peer)
    }

    /// Whether the last handshake over TCP with the peer was one of TLS; else it was one of noise.
    pub(crate) fn is_tls(&self, peer: &PeerId) -> bool {
        self.shown().over_tls.contains(peer)
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
