//! A connected peer: a source, and a partner for peer exchange.

use std::sync::Arc;
use std::time::Duration;

use p2p_blob::{Multiaddr, PeerEvent, PeerId};
use tokio::sync::broadcast;

use super::shared::{PendingOne, Shared, with_causes};
use crate::peer::Peer;

/// Connections with a peer that serves ranges, while there are few sources. One is encrypted and decrypted by one task
/// at each end; four were not faster than two (docs/benchmarks.md).
const CONNECTIONS: usize = 2;
/// With so many sources, connected or discovered, one connection with each is enough: a seeder has many fetchers.
const MANY_SOURCES: usize = 4;
/// Exponential backoff between PEERS requests.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(60);
/// How long the first answer is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// See the module's documentation.
pub(super) struct Link {
    pub(super) shared: Shared,
    pub(super) peer: Arc<Peer>,
    pub(super) id: PeerId,
    /// The address at which it was dialed; `None` for an inbound peer.
    pub(super) addr: Option<Multiaddr>,
}

impl Link {
    /// Runs until the last connection with the peer is gone; returns why. `gone` was subscribed before it connected.
    pub(super) async fn run(
        &self,
        mut gone: broadcast::Receiver<PeerEvent>,
        first_answer: PendingOne,
    ) -> String {
        if let Some(addr) = self.shared.client.reached_at(&self.id) {
            self.shared.book.reached(self.id, addr);
        }
        tokio::select! {
            reason = disconnected(&mut gone, self.id) => reason,
            () = self.keep_asking(first_answer) => "the network task has stopped".into(),
        }
    }

    /// Sends PEERS, opens further connections when there are few sources, and goes on sending PEERS.
    async fn keep_asking(&self, first_answer: PendingOne) {
        if !self.peer.serves_others() {
            drop(first_answer);
            return std::future::pending().await;
        }
        let count = tokio::time::timeout(PATIENCE, self.ask()).await.unwrap_or(0);
        drop(first_answer);
        if count.max(self.shared.claims.count()) < MANY_SOURCES {
            self.widen().await;
        }
        let mut pause = FIRST_PAUSE;
        loop {
            // Jitter: nodes that start together must not ask together.
            tokio::time::sleep(pause.mul_f64(fastrand::f64() + 0.5)).await;
            pause = (pause * 2).min(LAST_PAUSE);
            self.ask().await;
        }
    }

    /// Sends PEERS, and adds the answer to the candidates; returns their number.
    async fn ask(&self) -> usize {
        match self.peer.others(self.shared.manifest).await {
            Ok(others) => {
                let count = others.len();
                for other in others {
                    // With a full queue it is found again later.
                    let _ = self.shared.found.try_send(other);
                }
                count
            }
            Err(error) => {
                tracing::debug!(peer = %self.id, %error, "told of no other peers");
                0
            }
        }
    }

    /// Opens further connections with the peer, to spread requests over.
    async fn widen(&self) {
        let Some(addr) = &self.addr else { return };
        let client = &self.shared.client;
        for count in 2..=CONNECTIONS {
            let session = match client.connect_again(self.id, addr.clone(), count).await {
                Ok(_) => client.open(self.id).await.map_err(|error| with_causes(&error)),
                Err(error) => Err(with_causes(&error)),
            };
            match session {
                Ok(session) => self.peer.add(session),
                // One connection works.
                Err(error) => tracing::debug!(peer = %self.id, error, "no further connection"),
            }
        }
    }
}

/// Waits until the last connection with `peer` is gone, and returns why.
pub(super) async fn disconnected(events: &mut broadcast::Receiver<PeerEvent>, peer: PeerId) -> String {
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
