//! The peers that are sources now, for whoever wants to know how far they are.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use loader::Source as _;
use p2p_blob::PeerId;

use crate::peer::Peer;

/// The peers of all fetches of a node. Clones are the same one; a peer leaves with its last link.
#[derive(Clone, Default)]
pub(crate) struct Crowd(Arc<Mutex<HashMap<PeerId, Weak<Peer>>>>);

/// What is known of a connected source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) round_trip: Option<Duration>,
    pub(crate) received_bytes: u64,
}

impl std::fmt::Debug for Crowd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Crowd").finish_non_exhaustive()
    }
}

impl Crowd {
    /// The peer is a source from now on.
    pub(crate) fn add(&self, id: PeerId, peer: &Arc<Peer>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, peer| peer.strong_count() > 0);
        all.insert(id, Arc::downgrade(peer));
    }

    /// How a source is doing, if it is connected.
    pub(crate) fn seen(&self, id: &PeerId) -> Option<Seen> {
        let peer = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(id)?.upgrade()?;
        Some(Seen { round_trip: peer.round_trip(), received_bytes: peer.received_bytes() })
    }
}
