//! Being found: stays connected to peers that know others, and tells them what is held here.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use manifest::Digest;
use p2p_blob::{Client, Contact, FetchError, Multiaddr, PeerEvent, PeerId, Session};
use store::Blobs;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;

use crate::address_book::AddressBook;
use crate::dial::Known;

/// How often a peer is told, on average. Peers forget who did not speak of a manifest for 15 minutes, and connections
/// without a stream are closed after two.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// The same when there was nothing to tell, or it was not heard.
const TELL_AGAIN: Duration = Duration::from_secs(5);
/// Manifests told of: peers remember as many of one node.
const MAX_TOLD: usize = 32;
/// Peers of earlier runs that are kept connected to when none is named.
const FROM_BOOK: usize = 4;
/// Pauses between attempts to reach a peer: from the first to the last, doubling.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LAST_PAUSE: Duration = Duration::from_secs(60);

/// A node's place among others. Dropping it leaves.
pub(crate) struct Membership {
    client: Client,
    blobs: Arc<Blobs>,
    /// Changes when there is a new model.
    news: watch::Sender<()>,
    tasks: Mutex<JoinSet<()>>,
}

impl Membership {
    pub(crate) fn new(client: Client, blobs: Arc<Blobs>) -> Self {
        let (news, _) = watch::channel(());
        Self { client, blobs, news, tasks: Mutex::default() }
    }

    /// Starts to keep connected to the peers, unless that was done.
    pub(crate) fn join(&self, known: &Known) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        if !tasks.is_empty() {
            return;
        }
        let mut addrs: Vec<Multiaddr> = known.bootstrap.iter().cloned().chain(known.peers.all()).collect();
        if addrs.is_empty() {
            addrs.extend(known.book.choose(FROM_BOOK).iter().filter_map(Contact::full_addr));
        }
        for addr in addrs {
            let keeper = Keeper {
                client: self.client.clone(),
                blobs: Arc::clone(&self.blobs),
                news: self.news.subscribe(),
                book: Arc::clone(&known.book),
                addr,
            };
            tasks.spawn(keeper.run());
        }
        tasks.spawn(provide(self.client.clone(), Arc::clone(&self.blobs), self.news.subscribe()));
    }

    /// Has the peers told at once.
    pub(crate) fn on_new_model(&self) {
        self.news.send_replace(());
    }
}

/// Keeps connected to one peer.
struct Keeper {
    client: Client,
    blobs: Arc<Blobs>,
    news: watch::Receiver<()>,
    book: Arc<AddressBook>,
    addr: Multiaddr,
}

impl Keeper {
    async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let mut events = self.client.peer_events();
            match self.client.connect(self.addr.clone()).await {
                Ok(peer) => {
                    pause = FIRST_PAUSE;
                    if let Some(addr) = self.client.reached_at(&peer) {
                        self.book.reached(peer, addr);
                        save(&self.book).await;
                    }
                    self.keep(peer, &mut events).await;
                }
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::info!(addr = %self.addr, error, "cannot reach a bootstrap peer, trying again");
                }
            }
            tokio::time::sleep(pause.mul_f64(fastrand::f64() + 0.5)).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    /// Until the last connection with it is gone.
    async fn keep(&mut self, peer: PeerId, events: &mut broadcast::Receiver<PeerEvent>) {
        loop {
            self.news.mark_unchanged();
            let pause = match self.tell(peer).await {
                Ok(true) => TELL_EVERY,
                // What is here may be being hashed.
                Ok(false) => TELL_AGAIN,
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::debug!(%peer, error, "was not told what is held here");
                    TELL_AGAIN
                }
            };
            let next = tokio::time::sleep(pause.mul_f64(fastrand::f64() * 0.5 + 0.75));
            tokio::pin!(next);
            loop {
                tokio::select! {
                    event = events.recv() => match event {
                        Ok(PeerEvent::Disconnected { peer: gone, .. }) if gone == peer => return,
                        Ok(_) => {}
                        // It may be gone: connecting tells.
                        Err(_) => return,
                    },
                    _ = self.news.changed() => break,
                    () = &mut next => break,
                }
            }
        }
    }

    /// Asks who else holds what is held here. Whoever asks that is known to hold it. False when nothing is held here.
    async fn tell(&self, peer: PeerId) -> Result<bool, FetchError> {
        // A stream for each time: peers have few, and there may be many nodes.
        let Session::Ranges(session) = self.client.open(peer).await? else { return Ok(true) };
        let mut held = fastrand::choose_multiple(held(&self.blobs).await, MAX_TOLD);
        let is_any = !held.is_empty();
        if !is_any {
            // Something must be said, or the connection is closed as idle.
            held.push(Digest::ZERO);
        }
        for manifest in held {
            session.peers(manifest).await?;
        }
        Ok(is_any)
    }
}

/// Has the DHT told what is held here, whenever that changes, and now and then: new servers may have come.
async fn provide(client: Client, blobs: Arc<Blobs>, mut news: watch::Receiver<()>) {
    loop {
        news.mark_unchanged();
        client.provide(held(&blobs).await).await;
        let next = tokio::time::sleep(TELL_EVERY.mul_f64(fastrand::f64() * 0.5 + 0.75));
        tokio::select! {
            _ = news.changed() => {}
            () = next => {}
        }
    }
}

/// What contracts may name of which something is held here.
async fn held(blobs: &Arc<Blobs>) -> HashSet<Digest> {
    let blobs = Arc::clone(blobs);
    let listed = tokio::task::spawn_blocking(move || blobs.names()).await;
    listed.map_err(std::io::Error::other).flatten().unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot list what is held here");
        HashSet::new()
    })
}

/// Writes the address book.
pub(crate) async fn save(book: &Arc<AddressBook>) {
    let book = Arc::clone(book);
    let saved = tokio::task::spawn_blocking(move || book.save()).await;
    if let Err(error) = saved.map_err(std::io::Error::other).flatten() {
        tracing::warn!(%error, "cannot write down which peers were reached");
    }
}
