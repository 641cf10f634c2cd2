//! Disk space: checked before it is reserved, and released when that fails.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use super::CacheError;
use super::free::{Free, free};

/// Left free for files beside the weights: a journal, a stamp, names.
const MARGIN_BYTES: u64 = 1 << 20;

/// Disk space that a file takes; 0 when it is not there.
pub(super) fn held_bytes(path: &Path) -> u64 {
    path.symlink_metadata().map_or(0, |metadata| metadata.blocks() * 512)
}

/// Fails unless so many bytes, and a margin, are free at `path`.
///
/// # Errors
/// [`CacheError::NoRoom`].
pub fn require(path: &Path, bytes: u64) -> Result<(), CacheError> {
    let needed_bytes = bytes.saturating_add(MARGIN_BYTES);
    match free(path) {
        Some(Free { bytes: free_bytes, .. }) if bytes > 0 && free_bytes < needed_bytes => {
            Err(CacheError::NoRoom { path: path.to_owned(), needed_bytes, free_bytes })
        }
        _ => Ok(()),
    }
}

/// Fails unless so many files can be created at `path`.
///
/// # Errors
/// [`CacheError::NoFiles`].
pub fn require_files(path: &Path, needed: u64) -> Result<(), CacheError> {
    match free(path) {
        Some(Free { files: Some(free), .. }) if free < needed => {
            Err(CacheError::NoFiles { path: path.to_owned(), needed, free })
        }
        _ => Ok(()),
    }
}

/// Makes `file` exactly `size_bytes` long, keeping what it has, and reserves the disk space where the file system can: a
/// full disk is found before anything is fetched. When there is no room, nothing more is taken than before.
pub fn reserve(file: &File, path: &Path, size_bytes: u64) -> Result<(), CacheError> {
    let fail = |source| CacheError::io("reserve space for", path, source);
    allow_size(path, size_bytes)?;
    let before = file.metadata().map_err(fail)?;
    require(path, size_bytes.saturating_sub(before.blocks() * 512))?;
    match fallocate(file, FallocateFlags::empty(), 0, size_bytes) {
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {}
        Err(error) => {
            // File systems keep what a reservation got before it failed.
            file.set_len(before.len()).and_then(|()| give_back(file)).map_err(fail)?;
            return Err(fail(error.into()));
        }
    }
    file.set_len(size_bytes).map_err(fail)
}

/// Reserves space for a file that will grow to so many bytes, where the file system can.
pub(super) fn reserve_beyond(file: &File, size_bytes: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::KEEP_SIZE, 0, size_bytes) {
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(()),
        Err(error) => {
            file.set_len(file.metadata()?.len())?;
            Err(error.into())
        }
    }
}

/// Fails when this process may not write files as large as this: the system would end it.
pub(super) fn allow_size(path: &Path, size_bytes: u64) -> Result<(), CacheError> {
    match getrlimit(Resource::Fsize).current {
        Some(limit_bytes) if size_bytes > limit_bytes => {
            Err(CacheError::FileTooLarge { path: path.to_owned(), size_bytes, limit_bytes })
        }
        _ => Ok(()),
    }
}

/// Releases reserved space of a file that was never written.
#[cfg(target_os = "linux")]
pub(super) fn give_back(file: &File) -> io::Result<()> {
    use rustix::fs::{SeekFrom, seek};

    let end = file.metadata()?.len();
    let mut data = 0;
    while data < end {
        let hole = seek(file, SeekFrom::Hole(data))?;
        data = match seek(file, SeekFrom::Data(hole)) {
            Err(Errno::NXIO) => end,
            found => found?,
        };
        if hole < data {
            match fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, hole, data - hole) {
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(()),
                done => done?,
            }
        }
    }
    Ok(())
}

/// Only Linux can.
#[cfg(not(target_os = "linux"))]
pub(super) fn give_back(_: &File) -> io::Result<()> {
    Ok(())
}

fn fallocate(file: &File, flags: FallocateFlags, offset: u64, bytes: u64) -> Result<(), Errno> {
    loop {
        match rustix::fs::fallocate(file, flags, offset, bytes) {
            Err(Errno::INTR) => {}
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn file(dir: &Path) -> (File, std::path::PathBuf) {
        let path = dir.join("file");
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        (file, path)
    }

    #[test]
    fn reserving_keeps_content_and_sets_the_size_both_ways() {
        let dir = tempfile::tempdir().unwrap();
        let (file, path) = file(dir.path());
        file.write_all_at(b"kept", 0).unwrap();
        for size_bytes in [MIB, 4] {
            reserve(&file, &path, size_bytes).unwrap();
            assert_eq!(file.metadata().unwrap().len(), size_bytes);
            assert_eq!(&std::fs::read(&path).unwrap()[..4], b"kept");
        }
    }

    #[test]
    fn more_than_there_is_is_refused_before_anything_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let (file, path) = file(dir.path());
        file.write_all_at(b"kept", 0).unwrap();
        let before = held_bytes(&path);
        let error = reserve(&file, &path, 1 << 60).unwrap_err();
        assert!(matches!(error, CacheError::NoRoom { .. }) && error.is_disk_full(), "{error}");
        assert_eq!((held_bytes(&path), file.metadata().unwrap().len()), (before, 4));
        // Its place need not be there yet.
        assert!(require(&dir.path().join("not/yet"), 1 << 60).is_err());
        assert!(require_files(&dir.path().join("not/yet"), u64::MAX).is_err());
        require(&path, 0).unwrap();
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_is_reserved_and_not_written_is_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let (file, path) = file(dir.path());
        reserve(&file, &path, 8 * MIB).unwrap();
        assert!(held_bytes(&path) >= 8 * MIB, "the file system of this test can reserve");
        let piece = vec![7; 64 << 10];
        file.write_all_at(&piece, 3 * MIB).unwrap();
        give_back(&file).unwrap();
        assert!(held_bytes(&path) < MIB, "{}", held_bytes(&path));
        assert_eq!(file.metadata().unwrap().len(), 8 * MIB);
        let mut found = vec![0; piece.len()];
        file.read_exact_at(&mut found, 3 * MIB).unwrap();
        assert_eq!(found, piece);
        // What is missing can be had again.
        reserve(&file, &path, 8 * MIB).unwrap();
        assert!(held_bytes(&path) >= 8 * MIB);
    }

    #[test]
    fn what_is_free_is_told_in_words() {
        let free = Free { bytes: 7, files: Some(2) };
        assert_eq!(free.to_string(), "7 bytes and 2 new files");
        assert_eq!(Free { files: None, ..free }.to_string(), "7 bytes");
    }
}
