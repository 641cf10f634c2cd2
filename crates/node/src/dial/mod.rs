//! The connections of one fetch: with the peers that were named, and with those that are found.
//!
//! A named peer (`--peer`, `--bootstrap`) has a task that keeps connected to it. All others are candidates of the
//! [`crowd`]: told of by connected peers (PEERS), by the DHT, by mDNS, by the address book, or connected by themselves
//! because they fetch the same model. Each connected peer is a source of the fetch, and is asked who else there is.

mod candidates;
mod crowd;
mod link;
mod named;
mod search;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use loader::SourceEvent;
use manifest::Digest;
use p2p_blob::{Client, Contact, Multiaddr, PeerId};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;

use self::candidates::Candidates;
use self::crowd::{Crowd, Hopes};
use self::named::Named;
use crate::book::AddressBook;

/// Events that may wait for the fetch.
const QUEUE: usize = 64;
/// Peers told of that may wait to be looked at; further ones are told of again later.
const FOUND_QUEUE: usize = 256;
/// Sources of one fetch, named ones included.
const MAX_SOURCES: usize = 50;

/// Why a source is given up that the fetch has dismissed.
const DISMISSED: &str = "sent wrong bytes";

/// Whom a fetch begins with.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    /// Peers that may hold anything, and are asked for everything.
    pub(crate) peers: Peers,
    /// Peers that know others.
    pub(crate) bootstrap: Vec<Multiaddr>,
    /// Peers of earlier runs.
    pub(crate) book: Arc<AddressBook>,
    /// Whether peers in the local network are looked for.
    pub(crate) mdns: bool,
}

/// The peers that the user has named; more may be added at any time. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Peers(watch::Sender<Vec<Multiaddr>>);

impl Peers {
    pub(crate) fn new(peers: Vec<Multiaddr>) -> Self {
        Self(watch::Sender::new(peers))
    }

    pub(crate) fn all(&self) -> Vec<Multiaddr> {
        self.0.borrow().clone()
    }

    /// One that is there already changes nothing.
    pub(crate) fn add(&self, addr: Multiaddr) {
        self.0.send_if_modified(|peers| {
            let is_new = !peers.contains(&addr);
            if is_new {
                peers.push(addr);
            }
            is_new
        });
    }
}

/// The connections of one fetch. Dropping it stops making new ones.
pub(crate) struct Dialer {
    _tasks: JoinSet<()>,
}

/// Starts to connect to peers that may hold shards of `manifest`; what comes of it is told through the channel.
pub(crate) fn dial(
    client: &Client,
    manifest: Digest,
    known: &Known,
) -> (Dialer, mpsc::Receiver<SourceEvent>) {
    let (events, receiver) = mpsc::channel(QUEUE);
    let (found, found_receiver) = mpsc::channel(FOUND_QUEUE);
    let shared = Shared {
        client: client.clone(),
        manifest,
        events,
        found,
        claims: Arc::default(),
        book: Arc::clone(&known.book),
        untried: Pending::default(),
        searching: Pending::default(),
    };
    let mut tasks = JoinSet::new();
    for addr in &known.bootstrap {
        let tried = shared.untried.one();
        tasks.spawn(Named::new(shared.clone(), addr.clone(), false, tried).run());
    }
    let has_named = !known.peers.all().is_empty();
    tasks.spawn(named::all(shared.clone(), known.peers.clone(), shared.untried.one()));
    let is_only_hope = !has_named && known.bootstrap.is_empty();
    tasks.spawn(search::in_dht(shared.clone(), shared.searching.one()));
    let first = shared.searching.one();
    tasks.spawn(search::in_book(shared.clone(), Arc::clone(&known.book), is_only_hope, first));
    if known.mdns {
        tasks.spawn(search::in_lan(shared.clone()));
    }
    let candidates = Candidates::new(client.peer_id(), fastrand::Rng::new());
    let hopes = Hopes { has_named, has_lan: known.mdns };
    tasks.spawn(Crowd::new(shared, candidates, found_receiver, hopes).run());
    (Dialer { _tasks: tasks }, receiver)
}

/// What the tasks of a fetch share.
#[derive(Clone)]
struct Shared {
    client: Client,
    manifest: Digest,
    events: mpsc::Sender<SourceEvent>,
    /// Peers told of.
    found: mpsc::Sender<Contact>,
    claims: Arc<Claims>,
    book: Arc<AddressBook>,
    /// Named peers that were not tried yet.
    untried: Pending,
    /// Questions that were not answered for the first time yet, whose answers may name sources.
    searching: Pending,
}

/// Which peers are sources now, so that each is one once.
#[derive(Default)]
struct Claims(Mutex<HashMap<PeerId, Claimed>>);

#[derive(Clone, Copy)]
struct Claimed {
    /// It was named: its place is not given to another.
    is_named: bool,
}

impl Claims {
    fn all(&self) -> MutexGuard<'_, HashMap<PeerId, Claimed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the peer a source, unless it is one.
    fn claim(self: &Arc<Self>, peer: PeerId, is_named: bool) -> Option<Claim> {
        let mut all = self.all();
        if let Some(claimed) = all.get_mut(&peer) {
            claimed.is_named |= is_named;
            return None;
        }
        all.insert(peer, Claimed { is_named });
        Some(Claim { claims: Arc::clone(self), peer })
    }

    fn has(&self, peer: &PeerId) -> bool {
        self.all().contains_key(peer)
    }

    fn is_named(&self, peer: &PeerId) -> bool {
        self.all().get(peer).is_some_and(|claimed| claimed.is_named)
    }

    fn count(&self) -> usize {
        self.all().len()
    }
}

/// A peer is a source until this is dropped.
struct Claim {
    claims: Arc<Claims>,
    peer: PeerId,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.claims.all().remove(&self.peer);
    }
}

/// Counts what is not done yet, and tells when one of it is.
#[derive(Clone, Default)]
struct Pending {
    count: Arc<AtomicUsize>,
    changed: Arc<Notify>,
}

impl Pending {
    /// One more; done when it is dropped.
    fn one(&self) -> PendingOne {
        self.count.fetch_add(1, Ordering::AcqRel);
        PendingOne(self.clone())
    }

    fn is_none(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// Waits until one is done. At most one task may wait.
    async fn changed(&self) {
        self.changed.notified().await;
    }
}

struct PendingOne(Pending);

impl Drop for PendingOne {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::AcqRel);
        self.0.changed.notify_one();
    }
}

/// The message of an error, with its causes.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
