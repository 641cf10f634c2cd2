//! Being found: stays connected to bootstrap peers, and announces which models are here.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use manifest::Digest;
use p2p_blob::{Client, Contact, FetchError, Multiaddr, PeerEvent, PeerId, Session};
use store::Blobs;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;

use crate::address_book::AddressBook;
use crate::dial::Known;
use crate::hosted::Hosted;

/// How often models are announced to a peer, on average. Peers forget holders after 15 minutes, and close connections
/// without a stream after two.
const ANNOUNCE_EVERY: Duration = Duration::from_secs(60);
/// The same when there was nothing to announce, or it failed.
const ANNOUNCE_RETRY: Duration = Duration::from_secs(5);
/// Manifests announced: peers remember as many of one node.
const MAX_ANNOUNCED: usize = 32;
/// Peers of the address book to stay connected to when none is named.
const FROM_BOOK: usize = 4;
/// Exponential backoff between dials of a peer.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LAST_PAUSE: Duration = Duration::from_secs(60);

/// A node's membership of the swarm. Dropping it leaves.
pub(crate) struct Membership {
    client: Client,
    blobs: Arc<Blobs>,
    /// Folders of blobs that are served.
    blob_dirs: Arc<[PathBuf]>,
    /// Changes when there is a new model or blob.
    model_changed: watch::Sender<()>,
    tasks: Mutex<JoinSet<()>>,
    /// Tells peers of the existing network.
    telling: Mutex<JoinSet<()>>,
}

impl Membership {
    pub(crate) fn new(client: Client, blobs: Arc<Blobs>, blob_dirs: Arc<[PathBuf]>) -> Self {
        let (model_changed, _) = watch::channel(());
        Self { client, blobs, blob_dirs, model_changed, tasks: Mutex::default(), telling: Mutex::default() }
    }

    /// Starts to tell peers of the existing network what is here, once.
    pub(crate) fn tell(&self) {
        let mut telling = self.telling.lock().unwrap_or_else(PoisonError::into_inner);
        if telling.is_empty() {
            let hosted = Hosted::new(Arc::clone(&self.blobs), Arc::clone(&self.blob_dirs));
            telling.spawn(hosted.advertise(self.client.clone(), self.model_changed.subscribe()));
        }
    }

    /// Starts to keep connected to the peers, once.
    pub(crate) fn join(&self, known: &Known) {
        self.tell();
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
                model_changed: self.model_changed.subscribe(),
                book: Arc::clone(&known.book),
                addr,
            };
            tasks.spawn(keeper.run());
        }
        tasks.spawn(provide(self.client.clone(), Arc::clone(&self.blobs), self.model_changed.subscribe()));
    }

    /// Announces the models and blobs at once.
    pub(crate) fn on_new_model(&self) {
        self.model_changed.send_replace(());
    }
}

/// Keeps connected to one peer.
struct Keeper {
    client: Client,
    blobs: Arc<Blobs>,
    model_changed: watch::Receiver<()>,
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

    /// Announces until the last connection with the peer is gone.
    async fn keep(&mut self, peer: PeerId, events: &mut broadcast::Receiver<PeerEvent>) {
        loop {
            self.model_changed.mark_unchanged();
            let pause = match self.announce(peer).await {
                Ok(true) => ANNOUNCE_EVERY,
                // Models may still be hashed.
                Ok(false) => ANNOUNCE_RETRY,
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::debug!(%peer, error, "was not told what is held here");
                    ANNOUNCE_RETRY
                }
            };
            let next = tokio::time::sleep(pause.mul_f64(fastrand::f64() * 0.5 + 0.75));
            tokio::pin!(next);
            loop {
                tokio::select! {
                    event = events.recv() => match event {
                        Ok(PeerEvent::Disconnected { peer: gone, .. }) if gone == peer => return,
                        Ok(_) => {}
                        // The events lagged, and it may be gone: reconnecting finds out.
                        Err(_) => return,
                    },
                    _ = self.model_changed.changed() => break,
                    () = &mut next => break,
                }
            }
        }
    }

    /// Sends PEERS for each model here, which makes this node known as a holder. False when there is none.
    async fn announce(&self, peer: PeerId) -> Result<bool, FetchError> {
        // A new stream each time: a peer has few slots for many nodes.
        let Session::Ranges(session) = self.client.open(peer).await? else { return Ok(true) };
        let mut held = fastrand::choose_multiple(held(&self.blobs).await, MAX_ANNOUNCED);
        let is_any = !held.is_empty();
        if !is_any {
            // Without a request the connection is closed as idle.
            held.push(Digest::ZERO);
        }
        for manifest in held {
            session.peers(manifest).await?;
        }
        Ok(is_any)
    }
}

/// Publishes provider records of the models here in the DHT, on change, and periodically for new servers.
async fn provide(client: Client, blobs: Arc<Blobs>, mut model_changed: watch::Receiver<()>) {
    loop {
        model_changed.mark_unchanged();
        client.provide(held(&blobs).await).await;
        let next = tokio::time::sleep(ANNOUNCE_EVERY.mul_f64(fastrand::f64() * 0.5 + 0.75));
        tokio::select! {
            _ = model_changed.changed() => {}
            () = next => {}
        }
    }
}

/// The manifests, and single blobs, of which something is held here.
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
