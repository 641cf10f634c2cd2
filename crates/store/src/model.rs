//! A finished model.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use manifest::piece_index::PieceIndex;
use manifest::{ByteRange, Digest, Manifest};
use safetensors::{SafeTensorError, SafeTensors};

use super::layout::{FILES, INCOMPLETE, PARITY, PIECES, WEIGHTS};
use super::weights_files::WeightsFile;
use super::{BlobReader, CacheError, ModelFiles, WeightsFiles, atomic, lock, stamp};
use crate::mmap::{Map, Pages};

/// A finished model of the cache. While any clone of it, or of a file of it, lives, it cannot be removed.
#[derive(Debug, Clone)]
pub struct Model {
    digest: Digest,
    manifest: Arc<Manifest>,
    files: Arc<ModelFiles>,
    /// The weights, if they are one file.
    weights: Option<MappedFile>,
    /// The files that are there; `None` when all are.
    some: Option<Arc<BTreeSet<usize>>>,
    parity: Arc<[u32]>,
    /// Whether the piece index is as bad as parity that is left out.
    is_bare: bool,
}

/// What is known of one file of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileInfo<'a> {
    /// Its path in the folder of the model.
    pub path: &'a str,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// Its SHA-256; `None` for the file of a model without names that is several shards.
    pub sha256: Option<Digest>,
    /// Whether the SHA-256 is proven, and not only the publisher's word.
    pub is_proven: bool,
}

impl Model {
    /// What is in `dir`, unverified. `None` when there are no weights.
    pub(super) fn open(
        dir: &Path,
        digest: &Digest,
        manifest: Arc<Manifest>,
        lock: lock::Guard,
    ) -> Result<Option<Self>, CacheError> {
        let list = WeightsFiles::of(&manifest);
        if dir.join(INCOMPLETE).exists() {
            return Ok(None);
        }
        let root = dir.join(list.root());
        match fs::symlink_metadata(&root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            found => found.map_err(|source| CacheError::io("find", &root, source))?,
        };
        let files = Arc::new(ModelFiles::finished(list, dir.to_owned(), lock));
        let weights = match files.list().len() {
            1 => {
                check_size(&files, 0, digest)?;
                Some(MappedFile::open(&files, 0)?)
            }
            _ => None,
        };
        let parity = stamp::parity_kept(dir)?.into();
        Ok(Some(Self { digest: *digest, manifest, files, weights, some: None, parity, is_bare: false }))
    }

    /// The files of a model that are in place, unverified, while others are not.
    pub(super) fn open_some(dir: &Path, digest: &Digest, manifest: Arc<Manifest>, lock: lock::Guard) -> Self {
        let list = WeightsFiles::of(&manifest);
        let sized = |file: &WeightsFile| {
            let found = fs::symlink_metadata(dir.join(&file.path));
            found.is_ok_and(|found| found.len() == file.range.len())
        };
        let there = list.iter().enumerate().filter(|(_, file)| sized(file)).map(|(index, _)| index).collect();
        let files = Arc::new(ModelFiles::finished(list, dir.to_owned(), lock));
        let (some, parity) = (Some(Arc::new(there)), Arc::default());
        Self { digest: *digest, manifest, files, weights: None, some, parity, is_bare: true }
    }

    /// Whether all files are there. Of others there is what [`Self::files`] lists.
    pub fn is_complete(&self) -> bool {
        self.some.is_none()
    }

    /// Whether a file is there.
    pub(super) fn has(&self, file: usize) -> bool {
        self.some.as_ref().is_none_or(|some| some.contains(&file))
    }

    /// The weights alone, where the rest is bad and cannot be removed.
    pub(super) fn bare(self) -> Self {
        Self { parity: Arc::default(), is_bare: true, ..self }
    }

    /// Fails unless all files of the weights are there and have their sizes.
    pub(super) fn check_sizes(&self) -> Result<(), CacheError> {
        (0..self.files.list().len()).try_for_each(|file| check_size(&self.files, file, &self.digest))
    }

    pub(super) fn list(&self) -> &WeightsFiles {
        self.files.list()
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
        &self.manifest
    }

    /// What a runtime opens: the folder of a model of several files, the file of a model of one.
    pub fn path(&self) -> PathBuf {
        self.dir().join(self.files.list().root())
    }

    /// The model's bytes, when they are one file; `None` for a model of several.
    pub fn weights(&self) -> Option<&MappedFile> {
        self.weights.as_ref()
    }

    /// The files of the model that are there, in their order. The weights of a model without names are one file.
    pub fn files(&self) -> impl Iterator<Item = FileInfo<'_>> {
        let manifest = &*self.manifest;
        let proven = (manifest.shard_count() == 1).then(|| manifest.shards()[0].digest);
        let unnamed = manifest.files().is_empty().then(|| FileInfo {
            path: WEIGHTS,
            size_bytes: manifest.total_size_bytes(),
            sha256: proven,
            is_proven: proven.is_some(),
        });
        let there = manifest.files().iter().enumerate().filter(|(file, _)| self.has(*file));
        let named = there.map(|(_, file)| FileInfo {
            path: file.path().as_str(),
            size_bytes: file.size_bytes(),
            sha256: Some(*file.sha256()),
            is_proven: file.size_bytes() == 0 || manifest.shard_of_file(file).is_some(),
        });
        unnamed.into_iter().chain(named)
    }

    /// A file of the model, mapped; `None` when it has none of this path, or it is not there.
    ///
    /// # Errors
    /// [`CacheError::Io`] when it cannot be mapped.
    pub fn file(&self, path: &str) -> Result<Option<MappedFile>, CacheError> {
        match self.files.list().find(path).filter(|file| self.has(*file)) {
            Some(file) => MappedFile::open(&self.files, file).map(Some),
            None => Ok(None),
        }
    }

    pub(super) fn model_files(&self) -> &Arc<ModelFiles> {
        &self.files
    }

    /// Where a file of the model is.
    pub(super) fn file_path(&self, name: &str) -> PathBuf {
        self.files.list().find(name).map_or_else(|| self.path(), |file| self.files.path(file))
    }

    /// Says how the runtime wants the pages of the weights; may block for as long as reading all of them takes. Files of
    /// less than a megabyte are left as they are.
    ///
    /// # Errors
    /// [`CacheError::Io`] when the disk does not give them.
    pub fn advise(&self, pages: Pages) -> Result<(), CacheError> {
        const SMALL_BYTES: u64 = 1 << 20;
        if pages == Pages::Lazy {
            return Ok(());
        }
        if let Some(weights) = &self.weights {
            return weights.advise(pages);
        }
        let files = self.files.list().iter().enumerate();
        for (file, _) in files.filter(|(file, entry)| self.has(*file) && entry.range.len() >= SMALL_BYTES) {
            MappedFile::open(&self.files, file)?.advise(pages)?;
        }
        Ok(())
    }

    /// The weights as a blob of `size_bytes` that begins like them: their first `stored_bytes` bytes at most, and zeros
    /// after those.
    pub fn padded(&self, stored_bytes: u64, size_bytes: u64) -> BlobReader {
        let stored_bytes = stored_bytes.min(self.manifest.total_size_bytes()).min(size_bytes);
        BlobReader::weights(Arc::clone(&self.files), ByteRange::new(0, stored_bytes), size_bytes)
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

    /// The bytes of a shard; `None` for a parity shard that is not kept in a file of its own, for an index past the last
    /// shard, and when the model is not complete.
    ///
    /// # Errors
    /// When the parity shard's file cannot be opened.
    pub fn shard(&self, shard: u32) -> io::Result<Option<BlobReader>> {
        let entry = self.manifest.shards().get(shard as usize).filter(|_| self.is_complete());
        let Some(entry) = entry else { return Ok(None) };
        if let Some(stored) = self.manifest.weights_range(shard) {
            return Ok(Some(BlobReader::weights(Arc::clone(&self.files), stored, entry.size_bytes)));
        }
        if self.parity.binary_search(&shard).is_err() {
            return Ok(None);
        }
        BlobReader::file(atomic::open(&self.parity_path(shard))?).map(Some)
    }

    /// Fills `buffer` with the weights from `start` on, as they are on the disk.
    ///
    /// # Errors
    /// [`CacheError::Io`].
    pub fn read_weights(&self, start: u64, buffer: &mut [u8]) -> Result<(), CacheError> {
        self.files.read_at(start, buffer)
    }

    /// The directory of its files.
    pub fn dir(&self) -> &Path {
        self.files.dir()
    }

    pub(super) fn parity_path(&self, shard: u32) -> PathBuf {
        self.dir().join(PARITY).join(shard.to_string())
    }

    pub(super) fn index_path(&self) -> PathBuf {
        self.dir().join(PIECES)
    }
}

fn check_size(files: &ModelFiles, file: usize, digest: &Digest) -> Result<(), CacheError> {
    let (path, expected) = (files.path(file), files.list().get(file).range.len());
    let found = match fs::symlink_metadata(&path) {
        Ok(found) if found.len() == expected => return Ok(()),
        Ok(found) => format!("{} bytes", found.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => "nothing".to_owned(),
        Err(error) => return Err(CacheError::io("inspect", &path, error)),
    };
    let damage = match files.list().get(file).path.strip_prefix(FILES) {
        Ok(name) => format!("{} has {found}, expected {expected} bytes", name.display()),
        Err(_) => format!("the weights have {found}, expected {expected} bytes"),
    };
    Err(CacheError::Corrupt { digest: *digest, path: files.dir().to_owned(), damage })
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

/// One file of a finished model: a read-only memory map.
///
/// Cloning is cheap, and every clone keeps the model from being removed. Pages are read from disk when they are first
/// touched, unless [`Self::advise`] says otherwise. When somebody else truncates the file, touching what is lost raises
/// SIGBUS.
#[derive(Clone)]
pub struct MappedFile {
    map: Arc<Map>,
    file: usize,
    files: Arc<ModelFiles>,
}

impl MappedFile {
    fn open(files: &Arc<ModelFiles>, file: usize) -> Result<Self, CacheError> {
        let map = files.map(file).map_err(|source| CacheError::io("map", &files.path(file), source))?;
        Ok(Self { map: Arc::clone(map), file, files: Arc::clone(files) })
    }

    /// The file, for a runtime that wants to map it itself.
    pub fn path(&self) -> PathBuf {
        self.files.path(self.file)
    }

    /// How many bytes.
    pub fn len(&self) -> usize {
        self.as_ref().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.as_ref().is_empty()
    }

    /// Says how the runtime wants its pages; may block for as long as reading all of them takes.
    ///
    /// # Errors
    /// [`CacheError::Io`] when the disk does not give them.
    pub fn advise(&self, pages: Pages) -> Result<(), CacheError> {
        self.map.advise(pages).map_err(|source| CacheError::io("read ahead", &self.path(), source))
    }

    /// Reads it as a safetensors file; tensors borrow from the map.
    ///
    /// # Errors
    /// When it is none.
    pub fn safetensors(&self) -> Result<SafeTensors<'_>, SafeTensorError> {
        SafeTensors::deserialize(self.as_ref())
    }
}

impl AsRef<[u8]> for MappedFile {
    fn as_ref(&self) -> &[u8] {
        (*self.map).as_ref()
    }
}

impl fmt::Debug for MappedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MappedFile").field("path", &self.path()).field("len", &self.len()).finish()
    }
}
