//! Hashing a finished model again.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use manifest::piece_index::{PieceIndex, ShardHasher};
use manifest::{ByteRange, Digest, Manifest, PieceId};
use sha256_lanes::WIDE_LANES;

use crate::mmap::Map;
use crate::{BlobReader, CacheError, Model};

/// How much of each shard is hashed at a time when there is no piece index.
const CHUNK_BYTES: u64 = 256 << 10;
/// How many pieces are hashed at once by a thread.
#[expect(clippy::cast_possible_truncation, reason = "it is small")]
const LANES: u32 = WIDE_LANES as u32;

/// The result of a recheck.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecheckReport {
    /// How many bytes of shards were hashed.
    pub checked_bytes: u64,
    /// How many shards: all data shards that have bytes in the weights, and the parity shards that are kept.
    pub checked_shards: usize,
    /// The shards that do not have their digest, in index order.
    pub bad: Vec<BadShard>,
    /// What the piece index is.
    pub index: IndexState,
}

/// A shard that does not have its digest.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BadShard {
    /// Its index.
    pub shard: u32,
    /// Whether it is a parity shard: the weights do not need it.
    pub is_parity: bool,
    /// What it should be.
    pub expected: Digest,
    /// Which of its pieces are wrong, as far as a piece index tells.
    pub pieces: Vec<u32>,
}

/// The state of the piece index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IndexState {
    /// The manifest has none, or it is not kept.
    Absent,
    /// It is what the manifest names.
    Good,
    /// The file is not what the manifest names.
    Corrupt,
    /// It has its digest, but calls pieces of right shards wrong: the publisher is at fault.
    Wrong,
}

impl IndexState {
    /// Whether nothing is wrong with it.
    pub fn is_good(self) -> bool {
        matches!(self, Self::Absent | Self::Good)
    }
}

impl RecheckReport {
    /// Whether everything that was checked is right.
    pub fn is_good(&self) -> bool {
        self.bad.is_empty() && self.index.is_good()
    }

    /// Whether all weights are right, whatever is wrong with parity and index.
    pub fn weights_are_good(&self) -> bool {
        self.bad.iter().all(|bad| bad.is_parity)
    }
}

impl fmt::Display for RecheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        if self.is_good() {
            return write!(f, "{} shards are right", self.checked_shards);
        }
        let mut separator = "";
        for bad in self.bad.iter().take(SHOWN) {
            write!(f, "{separator}shard {}", bad.shard)?;
            if let [first, others @ ..] = bad.pieces.as_slice() {
                write!(f, " (piece {first}")?;
                match others.len() {
                    0 => f.write_str(")")?,
                    more => write!(f, " and {more} more)")?,
                }
            }
            f.write_str(" has not its digest")?;
            separator = ", ";
        }
        if self.bad.len() > SHOWN {
            write!(f, " and {} more", self.bad.len() - SHOWN)?;
        }
        match self.index {
            IndexState::Absent | IndexState::Good => Ok(()),
            IndexState::Corrupt => write!(f, "{separator}the piece index has not its digest"),
            IndexState::Wrong => write!(f, "{separator}the piece index calls right pieces wrong"),
        }
    }
}

/// Hashes all of a model that is kept, on up to `threads` threads, several chains at once on each. `progress` is told
/// how many bytes of how many are done, from those threads.
///
/// # Errors
/// [`CacheError::Io`] when a file cannot be read. What is wrong with its content is in the report.
pub fn recheck(
    model: &Model,
    threads: usize,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<RecheckReport, CacheError> {
    recheck_until(model, threads, progress, &AtomicBool::new(false))
}

/// Like [`recheck`], until `stop` is set: then it ends soon, with an error of the kind `Interrupted`.
pub(crate) fn recheck_until(
    model: &Model,
    threads: usize,
    progress: &(dyn Fn(u64, u64) + Sync),
    stop: &AtomicBool,
) -> Result<RecheckReport, CacheError> {
    let fail = |source| CacheError::io("read", model.dir(), source);
    let (index, mut state) = match model.index() {
        Ok(Some(index)) => (Some(index), IndexState::Good),
        Ok(None) => (None, IndexState::Absent),
        Err(CacheError::Index { .. }) => (None, IndexState::Corrupt),
        Err(error) => return Err(error),
    };
    let manifest = &**model.manifest();
    let (shards, mut bad) = kept(model).map_err(fail)?;
    let checked_bytes = shards.iter().map(|(_, held)| held.size_bytes()).sum();
    let work =
        Work { manifest, threads, done_bytes: AtomicU64::new(0), total_bytes: checked_bytes, progress, stop };
    let checked_shards = shards.len() + bad.len();
    match &index {
        Some(index) => {
            let wrong = work.wrong_pieces(&shards, index).map_err(fail)?;
            let mut suspects = shards;
            suspects.retain(|(shard, _)| wrong.iter().any(|(found, _)| found == shard));
            // An index can be wrong about right bytes: only the digest of the whole shard tells.
            let again = Work { progress: &|_, _| (), done_bytes: AtomicU64::new(0), ..work };
            let found = again.wrong_shards(&suspects).map_err(fail)?;
            if found.len() < suspects.len() {
                state = IndexState::Wrong;
            }
            for shard in found {
                let pieces = wrong.iter().filter(|(of, _)| *of == shard).map(|(_, piece)| *piece);
                bad.push(BadShard { pieces: pieces.collect(), ..BadShard::whole(manifest, shard) });
            }
        }
        None => {
            let found = work.wrong_shards(&shards).map_err(fail)?;
            bad.extend(found.into_iter().map(|shard| BadShard::whole(manifest, shard)));
        }
    }
    bad.sort_by_key(|bad| bad.shard);
    Ok(RecheckReport { checked_bytes, checked_shards, bad, index: state })
}

impl BadShard {
    fn whole(manifest: &Manifest, shard: u32) -> Self {
        let expected = manifest.shards()[shard as usize].digest;
        Self { shard, is_parity: shard >= manifest.data_shard_count(), expected, pieces: Vec::new() }
    }
}

/// Some bytes of a shard: where they are mapped, which spares a copy, or else read into `buffer`, as padding is. A disk
/// that fails is found before its bytes are touched, so that it is an error and not SIGBUS.
pub fn bytes<'a>(held: &'a BlobReader, range: ByteRange, buffer: &'a mut Vec<u8>) -> io::Result<&'a [u8]> {
    if let Some(bytes) = held.resident(range) {
        return Ok(bytes);
    }
    buffer.resize(usize::try_from(range.len()).unwrap_or(usize::MAX), 0);
    held.read_at(range.start, buffer)?;
    Ok(buffer)
}

/// Does the same work on so many threads, this one included, until all have ended: on fewer where the system gives no more.
/// The first error is the result.
pub fn on_threads<E: Send>(threads: usize, work: impl Fn() -> Result<(), E> + Sync) -> Result<(), E> {
    thread::scope(|scope| {
        let start = |_| thread::Builder::new().spawn_scoped(scope, &work).ok();
        let others: Vec<_> = (1..threads).map_while(start).collect();
        let mut result = work();
        for other in others {
            result = result.and(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        result
    })
}

/// Shards, by index, whose bytes are there.
type Kept = Vec<(u32, BlobReader)>;

/// The shards to be hashed, and those that need not be, because their files have the wrong size or no business here.
fn kept(model: &Model) -> io::Result<(Kept, Vec<BadShard>)> {
    let manifest = model.manifest();
    let (mut shards, mut bad) = (Vec::new(), Vec::new());
    for shard in (0..manifest.data_shard_count()).chain(model.parity_kept().iter().copied()) {
        // A row that is padding only has no bytes that could be wrong.
        if manifest.weights_range(shard).is_some_and(|stored| stored.is_empty()) {
            continue;
        }
        if let Some(held) = model.shard(shard)? {
            if held.size_bytes() == manifest.shards()[shard as usize].size_bytes {
                shards.push((shard, held));
            } else {
                bad.push(BadShard::whole(manifest, shard));
            }
        }
    }
    Ok((shards, bad))
}

struct Work<'a> {
    manifest: &'a Manifest,
    threads: usize,
    done_bytes: AtomicU64,
    total_bytes: u64,
    progress: &'a (dyn Fn(u64, u64) + Sync),
    stop: &'a AtomicBool,
}

impl Work<'_> {
    /// The pieces that are not what the index says, in order.
    fn wrong_pieces(
        &self,
        shards: &[(u32, BlobReader)],
        index: &PieceIndex<Map>,
    ) -> io::Result<Vec<(u32, u32)>> {
        let mut firsts = vec![0];
        for (shard, _) in shards {
            firsts.push(firsts[firsts.len() - 1] + self.manifest.piece_count(*shard));
        }
        let total = firsts[shards.len()];
        let (next, wrong) = (AtomicU32::new(0), Mutex::new(Vec::new()));
        on_threads(self.threads, || -> io::Result<()> {
            let mut buffers = vec![Vec::new(); LANES as usize];
            loop {
                let first = next.fetch_add(LANES, Ordering::Relaxed).min(total);
                if first == total {
                    return Ok(());
                }
                self.may_go_on()?;
                let mut pieces = Vec::with_capacity(LANES as usize);
                for (flat, buffer) in (first..total).zip(&mut buffers) {
                    let position = firsts.partition_point(|start| *start <= flat) - 1;
                    let (shard, held) = &shards[position];
                    let piece = flat - firsts[position];
                    let range = self.manifest.piece_range(*shard, piece);
                    let bytes = bytes(held, range, buffer)?;
                    pieces.push((PieceId { shard: *shard, piece }, bytes));
                }
                let verified = index.verify(&pieces);
                let bad = pieces.iter().zip(verified).filter(|(_, verified)| verified.is_none());
                let bad = bad.map(|((id, _), _)| (id.shard, id.piece));
                wrong.lock().unwrap_or_else(PoisonError::into_inner).extend(bad);
                self.done(pieces.iter().map(|(_, bytes)| bytes.len()).sum());
            }
        })?;
        let mut wrong = wrong.into_inner().unwrap_or_else(PoisonError::into_inner);
        wrong.sort_unstable();
        Ok(wrong)
    }

    /// The shards that do not have their digest, in no order.
    fn wrong_shards(&self, shards: &[(u32, BlobReader)]) -> io::Result<Vec<u32>> {
        let (next, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        on_threads(self.threads, || -> io::Result<()> {
            let mut lanes: Vec<(usize, u64)> = Vec::new();
            let mut hashers = Vec::new();
            let mut buffers = vec![Vec::new(); WIDE_LANES];
            loop {
                while lanes.len() < WIDE_LANES {
                    let position = next.fetch_add(1, Ordering::Relaxed);
                    let Some((_, held)) = shards.get(position) else { break };
                    lanes.push((position, 0));
                    hashers.push(ShardHasher::new(held.size_bytes(), self.manifest.piece_size_bytes()));
                }
                if lanes.is_empty() {
                    return Ok(());
                }
                self.may_go_on()?;
                let mut slices = Vec::with_capacity(lanes.len());
                for ((position, offset), buffer) in lanes.iter_mut().zip(&mut buffers) {
                    let held = &shards[*position].1;
                    let end = held.size_bytes().min(*offset + CHUNK_BYTES);
                    slices.push(bytes(held, ByteRange::new(*offset, end), buffer)?);
                    *offset = end;
                }
                ShardHasher::update_all(&mut hashers, &slices);
                self.done(slices.iter().map(|slice| slice.len()).sum());
                for lane in (0..lanes.len()).rev() {
                    let (position, offset) = lanes[lane];
                    let (shard, held) = &shards[position];
                    if offset == held.size_bytes() {
                        lanes.swap_remove(lane);
                        let (found, _) = hashers.swap_remove(lane).finish();
                        if found != self.manifest.shards()[*shard as usize].digest {
                            wrong.lock().unwrap_or_else(PoisonError::into_inner).push(*shard);
                        }
                    }
                }
            }
        })?;
        Ok(wrong.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    fn may_go_on(&self) -> io::Result<()> {
        if self.stop.load(Ordering::Relaxed) { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
    }

    fn done(&self, bytes: usize) {
        let done_bytes = self.done_bytes.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        (self.progress)(done_bytes, self.total_bytes);
    }
}
