//! The offer of a model that is not complete: its verified pieces, for reading.

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use manifest::{ByteRange, Digest, Geometry, Have, Manifest, PieceId};

use super::availability::{Availability, first_version};
use super::layout::{PIECES, is_data, parity_path};
use super::{BlobReader, Cache, CacheError, ModelFiles, VerifiedReader, atomic, model};

/// The verified pieces of a model that is being filled, or was left so, read from the files that they were written to.
///
/// It outlives the filling: files stay readable when they get their final names.
#[derive(Debug)]
pub struct Offer {
    cache: Cache,
    digest: Digest,
    geometry: Geometry,
    /// The first shard with each digest.
    named: HashMap<Digest, u32>,
    /// Where the files are while they are filled.
    dir: PathBuf,
    weights: Arc<ModelFiles>,
    available: Mutex<Availability>,
    /// Told when pieces were verified, and when it was closed.
    grown: Condvar,
    is_closed: AtomicBool,
}

impl Offer {
    /// Nothing is offered at first.
    pub(super) fn new(
        cache: &Cache,
        digest: Digest,
        geometry: Geometry,
        dir: PathBuf,
        weights: Arc<ModelFiles>,
    ) -> Self {
        let available = Mutex::new(Availability::new(&geometry, first_version()));
        let shards = (0..).zip(geometry.manifest().shards());
        let named = shards.map(|(shard, entry)| (entry.digest, geometry.canonical(shard))).collect();
        let (grown, is_closed) = (Condvar::new(), AtomicBool::new(false));
        Self { cache: cache.clone(), digest, geometry, named, dir, weights, available, grown, is_closed }
    }

    /// Digest of the model's manifest.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// What the model is.
    pub fn manifest(&self) -> &Arc<Manifest> {
        self.geometry.manifest()
    }

    /// The pieces verified after version `since`, or all of them when that version is not known.
    pub fn have(&self, since: u64) -> Have {
        self.available().since(since, &self.geometry)
    }

    /// Waits until these bytes of the weights are verified. False: they are not, and [`Self::close`] was called.
    pub fn wait_for(&self, range: ByteRange) -> bool {
        let pieces: Vec<PieceId> = self.geometry.pieces_of(range).map(|slice| slice.piece).collect();
        let is_here = |available: &Availability, PieceId { shard, piece }: PieceId| {
            available.has(self.geometry.canonical(shard), piece..piece.saturating_add(1))
        };
        let mut available = self.available();
        while !pieces.iter().all(|piece| is_here(&available, *piece)) {
            if self.is_closed.load(Ordering::Relaxed) {
                return false;
            }
            available = self.grown.wait(available).unwrap_or_else(PoisonError::into_inner);
        }
        true
    }

    /// Ends waiting: nothing is verified any more.
    pub fn close(&self) {
        let _available = self.available();
        self.is_closed.store(true, Ordering::Relaxed);
        self.grown.notify_all();
    }

    /// Fills `buffer` with the weights from `start` on. What is not verified is arbitrary.
    ///
    /// # Errors
    /// [`CacheError::Io`].
    pub fn read_weights(&self, start: u64, buffer: &mut [u8]) -> Result<(), CacheError> {
        self.weights.read_at(start, buffer)
    }

    /// A reader that hashes again what it reads; `None` without a piece index.
    ///
    /// # Errors
    /// [`CacheError::Index`] when the index is not what the manifest names; [`CacheError::Io`].
    pub fn verified_reader(&self) -> Result<Option<VerifiedReader>, CacheError> {
        let mut index = None;
        for dir in [&self.dir, &self.cache.layout().model(&self.digest)] {
            // It moves when the model is finished.
            index = index.or(model::open_index(&dir.join(PIECES), &self.digest, self.manifest())?);
        }
        let files = Arc::clone(&self.weights);
        Ok(index.map(|index| VerifiedReader::new(files, self.digest, self.geometry.clone(), index)))
    }

    /// The verified part of a shard, under this manifest.
    ///
    /// # Errors
    /// When the file of a parity shard cannot be opened.
    pub fn shard(self: &Arc<Self>, shard: u32) -> io::Result<Option<Offered>> {
        let Some(entry) = self.manifest().shards().get(shard as usize) else { return Ok(None) };
        let first = self.geometry.canonical(shard);
        let stored = self.manifest().weights_range(first).filter(|_| is_data(&self.geometry, first));
        let held = match stored {
            Some(stored) => BlobReader::weights(Arc::clone(&self.weights), stored, entry.size_bytes),
            None => match atomic::open_if_there(&parity_path(&self.dir, first))? {
                Some(file) => BlobReader::file(file)?,
                None => return Ok(None),
            },
        };
        Ok(Some(Offered { offer: Arc::clone(self), shard: first, held }))
    }

    /// The manifest, or the piece index, or a shard all of whose pieces were verified: blobs that are proven by their
    /// digests.
    pub(super) fn whole(self: &Arc<Self>, blob: &Digest) -> io::Result<Option<BlobReader>> {
        if *blob == self.digest {
            return BlobReader::file(atomic::open(&self.cache.layout().manifest(blob))?).map(Some);
        }
        if self.manifest().pieces().is_some_and(|pieces| pieces.index == *blob) {
            // It moves when the model is finished.
            let file = match atomic::open_if_there(&self.dir.join(PIECES))? {
                Some(file) => Some(file),
                None => atomic::open_if_there(&self.cache.layout().model(&self.digest).join(PIECES))?,
            };
            return file.map(BlobReader::file).transpose();
        }
        match self.shard_named(blob).filter(|shard| self.available().is_whole(*shard)) {
            Some(shard) => Ok(self.shard(shard)?.map(|offered| offered.held)),
            None => Ok(None),
        }
    }

    /// The first shard with this digest.
    pub(super) fn shard_named(&self, blob: &Digest) -> Option<u32> {
        self.named.get(blob).copied()
    }

    pub(super) fn version(&self) -> u64 {
        self.available().version()
    }

    /// Offers pieces that are written and verified.
    pub(super) fn add(&self, pieces: impl IntoIterator<Item = PieceId>) {
        let mut available = self.available();
        for PieceId { shard, piece } in pieces {
            available.add(PieceId { shard: self.geometry.canonical(shard), piece });
        }
        self.grown.notify_all();
    }

    /// Withdraws a piece that is wrong.
    pub(super) fn withdraw_piece(&self, PieceId { shard, piece }: PieceId) {
        self.available().remove(PieceId { shard: self.geometry.canonical(shard), piece });
    }

    /// Withdraws all pieces of a shard.
    pub(super) fn withdraw(&self, shard: u32) {
        self.available().forget(self.geometry.canonical(shard));
    }

    /// Blocks verifying pieces until this is dropped, for tests.
    #[cfg(feature = "test-util")]
    pub fn hold(&self) -> impl Drop {
        self.available()
    }

    fn available(&self) -> MutexGuard<'_, Availability> {
        self.available.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One shard of a model that is being filled.
#[derive(Debug)]
pub struct Offered {
    offer: Arc<Offer>,
    /// The first with its digest.
    shard: u32,
    held: BlobReader,
}

impl Offered {
    /// How long the shard is, whether or not all of it is here.
    pub fn size_bytes(&self) -> u64 {
        self.held.size_bytes()
    }

    /// Whether all of it was verified.
    pub fn is_whole(&self) -> bool {
        self.offer.available().is_whole(self.shard)
    }

    /// Whether all of `range` was verified.
    pub fn holds(&self, range: ByteRange) -> bool {
        range.end <= self.size_bytes() && self.offer.available().has(self.shard, self.pieces(range))
    }

    /// Fills `buffer` with the shard's bytes from `offset` on. False: not all of them are offered; the buffer's content
    /// means nothing then.
    ///
    /// # Errors
    /// As [`BlobReader::read_at`].
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<bool> {
        let range = ByteRange::new(offset, offset.saturating_add(buffer.len() as u64));
        if !self.holds(range) {
            return Ok(false);
        }
        self.held.read_at(offset, buffer)?;
        // A piece that was withdrawn meanwhile may be overwritten already.
        Ok(self.holds(range))
    }

    /// Like [`Self::read_at`], but only what is in the page cache. `None`: not all of it is, or the system cannot tell.
    ///
    /// # Errors
    /// As [`BlobReader::try_read_at`].
    pub fn try_read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<Option<bool>> {
        let range = ByteRange::new(offset, offset.saturating_add(buffer.len() as u64));
        if !self.holds(range) {
            return Ok(Some(false));
        }
        Ok(self.held.try_read_at(offset, buffer)?.then(|| self.holds(range)))
    }

    /// Fills `buffer` with the shard's bytes from `offset` on, whether or not they are offered.
    pub(super) fn read_unverified(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.held.read_at(offset, buffer)
    }

    fn pieces(&self, range: ByteRange) -> Range<u32> {
        let piece_bytes = u64::from(self.offer.manifest().piece_size_bytes());
        let number = |piece: u64| u32::try_from(piece).unwrap_or(u32::MAX);
        number(range.start / piece_bytes)..number(range.end.div_ceil(piece_bytes))
    }
}
