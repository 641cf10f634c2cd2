//! Files that appear whole or not at all, and survive a power cut once they have appeared.

use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

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

#[cfg(test)]
mod tests {
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
}
