//! Sessions with one peer that share its requests.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use p2p_blob::{Client, Connection, FetchError, PeerId, Session};
use tokio::sync::Mutex;

/// A session. It is opened when it is first needed, and replaced after it has broken.
#[derive(Default)]
pub(crate) struct Lane {
    /// It is not the first of its connection.
    pub(crate) is_extra: bool,
    session: Mutex<Option<Session>>,
    under_way: AtomicUsize,
    /// Bytes of ranges that were asked for and are not here, and how fast such arrive; 0: unknown.
    owed_bytes: AtomicU64,
    bytes_per_s: AtomicU64,
    /// The session whose bytes are counted now, and the bytes of those before it.
    counted: std::sync::Mutex<Option<Session>>,
    earlier_bytes: AtomicU64,
}

impl Lane {
    pub(crate) fn new(session: Session) -> Self {
        Self {
            session: Mutex::new(Some(session.clone())),
            counted: std::sync::Mutex::new(Some(session)),
            ..Self::default()
        }
    }

    /// One more on a connection that has one.
    pub(crate) fn extra() -> Self {
        Self { is_extra: true, ..Self::default() }
    }

    /// Whether it has requests.
    pub(crate) fn is_busy(&self) -> bool {
        self.under_way.load(Ordering::Relaxed) > 0
    }

    /// The connection that it is on, once it was opened.
    pub(crate) fn connection(&self) -> Option<Connection> {
        let counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        counted.as_ref().and_then(Session::connection)
    }

    /// Bytes of blobs that have arrived in it so far.
    pub(crate) fn received_bytes(&self) -> u64 {
        let counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let counted = counted.as_ref().map_or(0, Session::received_bytes);
        self.earlier_bytes.load(Ordering::Relaxed) + counted
    }
}

/// A request's slot in a lane; freed on drop.
pub(crate) struct LanePermit {
    lane: Arc<Lane>,
    bytes: u64,
    /// What the lane owed when it was asked, with this.
    owed_bytes: u64,
    asked: Instant,
}

impl LanePermit {
    /// In the lane with the fewest requests in flight. There is at least one lane.
    pub(crate) fn of_idlest(lanes: &[Arc<Lane>], bytes: u64) -> Self {
        Self::of(lanes, bytes, |lane| lane.under_way.load(Ordering::Relaxed))
    }

    /// In the lane in which so many bytes more are likely to arrive first; `new_bytes_per_s` is what is thought of one that
    /// has brought nothing. There is at least one lane.
    pub(crate) fn of_soonest(lanes: &[Arc<Lane>], bytes: u64, new_bytes_per_s: u64) -> Self {
        Self::of(lanes, bytes, |lane| {
            let owed_bytes = lane.owed_bytes.load(Ordering::Relaxed) + bytes;
            let bytes_per_s = match lane.bytes_per_s.load(Ordering::Relaxed) {
                0 => new_bytes_per_s,
                known => known,
            };
            u128::from(owed_bytes) * 1_000_000 / u128::from(bytes_per_s.max(1))
        })
    }

    fn of<K: Ord>(lanes: &[Arc<Lane>], bytes: u64, key: impl Fn(&Lane) -> K) -> Self {
        let lane = lanes.iter().min_by_key(|lane| key(lane)).unwrap_or(&lanes[0]);
        lane.under_way.fetch_add(1, Ordering::Relaxed);
        let owed_bytes = lane.owed_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        Self { lane: Arc::clone(lane), bytes, owed_bytes, asked: Instant::now() }
    }

    /// All of it is here: says how fast the lane is.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an estimate"
    )]
    pub(crate) fn arrived(&self) {
        let sample = self.owed_bytes as f64 / self.asked.elapsed().as_secs_f64().max(1e-3);
        let before = self.lane.bytes_per_s.load(Ordering::Relaxed);
        let now = if before == 0 { sample } else { before as f64 * 0.75 + sample * 0.25 };
        self.lane.bytes_per_s.store(now as u64, Ordering::Relaxed);
    }

    /// The lane's session, or a new one after that has broken.
    pub(crate) async fn session(&self, client: &Client, peer: PeerId) -> Result<Session, FetchError> {
        let mut current = self.lane.session.lock().await;
        if let Some(session) = &*current {
            return Ok(session.clone());
        }
        let session = client.open(peer).await?;
        let mut counted = self.lane.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let earlier = counted.replace(session.clone()).map_or(0, |earlier| earlier.received_bytes());
        self.lane.earlier_bytes.fetch_add(earlier, Ordering::Relaxed);
        *current = Some(session.clone());
        Ok(session)
    }

    pub(crate) fn is_in(&self, lane: &Arc<Lane>) -> bool {
        Arc::ptr_eq(&self.lane, lane)
    }

    /// The session has broken.
    pub(crate) async fn forget_session(&self) {
        *self.lane.session.lock().await = None;
    }
}

impl Drop for LanePermit {
    fn drop(&mut self) {
        self.lane.under_way.fetch_sub(1, Ordering::Relaxed);
        self.lane.owed_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fast_lane_takes_more_than_a_slow_one_and_a_new_one_its_share() {
        let lanes: Vec<Arc<Lane>> = (0..3).map(|_| Arc::new(Lane::extra())).collect();
        lanes[0].bytes_per_s.store(8000, Ordering::Relaxed);
        lanes[1].bytes_per_s.store(2000, Ordering::Relaxed);
        let permits: Vec<_> = (0..110).map(|_| LanePermit::of_soonest(&lanes, 10, 1000)).collect();
        let taken = |lane: &Arc<Lane>| permits.iter().filter(|permit| permit.is_in(lane)).count();
        assert_eq!(lanes.iter().map(taken).collect::<Vec<_>>(), [80, 20, 10]);
        let idlest = LanePermit::of_idlest(&lanes, 0);
        assert!(idlest.is_in(&lanes[2]));
        drop((permits, idlest));
        assert!(lanes.iter().all(|lane| !lane.is_busy() && lane.owed_bytes.load(Ordering::Relaxed) == 0));
    }
}
