//! Keeps connected to the configured peers while a model is fetched, and offers them as sources.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use loader::{Source as _, SourceEvent};
use p2p_blob::{Client, Multiaddr, PeerEvent, PeerId};
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinSet;

use crate::peer::Peer;

/// Pauses between attempts to reach a peer: from the first to the last, doubling.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LAST_PAUSE: Duration = Duration::from_secs(10);
/// Connections with a peer that serves ranges. One is encrypted and decrypted by one task at each end; four were not
/// faster than two (docs/benchmarks.md).
const CONNECTIONS: usize = 2;
/// Events that may wait for the fetch.
const QUEUE: usize = 64;

/// The connections of one fetch. Dropping it stops making new ones.
pub(crate) struct Dialer {
    _tasks: JoinSet<()>,
}

/// Starts to connect to all `peers`; what comes of it is told through the channel.
pub(crate) fn dial(client: &Client, peers: &[Multiaddr]) -> (Dialer, mpsc::Receiver<SourceEvent>) {
    let (events, receiver) = mpsc::channel(QUEUE);
    let untried = Arc::new(AtomicUsize::new(peers.len()));
    let mut tasks = JoinSet::new();
    for addr in peers {
        let task = Dial {
            client: client.clone(),
            addr: addr.clone(),
            events: events.clone(),
            untried: Some(Arc::clone(&untried)),
        };
        tasks.spawn(task.run());
    }
    if peers.is_empty() {
        tasks.spawn(async move {
            // The fetch may have ended already.
            let _ = events.send(SourceEvent::Connecting(false)).await;
        });
    }
    (Dialer { _tasks: tasks }, receiver)
}

struct Dial {
    client: Client,
    addr: Multiaddr,
    events: mpsc::Sender<SourceEvent>,
    /// Peers that were not tried yet; taken when this one was.
    untried: Option<Arc<AtomicUsize>>,
}

impl Dial {
    /// Until the fetch ends.
    async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let mut gone = self.client.peer_events();
            let event = match self.connect().await {
                Ok((peer, id)) => {
                    pause = FIRST_PAUSE;
                    let peer = Arc::new(peer);
                    let source = Arc::<Peer>::clone(&peer);
                    if self.tell(SourceEvent::Up(source)).await.is_err() {
                        return;
                    }
                    let reason = tokio::select! {
                        reason = disconnected(&mut gone, id) => reason,
                        () = self.widen(&peer, id) => unreachable!("it waits for ever"),
                    };
                    SourceEvent::Down { source: peer.id().clone(), reason }
                }
                Err(reason) => SourceEvent::Unreachable { address: self.addr.to_string(), reason },
            };
            if self.tell(event).await.is_err() {
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    async fn connect(&self) -> Result<(Peer, PeerId), String> {
        let peer = self.client.connect(self.addr.clone()).await.map_err(|error| with_causes(&error))?;
        let session = self.client.open(peer).await.map_err(|error| with_causes(&error))?;
        Ok((Peer::new(self.client.clone(), session), peer))
    }

    /// Makes further connections with a peer that serves ranges, for more of its requests, then waits for ever.
    async fn widen(&self, peer: &Peer, id: PeerId) {
        let most = if peer.serves_ranges() { CONNECTIONS } else { 1 };
        for count in 2..=most {
            let session = match self.client.connect_again(id, self.addr.clone(), count).await {
                Ok(_) => self.client.open(id).await.map_err(|error| with_causes(&error)),
                Err(error) => Err(with_causes(&error)),
            };
            match session {
                Ok(session) => peer.add(session),
                // There is one connection that works.
                Err(error) => tracing::debug!(%id, error, "no further connection"),
            }
        }
        std::future::pending().await
    }

    async fn tell(&mut self, event: SourceEvent) -> Result<(), mpsc::error::SendError<SourceEvent>> {
        self.events.send(event).await?;
        if let Some(untried) = self.untried.take()
            && untried.fetch_sub(1, Ordering::AcqRel) == 1
        {
            self.events.send(SourceEvent::Connecting(false)).await?;
        }
        Ok(())
    }
}

/// Waits until the last connection with `peer` is gone, and says why.
async fn disconnected(events: &mut broadcast::Receiver<PeerEvent>, peer: PeerId) -> String {
    loop {
        match events.recv().await {
            Ok(PeerEvent::Disconnected { peer: gone, reason }) if gone == peer => {
                return reason.unwrap_or_else(|| "the connection was closed".into());
            }
            Ok(_) => {}
            Err(broadcast::error::RecvError::Lagged(_)) => return "lost track of the connection".into(),
            Err(broadcast::error::RecvError::Closed) => return "the network task has stopped".into(),
        }
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
