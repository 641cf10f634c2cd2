//! A model that is being filled.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use manifest::piece_index::PieceIndex;
use manifest::{ByteRange, Geometry, Manifest, PieceId};

use super::journal::{Journal, Record};
use super::layout::{JOURNAL, PARITY, PIECES, WEIGHTS, is_data, parity_path};
use super::progress::{self, Claim, Progress};
use super::{
    Cache, CacheError, FillLock, Held, Model, Offer, Writeback, atomic, journal, model, space, stamp,
};
use crate::mmap::Map;

/// Files and directories of a partial model, but for parity that memory has no room for; rather more than fewer.
const NEW_FILES: u64 = 8;

/// A model that is being filled: its weights file, its parity files, and the journal of what is verified in them.
///
/// Data shards are written straight to their place in the weights. Shards with the same digest are written together
/// and count as one. All methods may be called from several threads; writing the same piece twice at once is harmless,
/// because both writers verified what they write.
#[derive(Debug)]
pub struct Partial {
    cache: Cache,
    geometry: Geometry,
    dir: PathBuf,
    weights: File,
    parity: Mutex<HashMap<u32, Arc<File>>>,
    journal: Mutex<(Journal, Progress)>,
    offer: Arc<Offer>,
    index: OnceLock<Arc<PieceIndex<Map>>>,
    /// Brings the weights to the disk while they arrive; `None` when nobody waits for that.
    writeback: Option<Writeback>,
    /// Last, so that it is given back after everything else is closed.
    lock: Arc<FillLock>,
}

impl Cache {
    /// Creates the partial model that `lock` is for, or goes on with what an earlier run has left of it. Disk space
    /// for the weights is reserved where the file system can. Whoever wants the finished model to be `durable` waits
    /// for the disk in [`Partial::finish`].
    ///
    /// # Errors
    /// [`CacheError::DiskFull`], [`CacheError::Io`].
    pub fn partial(
        &self,
        lock: FillLock,
        manifest: Arc<Manifest>,
        durable: bool,
    ) -> Result<Partial, CacheError> {
        Partial::open(self.clone(), lock, manifest, durable)
    }
}

impl Partial {
    pub(super) fn open(
        cache: Cache,
        lock: FillLock,
        manifest: Arc<Manifest>,
        durable: bool,
    ) -> Result<Self, CacheError> {
        let dir = cache.layout().partial(lock.digest());
        let geometry = Geometry::new(manifest);
        let (weights, weights_were_there) = make_room(&dir, &geometry)?;
        let mut progress = Progress::new(&geometry);
        let claim = |record| progress.apply(&geometry, record, Claim::Claimed);
        let reserved_pieces = if is_proven(&geometry) { geometry.piece_total() } else { 0 };
        let journal = Journal::open(&dir.join(JOURNAL), lock.digest(), reserved_pieces, claim);
        let mut journal = journal.inspect_err(|_| give_back(&weights))?;
        let mut notes = Vec::new();
        for shard in progress::first_shards(&geometry) {
            let there = if is_data(&geometry, shard) {
                weights_were_there
            } else {
                parity_path(&dir, shard).exists()
            };
            if !there && progress.any(&geometry, shard) {
                notes.push(Record::Forget(shard));
            }
        }
        journal.append(notes.iter().copied())?;
        notes.into_iter().for_each(|record| progress.apply(&geometry, record, Claim::Claimed));
        let offer = Offer::new(&cache, *lock.digest(), geometry.clone(), dir.clone(), &weights)?;
        let (offer, journal) = (Arc::new(offer), Mutex::new((journal, progress)));
        let path = dir.join(WEIGHTS);
        let lock = Arc::new(lock);
        let start = || {
            let right = Arc::<FillLock>::clone(&lock);
            Writeback::start([(&weights, path.as_path())], Some(dir.join(JOURNAL)), right)
        };
        let writeback = durable.then(start).transpose()?;
        let (parity, index) = (Mutex::default(), OnceLock::new());
        Ok(Self { cache, geometry, dir, weights, parity, journal, offer, index, writeback, lock })
    }

    /// What it is a part of.
    pub fn manifest(&self) -> &Arc<Manifest> {
        self.geometry.manifest()
    }

    /// The geometry of that.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// What of it can be served: the pieces that this process has verified, those to come too.
    pub fn offer(&self) -> &Arc<Offer> {
        &self.offer
    }

    /// The pieces that an earlier process has recorded and this one has not hashed yet, as (shard, piece); of shards with
    /// the same digest, the first stands for all. Each is to be hashed, and then [`confirmed`](Self::confirm) or
    /// [`voided`](Self::void).
    pub fn claims(&self) -> Vec<(u32, u32)> {
        let (_, progress) = &*self.journal();
        let is_claim =
            |(shard, piece): &(u32, u32)| progress.claim(&self.geometry, *shard, *piece) == Claim::Claimed;
        progress.pieces(&self.geometry, Claim::Claimed).filter(is_claim).collect()
    }

    /// Counts pieces that were hashed and are right: what is claimed of them is true. Returns those that were claims.
    pub fn confirm(&self, pieces: &[(u32, u32)]) -> Vec<(u32, u32)> {
        let (_, progress) = &mut *self.journal();
        let is_claim = |(shard, piece): &(u32, u32)| {
            progress::exists(&self.geometry, *shard, *piece)
                && progress.claim(&self.geometry, *shard, *piece) == Claim::Claimed
        };
        let claims: Vec<_> = pieces.iter().copied().filter(is_claim).collect();
        for (shard, piece) in &claims {
            progress.apply(&self.geometry, Record::Piece(*shard, *piece), Claim::Verified);
        }
        self.offer.add(claims.iter().copied());
        claims
    }

    /// Voids what was recorded of pieces that were hashed and are wrong.
    ///
    /// # Errors
    /// [`CacheError::DiskFull`], [`CacheError::Io`].
    pub fn void(&self, pieces: &[(u32, u32)]) -> Result<(), CacheError> {
        let (journal, progress) = &mut *self.journal();
        let is_recorded = |(shard, piece): &&(u32, u32)| {
            progress::exists(&self.geometry, *shard, *piece)
                && progress.claim(&self.geometry, *shard, *piece) > Claim::Missing
        };
        let recorded: Vec<_> = pieces.iter().filter(is_recorded).copied().collect();
        recorded.iter().for_each(|(shard, piece)| self.offer.withdraw_piece(*shard, *piece));
        let records = recorded.iter().map(|(shard, piece)| Record::Void(*shard, *piece));
        journal.append(records.clone())?;
        records.for_each(|record| progress.apply(&self.geometry, record, Claim::Missing));
        Ok(())
    }

    /// Keeps the piece index blob, after checking that it is the one the manifest names.
    ///
    /// # Errors
    /// [`CacheError::Index`] when it is not.
    pub fn store_index(&self, blob: &[u8]) -> Result<(), CacheError> {
        let digest = *self.lock.digest();
        PieceIndex::parse(blob, self.manifest()).map_err(|source| CacheError::Index { digest, source })?;
        atomic::write(&self.dir.join(PIECES), blob, 0o444)
    }

    /// The piece index, mapped; `None` when it is not there yet, or the manifest has none. A bad file is removed.
    ///
    /// # Errors
    /// When the file cannot be read or mapped.
    pub fn index(&self) -> Result<Option<Arc<PieceIndex<Map>>>, CacheError> {
        if let Some(index) = self.index.get() {
            return Ok(Some(Arc::clone(index)));
        }
        let path = self.dir.join(PIECES);
        match model::open_index(&path, self.lock.digest(), self.manifest()) {
            Ok(Some(index)) => Ok(Some(Arc::clone(self.index.get_or_init(|| Arc::new(index))))),
            Ok(None) => Ok(None),
            Err(CacheError::Index { source, .. }) => {
                tracing::warn!(path = %path.display(), error = %source, "removing a bad piece index");
                fs::remove_file(&path).map_err(|source| CacheError::io("remove", &path, source))?;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Writes a verified piece in place, and to every data shard with the same digest. Padding is not stored.
    ///
    /// # Errors
    /// [`CacheError::OutOfBounds`] when there is no such piece, [`CacheError::WrongLength`] when `bytes` is not as
    /// long as it, [`CacheError::DiskFull`], [`CacheError::Io`].
    pub fn write_piece(&self, shard: u32, piece: u32, bytes: &[u8]) -> Result<(), CacheError> {
        let range = self.piece_range(shard, piece)?;
        check_length(shard, range, bytes)?;
        let first = self.geometry.canonical(shard);
        if !is_data(&self.geometry, first) {
            let file = self.parity_file(first, true)?;
            let written = file.write_all_at(bytes, range.start);
            return written.map_err(|source| CacheError::io("write", &parity_path(&self.dir, first), source));
        }
        for twin in self.geometry.same(first).filter(|shard| is_data(&self.geometry, *shard)) {
            let (stored, at) = self.stored(twin, range);
            let written = self.weights.write_all_at(&bytes[..stored], at);
            written.map_err(|source| CacheError::io("write", &self.dir.join(WEIGHTS), source))?;
            if let Some(writeback) = &self.writeback {
                writeback.wrote(stored);
            }
        }
        Ok(())
    }

    /// Copies a verified piece of a data shard in place, and to every data shard with the same digest: by sharing
    /// blocks where the file system can. `bytes` are the piece's; they are at `offset` of `from`, too.
    ///
    /// # Errors
    /// Those of [`Self::write_piece`].
    pub fn copy_piece(
        &self,
        piece: PieceId,
        bytes: &[u8],
        from: &Held,
        offset: u64,
    ) -> Result<(), CacheError> {
        let PieceId { shard, piece } = piece;
        let range = self.piece_range(shard, piece)?;
        check_length(shard, range, bytes)?;
        let first = self.geometry.canonical(shard);
        let (stored, at) = self.stored(first, range);
        let source = from.in_file(ByteRange::new(offset, offset + stored as u64));
        match source {
            // Twins would have to be copied one by one; they are rare.
            Some((file, start)) if self.geometry.same(first).nth(1).is_none() => {
                if !copy_range(file, start, &self.weights, at, stored) {
                    return self.write_piece(shard, piece, bytes);
                }
                if let Some(writeback) = &self.writeback {
                    writeback.wrote(stored);
                }
                Ok(())
            }
            _ => self.write_piece(shard, piece, bytes),
        }
    }

    /// Fills `buffer` with `range` of a shard, as far as it was written: what was not is arbitrary. Padding reads as
    /// zeros.
    ///
    /// # Errors
    /// [`CacheError::OutOfBounds`], [`CacheError::WrongLength`] when `buffer` is not as long as the range,
    /// [`CacheError::Io`].
    pub fn read(&self, shard: u32, range: ByteRange, buffer: &mut [u8]) -> Result<(), CacheError> {
        let size_bytes = self.manifest().shards().get(shard as usize).map_or(0, |shard| shard.size_bytes);
        if range.end > size_bytes {
            return Err(CacheError::OutOfBounds { shard, range, size_bytes });
        }
        check_length(shard, range, buffer)?;
        let first = self.geometry.canonical(shard);
        if !is_data(&self.geometry, first) {
            let file = self.parity_file(first, false)?;
            let read = file.read_exact_at(buffer, range.start);
            return read.map_err(|source| CacheError::io("read", &parity_path(&self.dir, first), source));
        }
        let (stored, at) = self.stored(first, range);
        let (stored, padding) = buffer.split_at_mut(stored);
        padding.fill(0);
        let read = self.weights.read_exact_at(stored, at);
        read.map_err(|source| CacheError::io("read", &self.dir.join(WEIGHTS), source))
    }

    /// Records pieces as verified, after they were written: from here on they survive a `kill -9`.
    ///
    /// # Errors
    /// [`CacheError::OutOfBounds`] when there is no such piece, [`CacheError::DiskFull`], [`CacheError::Io`].
    pub fn record(&self, pieces: &[(u32, u32)]) -> Result<(), CacheError> {
        for (shard, piece) in pieces {
            self.piece_range(*shard, *piece)?;
        }
        let (journal, progress) = &mut *self.journal();
        let fresh =
            |(shard, piece): &&(u32, u32)| progress.claim(&self.geometry, *shard, *piece) < Claim::Verified;
        let fresh: Vec<_> = pieces.iter().filter(fresh).copied().collect();
        let records = fresh.iter().map(|(shard, piece)| Record::Piece(*shard, *piece));
        journal.append(records.clone())?;
        records.for_each(|record| progress.apply(&self.geometry, record, Claim::Verified));
        self.offer.add(fresh);
        Ok(())
    }

    /// Voids what was recorded about a shard, and about those with the same digest: it was found bad as a whole.
    ///
    /// # Errors
    /// [`CacheError::DiskFull`], [`CacheError::Io`].
    pub fn forget(&self, shard: u32) -> Result<(), CacheError> {
        let (journal, progress) = &mut *self.journal();
        self.offer.withdraw(shard);
        journal.append([Record::Forget(shard)])?;
        progress.apply(&self.geometry, Record::Forget(shard), Claim::Missing);
        Ok(())
    }

    /// Gives back the space that is reserved and was not written, now that the disk has turned out to be full; and tells
    /// how much is missing.
    pub fn give_back(&self, full: CacheError) -> CacheError {
        let parity = self.parity.lock().unwrap_or_else(PoisonError::into_inner);
        parity.values().map(|file| &**file).chain([&self.weights]).for_each(give_back);
        self.journal().0.give_back();
        let path = self.dir.join(WEIGHTS);
        let missing_bytes = self.manifest().total_size_bytes().saturating_sub(space::held_bytes(&path));
        // It may be a quota that is used up.
        space::require(&path, missing_bytes).err().unwrap_or(full)
    }

    /// Whether a piece was recorded, by this process or an earlier one.
    pub fn is_recorded(&self, shard: u32, piece: u32) -> bool {
        self.journal().1.claim(&self.geometry, shard, piece) > Claim::Missing
    }

    /// Gives it up, and waits until nothing of this process holds on to its files: what is removed then is gone. Dropping it
    /// does not wait. What was recorded stays for the next one.
    pub fn close(mut self) {
        // What became of the files, its thread has said where it matters.
        let _ = self.writeback.take().map(Writeback::finish);
    }

    /// Makes a finished model of it: read-only, stamped, and under its final name, all or nothing. Parity shards that
    /// are not wanted, or not complete, are dropped.
    ///
    /// If it was begun as durable, waits until all of it is on the disk. Otherwise it is trusted by this process, and
    /// hashed before another one uses it.
    ///
    /// When another process was first, what that one left is checked, and is the result.
    ///
    /// # Errors
    /// [`CacheError::Incomplete`] unless every piece of every data shard was recorded or confirmed by this process, but for
    /// rows that are padding only; [`CacheError::DiskFull`], [`CacheError::Io`]; [`CacheError::Corrupt`] when what another
    /// process left is bad.
    pub fn finish(mut self, keep_parity: bool) -> Result<Model, CacheError> {
        self.check_complete()?;
        for shard in self.parity_stored()? {
            let complete = self.journal().1.first_below(&self.geometry, shard, Claim::Verified).is_none();
            if keep_parity && complete {
                continue;
            }
            self.forget(shard)?;
            let path = parity_path(&self.dir, shard);
            fs::remove_file(&path).map_err(|source| CacheError::io("remove", &path, source))?;
        }
        let manifest = Arc::clone(self.manifest());
        let writeback = self.writeback.take();
        let durable = writeback.is_some();
        writeback.map_or(Ok(()), Writeback::finish)?;
        self.cache.install(&self.dir, &self.lock, manifest, durable)
    }

    fn check_complete(&self) -> Result<(), CacheError> {
        let (_, progress) = &*self.journal();
        for shard in progress::first_shards(&self.geometry) {
            let held = self.manifest().weights_range(shard);
            if held.is_none_or(|held| held.is_empty()) {
                continue;
            }
            if let Some(piece) = progress.first_below(&self.geometry, shard, Claim::Verified) {
                return Err(CacheError::Incomplete { digest: *self.lock.digest(), shard, piece });
            }
        }
        Ok(())
    }

    fn parity_stored(&self) -> Result<Vec<u32>, CacheError> {
        let kept = stamp::parity_kept(&self.dir)?;
        Ok(kept.into_iter().filter(|shard| progress::exists(&self.geometry, *shard, 0)).collect())
    }

    fn piece_range(&self, shard: u32, piece: u32) -> Result<ByteRange, CacheError> {
        let manifest = self.manifest();
        if progress::exists(&self.geometry, shard, piece) {
            return Ok(manifest.piece_range(shard, piece));
        }
        let size_bytes = manifest.shards().get(shard as usize).map_or(0, |shard| shard.size_bytes);
        let start = u64::from(piece) * u64::from(manifest.piece_size_bytes());
        let range = ByteRange::new(start, start + u64::from(manifest.piece_size_bytes()));
        Err(CacheError::OutOfBounds { shard, range, size_bytes })
    }

    /// How many bytes of `range` of a data shard are stored, and where in the weights they begin.
    fn stored(&self, shard: u32, range: ByteRange) -> (usize, u64) {
        let Some(held) = self.manifest().weights_range(shard) else { return (0, 0) };
        let at = (held.start + range.start).min(held.end);
        let bytes = (held.end - at).min(range.len());
        // A range is as long as a buffer that is in memory, so this never saturates.
        (usize::try_from(bytes).unwrap_or(usize::MAX), at)
    }

    fn parity_file(&self, shard: u32, create: bool) -> Result<Arc<File>, CacheError> {
        let mut files = self.parity.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = files.get(&shard) {
            return Ok(Arc::clone(file));
        }
        let path = parity_path(&self.dir, shard);
        if !create && !path.exists() {
            return Err(CacheError::io("read", &path, io::ErrorKind::NotFound.into()));
        }
        let (file, _) = open_sized(&path, self.manifest().row_size_bytes(), true)?;
        let file = Arc::new(file);
        files.insert(shard, Arc::clone(&file));
        Ok(file)
    }

    fn journal(&self) -> MutexGuard<'_, (Journal, Progress)> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes the directory of a partial model, and room in it: all or nothing. Gives the weights, and whether they were there.
fn make_room(dir: &Path, geometry: &Geometry) -> Result<(File, bool), CacheError> {
    let (manifest, path, is_new) = (geometry.manifest(), dir.join(WEIGHTS), !dir.exists());
    let total_bytes = manifest.total_size_bytes();
    let missing_bytes = total_bytes.saturating_sub(space::held_bytes(&path));
    if missing_bytes > 0 {
        let beside_bytes = manifest.index_size_bytes() + journal::size_bytes(geometry.piece_total());
        space::require(&path, missing_bytes.saturating_add(beside_bytes))?;
    }
    if is_new {
        space::require_files(&path, NEW_FILES)?;
    }
    let made = atomic::create_dir(&dir.join(PARITY));
    let made = made.and_then(|()| open_sized(&path, total_bytes, is_proven(geometry)));
    if made.is_err()
        && is_new
        && let Err(error) = fs::remove_dir_all(dir)
    {
        tracing::warn!(%error, dir = %dir.display(), "cannot remove what there was no room for");
    }
    made
}

/// Whether the manifest proves how large the model is: nothing is reserved for sizes that are only claimed.
fn is_proven(geometry: &Geometry) -> bool {
    geometry.manifest().single_blob().is_none()
}

fn give_back(file: &File) {
    if let Err(error) = space::give_back(file) {
        tracing::warn!(%error, "cannot give back reserved space");
    }
}

/// Opens a file for reading and writing and makes it `size_bytes` long, if need be by reserving space. A new one that does
/// not fit is removed. The second value says whether it was there with that size already.
fn open_sized(path: &Path, size_bytes: u64, reserve: bool) -> Result<(File, bool), CacheError> {
    let is_new = !path.exists();
    let file =
        files::open_or_create(atomic::place(path)).map_err(|source| CacheError::io("open", path, source))?;
    let found = file.metadata().map_err(|source| CacheError::io("inspect", path, source))?.len();
    let sized = if reserve && (found != size_bytes || space::held_bytes(path) < size_bytes) {
        space::reserve(&file, path, size_bytes)
    } else if found != size_bytes {
        space::allow_size(path, size_bytes)
            .and_then(|()| file.set_len(size_bytes).map_err(|source| CacheError::io("resize", path, source)))
    } else {
        Ok(())
    };
    if let (Err(_), true) = (&sized, is_new) {
        atomic::remove_file(path)?;
    }
    sized.map(|()| (file, found == size_bytes))
}

/// Copies bytes between files within the system, which shares blocks where it can. False: not all of them were copied.
#[cfg(target_os = "linux")]
fn copy_range(from: &File, mut from_at: u64, to: &File, mut to_at: u64, mut left: usize) -> bool {
    while left > 0 {
        match rustix::fs::copy_file_range(from, Some(&mut from_at), to, Some(&mut to_at), left) {
            Ok(copied) if copied > 0 => left -= copied,
            _ => return false,
        }
    }
    true
}

/// Only Linux can.
#[cfg(not(target_os = "linux"))]
fn copy_range(_: &File, _: u64, _: &File, _: u64, _: usize) -> bool {
    false
}

fn check_length(shard: u32, range: ByteRange, bytes: &[u8]) -> Result<(), CacheError> {
    if bytes.len() as u64 == range.len() {
        return Ok(());
    }
    Err(CacheError::WrongLength { shard, range, found_bytes: bytes.len() })
}
