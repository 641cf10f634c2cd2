//! State that the tasks of a fetch share: which peers are sources, and which attempts are pending.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use loader::{Progress, SourceEvent};
use manifest::Digest;
use p2p_blob::{Client, Contact, PeerId};
use tokio::sync::{Notify, mpsc};

use crate::address_book::AddressBook;
use crate::crowd::Crowd;

/// Sources of one fetch, named ones included.
pub(super) const MAX_SOURCES: usize = 50;

/// Reason for disconnecting a source that the fetch has dismissed.
pub(super) const DISMISSED: &str = "sent wrong bytes";

/// State that the tasks of a fetch share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) client: Client,
    pub(super) manifest: Digest,
    /// How far the fetch is.
    pub(super) progress: Arc<Progress>,
    pub(super) events: mpsc::Sender<SourceEvent>,
    /// Discovered peers.
    pub(super) found: mpsc::Sender<Contact>,
    pub(super) claims: Arc<Claims>,
    pub(super) book: Arc<AddressBook>,
    /// Told of each peer that is a source.
    pub(super) crowd: Crowd,
    /// Named peers that were not dialed yet.
    pub(super) untried: Pending,
    /// First searches and PEERS requests that may still yield sources.
    pub(super) searching: Pending,
}

/// The peers that are sources now, each once.
#[derive(Default)]
pub(super) struct Claims(Mutex<HashMap<PeerId, Claimed>>);

#[derive(Clone, Copy)]
pub(super) struct Claimed {
    /// It was named: it is never evicted.
    pub(super) is_named: bool,
}

impl Claims {
    pub(super) fn all(&self) -> MutexGuard<'_, HashMap<PeerId, Claimed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the peer a source, unless it is one.
    pub(super) fn claim(self: &Arc<Self>, peer: PeerId, is_named: bool) -> Option<Claim> {
        let mut all = self.all();
        if let Some(claimed) = all.get_mut(&peer) {
            claimed.is_named |= is_named;
            return None;
        }
        all.insert(peer, Claimed { is_named });
        Some(Claim { claims: Arc::clone(self), peer })
    }

    pub(super) fn has(&self, peer: &PeerId) -> bool {
        self.all().contains_key(peer)
    }

    pub(super) fn is_named(&self, peer: &PeerId) -> bool {
        self.all().get(peer).is_some_and(|claimed| claimed.is_named)
    }

    pub(super) fn count(&self) -> usize {
        self.all().len()
    }
}

/// A peer is a source until this is dropped.
pub(super) struct Claim {
    pub(super) claims: Arc<Claims>,
    peer: PeerId,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.claims.all().remove(&self.peer);
    }
}

/// Counts pending work, and notifies when some is done.
#[derive(Clone, Default)]
pub(super) struct Pending {
    count: Arc<AtomicUsize>,
    changed: Arc<Notify>,
}

impl Pending {
    /// One more; done when it is dropped.
    pub(super) fn one(&self) -> PendingOne {
        self.count.fetch_add(1, Ordering::AcqRel);
        PendingOne(self.clone())
    }

    pub(super) fn is_none(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// Waits until one is done. At most one task may wait.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }
}

pub(super) struct PendingOne(Pending);

impl Drop for PendingOne {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::AcqRel);
        self.0.changed.notify_one();
    }
}

/// The message of an error, with its causes.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
