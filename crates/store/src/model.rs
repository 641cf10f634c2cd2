//! A finished model, mapped.

use std::fmt;
use std::fs::File;
use std::io;
#[cfg(target_os = "linux")]
use std::io::IoSliceMut;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use manifest::piece_index::PieceIndex;
use manifest::{ByteRange, Digest, Manifest};
#[cfg(target_os = "linux")]
use rustix::io::{Errno, ReadWriteFlags, preadv2};
use safetensors::{SafeTensorError, SafeTensors};

use super::layout::{PARITY, PIECES, WEIGHTS};
use super::{CacheError, atomic, lock, stamp};
use crate::mmap::{Map, Pages};

/// A finished model of the cache. While any clone of it, or of its [`Weights`], lives, it cannot be removed.
#[derive(Debug, Clone)]
pub struct Model {
    digest: Digest,
    weights: Weights,
    parity: Arc<[u32]>,
    /// Whether the piece index is as bad as parity that is left out.
    is_bare: bool,
}

impl Model {
    /// Maps what is in `dir`, unverified. `None` when there are no weights.
    pub(super) fn open(
        dir: &Path,
        digest: &Digest,
        manifest: Arc<Manifest>,
        lock: lock::Guard,
    ) -> Result<Option<Self>, CacheError> {
        let path = dir.join(WEIGHTS);
        let fail = |source| CacheError::io("map", &path, source);
        let Some(file) = atomic::open_if_there(&path).map_err(fail)? else { return Ok(None) };
        let (found, expected) = (file.metadata().map_err(fail)?.len(), manifest.total_size_bytes());
        if found != expected {
            let damage = format!("the weights have {found} bytes, expected {expected}");
            return Err(CacheError::Corrupt { digest: *digest, path: dir.to_owned(), damage });
        }
        let map = Map::of(&file).map_err(fail)?;
        let parity = stamp::parity_kept(dir)?.into();
        let mapped = Mapped { map, file, path, manifest, _lock: lock };
        Ok(Some(Self { digest: *digest, weights: Weights(Arc::new(mapped)), parity, is_bare: false }))
    }

    /// The weights alone, where the rest is bad and cannot be removed.
    pub(super) fn bare(self) -> Self {
        Self { parity: Arc::default(), is_bare: true, ..self }
    }

    /// Whether there is a piece index.
    pub(super) fn has_index(&self) -> bool {
        !self.is_bare && self.index_path().exists()
    }

    /// Digest of the manifest: the name of the model.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// What the model is.
    pub fn manifest(&self) -> &Arc<Manifest> {
        &self.weights.0.manifest
    }

    /// The model's bytes.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// Indices of the parity shards whose bytes are kept in files of their own, in order. A parity shard that equals
    /// a data shard has none: it is served from the weights.
    pub fn parity_kept(&self) -> &[u32] {
        &self.parity
    }

    /// The piece index, mapped and checked against its digest; `None` when the manifest has none, or it is not kept.
    ///
    /// # Errors
    /// [`CacheError::Index`] when the file is not what the manifest names.
    pub fn index(&self) -> Result<Option<PieceIndex<Map>>, CacheError> {
        if self.is_bare {
            return Ok(None);
        }
        open_index(&self.index_path(), &self.digest, self.manifest())
    }

    /// The bytes of a shard; `None` for a parity shard that is not kept in a file of its own, and for an index past
    /// the last shard.
    ///
    /// # Errors
    /// When the parity shard's file cannot be opened.
    pub fn shard(&self, shard: u32) -> io::Result<Option<BlobReader>> {
        let manifest = self.manifest();
        let Some(entry) = manifest.shards().get(shard as usize) else { return Ok(None) };
        if let Some(stored) = manifest.weights_range(shard) {
            let (start, stored_bytes, size_bytes) = (stored.start, stored.len(), entry.size_bytes);
            let bytes = Stored::Weights(self.weights.clone());
            return Ok(Some(BlobReader { bytes, start, stored_bytes, size_bytes }));
        }
        if self.parity.binary_search(&shard).is_err() {
            return Ok(None);
        }
        BlobReader::file(atomic::open(&self.parity_path(shard))?).map(Some)
    }

    /// The directory of its files.
    pub fn dir(&self) -> &Path {
        self.weights.path().parent().unwrap_or(Path::new(""))
    }

    pub(super) fn parity_path(&self, shard: u32) -> PathBuf {
        self.dir().join(PARITY).join(shard.to_string())
    }

    pub(super) fn index_path(&self) -> PathBuf {
        self.dir().join(PIECES)
    }
}

/// Maps and checks a piece index; `None` when there is no file, or no index in the manifest.
pub(super) fn open_index(
    path: &Path,
    digest: &Digest,
    manifest: &Arc<Manifest>,
) -> Result<Option<PieceIndex<Map>>, CacheError> {
    if manifest.pieces().is_none() {
        return Ok(None);
    }
    let fail = |source| CacheError::io("map", path, source);
    let Some(file) = atomic::open_if_there(path).map_err(fail)? else { return Ok(None) };
    let map = Map::of(&file).map_err(fail)?;
    let index = PieceIndex::parse(map, manifest);
    index.map(Some).map_err(|source| CacheError::Index { digest: *digest, source })
}

/// The weights of a finished model: a read-only memory map of one file.
///
/// Cloning is cheap, and every clone keeps the model from being removed. Pages are read from disk when they are first
/// touched, unless [`Self::advise`] says otherwise. When somebody else truncates the file, touching what is lost raises
/// SIGBUS.
#[derive(Clone)]
pub struct Weights(Arc<Mapped>);

struct Mapped {
    map: Map,
    file: File,
    path: PathBuf,
    manifest: Arc<Manifest>,
    _lock: lock::Guard,
}

impl Weights {
    /// The file, for a runtime that wants to map it itself.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// How many bytes: never 0.
    #[expect(clippy::len_without_is_empty, reason = "weights are never empty")]
    pub fn len(&self) -> usize {
        self.as_ref().len()
    }

    /// The weights bytes that data shard `shard` holds, without padding: empty for a row that is padding only. `None`
    /// for a parity shard and for an index past the last shard.
    pub fn shard(&self, shard: u32) -> Option<&[u8]> {
        let manifest = &self.0.manifest;
        manifest.shards().get(shard as usize)?;
        let range = manifest.weights_range(shard)?;
        self.as_ref().get(usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?)
    }

    /// The weights as a blob of `size_bytes` that begins like them: their first `stored_bytes` bytes at most, and zeros
    /// after those.
    pub fn padded(&self, stored_bytes: u64, size_bytes: u64) -> BlobReader {
        let stored_bytes = stored_bytes.min(self.len() as u64).min(size_bytes);
        BlobReader { bytes: Stored::Weights(self.clone()), start: 0, stored_bytes, size_bytes }
    }

    /// Says how the runtime wants its pages; may block for as long as reading all of them takes.
    ///
    /// # Errors
    /// [`CacheError::Io`] when the disk does not give them.
    pub fn advise(&self, pages: Pages) -> Result<(), CacheError> {
        self.0.map.advise(pages).map_err(|source| CacheError::io("read ahead", self.path(), source))
    }

    /// Reads the weights as a safetensors file; tensors borrow from the map.
    ///
    /// # Errors
    /// When they are not one.
    pub fn safetensors(&self) -> Result<SafeTensors<'_>, SafeTensorError> {
        SafeTensors::deserialize(self.as_ref())
    }
}

impl AsRef<[u8]> for Weights {
    fn as_ref(&self) -> &[u8] {
        self.0.map.as_ref()
    }
}

impl fmt::Debug for Weights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Weights").field("path", &self.0.path).field("len", &self.len()).finish()
    }
}

/// The bytes of one blob that is held on disk, read by position. Reading never moves a cursor, so that any number of
/// threads may read at once.
#[derive(Debug)]
pub struct BlobReader {
    bytes: Stored,
    /// Where in the file the blob begins.
    start: u64,
    /// How much of it is in the file; the rest is zeros.
    stored_bytes: u64,
    size_bytes: u64,
}

#[derive(Debug)]
enum Stored {
    Weights(Weights),
    File {
        file: Arc<File>,
        /// Made when it is first asked for.
        map: OnceLock<Map>,
    },
}

impl BlobReader {
    /// All of a file.
    pub(super) fn file(file: File) -> io::Result<Self> {
        let size_bytes = file.metadata()?.len();
        Ok(Self::part(Arc::new(file), 0, size_bytes, size_bytes))
    }

    /// The `stored_bytes` of a file from `start` on, and zeros after them.
    pub(super) fn part(file: Arc<File>, start: u64, stored_bytes: u64, size_bytes: u64) -> Self {
        let bytes = Stored::File { file, map: OnceLock::new() };
        Self { bytes, start, stored_bytes, size_bytes }
    }

    /// How long the blob is, padding included.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Fills `buffer` with the blob's bytes from `offset` on; padding is produced.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] when the blob has fewer bytes, and whatever the disk says.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let (stored, file) = self.prepare(offset, buffer)?;
        file.read_exact_at(stored, self.start + offset)
    }

    /// Like [`BlobReader::read_at`], but only what is in the page cache. False: not all of it is, or the system cannot tell;
    /// the buffer's content means nothing then.
    ///
    /// # Errors
    /// Those of [`BlobReader::read_at`].
    #[cfg(target_os = "linux")]
    pub fn try_read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<bool> {
        let (stored, file) = self.prepare(offset, buffer)?;
        if stored.is_empty() {
            return Ok(true);
        }
        let stored_bytes = stored.len();
        let parts = &mut [IoSliceMut::new(stored)];
        match preadv2(file, parts, self.start + offset, ReadWriteFlags::NOWAIT) {
            Ok(read_bytes) => Ok(read_bytes == stored_bytes),
            Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Only Linux can read without waiting for a disk.
    ///
    /// # Errors
    /// None.
    #[cfg(not(target_os = "linux"))]
    pub fn try_read_at(&self, _: u64, _: &mut [u8]) -> io::Result<bool> {
        Ok(false)
    }

    /// The file, and where in it the bytes of `range` are; `None` when some of them are padding.
    pub(super) fn in_file(&self, range: ByteRange) -> Option<(&File, u64)> {
        let file = match &self.bytes {
            Stored::File { file, .. } => file,
            Stored::Weights(weights) => &weights.0.file,
        };
        (range.end <= self.stored_bytes).then_some((file, self.start + range.start))
    }

    /// The bytes of `range` where they are mapped, for a file that nobody changes; `None` when they are not all in the
    /// file, or when mapping does not do: then [`BlobReader::read_at`] does, or says why not.
    pub(crate) fn resident(&self, range: ByteRange) -> Option<&[u8]> {
        if range.end > self.stored_bytes {
            return None;
        }
        let map = match &self.bytes {
            Stored::Weights(weights) => &weights.0.map,
            Stored::File { file, map } => match map.get() {
                Some(map) => map,
                None => {
                    let new = Map::of(file).ok()?;
                    map.get_or_init(|| new)
                }
            },
        };
        let start = usize::try_from(self.start + range.start).ok()?;
        map.resident(start..start + usize::try_from(range.len()).ok()?)
    }

    /// Produces the padding at the end of `buffer`; gives the part to read from the file.
    fn prepare<'a>(&self, offset: u64, buffer: &'a mut [u8]) -> io::Result<(&'a mut [u8], &File)> {
        let end = offset.checked_add(buffer.len() as u64).filter(|end| *end <= self.size_bytes);
        end.ok_or(io::ErrorKind::UnexpectedEof)?;
        let stored = self.stored_bytes.saturating_sub(offset);
        let stored = usize::try_from(stored).unwrap_or(usize::MAX).min(buffer.len());
        let (stored, padding) = buffer.split_at_mut(stored);
        padding.fill(0);
        let file = match &self.bytes {
            Stored::File { file, .. } => file,
            Stored::Weights(weights) => &weights.0.file,
        };
        Ok((stored, file))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn held(stored: &[u8], padding_bytes: u64) -> BlobReader {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(stored).unwrap();
        let held = BlobReader::file(file).unwrap();
        BlobReader { size_bytes: held.size_bytes + padding_bytes, ..held }
    }

    #[test]
    fn reads_give_the_stored_bytes_and_then_zeros() {
        let held = held(b"abcdef", 3);
        for (offset, expected) in
            [(0, &b"abcdef\0\0\0"[..]), (2, b"cd"), (5, b"f\0"), (6, b"\0\0\0"), (7, b"\0"), (9, b"")]
        {
            let mut buffer = vec![9; expected.len()];
            held.read_at(offset, &mut buffer).unwrap();
            assert_eq!(buffer, expected, "from {offset}");
        }
    }

    #[test]
    fn a_read_that_does_not_wait_gives_the_same_or_says_that_it_cannot() {
        let held = held(b"abcdef", 3);
        for (offset, length) in [(0, 9), (2, 2), (5, 2), (6, 3), (9, 0)] {
            let (mut tried, mut read) = (vec![9; length], vec![9; length]);
            held.read_at(offset, &mut read).unwrap();
            if held.try_read_at(offset, &mut tried).unwrap() {
                assert_eq!(tried, read, "{length} bytes from {offset}");
            }
        }
    }

    #[test]
    fn reads_past_the_end_fail() {
        let held = held(b"abcdef", 3);
        for (offset, length) in [(0, 10), (9, 1), (u64::MAX, 2)] {
            let error = held.read_at(offset, &mut vec![0; length]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{length} bytes from {offset}");
        }
    }
}
