//! Directories of work that is not known by its final name yet, or any more.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::layout::{PARITY, STAGING};
use super::lock::{Guard, LockFile};
use super::{Cache, CacheError, ModelFiles, WeightsFiles, atomic};

/// A directory under `partial/`, removed with all its content when it is dropped. When the process is killed before
/// that, the next [`Cache::open`] removes it.
#[derive(Debug)]
pub struct Staging {
    dir: TempDir,
    _lock: Guard,
}

impl Cache {
    /// A new one, with a folder for parity in it.
    ///
    /// # Errors
    /// [`CacheError::ReadOnly`], [`CacheError::DiskFull`], [`CacheError::Io`].
    pub fn staging(&self) -> Result<Staging, CacheError> {
        self.staging_in(&self.layout().partials())
    }

    /// The same in the directory of models, or in that of partial ones.
    pub(super) fn staging_in(&self, parent: &Path) -> Result<Staging, CacheError> {
        self.check_writable()?;
        let lock = LockFile::staging(&self.layout().locks()).shared()?;
        let dir = tempfile::Builder::new()
            .prefix(STAGING)
            .tempdir_in(parent)
            .map_err(|source| CacheError::io("create a directory in", parent, source))?;
        files::give_to_owner(files::Place::of(dir.path()))
            .map_err(|source| CacheError::io("create", dir.path(), source))?;
        // A temporary directory is private; what becomes of this one is as public as its files.
        let mode = fs::metadata(parent).map(|metadata| metadata.permissions());
        mode.and_then(|mode| fs::set_permissions(dir.path(), mode))
            .map_err(|source| CacheError::io("open up", dir.path(), source))?;
        atomic::create_dir(&dir.path().join(PARITY))?;
        Ok(Staging { dir, _lock: lock })
    }

    /// The name beside it under which a directory is removed, whose content a sweep removes when this process cannot; for as
    /// long as the guard is there, nobody sweeps.
    pub(super) fn doomed(&self, dir: &Path) -> Result<(PathBuf, Guard), CacheError> {
        let lock = LockFile::staging(&self.layout().locks()).shared()?;
        let name = dir.file_name().unwrap_or_default().to_string_lossy();
        Ok((dir.with_file_name(format!("{STAGING}removed-{name}")), lock))
    }
}

impl Staging {
    /// Where it is.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The files of weights that are written here.
    pub fn weights(&self, list: WeightsFiles) -> ModelFiles {
        ModelFiles::filling(list, self.path().to_owned(), None)
    }

    /// Writes a whole file, read-only, to the disk.
    ///
    /// # Errors
    /// [`CacheError::DiskFull`], [`CacheError::Io`].
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), CacheError> {
        atomic::write(&self.path().join(name), bytes, 0o444)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_staging_directory_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let staging = cache.staging().unwrap();
        staging.write("pieces", b"x").unwrap();
        let path = staging.path().to_owned();
        drop(staging);
        assert!(!path.exists());
    }
}
