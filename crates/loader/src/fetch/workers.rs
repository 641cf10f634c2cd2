//! The threads that hash, write and rebuild, so that the tasks that move bytes never do.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use manifest::piece_index::{PieceCheck, PieceIndex, ShardHasher};
use manifest::{ByteRange, Digest, Geometry, PieceId};
use sha256_lanes::MAX_LANES;
use tokio::sync::mpsc;

use super::buffers::PieceBuf;
use super::held::HeldParity;
use crate::cache::{CacheError, Partial};
use crate::mmap::Map;
use crate::plan::{Checked, SourceKey};
use crate::reconstruct::{RebuildJob, Rebuilder};

/// A piece to check and write.
#[derive(Debug)]
pub(crate) struct CheckJob {
    pub(crate) piece: PieceId,
    pub(crate) source: Option<SourceKey>,
    pub(crate) buf: PieceBuf,
    /// Whether it is checked against the index; else only written.
    pub(crate) indexed: bool,
}

/// What became of a job.
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
        /// Whether the index says of each of its pieces what was found.
        index_agrees: bool,
    },
    /// A piece that was here was hashed. `resumed`: nobody knew whether it was right before that.
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
}

enum Job {
    Check(CheckJob),
    Rebuild(RebuildJob),
    CheckShard(u32),
}

struct Queue {
    /// How many pieces are hashed at once.
    batch: usize,
    /// Each with the time it came.
    jobs: VecDeque<(Instant, Job)>,
    /// Pieces that are here, to be hashed once there is nothing else to do; those of a shard stand together.
    claims: VecDeque<PieceId>,
    /// How many threads hash such.
    rechecking: usize,
    max_rechecking: usize,
    closed: bool,
}

/// How long a piece waits for others to be hashed with: four at once cost half as much as one by one, sixteen a third.
const BATCH_WAIT: Duration = Duration::from_millis(10);

impl Queue {
    /// How long to wait before the first job is taken: not at all, unless it is a piece that may get company.
    fn wait(&self) -> Duration {
        let lonely = |(_, job): &(Instant, Job)| matches!(job, Job::Check(_));
        match self.jobs.front() {
            Some((came, Job::Check(_))) if self.jobs.len() < self.batch && self.jobs.iter().all(lonely) => {
                BATCH_WAIT.saturating_sub(came.elapsed())
            }
            _ => Duration::ZERO,
        }
    }

    /// Claims to be hashed together: some of a shard, or all of it when it can be checked as a whole only.
    fn pop_claims(&mut self, indexed: bool) -> Option<Vec<PieceId>> {
        if self.rechecking >= self.max_rechecking {
            return None;
        }
        let shard = self.claims.front()?.shard;
        let max = if indexed { self.batch } else { usize::MAX };
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

struct Shared {
    queue: Mutex<Queue>,
    ready: Condvar,
    store: Arc<Partial>,
    index: Option<Arc<PieceIndex<Map>>>,
    geometry: Geometry,
    held: HeldParity,
    /// Padding that is not zero, of pieces that are not proven. It has no place in the weights file.
    dirty_padding: Mutex<HashMap<PieceId, Vec<u8>>>,
    done: mpsc::Sender<Done>,
}

/// The threads. Dropping waits until each has finished the job it is on.
pub(crate) struct Workers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
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
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue {
                batch,
                jobs: VecDeque::new(),
                claims: claims.into(),
                rechecking: 0,
                max_rechecking: threads,
                closed: false,
            }),
            ready: Condvar::new(),
            store,
            index,
            geometry,
            held: HeldParity::new(quarter),
            dirty_padding: Mutex::default(),
            done,
        });
        let mut workers = Self { shared, threads: Vec::new() };
        for number in 0..=threads {
            let shared = Arc::clone(&workers.shared);
            let name = format!("verify-{number}");
            match std::thread::Builder::new().name(name).spawn(move || shared.work()) {
                Ok(thread) => workers.threads.push(thread),
                // Two will do where the system gives no more.
                Err(_) if number >= 2 => {
                    workers.queue().max_rechecking = number - 1;
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(workers)
    }

    pub(crate) fn check(&self, job: CheckJob) {
        self.push(Job::Check(job));
    }

    pub(crate) fn rebuild(&self, job: RebuildJob) {
        self.push(Job::Rebuild(job));
    }

    /// Nothing is rebuilt from this piece any more.
    pub(crate) fn drop_parity(&self, piece: PieceId) {
        self.shared.held.drop(piece);
    }

    pub(crate) fn check_shard(&self, shard: u32) {
        self.push(Job::CheckShard(shard));
    }

    /// Hashes a piece that is here once more.
    pub(crate) fn recheck(&self, piece: PieceId) {
        self.queue().claims.push_back(piece);
        self.shared.ready.notify_one();
    }

    fn push(&self, job: Job) {
        self.queue().jobs.push_back((Instant::now(), job));
        self.shared.ready.notify_one();
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        let mut queue = self.queue();
        queue.closed = true;
        queue.jobs.clear();
        queue.claims.clear();
        drop(queue);
        self.shared.ready.notify_all();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a verification thread panicked");
            }
        }
    }
}

/// Jobs taken from the queue at once.
enum Batch {
    /// Pieces to check together: their hashes are interleaved on one core.
    Checks(Vec<CheckJob>),
    Rebuild(RebuildJob),
    CheckShard(u32),
    /// Pieces of one shard that are here already.
    Recheck(Vec<PieceId>),
}

impl Shared {
    fn work(&self) {
        let mut rebuilder = Rebuilder::new(self.geometry.clone());
        while let Some(batch) = self.next() {
            let result = match batch {
                Batch::Checks(jobs) => self.check(jobs),
                Batch::Rebuild(job) => self.rebuild(&mut rebuilder, &job),
                Batch::CheckShard(shard) => self.check_shard(shard).map(|done| vec![done]),
                Batch::Recheck(pieces) => {
                    let done = self.recheck(&pieces);
                    self.queue.lock().unwrap_or_else(PoisonError::into_inner).rechecking -= 1;
                    done
                }
            };
            // The driver may be gone: then nobody needs the results.
            for done in result.unwrap_or_else(|error| vec![Done::Failed(error)]) {
                let _ = self.done.blocking_send(done);
            }
        }
    }

    fn next(&self) -> Option<Batch> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if queue.closed {
                return None;
            }
            let wait = queue.wait();
            if queue.jobs.is_empty()
                && let Some(pieces) = queue.pop_claims(self.index.is_some())
            {
                return Some(Batch::Recheck(pieces));
            }
            if queue.jobs.is_empty() {
                queue = self.ready.wait(queue).unwrap_or_else(PoisonError::into_inner);
            } else if wait > Duration::ZERO {
                (queue, _) = self.ready.wait_timeout(queue, wait).unwrap_or_else(PoisonError::into_inner);
            } else {
                match queue.jobs.pop_front() {
                    Some((_, Job::Check(first))) => {
                        let batch = queue.batch;
                        let rest = std::iter::from_fn(|| queue.pop_check()).take(batch - 1);
                        return Some(Batch::Checks(std::iter::once(first).chain(rest).collect()));
                    }
                    Some((_, Job::Rebuild(job))) => return Some(Batch::Rebuild(job)),
                    Some((_, Job::CheckShard(shard))) => return Some(Batch::CheckShard(shard)),
                    None => {}
                }
            }
        }
    }

    fn check(&self, jobs: Vec<CheckJob>) -> Result<Vec<Done>, CacheError> {
        let (indexed, unindexed): (Vec<CheckJob>, Vec<CheckJob>) =
            jobs.into_iter().partition(|job| job.indexed);
        let mut done = Vec::with_capacity(indexed.len() + unindexed.len());
        let pieces: Vec<(PieceId, &[u8])> =
            indexed.iter().map(|job| (job.piece, job.buf.bytes.as_slice())).collect();
        let mut outcomes = self.verify(&pieces);
        let is_parity = |piece: PieceId| piece.shard >= self.geometry.manifest().data_shard_count();
        self.store_good(&pieces, &mut outcomes, |piece| !is_parity(piece))?;
        for (job, outcome) in indexed.into_iter().zip(outcomes) {
            done.push(outcome.into_done(job.piece, job.source));
            if matches!(outcome, Outcome::Good) && is_parity(job.piece) {
                self.held.keep(job.piece, job.buf);
            }
        }
        while let Some((piece, buf)) = self.held.excess() {
            self.store_good(&[(piece, &buf.bytes)], &mut [Outcome::Good], |_| true)?;
            self.held.drop(piece);
        }
        for job in &unindexed {
            done.push(self.write(job.piece, &job.buf.bytes, false)?.into_done(job.piece, job.source));
            // What was held is of an index that has become suspect.
            self.held.drop(job.piece);
        }
        Ok(done)
    }

    /// Hashes pieces together: each is good or wrong.
    fn verify(&self, pieces: &[(PieceId, &[u8])]) -> Vec<Outcome> {
        let Some(index) = &self.index else { return vec![Outcome::Wrong(0); pieces.len()] };
        let mut checks: Vec<PieceCheck<'_>> = pieces
            .iter()
            .map(|(id, bytes)| PieceCheck { shard: id.shard, piece: id.piece, bytes, good: false })
            .collect();
        index.verify(self.geometry.manifest(), &mut checks);
        let outcome = |check: &PieceCheck<'_>| match check.good {
            true => Outcome::Good,
            false => Outcome::Wrong(fingerprint(check.bytes)),
        };
        checks.iter().map(outcome).collect()
    }

    /// Writes those good pieces that are `wanted` on the disk, and records them.
    fn store_good(
        &self,
        pieces: &[(PieceId, &[u8])],
        outcomes: &mut [Outcome],
        wanted: impl Fn(PieceId) -> bool,
    ) -> Result<(), CacheError> {
        let mut stored = Vec::with_capacity(pieces.len());
        for ((id, bytes), outcome) in pieces.iter().zip(outcomes) {
            if !matches!(outcome, Outcome::Good) || !wanted(*id) {
                continue;
            }
            match self.write(*id, bytes, true)? {
                Outcome::Written => stored.push((id.shard, id.piece)),
                dirty => *outcome = dirty,
            }
        }
        self.store.record(&stored)
    }

    fn write(&self, piece: PieceId, bytes: &[u8], indexed: bool) -> Result<Outcome, CacheError> {
        let weights = self.geometry.weights_of(piece);
        let padding =
            weights.and_then(|weights| usize::try_from(weights.len()).ok()).and_then(|len| bytes.get(len..));
        let dirty = padding.is_some_and(|padding| padding.iter().any(|byte| *byte != 0));
        if dirty && indexed {
            return Ok(Outcome::DirtyPadding);
        }
        let mut dirty_padding = self.dirty_padding.lock().unwrap_or_else(PoisonError::into_inner);
        match padding {
            // Not proven yet: whether a peer or the publisher is at fault, the check of the whole shard tells.
            Some(padding) if dirty => dirty_padding.insert(piece, padding.to_vec()),
            _ => dirty_padding.remove(&piece),
        };
        drop(dirty_padding);
        // What goes over a proven piece was not checked: the index that proved that one has become suspect.
        if !indexed && self.store.is_recorded(piece.shard, piece.piece) {
            self.store.forget(piece.shard)?;
        }
        self.store.write_piece(piece.shard, piece.piece, bytes)?;
        Ok(Outcome::Written)
    }

    fn rebuild(&self, rebuilder: &mut Rebuilder, job: &RebuildJob) -> Result<Vec<Done>, CacheError> {
        let rebuilt = rebuilder.rebuild(job, &self.store, &self.held)?;
        let pieces = job.pieces.iter().copied().zip(rebuilt.iter().map(Vec::as_slice)).zip(&job.indexed);
        let (indexed, whole): (Vec<_>, Vec<_>) = pieces.partition(|(_, indexed)| **indexed);
        let indexed: Vec<(PieceId, &[u8])> = indexed.into_iter().map(|(piece, _)| piece).collect();
        let mut done = Vec::with_capacity(job.pieces.len());
        for batch in indexed.chunks(MAX_LANES) {
            let mut outcomes = self.verify(batch);
            self.store_good(batch, &mut outcomes, |_| true)?;
            done.extend(batch.iter().zip(outcomes).map(|((id, _), outcome)| outcome.into_done(*id, None)));
        }
        for ((id, bytes), _) in whole {
            done.push(self.write(id, bytes, false)?.into_done(id, None));
        }
        Ok(done)
    }

    /// Hashes pieces of one shard that are here. What cannot be read is wrong: it is fetched again, and written anew.
    fn recheck(&self, pieces: &[PieceId]) -> Result<Vec<Done>, CacheError> {
        let good = match &self.index {
            Some(index) => self.recheck_by_piece(pieces, index),
            None => vec![self.is_shard_right(pieces); pieces.len()],
        };
        let pairs = |wanted: bool| {
            let wanted = pieces.iter().zip(&good).filter(move |(_, good)| **good == wanted);
            wanted.map(|(piece, _)| (piece.shard, piece.piece)).collect::<Vec<_>>()
        };
        let resumed = self.store.confirm(&pairs(true));
        self.store.void(&pairs(false))?;
        let done = pieces.iter().zip(&good).map(|(piece, good)| {
            if !good {
                self.held.drop(*piece);
                tracing::warn!(
                    shard = piece.shard,
                    piece = piece.piece,
                    "bytes on the disk are not what was verified"
                );
            }
            Done::Rechecked {
                piece: *piece,
                good: *good,
                resumed: resumed.contains(&(piece.shard, piece.piece)),
            }
        });
        Ok(done.collect())
    }

    fn recheck_by_piece(&self, pieces: &[PieceId], index: &PieceIndex<Map>) -> Vec<bool> {
        let manifest = self.geometry.manifest();
        let read = |id: &PieceId| -> Option<Vec<u8>> {
            if let Some(held) = self.held.get(*id) {
                return Some(held.bytes.clone());
            }
            let range = manifest.piece_range(id.shard, id.piece);
            let mut bytes = vec![0; usize::try_from(range.len()).ok()?];
            self.store.read(id.shard, range, &mut bytes).ok().map(|()| bytes)
        };
        let bytes: Vec<Option<Vec<u8>>> = pieces.iter().map(read).collect();
        let mut checks: Vec<PieceCheck<'_>> = pieces
            .iter()
            .zip(&bytes)
            .filter_map(|(id, bytes)| Some((id, bytes.as_deref()?)))
            .map(|(id, bytes)| PieceCheck { shard: id.shard, piece: id.piece, bytes, good: false })
            .collect();
        index.verify(manifest, &mut checks);
        let is_good = |id: &PieceId| {
            checks.iter().any(|check| (check.shard, check.piece) == (id.shard, id.piece) && check.good)
        };
        pieces.iter().map(is_good).collect()
    }

    /// Whether a shard all of whose pieces are claimed has its digest.
    fn is_shard_right(&self, claimed: &[PieceId]) -> bool {
        let Some(PieceId { shard, .. }) = claimed.first() else { return false };
        let entry = &self.geometry.manifest().shards()[*shard as usize];
        claimed.len() == self.geometry.manifest().piece_count(*shard) as usize
            && hash_shard(&self.geometry, &self.store, *shard, &HashMap::new())
                .is_ok_and(|(digest, _)| digest == entry.digest)
    }

    /// Hashes a whole shard from the disk.
    fn check_shard(&self, shard: u32) -> Result<Done, CacheError> {
        let manifest = self.geometry.manifest();
        let mut dirty = HashMap::new();
        self.dirty_padding.lock().unwrap_or_else(PoisonError::into_inner).retain(|piece, padding| {
            if piece.shard == shard {
                dirty.insert(piece.piece, std::mem::take(padding));
            }
            piece.shard != shard
        });
        let (digest, values) = hash_shard(&self.geometry, &self.store, shard, &dirty)?;
        let good = digest == manifest.shards()[shard as usize].digest;
        let index_agrees = self.index.as_ref().is_none_or(|index| index.agrees(manifest, shard, &values));
        if good && !dirty.is_empty() {
            return Ok(Done::DirtyPadding { shard });
        }
        if good {
            let pieces = (0..manifest.piece_count(shard)).map(|piece| (shard, piece));
            self.store.record(&pieces.collect::<Vec<_>>())?;
        }
        Ok(Done::ShardChecked { shard, good, index_agrees })
    }
}

/// What the bytes of a piece turned out to be.
#[derive(Clone, Copy)]
enum Outcome {
    Good,
    Written,
    Wrong(u64),
    DirtyPadding,
}

impl Outcome {
    fn into_done(self, piece: PieceId, source: Option<SourceKey>) -> Done {
        let outcome = match self {
            Self::Good => Checked::Good,
            Self::Written => Checked::Stored,
            Self::Wrong(fingerprint) => Checked::Bad { fingerprint },
            Self::DirtyPadding => return Done::DirtyPadding { shard: piece.shard },
        };
        Done::Checked { piece, source, outcome }
    }
}

/// Tells wrong bytes apart: computed only for the few pieces that are wrong.
fn fingerprint(bytes: &[u8]) -> u64 {
    let digest = Digest::of(bytes);
    digest.as_bytes().iter().take(8).fold(0, |print, byte| print << 8 | u64::from(*byte))
}

/// The digest of a shard as it stands on the disk, with `padding` at the end of some of its pieces; and what a right index
/// holds for it.
pub(super) fn hash_shard(
    geometry: &Geometry,
    store: &Partial,
    shard: u32,
    padding: &HashMap<u32, Vec<u8>>,
) -> Result<(Digest, Vec<[u8; 32]>), CacheError> {
    let manifest = geometry.manifest();
    let mut hashers =
        [ShardHasher::new(manifest.shards()[shard as usize].size_bytes, manifest.piece_size_bytes())];
    let mut buf = Vec::new();
    for piece in 0..manifest.piece_count(shard) {
        let range: ByteRange = manifest.piece_range(shard, piece);
        #[expect(clippy::cast_possible_truncation, reason = "a piece has at most 4 MiB")]
        buf.resize(range.len() as usize, 0);
        store.read(shard, range, &mut buf)?;
        if let Some(padding) = padding.get(&piece) {
            let start = buf.len() - padding.len();
            buf[start..].copy_from_slice(padding);
        }
        ShardHasher::update_all(&mut hashers, &[&buf]);
    }
    let [hasher] = hashers;
    Ok(hasher.finish())
}
