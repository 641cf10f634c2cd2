//! Files that appear whole or not at all, and survive a power cut once they have appeared.

use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::CacheError;

/// How the temporary files begin that a killed process can leave behind.
pub(super) const TEMPORARY_PREFIX: &str = ".tmp-";

/// Writes `bytes` to `path` with these permissions, replacing what was there, and makes it durable.
pub(super) fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), CacheError> {
    write_with(path, bytes, mode, true)
}

/// The same; waits for the disk only if it is to be `durable`.
pub(super) fn write_with(path: &Path, bytes: &[u8], mode: u32, durable: bool) -> Result<(), CacheError> {
    let fail = |source| CacheError::io("write", path, source);
    let dir = path.parent().ok_or_else(|| fail(io::Error::from(io::ErrorKind::InvalidInput)))?;
    let mut file = tempfile::Builder::new()
        .prefix(TEMPORARY_PREFIX)
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(dir)
        .map_err(fail)?;
    file.write_all(bytes).map_err(fail)?;
    if durable {
        file.as_file().sync_all().map_err(fail)?;
    }
    file.persist(path).map_err(|refused| fail(refused.error))?;
    if durable { sync_dir(dir) } else { Ok(()) }
}

/// Makes the entries of a directory durable.
pub(super) fn sync_dir(dir: &Path) -> Result<(), CacheError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|source| CacheError::io("sync", dir, source))
}

/// Creates a directory and those above it; fine when it is there already.
pub(super) fn create_dir(dir: &Path) -> Result<(), CacheError> {
    fs::create_dir_all(dir).map_err(|source| CacheError::io("create", dir, source))
}

/// Reads a file of at most `limit_bytes`; `None` when there is no such file.
pub(super) fn read(path: &Path, limit_bytes: u64) -> Result<Option<Vec<u8>>, CacheError> {
    let fail = |source| CacheError::io("read", path, source);
    let size_bytes = match fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fail(error)),
    };
    if size_bytes > limit_bytes {
        return Err(fail(io::Error::from(io::ErrorKind::FileTooLarge)));
    }
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(fail(error)),
    }
}

/// Makes `file` exactly `size_bytes` long, keeping what it has, and reserves the disk space where the file system can:
/// a full disk is then found before anything is fetched.
pub(crate) fn allocate(file: &File, path: &Path, size_bytes: u64) -> Result<(), CacheError> {
    let fail = |source| CacheError::io("reserve space for", path, source);
    let reserved = loop {
        match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, size_bytes) {
            Err(Errno::INTR) => {}
            other => break other,
        }
    };
    match reserved {
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {}
        Err(error) => return Err(fail(error.into())),
    }
    file.set_len(size_bytes).map_err(fail)
}

/// How much may be written to the file system of this path, by whoever runs this.
pub(super) fn free_bytes(path: &Path) -> io::Result<u64> {
    let found = rustix::fs::statvfs(path)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::*;

    #[test]
    fn a_written_file_has_its_mode_and_nothing_else_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        write(&path, b"one", 0o644).unwrap();
        write(&path, b"two", 0o444).unwrap();
        assert_eq!(read(&path, 3).unwrap().unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o444);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn reading_is_bounded_and_an_absent_file_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        assert!(read(&path, 10).unwrap().is_none());
        write(&path, b"12345678901", 0o644).unwrap();
        assert!(read(&path, 10).is_err());
    }

    #[test]
    fn allocating_keeps_content_and_sets_the_size_both_ways() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let file = File::create_new(&path).unwrap();
        file.write_all_at(b"kept", 0).unwrap();
        for size_bytes in [1 << 20, 4] {
            allocate(&file, &path, size_bytes).unwrap();
            assert_eq!(file.metadata().unwrap().len(), size_bytes);
            assert_eq!(&fs::read(&path).unwrap()[..4], b"kept");
        }
    }
}
