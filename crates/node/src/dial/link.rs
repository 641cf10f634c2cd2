//! A connected peer: a source, and a partner for peer exchange.

use std::sync::Arc;
use std::time::{Duration, Instant};

use loader::Source as _;
use p2p_blob::{Multiaddr, PeerEvent, PeerId};
use tokio::sync::broadcast;

use super::dead;
use super::shared::{PendingOne, Shared, with_causes};
use crate::peer::Peer;

/// Connections with a peer that serves ranges, while there are few sources. One is encrypted and decrypted by one task
/// at each end; four were not faster than two (docs/benchmarks.md).
const CONNECTIONS: usize = 2;
/// Over a long way as many as carry so much in each round trip, but no more than these: a system ends the window of a
/// connection at some MiB.
const MAX_CONNECTIONS: usize = 8;
const BYTES_PER_ROUND_TRIP: f64 = (2 << 20) as f64;
/// Connections that were lost and are made again.
const MAX_LOST: usize = 4;
/// How often it is looked how much they carry.
const WIDEN_EVERY: Duration = Duration::from_millis(250);
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
        self.shared.crowd.add(self.id, &self.peer);
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
        let is_few = count.max(self.shared.claims.count()) < MANY_SOURCES;
        let widen = async {
            if is_few {
                self.widen().await;
            }
            std::future::pending().await
        };
        let client = &self.shared.client;
        tokio::select! {
            () = widen => {}
            () = self.keep_asking_for_others() => {}
            () = dead::watch(client, &self.peer, self.id) => {}
        }
    }

    async fn keep_asking_for_others(&self) {
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

    /// Opens further connections with the peer, to spread requests over: as many as the line takes.
    async fn widen(&self) {
        let Some(addr) = &self.addr else { return };
        let (mut count, mut wanted) = (1, CONNECTIONS);
        let (mut since, mut before_bytes) = (Instant::now(), self.peer.received_bytes());
        let mut lost = 0;
        loop {
            let alive = self.peer.carried().len().max(1);
            if alive < count && lost < MAX_LOST {
                (count, lost) = (alive, lost + 1);
            }
            while count < wanted {
                if !self.connect_again(addr, count + 1).await {
                    return;
                }
                count += 1;
            }
            tokio::time::sleep(WIDEN_EVERY).await;
            let (now, bytes) = (Instant::now(), self.peer.received_bytes());
            let Some(round_trip) = self.peer.far() else { continue };
            if now < since + round_trip {
                continue;
            }
            let carried = per_round_trip(bytes.saturating_sub(before_bytes), now - since, round_trip);
            (since, before_bytes) = (now, bytes);
            wanted = wanted.max(connections_for(carried));
        }
    }

    /// Whether there is one more.
    async fn connect_again(&self, addr: &Multiaddr, count: usize) -> bool {
        let client = &self.shared.client;
        let session = match client.connect_again(self.id, addr.clone(), count).await {
            Ok(_) => client.open(self.id).await.map_err(|error| with_causes(&error)),
            Err(error) => Err(with_causes(&error)),
        };
        match session {
            Ok(session) => {
                self.peer.add(session);
                true
            }
            // One connection works.
            Err(error) => {
                tracing::debug!(peer = %self.id, error, "no further connection");
                false
            }
        }
    }
}

/// Bytes that arrive within a round trip.
#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn per_round_trip(bytes: u64, time: Duration, round_trip: Duration) -> f64 {
    bytes as f64 * round_trip.as_secs_f64() / time.as_secs_f64().max(0.001)
}

/// The connections that carry so many bytes within a round trip.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an estimate, positive")]
fn connections_for(carried: f64) -> usize {
    ((carried / BYTES_PER_ROUND_TRIP) as usize).min(MAX_CONNECTIONS)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_follow_what_the_line_carries() {
        let over = |mb_per_s: u64, round_trip_ms| {
            let round_trip = Duration::from_millis(round_trip_ms);
            connections_for(per_round_trip(mb_per_s * 1_000_000, Duration::from_secs(1), round_trip))
        };
        assert_eq!(over(10, 20), 0, "the two that there are anyway");
        // Two windows of 4 MiB in 150 ms are a reason for more.
        assert_eq!(over(56, 150), 4);
        assert_eq!(over(500, 150), MAX_CONNECTIONS);
    }
}
