//! A flat folder of blobs, each named by its digest: the blob store of the Python nodes, or, as `<digest>.shard`, of their
//! sharder.

use std::collections::{HashMap, VecDeque};
use std::fs::{DirEntry, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use manifest::piece_index::ShardHasher;
use manifest::{Digest, MAX_MANIFEST_BYTES, Manifest, TRANSFER_PIECE_BYTES};
use rustix::fs::OFlags;

use super::layout::digest_named;
use super::{BlobReader, CacheError};

/// How much of a file is hashed at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// What the sharder's files are named by after their digest.
const SHARD: &str = "shard";

/// Parsed manifests kept: peers poll HAVE of the same one, and one may have 16 MiB.
const MAX_PARSED: usize = 4;

/// A folder of files named by their digests.
///
/// Only names of 64 lower-case hexadecimal characters are ever opened, alone or with `.shard` after them. Each file is hashed before it is first served,
/// and again whenever its inode, size or time of change differ.
#[derive(Debug)]
pub struct BlobDir {
    path: PathBuf,
    /// One entry per file that was asked for and exists. The inner lock is held while the file is hashed, so that it
    /// is hashed once.
    checked: Mutex<HashMap<Digest, Arc<Mutex<Option<Checked>>>>>,
    /// Whether each file is a manifest.
    manifests: Mutex<HashMap<Digest, bool>>,
    /// Parsed manifests, and the state of their files; the newest last.
    parsed: Mutex<VecDeque<(Digest, Checked, Arc<Manifest>)>>,
}

/// A file's metadata when it was hashed, and whether it had the digest in its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Checked {
    inode: u64,
    size_bytes: u64,
    changed: (i64, i64),
    good: bool,
}

impl BlobDir {
    /// The folder at `path`.
    ///
    /// # Errors
    /// [`CacheError::Io`] when it is not a directory that can be read.
    pub fn open(path: &Path) -> Result<Self, CacheError> {
        std::fs::read_dir(path).map_err(|source| CacheError::io("read", path, source))?;
        let (checked, manifests, parsed) = (Mutex::default(), Mutex::default(), Mutex::default());
        Ok(Self { path: path.to_owned(), checked, manifests, parsed })
    }

    /// The blob with this digest; `None` when there is none, or the file has another digest than its name.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn lookup(&self, digest: &Digest) -> io::Result<Option<BlobReader>> {
        let Some((file, _)) = self.checked_file(digest)? else { return Ok(None) };
        BlobReader::file(file).map(Some)
    }

    /// The file with this digest, and its metadata when it was hashed; `None` when it has another digest than its name.
    fn checked_file(&self, digest: &Digest) -> io::Result<Option<(File, Checked)>> {
        // Opening what is not a file must neither wait nor follow.
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed());
        let is_there = |opened: &io::Result<File>| {
            !opened.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
        };
        let opened = self.paths(digest).into_iter().map(|path| options.open(path)).find(is_there);
        let Some(file) = opened.transpose()? else { return Ok(None) };
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Ok(None);
        }
        let entry = {
            let mut checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(checked.entry(*digest).or_default())
        };
        let mut checked = entry.lock().unwrap_or_else(PoisonError::into_inner);
        let known = checked.is_some_and(|known| known == Checked::of(&metadata, known.good));
        if !known {
            let found = hash(&file, metadata.len())?;
            if found != *digest {
                tracing::warn!(dir = %self.path.display(), %digest, %found, "not serving a blob that is not what its name says");
            }
            *checked = Some(Checked::of(&metadata, found == *digest));
        }
        Ok(checked.filter(|checked| checked.good).map(|checked| (file, checked)))
    }

    /// The names that a blob may have.
    fn paths(&self, digest: &Digest) -> [PathBuf; 2] {
        [self.path.join(digest.to_string()), self.path.join(format!("{digest}.{SHARD}"))]
    }

    /// Whether there is a file of this name and size that is not known to be something else.
    pub(super) fn has(&self, digest: &Digest, size_bytes: u64) -> bool {
        let metadata = self.paths(digest).into_iter().find_map(|path| std::fs::metadata(path).ok());
        let Some(metadata) = metadata else { return false };
        let bad = {
            let checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
            let entry = checked.get(digest).and_then(|entry| *entry.try_lock().ok()?);
            entry == Some(Checked::of(&metadata, false))
        };
        metadata.is_file() && metadata.len() == size_bytes && !bad
    }

    /// Digests of the manifests in the folder. Each file that may be one is read once.
    pub(super) fn manifests(&self) -> io::Result<Vec<Digest>> {
        let mut found = Vec::new();
        for file in files_in(&self.path)? {
            let (digest, entry) = file?;
            let known = self.manifests.lock().unwrap_or_else(PoisonError::into_inner).get(&digest).copied();
            let is_manifest = match known {
                Some(is_manifest) => is_manifest,
                None => {
                    let is_manifest = may_be_manifest(&entry.path()) && self.manifest(&digest)?.is_some();
                    let mut manifests = self.manifests.lock().unwrap_or_else(PoisonError::into_inner);
                    manifests.insert(digest, is_manifest);
                    is_manifest
                }
            };
            if is_manifest {
                found.push(digest);
            }
        }
        Ok(found)
    }

    /// The manifest with this digest, when the folder has it and it is one.
    pub(super) fn manifest(&self, digest: &Digest) -> io::Result<Option<Arc<Manifest>>> {
        let Some((file, checked)) = self.checked_file(digest)? else { return Ok(None) };
        let size_bytes = usize::try_from(checked.size_bytes).unwrap_or(usize::MAX);
        if size_bytes > MAX_MANIFEST_BYTES {
            return Ok(None);
        }
        if let Some(manifest) = self.parsed(digest, checked) {
            return Ok(Some(manifest));
        }
        let mut bytes = vec![0; size_bytes];
        file.read_exact_at(&mut bytes, 0)?;
        let Ok(manifest) = Manifest::parse(&bytes) else { return Ok(None) };
        let manifest = Arc::new(manifest);
        let mut parsed = self.parsed.lock().unwrap_or_else(PoisonError::into_inner);
        parsed.retain(|(known, ..)| known != digest);
        if parsed.len() >= MAX_PARSED {
            parsed.pop_front();
        }
        parsed.push_back((*digest, checked, Arc::clone(&manifest)));
        Ok(Some(manifest))
    }

    fn parsed(&self, digest: &Digest, checked: Checked) -> Option<Arc<Manifest>> {
        let parsed = self.parsed.lock().unwrap_or_else(PoisonError::into_inner);
        let found = parsed.iter().find(|(known, as_of, _)| known == digest && *as_of == checked);
        found.map(|(.., manifest)| Arc::clone(manifest))
    }
}

impl Checked {
    fn of(metadata: &Metadata, good: bool) -> Self {
        let changed = (metadata.mtime(), metadata.mtime_nsec());
        Self { inode: metadata.ino(), size_bytes: metadata.len(), changed, good }
    }
}

/// The files in a folder that are named by digests, whatever they are.
pub(super) fn files_in(dir: &Path) -> io::Result<impl Iterator<Item = io::Result<(Digest, DirEntry)>>> {
    let named = |entry: DirEntry| {
        let name = entry.file_name();
        let stem =
            Path::new(&name).file_stem().filter(|_| Path::new(&name).extension() == Some(SHARD.as_ref()));
        Some((digest_named(stem.unwrap_or(&name))?, entry))
    };
    Ok(std::fs::read_dir(dir)?.filter_map(move |entry| entry.map(named).transpose()))
}

/// Digests that files in a folder are named by: `most` of them, and nobody has looked whether they are what they say.
///
/// # Errors
/// [`CacheError::Io`] when it cannot be listed.
pub fn digests_in(dir: &Path, most: usize) -> Result<Vec<Digest>, CacheError> {
    let listed = files_in(dir).and_then(|files| files.take(most).map(|file| Ok(file?.0)).collect());
    listed.map_err(|source| CacheError::io("list", dir, source))
}

/// Whether a file is small enough for a manifest and begins like one. A file that cannot be read is not.
fn may_be_manifest(path: &Path) -> bool {
    let is_small = std::fs::metadata(path)
        .is_ok_and(|metadata| metadata.is_file() && metadata.len() <= MAX_MANIFEST_BYTES as u64);
    let mut first = [0];
    is_small && File::open(path).is_ok_and(|file| file.read_exact_at(&mut first, 0).is_ok()) && first == *b"{"
}

fn hash(file: &File, size_bytes: u64) -> io::Result<Digest> {
    let mut hashers = [ShardHasher::new(size_bytes, TRANSFER_PIECE_BYTES)];
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut offset = 0;
    while offset < size_bytes {
        let left = usize::try_from(size_bytes - offset).unwrap_or(usize::MAX);
        let chunk = &mut buffer[..left.min(CHUNK_BYTES)];
        file.read_exact_at(chunk, offset)?;
        ShardHasher::update_all(&mut hashers, &[chunk]);
        offset += chunk.len() as u64;
    }
    let [hasher] = hashers;
    Ok(hasher.finish().0)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use manifest::{Codec, Shard};

    use super::*;

    fn put(dir: &Path, digest: &Digest, bytes: &[u8]) {
        super::super::atomic::write(&dir.join(digest.to_string()), bytes, 0o644).unwrap();
    }

    fn content(held: &BlobReader) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(held.size_bytes()).unwrap()];
        held.read_at(0, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_file_is_served_when_it_is_what_its_name_says() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = BlobDir::open(dir.path()).unwrap();
        let digest = Digest::of(b"content");
        assert!(blobs.lookup(&digest).unwrap().is_none());
        put(dir.path(), &digest, b"content");
        assert!(blobs.has(&digest, 7) && !blobs.has(&digest, 8));
        assert_eq!(content(&blobs.lookup(&digest).unwrap().unwrap()), b"content");
    }

    #[test]
    fn a_file_that_changed_is_hashed_again() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = BlobDir::open(dir.path()).unwrap();
        let digest = Digest::of(b"content");
        put(dir.path(), &digest, b"CONTENT");
        assert!(blobs.has(&digest, 7), "nobody has looked yet");
        assert!(blobs.lookup(&digest).unwrap().is_none());
        assert!(!blobs.has(&digest, 7), "now it is known");
        put(dir.path(), &digest, b"content");
        assert!(blobs.lookup(&digest).unwrap().is_some());
        put(dir.path(), &digest, b"CONTENT");
        assert!(blobs.lookup(&digest).unwrap().is_none());
    }

    #[test]
    fn an_empty_blob_is_a_blob_and_a_directory_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = BlobDir::open(dir.path()).unwrap();
        let (empty, folder) = (Digest::of(b""), Digest::of(b"folder"));
        put(dir.path(), &empty, b"");
        fs::create_dir(dir.path().join(folder.to_string())).unwrap();
        assert_eq!(blobs.lookup(&empty).unwrap().unwrap().size_bytes(), 0);
        assert!(blobs.lookup(&folder).unwrap().is_none());
        assert!(!blobs.has(&folder, 0));
    }

    #[test]
    fn a_manifest_is_parsed_once_as_long_as_its_file_is_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = BlobDir::open(dir.path()).unwrap();
        let manifest = |size_bytes| {
            let shard = Shard { digest: Digest::of(b"blob"), size_bytes, is_parity: false };
            Manifest::new("kind".to_owned(), size_bytes, vec![shard], 1, 0, Codec::Rs, None).unwrap()
        };
        let manifests: Vec<_> = (1..=5).map(manifest).collect();
        let digests: Vec<_> = manifests.iter().map(|manifest| Digest::of(&manifest.to_json())).collect();
        for (digest, manifest) in digests.iter().zip(&manifests) {
            put(dir.path(), digest, &manifest.to_json());
        }
        let get = |at: usize| blobs.manifest(&digests[at]).unwrap();
        let first = get(0).unwrap();
        assert_eq!(first.to_json(), manifests[0].to_json());
        assert!(Arc::ptr_eq(&first, &get(0).unwrap()));
        put(dir.path(), &digests[0], b"{}");
        assert!(get(0).is_none(), "it has changed");
        put(dir.path(), &digests[0], &manifests[0].to_json());
        let kept = get(0).unwrap();
        (1..MAX_PARSED).for_each(|at| drop(get(at)));
        assert!(Arc::ptr_eq(&kept, &get(0).unwrap()), "there is room for so many");
        get(MAX_PARSED);
        assert!(!Arc::ptr_eq(&kept, &get(0).unwrap()), "and for no more");
    }

    #[test]
    fn a_missing_folder_is_an_error_that_names_it() {
        let error = BlobDir::open(Path::new("not/there")).unwrap_err();
        assert!(error.to_string().contains("not/there"), "{error}");
    }
}
