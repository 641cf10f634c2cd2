//! Reading bytes of a finished model on several threads; hashed on their way where neither the disk, nor whoever wrote to it
//! since, is trusted.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use manifest::piece_index::PieceIndex;
use manifest::{ByteRange, Digest, Geometry, PieceId};

use super::{CacheError, Map, Model, ModelFiles};

/// Pieces that a thread reads before it hashes them, at once: as many as one call can (`sha256_lanes`).
const BATCH: usize = 16;
/// What a thread reads at once where nothing is hashed.
const PART_BYTES: usize = 4 << 20;

/// Reads bytes of a model, and hashes every piece that they are of. What it hands out is what was hashed, not what is in the
/// page cache a moment later.
#[derive(Clone)]
pub struct VerifiedReader {
    files: Arc<ModelFiles>,
    digest: Digest,
    index: Arc<PieceIndex<Map>>,
    geometry: Geometry,
}

/// A piece, and which of its bytes are wanted where.
struct Job<'a> {
    piece: PieceId,
    /// Where the piece begins in the weights.
    start: u64,
    /// Which of its bytes are wanted.
    wanted: ByteRange,
    out: &'a mut [u8],
}

impl Model {
    /// A reader of verified bytes; `None` without a piece index, or while files are missing.
    ///
    /// # Errors
    /// [`CacheError::Index`] when the index is not what the manifest names.
    pub fn verified_reader(&self) -> Result<Option<VerifiedReader>, CacheError> {
        let Some(index) = self.index()?.filter(|_| self.is_complete()) else { return Ok(None) };
        let geometry = Geometry::new(Arc::clone(self.manifest()));
        Ok(Some(VerifiedReader::new(Arc::clone(self.model_files()), *self.digest(), geometry, index)))
    }

    /// Reads the bytes of a file from `start` on into `out`, on up to `threads` threads, as they are on the disk.
    ///
    /// # Errors
    /// [`CacheError::Io`]: the file cannot be read, or has no such bytes.
    pub fn read(&self, path: &str, start: u64, out: &mut [u8], threads: usize) -> Result<(), CacheError> {
        let range = self.model_files().range_of(path, start, out.len() as u64)?;
        let parts: Vec<_> = (range.start..).step_by(PART_BYTES).zip(out.chunks_mut(PART_BYTES)).collect();
        on_threads(parts, threads, |(start, part)| self.read_weights(start, part))
    }
}

impl ModelFiles {
    fn range_of(&self, path: &str, start: u64, bytes: u64) -> Result<ByteRange, CacheError> {
        let list = self.list();
        let file = list.find(path).map(|file| list.get(file).range);
        let end = start.saturating_add(bytes);
        match file {
            Some(file) if end <= file.len() => Ok(ByteRange::new(file.start + start, file.start + end)),
            _ => {
                let source = std::io::Error::new(
                    std::io::ErrorKind::InvalidInput,
                    format!("there are no bytes {start} to {end} of {path}"),
                );
                let at = self
                    .list()
                    .find(path)
                    .map_or_else(|| self.dir().join(self.list().root()), |file| self.path(file));
                Err(CacheError::io("read", &at, source))
            }
        }
    }
}

/// Does the jobs in order, on up to so many threads, this one among them. The first error ends it soon.
fn on_threads<T: Send>(
    jobs: Vec<T>,
    threads: usize,
    work: impl Fn(T) -> Result<(), CacheError> + Sync,
) -> Result<(), CacheError> {
    let helpers = threads.min(jobs.len()).saturating_sub(1);
    let jobs = Mutex::new(jobs.into_iter());
    let next = || jobs.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work_on = || {
        while let Some(job) = next() {
            if let Err(error) = work(job) {
                // Nobody needs the others.
                while next().is_some() {}
                return Err(error);
            }
        }
        Ok(())
    };
    thread::scope(|scope| {
        // This thread does all of it where there can be no more.
        let spawn = || thread::Builder::new().name("read".into()).spawn_scoped(scope, work_on).ok();
        let helpers: Vec<_> = (0..helpers).map_while(|_| spawn()).collect();
        let mut result = work_on();
        for helper in helpers {
            let ended = helper.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            result = result.and(ended);
        }
        result
    })
}

impl VerifiedReader {
    pub(super) fn new(
        files: Arc<ModelFiles>,
        digest: Digest,
        geometry: Geometry,
        index: PieceIndex<Map>,
    ) -> Self {
        Self { files, digest, index: Arc::new(index), geometry }
    }

    /// Reads the bytes of a file from `start` on into `out`, on up to `threads` threads. Pieces at its borders are read and
    /// hashed whole.
    ///
    /// # Errors
    /// - [`CacheError::Corrupt`]: a piece has not its digest. What is in `out` is of no use.
    /// - [`CacheError::Io`]: the file cannot be read, or has no such bytes.
    pub fn read(&self, path: &str, start: u64, out: &mut [u8], threads: usize) -> Result<(), CacheError> {
        let range = self.files.range_of(path, start, out.len() as u64)?;
        self.read_weights(range.start, out, threads)
    }

    /// The same of the weights, from `start` on.
    ///
    /// # Errors
    /// Those of [`Self::read`].
    pub fn read_weights(&self, start: u64, out: &mut [u8], threads: usize) -> Result<(), CacheError> {
        let range = ByteRange::new(start, start.saturating_add(out.len() as u64));
        let jobs = self.jobs(range, out);
        let batch = jobs.len().div_ceil(threads.max(1)).clamp(1, BATCH);
        let mut batches: Vec<Vec<Job<'_>>> = Vec::new();
        for job in jobs {
            match batches.last_mut() {
                Some(last) if last.len() < batch => last.push(job),
                _ => batches.push(vec![job]),
            }
        }
        on_threads(batches, threads, |batch| self.read_batch(batch))
    }

    fn jobs<'a>(&self, range: ByteRange, mut out: &'a mut [u8]) -> Vec<Job<'a>> {
        let (mut jobs, mut at) = (Vec::new(), range.start);
        for slice in self.geometry.pieces_of(range) {
            let bytes = usize::try_from(slice.range.len()).unwrap_or(out.len()).min(out.len());
            let (mine, rest) = std::mem::take(&mut out).split_at_mut(bytes);
            out = rest;
            let PieceId { shard, piece } = slice.piece;
            let whole = self.geometry.manifest().piece_range(shard, piece);
            let before = slice.range.start - whole.start;
            let wanted = ByteRange::new(before, before + slice.range.len());
            jobs.push(Job { piece: slice.piece, start: at - before, wanted, out: mine });
            at += slice.range.len();
        }
        jobs
    }

    fn read_batch(&self, mut jobs: Vec<Job<'_>>) -> Result<(), CacheError> {
        // Pieces that are wanted whole are read to where they are wanted.
        let mut apart: Vec<Vec<u8>> = Vec::new();
        for job in &mut jobs {
            let bytes = self.geometry.piece_bytes(job.piece);
            if job.wanted.len() == bytes {
                self.files.read_at(job.start, job.out)?;
                apart.push(Vec::new());
                continue;
            }
            let mut piece = vec![0; usize::try_from(bytes).unwrap_or(0)];
            // What is past the end of the weights is zeros.
            let stored = self.geometry.manifest().total_size_bytes().saturating_sub(job.start).min(bytes);
            self.files.read_at(job.start, &mut piece[..usize::try_from(stored).unwrap_or(0)])?;
            apart.push(piece);
        }
        let pieces: Vec<_> = jobs
            .iter()
            .zip(&apart)
            .map(|(job, apart)| (job.piece, if apart.is_empty() { &*job.out } else { apart.as_slice() }))
            .collect();
        let verified = self.index.verify(&pieces);
        if let Some((job, _)) = jobs.iter().zip(&verified).find(|(_, verified)| verified.is_none()) {
            return Err(self.corrupt(job));
        }
        drop(verified);
        for (job, piece) in jobs.iter_mut().zip(&apart).filter(|(_, piece)| !piece.is_empty()) {
            let start = usize::try_from(job.wanted.start).unwrap_or(0);
            job.out.copy_from_slice(&piece[start..start + job.out.len()]);
        }
        Ok(())
    }

    fn corrupt(&self, job: &Job<'_>) -> CacheError {
        let PieceId { shard, piece } = job.piece;
        let at = job.start + job.wanted.start;
        let file = self.files.list().iter().find(|file| file.range.start <= at && at < file.range.end);
        let file = file.map_or_else(String::new, |file| format!(" of {}", file.path.display()));
        CacheError::Corrupt {
            digest: self.digest,
            path: self.files.dir().to_owned(),
            damage: format!("piece {piece} of shard {shard}{file} has not its digest"),
        }
    }
}

impl fmt::Debug for VerifiedReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifiedReader").field("model", &self.digest).finish_non_exhaustive()
    }
}
