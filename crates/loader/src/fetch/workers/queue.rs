//! The job queue, and which jobs are batched.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use manifest::PieceId;
use planner::SourceKey;

use super::super::buffers::PieceBuf;
use crate::reconstruct::RebuildJob;

/// How long a piece waits for others to be hashed with: four at once cost half as much as one by one, sixteen a third.
const BATCH_WAIT: Duration = Duration::from_millis(10);

/// A piece to check and write.
#[derive(Debug)]
pub(crate) struct CheckJob {
    pub(crate) piece: PieceId,
    pub(crate) source: Option<SourceKey>,
    pub(crate) buf: PieceBuf,
    /// Whether it is checked against the index; else only written.
    pub(crate) indexed: bool,
}

pub(super) enum Job {
    Check(CheckJob),
    Rebuild(RebuildJob),
    CheckShard(u32),
}

/// Jobs taken from the queue at once.
pub(super) enum Batch {
    /// Pieces to check together: their hashes are interleaved on one core.
    Checks(Vec<CheckJob>),
    Rebuild(RebuildJob),
    CheckShard(u32),
    /// Pieces of one shard that are here already.
    Recheck(Vec<PieceId>),
}

/// The queue that threads wait on.
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    ready: Condvar,
    is_closed: AtomicBool,
}

struct Waiting {
    /// How many pieces are hashed at once.
    batch: usize,
    /// Each with the time at which it was queued.
    jobs: VecDeque<(Instant, Job)>,
    /// Pieces that are here, to be hashed once there is nothing else to do; those of a shard stand together.
    claims: VecDeque<PieceId>,
    /// How many threads hash claims.
    rechecking: usize,
    max_rechecking: usize,
}

impl Queue {
    /// With `claims` in it. Up to `batch` pieces are taken at once, and up to `max_rechecking` threads hash claims.
    pub(super) fn new(batch: usize, claims: Vec<PieceId>, max_rechecking: usize) -> Self {
        let jobs = VecDeque::new();
        let waiting = Waiting { batch, jobs, claims: claims.into(), rechecking: 0, max_rechecking };
        Self { waiting: Mutex::new(waiting), ready: Condvar::new(), is_closed: AtomicBool::new(false) }
    }

    pub(super) fn push(&self, job: Job) {
        self.waiting().jobs.push_back((Instant::now(), job));
        self.ready.notify_one();
    }

    pub(super) fn push_claim(&self, piece: PieceId) {
        self.waiting().claims.push_back(piece);
        self.ready.notify_one();
    }

    pub(super) fn set_max_rechecking(&self, threads: usize) {
        self.waiting().max_rechecking = threads;
    }

    /// A thread has hashed the claims that it took.
    pub(super) fn rechecked(&self) {
        self.waiting().rechecking -= 1;
        self.ready.notify_one();
    }

    /// Drops all queued jobs: threads get nothing more.
    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
        let mut waiting = self.waiting();
        waiting.jobs.clear();
        waiting.claims.clear();
        drop(waiting);
        self.ready.notify_all();
    }

    /// Whether results are not needed any more.
    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Relaxed)
    }

    /// Waits for something to do; `None` when it is closed. Claims are taken one by one where they can be checked so,
    /// `by_piece`, and else by shard.
    pub(super) fn next(&self, by_piece: bool) -> Option<Batch> {
        let mut waiting = self.waiting();
        loop {
            if self.is_closed() {
                return None;
            }
            let pause = waiting.pause();
            if waiting.jobs.is_empty()
                && let Some(pieces) = waiting.pop_claims(by_piece)
            {
                return Some(Batch::Recheck(pieces));
            }
            if waiting.jobs.is_empty() {
                waiting = self.ready.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            } else if pause > Duration::ZERO {
                (waiting, _) =
                    self.ready.wait_timeout(waiting, pause).unwrap_or_else(PoisonError::into_inner);
            } else {
                match waiting.jobs.pop_front() {
                    Some((_, Job::Check(first))) => {
                        let batch = waiting.batch;
                        let rest = std::iter::from_fn(|| waiting.pop_check()).take(batch - 1);
                        return Some(Batch::Checks(std::iter::once(first).chain(rest).collect()));
                    }
                    Some((_, Job::Rebuild(job))) => return Some(Batch::Rebuild(job)),
                    Some((_, Job::CheckShard(shard))) => return Some(Batch::CheckShard(shard)),
                    None => {}
                }
            }
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.waiting().jobs.is_empty()
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// How long to wait before the first job is taken: not at all, unless it is a piece that may be batched.
    fn pause(&self) -> Duration {
        let lonely = |(_, job): &(Instant, Job)| matches!(job, Job::Check(_));
        match self.jobs.front() {
            Some((came, Job::Check(_))) if self.jobs.len() < self.batch && self.jobs.iter().all(lonely) => {
                BATCH_WAIT.saturating_sub(came.elapsed())
            }
            _ => Duration::ZERO,
        }
    }

    /// Claims to be hashed together: some of a shard, or all of it when it can be checked as a whole only.
    fn pop_claims(&mut self, by_piece: bool) -> Option<Vec<PieceId>> {
        if self.rechecking >= self.max_rechecking {
            return None;
        }
        let shard = self.claims.front()?.shard;
        let max = if by_piece { self.batch } else { usize::MAX };
        let of_shard = std::iter::from_fn(|| self.claims.pop_front_if(|piece| piece.shard == shard));
        let pieces = of_shard.take(max).collect();
        self.rechecking += 1;
        Some(pieces)
    }

    fn pop_check(&mut self) -> Option<CheckJob> {
        match self.jobs.pop_front_if(|(_, job)| matches!(job, Job::Check(_))) {
            Some((_, Job::Check(job))) => Some(job),
            _ => None,
        }
    }
}
