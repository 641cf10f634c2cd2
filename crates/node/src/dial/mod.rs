//! The connections of one fetch: with named peers, and with discovered ones.
//!
//! A named peer (`--peer`, `--bootstrap`) has a task that keeps connected to it. All others are [`candidates`]: from
//! peer exchange (PEERS), the DHT, mDNS, the address book, or inbound because they fetch the same model. Each connected
//! peer is a source of the fetch, and is asked for others.

mod candidates;
mod dead;
mod discovered;
mod link;
mod named;
mod search;
mod shared;

use std::sync::Arc;

use loader::{Progress, SourceEvent};
use manifest::Digest;
use p2p_blob::{Client, Multiaddr};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use self::candidates::Candidates;
use self::discovered::{Discovered, Expected};
use self::named::Named;
use self::shared::{Pending, Shared};
use crate::address_book::AddressBook;
use crate::crowd::Crowd;

pub(crate) use self::named::Peers;

/// Queued events for the fetch.
const QUEUE: usize = 64;
/// Queued discovered peers; further ones are found again later.
const FOUND_QUEUE: usize = 256;
/// The peers that a fetch starts with.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    /// Named peers, asked also for what they have not announced.
    pub(crate) peers: Peers,
    /// Bootstrap peers.
    pub(crate) bootstrap: Vec<Multiaddr>,
    /// Peers of earlier runs.
    pub(crate) book: Arc<AddressBook>,
    /// Those that are sources now.
    pub(crate) crowd: Crowd,
    /// Whether peers are discovered by mDNS.
    pub(crate) mdns: bool,
}

/// The connections of one fetch. Dropping it stops dialing.
pub(crate) struct Dialer {
    _tasks: JoinSet<()>,
}

/// Starts to dial peers that may hold shards of `manifest`; sources are reported through the channel.
pub(crate) fn dial(
    client: &Client,
    manifest: Digest,
    known: &Known,
    progress: Arc<Progress>,
) -> (Dialer, mpsc::Receiver<SourceEvent>) {
    let (events, receiver) = mpsc::channel(QUEUE);
    let (found, found_receiver) = mpsc::channel(FOUND_QUEUE);
    let shared = Shared {
        client: client.clone(),
        manifest,
        progress,
        events,
        found,
        claims: Arc::default(),
        book: Arc::clone(&known.book),
        crowd: known.crowd.clone(),
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
    let expected = Expected { has_named, has_lan: known.mdns };
    tasks.spawn(Discovered::new(shared, candidates, found_receiver, expected).run());
    (Dialer { _tasks: tasks }, receiver)
}
