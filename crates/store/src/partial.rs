//! A model that is being filled.

mod check;
mod files;
mod place;

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use manifest::piece_index::PieceIndex;
use manifest::{ByteRange, Geometry, Manifest, PieceId};

pub use check::{CheckedShard, Rechecked};

use super::journal::{Journal, Record};
use super::layout::{JOURNAL, PIECES, is_data, parity_path};
use super::piece_states::{self, PieceState, PieceStates};
use super::{
    Cache, CacheError, FillLock, Model, ModelFiles, Offer, WeightsFiles, Writeback, atomic, model, space,
    stamp,
};
use crate::mmap::Map;
use files::{Room, give_back, is_proven, make_room, open_sized};

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
    weights: Arc<ModelFiles>,
    parity: Mutex<HashMap<u32, Arc<File>>>,
    journal: Mutex<(Journal, PieceStates)>,
    offer: Arc<Offer>,
    index: OnceLock<Arc<PieceIndex<Map>>>,
    /// Syncs the weights while they arrive; `None` when not durable.
    writeback: Option<Writeback>,
    /// Last, so that it is released after everything else is closed.
    lock: Arc<FillLock>,
}

impl Cache {
    /// Creates the partial model that `lock` is for, or resumes that of an earlier run. Disk space for the weights is
    /// reserved where the file system can. With `durable`, [`Partial::finish`] waits for the disk.
    ///
    /// # Errors
    /// [`CacheError::DiskFull`], [`CacheError::Io`].
    pub fn partial(&self, lock: FillLock, geometry: Geometry, durable: bool) -> Result<Partial, CacheError> {
        Partial::open(self.clone(), lock, geometry, None, durable)
    }

    /// The same for a model of which only these files are wanted, by their numbers: space is reserved for those alone.
    ///
    /// # Errors
    /// Those of [`Self::partial`].
    pub fn partial_of(
        &self,
        lock: FillLock,
        geometry: Geometry,
        files: &BTreeSet<usize>,
        durable: bool,
    ) -> Result<Partial, CacheError> {
        Partial::open(self.clone(), lock, geometry, Some(files), durable)
    }
}

impl Partial {
    pub(super) fn open(
        cache: Cache,
        lock: FillLock,
        geometry: Geometry,
        wanted: Option<&BTreeSet<usize>>,
        durable: bool,
    ) -> Result<Self, CacheError> {
        let dir = cache.layout().partial(lock.digest());
        let final_dir = cache.layout().model(lock.digest());
        let list = WeightsFiles::of(geometry.manifest());
        let placed = cache.is_incomplete(lock.digest()).then_some(final_dir.as_path());
        let room = Room { dir: &dir, placed, list: &list, wanted };
        let _room = cache.room_for(lock.digest(), room.needed_bytes(&geometry))?;
        let absent = make_room(&room, &geometry)?;
        let has_placed = placed.is_some();
        let weights = ModelFiles::filling(list, dir.clone(), Some(final_dir)).with_placed(has_placed);
        let weights = Arc::new(weights);
        let mut progress = PieceStates::new(&geometry);
        let claim = |record| progress.apply(&geometry, record, PieceState::Claimed);
        let reserved_pieces = if is_proven(&geometry) { geometry.piece_total() } else { 0 };
        let journal = Journal::open(&dir.join(JOURNAL), lock.digest(), reserved_pieces, claim);
        let mut journal = journal.inspect_err(|_| files::give_back_all(&weights))?;
        let mut notes = Vec::new();
        let is_there = |piece: PieceId| {
            let range = geometry.weights_of(piece);
            range.is_none_or(|range| weights.list().stretches(range).all(|part| !absent.contains(&part.file)))
        };
        for piece in progress.pieces(&geometry, PieceState::Claimed) {
            let mut twins = geometry.same(piece.shard);
            if !twins.all(|shard| is_there(PieceId { shard, ..piece })) {
                notes.push(Record::Void(piece.shard, piece.piece));
            }
        }
        for shard in piece_states::first_shards(&geometry).filter(|shard| !is_data(&geometry, *shard)) {
            if progress.any(&geometry, shard) && !parity_path(&dir, shard).exists() {
                notes.push(Record::Forget(shard));
            }
        }
        journal.append(notes.iter().copied())?;
        notes.into_iter().for_each(|record| progress.apply(&geometry, record, PieceState::Claimed));
        let offer = Offer::new(&cache, *lock.digest(), geometry.clone(), dir.clone(), Arc::clone(&weights));
        let (offer, journal) = (Arc::new(offer), Mutex::new((journal, progress)));
        let lock = Arc::new(lock);
        let start = || {
            let (right, weights) = (Arc::<FillLock>::clone(&lock), Arc::clone(&weights));
            Writeback::start(move || weights.sync_written(), Some(dir.join(JOURNAL)), right)
        };
        let writeback = durable.then(start).transpose()?;
        let (parity, index) = (Mutex::default(), OnceLock::new());
        Ok(Self { cache, geometry, dir, weights, parity, journal, offer, index, writeback, lock })
    }

    /// Its manifest.
    pub fn manifest(&self) -> &Arc<Manifest> {
        self.geometry.manifest()
    }

    /// Its geometry.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The pieces that this process has verified, those to come too, for serving.
    pub fn offer(&self) -> &Arc<Offer> {
        &self.offer
    }

    /// The claims: pieces that an earlier process has recorded and this one has not hashed yet; the first of shards with the
    /// same digest stands for all. Each is to be [hashed](Self::recheck).
    pub fn claims(&self) -> Vec<PieceId> {
        let (_, progress) = &*self.journal();
        let is_claim = |piece: &PieceId| progress.state(&self.geometry, *piece) == PieceState::Claimed;
        progress.pieces(&self.geometry, PieceState::Claimed).filter(is_claim).collect()
    }

    /// The pieces that this process has verified; the first of shards with the same digest stands for all.
    pub fn verified(&self) -> Vec<PieceId> {
        let (_, progress) = &*self.journal();
        progress.pieces(&self.geometry, PieceState::Verified).collect()
    }

    /// Fills `buffer` with the weights from `start` on, as far as they were written: what was not is arbitrary.
    ///
    /// # Errors
    /// [`CacheError::Io`].
    pub fn read_weights(&self, start: u64, buffer: &mut [u8]) -> Result<(), CacheError> {
        self.weights.read_at(start, buffer)
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
        self.check_length(shard, range, buffer)?;
        let first = self.geometry.canonical(shard);
        if !is_data(&self.geometry, first) {
            let file = self.parity_file(first, false)?;
            let read = file.read_exact_at(buffer, range.start);
            return read.map_err(|source| CacheError::io("read", &parity_path(&self.dir, first), source));
        }
        let (stored, at) = self.stored(first, range);
        let (stored, padding) = buffer.split_at_mut(stored);
        padding.fill(0);
        self.weights.read_at(at, stored)
    }

    /// Voids what was recorded about a shard, and about those with the same digest: it was found bad as a whole.
    ///
    /// # Errors
    /// [`CacheError::DiskFull`], [`CacheError::Io`].
    pub fn forget(&self, shard: u32) -> Result<(), CacheError> {
        let (journal, progress) = &mut *self.journal();
        self.offer.withdraw(shard);
        journal.append([Record::Forget(shard)])?;
        progress.apply(&self.geometry, Record::Forget(shard), PieceState::Missing);
        Ok(())
    }

    /// Releases reserved space that was not written, after the disk was found full; the error says how much is missing.
    pub fn give_back(&self, full: CacheError) -> CacheError {
        let parity = self.parity.lock().unwrap_or_else(PoisonError::into_inner);
        parity.values().for_each(|file| give_back(file));
        files::give_back_all(&self.weights);
        self.journal().0.give_back();
        let room = Room { dir: &self.dir, placed: None, list: self.weights.list(), wanted: None };
        let missing_bytes = room.missing_bytes();
        // It may be a quota.
        space::require(&self.dir.join(self.weights.list().root()), missing_bytes).err().unwrap_or(full)
    }

    /// Closes it, and waits until this process has closed all of its files, so that removing them frees their space. Dropping
    /// it does not wait. Recorded pieces stay for the next run.
    pub fn close(mut self) {
        // Its thread has handled errors.
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
    /// [`CacheError::Incomplete`] unless every piece of every data shard was hashed by this process, but for
    /// rows that are padding only; [`CacheError::DiskFull`], [`CacheError::Io`]; [`CacheError::Corrupt`] when what another
    /// process left is bad.
    pub fn finish(mut self, keep_parity: bool) -> Result<Model, CacheError> {
        if self.is_begun_in_place() {
            let all = (0..self.weights.list().len()).collect();
            return self.place(&all);
        }
        self.check_complete()?;
        for shard in self.parity_stored()? {
            let complete =
                self.journal().1.first_below(&self.geometry, shard, PieceState::Verified).is_none();
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
        for shard in piece_states::first_shards(&self.geometry) {
            let held = self.manifest().weights_range(shard);
            if held.is_none_or(|held| held.is_empty()) {
                continue;
            }
            if let Some(piece) = progress.first_below(&self.geometry, shard, PieceState::Verified) {
                return Err(CacheError::Incomplete { digest: *self.lock.digest(), shard, piece });
            }
        }
        Ok(())
    }

    fn parity_stored(&self) -> Result<Vec<u32>, CacheError> {
        let kept = stamp::parity_kept(&self.dir)?;
        Ok(kept.into_iter().filter(|shard| *shard < self.manifest().shard_count()).collect())
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

    fn journal(&self) -> MutexGuard<'_, (Journal, PieceStates)> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
