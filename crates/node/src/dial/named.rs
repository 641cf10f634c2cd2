//! A named peer: never evicted, always redialed.

use std::sync::Arc;
use std::time::Duration;

use loader::{Source as _, SourceEvent};
use p2p_blob::{Multiaddr, PeerId};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::link::{Link, disconnected};
use super::shared::{DISMISSED, PendingOne, Shared, with_causes};
use crate::peer::Peer;

/// Exponential backoff between dials.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LAST_PAUSE: Duration = Duration::from_secs(10);

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

    /// A known one changes nothing.
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

/// Keeps connected to all named peers, also to those added meanwhile. `beginning` ends once the tasks of the first are
/// spawned.
pub(super) async fn all(shared: Shared, peers: Peers, beginning: PendingOne) {
    let mut changes = peers.0.subscribe();
    let (mut tasks, mut begun) = (JoinSet::new(), 0);
    let mut begin = |changes: &mut watch::Receiver<Vec<Multiaddr>>| {
        let new: Vec<Multiaddr> = changes.borrow_and_update()[begun..].to_vec();
        begun += new.len();
        for addr in new {
            let tried = shared.untried.one();
            tasks.spawn(Named::new(shared.clone(), addr, true, tried).run());
        }
    };
    begin(&mut changes);
    drop(beginning);
    // The sender lives as long as this task.
    while changes.changed().await.is_ok() {
        begin(&mut changes);
    }
}

/// Whether it is dialed again.
enum Next {
    Again,
    Never,
}

/// See the module's documentation.
pub(super) struct Named {
    shared: Shared,
    addr: Multiaddr,
    /// Whether it is asked for what it has not announced.
    assume_holds: bool,
    /// Taken after the first attempt.
    tried: Option<PendingOne>,
}

impl Named {
    pub(super) fn new(shared: Shared, addr: Multiaddr, assume_holds: bool, tried: PendingOne) -> Self {
        Self { shared, addr, assume_holds, tried: Some(tried) }
    }

    /// Runs until the fetch ends, or dismisses it.
    pub(super) async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let outcome = self.once(&mut pause).await;
            self.tried = None;
            if !matches!(outcome, Ok(Next::Again)) {
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    /// Connects, and is a source until it disconnects. An error means that the fetch has ended.
    async fn once(&mut self, pause: &mut Duration) -> Result<Next, mpsc::error::SendError<SourceEvent>> {
        let client = &self.shared.client;
        let mut gone = client.peer_events();
        let (peer, id) = match self.connect().await {
            Ok(connected) => connected,
            Err(reason) => {
                let address = self.addr.to_string();
                self.shared.events.send(SourceEvent::Unreachable { address, reason }).await?;
                return Ok(Next::Again);
            }
        };
        *pause = FIRST_PAUSE;
        let Some(_claim) = self.shared.claims.claim(id, true) else {
            // It is connected at another of its addresses.
            self.tried = None;
            disconnected(&mut gone, id).await;
            return Ok(Next::Again);
        };
        let first_answer = self.shared.searching.one();
        let peer = Arc::new(peer);
        self.shared.events.send(SourceEvent::Up(Arc::<Peer>::clone(&peer))).await?;
        self.tried = None;
        let (shared, addr) = (self.shared.clone(), Some(self.addr.clone()));
        let source = peer.id().clone();
        let link = Link { shared, peer: Arc::clone(&peer), id, addr };
        let (reason, next) = tokio::select! {
            reason = link.run(gone, first_answer) => (reason, Next::Again),
            () = peer.dismissed() => {
                client.disconnect(id).await;
                (DISMISSED.to_owned(), Next::Never)
            }
        };
        self.shared.events.send(SourceEvent::Down { source, reason }).await?;
        Ok(next)
    }

    async fn connect(&self) -> Result<(Peer, PeerId), String> {
        let client = &self.shared.client;
        let peer = client.connect(self.addr.clone()).await.map_err(|error| with_causes(&error))?;
        let session = client.open(peer).await.map_err(|error| with_causes(&error))?;
        Ok((Peer::new(client.clone(), session, self.assume_holds), peer))
    }
}
