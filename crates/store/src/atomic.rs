//! Files that appear whole or not at all, and survive a power cut once they have appeared.

use std::ffi::OsStr;
use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use files::Place;

use super::CacheError;
use super::layout::{STAGING, digest_named};

pub(super) use files::TEMPORARY_PREFIX;

/// Where a file of the cache is: below the directory of a model nothing is a link. Models, partial ones and staging
/// directories may be elsewhere as a whole.
pub(super) fn place(path: &Path) -> Place<'_> {
    let is_model = |dir: &&Path| dir.file_name().is_some_and(is_model_dir);
    match path.ancestors().skip(1).find(is_model).and_then(Path::parent) {
        Some(base) => Place::within(base, path),
        None => Place::of(path),
    }
}

fn is_model_dir(name: &OsStr) -> bool {
    digest_named(name).is_some() || name.as_encoded_bytes().starts_with(STAGING.as_bytes())
}

/// Opens a file of the cache for reading.
pub(super) fn open(path: &Path) -> io::Result<File> {
    files::open(place(path))
}

/// The same; `None` when there is none.
pub(super) fn open_if_there(path: &Path) -> io::Result<Option<File>> {
    match open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Creates a file of the cache.
pub fn create_new(path: &Path) -> io::Result<File> {
    files::create_new(place(path))
}

/// Changes the permissions of a file.
pub(super) fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    open(path)?.set_permissions(Permissions::from_mode(mode))
}

/// Writes `bytes` to `path` with these permissions, replacing what was there, and makes it durable.
pub(super) fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), CacheError> {
    write_with(path, bytes, mode, true)
}

/// The same; waits for the disk only if it is to be `durable`.
pub(super) fn write_with(path: &Path, bytes: &[u8], mode: u32, durable: bool) -> Result<(), CacheError> {
    files::replace(place(path), bytes, mode, durable).map_err(|source| CacheError::io("write", path, source))
}

/// Makes the entries of a directory durable.
pub(super) fn sync_dir(dir: &Path) -> Result<(), CacheError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|source| CacheError::io("sync", dir, source))
}

/// Creates a directory and those above it; fine when it is there already.
pub(super) fn create_dir(dir: &Path) -> Result<(), CacheError> {
    let created = match place_of_dir(dir) {
        Some(above) => create_dir(above).map(|()| files::create_dir(place(dir))),
        None => Ok(files::create_dir_all(dir)),
    };
    created?.map_err(|source| CacheError::io("create", dir, source))
}

/// The directory above one that is, or belongs to, that of a model.
fn place_of_dir(dir: &Path) -> Option<&Path> {
    dir.ancestors().any(|dir| dir.file_name().is_some_and(is_model_dir)).then(|| dir.parent()).flatten()
}

/// Reads a file; `None` when there is none. Of one that is longer than `limit_bytes`, one byte more than that is read: it is
/// none of ours.
pub(super) fn read(path: &Path, limit_bytes: u64) -> Result<Option<Vec<u8>>, CacheError> {
    files::read(place(path), limit_bytes).map_err(|source| CacheError::io("read", path, source))
}

/// Removes a file, if it is there.
pub(super) fn remove_file(path: &Path) -> Result<(), CacheError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(CacheError::io("remove", path, error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

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
        write(&path, &[b'1'; 20], 0o644).unwrap();
        assert_eq!(read(&path, 10).unwrap().unwrap().len(), 11);
    }

    #[test]
    fn below_a_models_directory_no_link_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let digest = manifest::Digest::of(b"model").to_string();
        let (real, planted) = (dir.path().join("real"), dir.path().join(&digest));
        create_dir(&real).unwrap();
        write(&real.join("weights"), b"private", 0o644).unwrap();
        std::os::unix::fs::symlink(&real, &planted).unwrap();
        assert!(open(&planted.join("weights")).is_err());
        assert!(create_dir(&planted.join("parity")).is_err());
        assert!(set_mode(&planted.join("weights"), 0o444).is_err());
        // The directory above may be one.
        let linked = dir.path().join("models");
        std::os::unix::fs::symlink(dir.path(), &linked).unwrap();
        assert!(open(&linked.join("real/weights")).is_ok());
        let own = linked.join(manifest::Digest::of(b"other").to_string()).join("parity");
        create_dir(&own).unwrap();
        write(&own.join("3"), b"", 0o644).unwrap();
    }
}
