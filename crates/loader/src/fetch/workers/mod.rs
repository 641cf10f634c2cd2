//! The threads that hash, write and rebuild, so that the tasks that move bytes never do.

mod check;
mod queue;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use manifest::piece_index::PieceIndex;
use manifest::{Geometry, PieceId};
use planner::{Checked, SourceKey};
use sha256_lanes::MAX_LANES;
use store::Map;
use store::{CacheError, Partial};
use tokio::sync::mpsc;

use super::parity_buffer::ParityBuffer;
use crate::reconstruct::{RebuildJob, Rebuilder};
use queue::{Batch, Job, Queue};

pub(crate) use queue::CheckJob;

/// The result of a job.
#[derive(Debug)]
pub(crate) enum Done {
    Checked {
        piece: PieceId,
        source: Option<SourceKey>,
        outcome: Checked,
    },
    ShardChecked {
        shard: u32,
        good: bool,
        /// Whether the index agrees with all of its pieces.
        index_agrees: bool,
    },
    /// A claimed piece was hashed. `resumed`: it was never verified in this run before.
    Rechecked {
        piece: PieceId,
        good: bool,
        resumed: bool,
    },
    /// The weights' padding is not zero: the manifest's publisher is at fault.
    DirtyPadding {
        shard: u32,
    },
    Failed(CacheError),
    /// A job panicked.
    Panicked,
}

struct Shared {
    queue: Queue,
    store: Arc<Partial>,
    index: Option<Arc<PieceIndex<Map>>>,
    geometry: Geometry,
    parity: ParityBuffer,
    /// Padding that is not zero, of pieces that are not proven. It has no place in the weights file.
    dirty_padding: Mutex<HashMap<PieceId, Vec<u8>>>,
    done: mpsc::Sender<Done>,
    /// Nanoseconds that the threads have spent, and nobody has asked for yet.
    verifying: AtomicU64,
    rebuilding: AtomicU64,
}

/// The threads. Dropping stops them without waiting, as it must not block: each ends after its current piece, and keeps
/// the partial files open until then.
pub(crate) struct Workers {
    shared: Closing,
    /// Closed when the last thread has dropped everything.
    ended: mpsc::Receiver<Infallible>,
}

/// Closes the queue when it is dropped.
struct Closing(Arc<Shared>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.queue.close();
    }
}

impl Workers {
    /// Starts `threads` of them; what they finish goes to `done`. Up to `quarter` pieces, a quarter of the buffers, are
    /// hashed at once, and as many parity pieces are kept in memory. `claims` are on the disk already: they are hashed
    /// beside the rest, and one thread more sees to it that a slow disk holds up nothing else.
    pub(crate) fn start(
        threads: usize,
        quarter: usize,
        claims: Vec<PieceId>,
        store: Arc<Partial>,
        index: Option<Arc<PieceIndex<Map>>>,
        geometry: Geometry,
        done: mpsc::Sender<Done>,
    ) -> std::io::Result<Self> {
        // While they wait to be hashed together, there is room for more to arrive.
        let batch = sha256_lanes::lanes_at_once().min(quarter.max(MAX_LANES));
        let shared = Closing(Arc::new(Shared {
            queue: Queue::new(batch, claims, threads),
            store,
            index,
            geometry,
            parity: ParityBuffer::new(quarter),
            dirty_padding: Mutex::default(),
            done,
            verifying: AtomicU64::new(0),
            rebuilding: AtomicU64::new(0),
        }));
        let (is_running, ended) = mpsc::channel(1);
        for number in 0..=threads {
            let (shared_by, is_running) = (Arc::clone(&shared.0), is_running.clone());
            let work = move || {
                shared_by.work();
                drop(shared_by);
                drop(is_running);
            };
            match std::thread::Builder::new().name(format!("verify-{number}")).spawn(work) {
                Ok(_) => {}
                // Two will do where the system gives no more.
                Err(_) if number >= 2 => {
                    shared.0.queue.set_max_rechecking(number - 1);
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Self { shared, ended })
    }

    /// Stops the threads, and waits until they have ended and closed the partial files.
    pub(crate) async fn end(self) {
        let Self { shared, mut ended } = self;
        drop(shared);
        while ended.recv().await.is_some() {}
    }

    pub(crate) fn check(&self, job: CheckJob) {
        self.shared.0.queue.push(Job::Check(job));
    }

    pub(crate) fn rebuild(&self, job: RebuildJob) {
        self.shared.0.queue.push(Job::Rebuild(job));
    }

    /// Nothing is rebuilt from this piece any more.
    pub(crate) fn drop_parity(&self, piece: PieceId) {
        self.shared.0.parity.drop(piece);
    }

    pub(crate) fn check_shard(&self, shard: u32) {
        self.shared.0.queue.push(Job::CheckShard(shard));
    }

    /// How long the threads have verified, and rebuilt, since this was last asked.
    pub(crate) fn take_times(&self) -> (Duration, Duration) {
        let take = |time: &AtomicU64| Duration::from_nanos(time.swap(0, Ordering::Relaxed));
        (take(&self.shared.0.verifying), take(&self.shared.0.rebuilding))
    }

    /// Hashes a piece on the disk again.
    pub(crate) fn recheck(&self, piece: PieceId) {
        self.shared.0.queue.push_claim(piece);
    }
}

impl Shared {
    fn work(&self) {
        let mut rebuilder = Rebuilder::new(self.geometry.clone());
        while let Some(batch) = self.queue.next(self.index.is_some()) {
            let is_recheck = matches!(batch, Batch::Recheck(_));
            let time = if matches!(batch, Batch::Rebuild(_)) { &self.rebuilding } else { &self.verifying };
            let began = Instant::now();
            // The driver must learn that there is no result.
            let result = catch_unwind(AssertUnwindSafe(|| match batch {
                Batch::Checks(jobs) => self.check(jobs),
                Batch::Rebuild(job) => self.rebuild(&mut rebuilder, &job),
                Batch::CheckShard(shard) => self.check_shard(shard),
                Batch::Recheck(pieces) => self.recheck(&pieces),
            }));
            let took = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
            time.fetch_add(took, Ordering::Relaxed);
            if is_recheck {
                self.queue.rechecked();
            }
            let done = match result {
                Ok(Ok(done)) => done,
                Ok(Err(error)) => vec![Done::Failed(error)],
                Err(_) => vec![Done::Panicked],
            };
            // The driver may be gone.
            for done in done {
                let _ = self.done.blocking_send(done);
            }
        }
    }
}
