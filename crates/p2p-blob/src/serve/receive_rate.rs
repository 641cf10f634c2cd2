//! The rate at which a peer receives an answer. A slow reader loses its upload slot while others wait.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// After waiting so long for the peer, a lower rate than this is too slow.
const PATIENCE: Duration = Duration::from_secs(5);
const MIN_BYTES_PER_S: f64 = (16 << 10) as f64;

/// Counts only time spent waiting for the peer, not for a rate limit or the disk.
#[derive(Debug, Default)]
pub(super) struct ReceiveRate {
    taken: Mutex<Taken>,
    revoked: CancellationToken,
}

#[derive(Debug, Default)]
struct Taken {
    bytes: u64,
    waited: Duration,
    waiting_since: Option<Instant>,
}

impl ReceiveRate {
    /// Runs a write, which returns how many bytes the peer took. `None`: the slot was revoked meanwhile.
    pub(super) async fn measure<E>(
        &self,
        write: impl Future<Output = Result<usize, E>>,
    ) -> Option<Result<usize, E>> {
        self.taken().waiting_since = Some(Instant::now());
        let written = tokio::select! {
            biased;
            written = write => Some(written),
            () = self.revoked.cancelled() => None,
        };
        let mut taken = self.taken();
        let since = taken.waiting_since.take();
        taken.waited += since.map_or(Duration::ZERO, |since| since.elapsed());
        if let Some(Ok(bytes)) = &written {
            taken.bytes += *bytes as u64;
        }
        written
    }

    pub(super) fn is_too_slow(&self, now: Instant) -> bool {
        let taken = self.taken();
        let waiting = taken.waiting_since.map_or(Duration::ZERO, |since| now - since);
        let waited = taken.waited + waiting;
        waited >= PATIENCE && (taken.bytes as f64) < waited.as_secs_f64() * MIN_BYTES_PER_S
    }

    /// Ends the write in progress, and every further one.
    pub(super) fn revoke(&self) {
        self.revoked.cancel();
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
