//! Directories of work that is not known by its final name yet, or any more.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use super::layout::{Layout, PARITY};
use super::lock::{Guard, LockFile};
use super::{Cache, CacheError, atomic};

pub(super) const PREFIX: &str = "staging-";
/// A temporary file is written in one go; one this old has lost its writer.
const STALE: Duration = Duration::from_secs(3600);

/// A directory under `partial/`, removed with all its content when it is dropped. When the process is killed before
/// that, the next [`Cache::open`] removes it.
#[derive(Debug)]
pub(crate) struct Staging {
    dir: TempDir,
    _lock: Guard,
}

impl Cache {
    pub(crate) fn staging(&self) -> Result<Staging, CacheError> {
        self.check_writable()?;
        let lock = LockFile::staging(&self.layout().locks()).shared()?;
        let partials = self.layout().partials();
        let dir = tempfile::Builder::new()
            .prefix(PREFIX)
            .tempdir_in(&partials)
            .map_err(|source| CacheError::io("create a directory in", &partials, source))?;
        files::give_to_owner(files::Place::of(dir.path()))
            .map_err(|source| CacheError::io("create", dir.path(), source))?;
        // A temporary directory is private; what becomes of this one is as public as its files.
        let mode = fs::metadata(&partials).map(|metadata| metadata.permissions());
        mode.and_then(|mode| fs::set_permissions(dir.path(), mode))
            .map_err(|source| CacheError::io("open up", dir.path(), source))?;
        atomic::create_dir(&dir.path().join(PARITY))?;
        Ok(Staging { dir, _lock: lock })
    }
}

impl Staging {
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), CacheError> {
        atomic::write(&self.path().join(name), bytes, 0o444)
    }

    /// Removes it, and says when that fails.
    pub(super) fn remove(self) -> Result<(), CacheError> {
        let path = self.path().to_owned();
        self.dir.close().map_err(|source| CacheError::io("remove", &path, source))
    }
}

/// Removes what killed processes have left. Does nothing while anybody has a staging directory.
pub(super) fn sweep(layout: &Layout) -> Result<(), CacheError> {
    let Some(_alone) = LockFile::staging(&layout.locks()).try_exclusive()? else { return Ok(()) };
    for dir in [layout.partials(), layout.manifests()] {
        let fail = |source| CacheError::io("list", &dir, source);
        for entry in fs::read_dir(&dir).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let path = entry.path();
            let removed = if name.starts_with(PREFIX) {
                fs::remove_dir_all(&path)
            } else if name.starts_with(atomic::TEMPORARY_PREFIX) && is_stale(&path) {
                fs::remove_file(&path)
            } else {
                Ok(())
            };
            removed.map_err(|source| CacheError::io("remove", &path, source))?;
        }
    }
    Ok(())
}

fn is_stale(path: &Path) -> bool {
    let changed = fs::metadata(path).and_then(|metadata| metadata.modified());
    changed.is_ok_and(|changed| SystemTime::now().duration_since(changed).is_ok_and(|age| age > STALE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_process_left_is_swept_and_what_lives_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let left = cache.layout().partials().join("staging-dead");
        fs::create_dir(&left).unwrap();
        let alive = cache.staging().unwrap();
        Cache::open(dir.path()).unwrap();
        assert!(left.exists() && alive.path().exists(), "somebody is at work");
        drop(alive);
        fs::create_dir(cache.layout().partials().join("of somebody else")).unwrap();
        Cache::open(dir.path()).unwrap();
        assert!(!left.exists());
        assert!(cache.layout().partials().join("of somebody else").exists());
    }

    #[test]
    fn a_dropped_staging_directory_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let staging = cache.staging().unwrap();
        staging.write("pieces", b"x").unwrap();
        let path = staging.path().to_owned();
        staging.remove().unwrap();
        assert!(!path.exists());
    }
}
