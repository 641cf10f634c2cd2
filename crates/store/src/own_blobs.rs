//! A folder of blobs that this node writes: each is a file named by its digest, as [`BlobDir`](crate::BlobDir) serves them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use manifest::Digest;

use super::{CacheError, atomic, blob_dir, sweep};

/// Others may read what is served anyway.
const MODE: u32 = 0o644;

/// A folder of blobs, with room for so many bytes. The blob store of the existing nodes has the same form, and can be taken over.
///
/// Bytes that other processes add to it are counted when it is opened.
#[derive(Debug)]
pub struct OwnBlobs {
    dir: PathBuf,
    max_bytes: u64,
    held_bytes: Mutex<u64>,
}

impl OwnBlobs {
    /// The folder at `dir`, which is created. Its blobs have `max_bytes` together.
    ///
    /// # Errors
    /// [`CacheError::Io`] when it cannot be created or listed.
    pub fn open(dir: &Path, max_bytes: u64) -> Result<Self, CacheError> {
        atomic::create_dir(dir)?;
        sweep::sweep_files(dir)?;
        let sizes = blob_dir::files_in(dir)
            .and_then(|files| files.map(|file| Ok(file?.1.metadata()?.len())).sum::<io::Result<u64>>());
        let held_bytes = sizes.map_err(|source| CacheError::io("list", dir, source))?;
        Ok(Self { dir: dir.to_owned(), max_bytes, held_bytes: Mutex::new(held_bytes) })
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Keeps a blob: it is there, whole and on the disk, when this returns.
    ///
    /// # Errors
    /// [`CacheError::BlobsFull`] when there is no room for it; [`CacheError::Io`], [`CacheError::DiskFull`].
    pub fn put(&self, bytes: &[u8]) -> Result<Digest, CacheError> {
        let digest = Digest::of(bytes);
        let (path, size_bytes) = (self.path(&digest), bytes.len() as u64);
        let before = atomic::read(&path, size_bytes)?;
        if before.as_deref() == Some(bytes) {
            return Ok(digest);
        }
        // What another program has not finished is replaced.
        let before_bytes = before.map_or(Ok(0), |_| std::fs::metadata(&path).map(|found| found.len()));
        let before_bytes = before_bytes.map_err(|source| CacheError::io("read", &path, source))?;
        {
            let mut held_bytes = self.held();
            let needed_bytes = held_bytes.saturating_add(size_bytes);
            if needed_bytes > self.max_bytes {
                let (dir, held_bytes, max_bytes) = (self.dir.clone(), *held_bytes, self.max_bytes);
                return Err(CacheError::BlobsFull { dir, size_bytes, held_bytes, max_bytes });
            }
            *held_bytes = needed_bytes;
        }
        let written = atomic::write(&path, bytes, MODE);
        let mut held_bytes = self.held();
        *held_bytes = held_bytes.saturating_sub(if written.is_ok() { before_bytes } else { size_bytes });
        written.map(|()| digest)
    }

    /// Whether it was there.
    ///
    /// # Errors
    /// [`CacheError::Io`] when it cannot be removed.
    pub fn remove(&self, digest: &Digest) -> Result<bool, CacheError> {
        let path = self.path(digest);
        let found = match std::fs::symlink_metadata(&path) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(CacheError::io("remove", &path, error)),
        };
        atomic::remove_file(&path)?;
        let mut held_bytes = self.held();
        *held_bytes = held_bytes.saturating_sub(found.len());
        Ok(true)
    }

    /// The blobs in it.
    ///
    /// # Errors
    /// [`CacheError::Io`] when it cannot be listed.
    pub fn list(&self) -> Result<Vec<Digest>, CacheError> {
        blob_dir::digests_in(&self.dir, usize::MAX)
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(digest.to_string())
    }

    fn held(&self) -> MutexGuard<'_, u64> {
        self.held_bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::BlobDir;

    #[test]
    fn what_is_put_is_served_once_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let own = OwnBlobs::open(&path, 10).unwrap();
        let served = BlobDir::open(own.dir()).unwrap();
        let digest = own.put(b"content").unwrap();
        assert_eq!(own.put(b"content").unwrap(), digest);
        assert_eq!(served.lookup(&digest).unwrap().unwrap().size_bytes(), 7);
        assert_eq!(own.put(b"").unwrap(), Digest::of(b""));
        let mut all = own.list().unwrap();
        all.sort();
        let mut wanted = [digest, Digest::of(b"")];
        wanted.sort();
        assert_eq!(all, wanted);
        assert_eq!(blob_dir::digests_in(&path, 1).unwrap().len(), 1);
        assert!(own.remove(&digest).unwrap() && !own.remove(&digest).unwrap());
        assert!(served.lookup(&digest).unwrap().is_none());
    }

    #[test]
    fn its_room_is_bounded_and_counted_again_when_it_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        let own = OwnBlobs::open(dir.path(), 10).unwrap();
        let digest = own.put(b"content").unwrap();
        let is_full = |own: &OwnBlobs, bytes: &[u8]| match own.put(bytes) {
            Err(CacheError::BlobsFull { held_bytes, .. }) => held_bytes == 7,
            other => panic!("{other:?}"),
        };
        assert!(is_full(&own, b"four"));
        let own = OwnBlobs::open(dir.path(), 10).unwrap();
        assert!(is_full(&own, b"four"));
        own.put(b"3rd").unwrap();
        own.remove(&digest).unwrap();
        own.put(b"four").unwrap();
        own.put(b"4th").unwrap();
    }

    #[test]
    fn what_others_left_half_written_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let digest = Digest::of(b"content");
        let path = dir.path().join(digest.to_string());
        for wrong in ["con", "CONTENT", "content and more"] {
            let mut file = fs::File::create(&path).unwrap();
            io::Write::write_all(&mut file, wrong.as_bytes()).unwrap();
            let own = OwnBlobs::open(dir.path(), 100).unwrap();
            own.put(b"content").unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"content");
            assert_eq!(*own.held(), 7, "{wrong}");
        }
    }
}
