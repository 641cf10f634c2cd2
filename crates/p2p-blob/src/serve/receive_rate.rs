//! How fast a peer takes an answer. One that is too slow loses its place while others wait.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A peer that was waited for so long, and took less than so much in each second of that, is too slow.
const PATIENCE: Duration = Duration::from_secs(5);
const MIN_BYTES_PER_S: f64 = (16 << 10) as f64;

/// Counts only the time in which the peer had to be waited for: what a rate or the disk holds up is not its fault.
#[derive(Debug, Default)]
pub(super) struct Pace {
    taken: Mutex<Taken>,
    lost: CancellationToken,
}

#[derive(Debug, Default)]
struct Taken {
    bytes: u64,
    waited: Duration,
    waiting_since: Option<Instant>,
}

impl Pace {
    /// Runs a write, which says how many bytes the peer took. `None`: the place was lost meanwhile.
    pub(super) async fn of<E>(
        &self,
        write: impl Future<Output = Result<usize, E>>,
    ) -> Option<Result<usize, E>> {
        self.taken().waiting_since = Some(Instant::now());
        let written = tokio::select! {
            biased;
            written = write => Some(written),
            () = self.lost.cancelled() => None,
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

    /// Ends the write that is under way, and every further one.
    pub(super) fn lose(&self) {
        self.lost.cancel();
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
