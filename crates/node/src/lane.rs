//! Sessions with one peer that share its requests.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};

use p2p_blob::{Client, Connection, FetchError, PeerId, Session};
use tokio::sync::Mutex;

/// A session. It is opened when it is first needed, and replaced after it has broken.
#[derive(Default)]
pub(crate) struct Lane {
    /// It is not the first of its connection.
    pub(crate) is_extra: bool,
    session: Mutex<Option<Session>>,
    under_way: AtomicUsize,
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
pub(crate) struct LanePermit(Arc<Lane>);

impl LanePermit {
    /// In the lane with the fewest requests in flight. There is at least one lane.
    pub(crate) fn of_idlest(lanes: &[Arc<Lane>]) -> Self {
        let mut idlest = &lanes[0];
        for lane in lanes {
            if lane.under_way.load(Ordering::Relaxed) < idlest.under_way.load(Ordering::Relaxed) {
                idlest = lane;
            }
        }
        idlest.under_way.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(idlest))
    }

    /// The lane's session, or a new one after that has broken.
    pub(crate) async fn session(&self, client: &Client, peer: PeerId) -> Result<Session, FetchError> {
        let mut current = self.0.session.lock().await;
        if let Some(session) = &*current {
            return Ok(session.clone());
        }
        let session = client.open(peer).await?;
        let mut counted = self.0.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let earlier = counted.replace(session.clone()).map_or(0, |earlier| earlier.received_bytes());
        self.0.earlier_bytes.fetch_add(earlier, Ordering::Relaxed);
        *current = Some(session.clone());
        Ok(session)
    }

    pub(crate) fn is_in(&self, lane: &Arc<Lane>) -> bool {
        Arc::ptr_eq(&self.0, lane)
    }

    /// The session has broken.
    pub(crate) async fn forget_session(&self) {
        *self.0.session.lock().await = None;
    }
}

impl Drop for LanePermit {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}
