//! Removes leftovers of killed processes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::layout::{Layout, STAGING, digest_named};
use super::lock::LockFile;
use super::{CacheError, atomic};

/// A temporary file is written in one go; one this old has lost its writer.
const STALE: Duration = Duration::from_secs(3600);

/// Removes leftovers of killed processes. Does nothing while a staging directory is in use.
pub(super) fn sweep(layout: &Layout) -> Result<(), CacheError> {
    let Some(_alone) = LockFile::staging(&layout.locks()).try_exclusive()? else { return Ok(()) };
    for dir in [layout.models(), layout.partials()] {
        for path in entries_of(&dir)? {
            if name_of(&path).starts_with(STAGING) {
                report(&path, fs::remove_dir_all(&path));
            } else if path.file_name().is_some_and(|name| digest_named(name).is_some()) {
                sweep_files(&path)?;
            }
        }
        sweep_files(&dir)?;
    }
    let others = [layout.manifests(), layout.series(), layout.links(), layout.pins(), layout.promises()];
    sweep_files(layout.root())?;
    others.iter().try_for_each(|dir| sweep_files(dir))
}

/// Removes the temporary files in a directory that have lost their writers.
pub(super) fn sweep_files(dir: &Path) -> Result<(), CacheError> {
    for path in entries_of(dir)? {
        if is_temporary(&path) && is_stale(&path) {
            report(&path, fs::remove_file(&path));
        }
    }
    Ok(())
}

/// Logs a failed removal, which does no harm.
fn report(path: &Path, removed: io::Result<()>) {
    if let Err(error) = removed {
        tracing::warn!(%error, path = %path.display(), "cannot remove what an earlier run has left");
    }
}

/// Nothing when it is not there, or is no directory.
fn entries_of(dir: &Path) -> Result<Vec<PathBuf>, CacheError> {
    let fail = |source| CacheError::io("list", dir, source);
    match fs::read_dir(dir) {
        Ok(entries) => {
            entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>().map_err(fail)
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(Vec::new())
        }
        Err(error) => Err(fail(error)),
    }
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Whether a file was to get another name once it is whole: ours, or one of those that the network keeps in the cache.
pub(super) fn is_temporary(path: &Path) -> bool {
    let name = name_of(path);
    let is_random = |rest: &str| rest.len() == 6 && rest.bytes().all(|byte| byte.is_ascii_alphanumeric());
    name.starts_with(atomic::TEMPORARY_PREFIX) || name.strip_prefix(".tmp").is_some_and(is_random)
}

fn is_stale(path: &Path) -> bool {
    let Ok(metadata) = path.symlink_metadata() else { return false };
    let changed = metadata.modified().ok().and_then(|changed| SystemTime::now().duration_since(changed).ok());
    metadata.is_file() && changed.is_some_and(|age| age > STALE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cache;

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

    /// Makes a file that is so old.
    fn leave(path: &Path, age: Duration) {
        let file = fs::File::create(path).unwrap();
        file.set_modified(SystemTime::now() - age).unwrap();
    }

    #[test]
    fn temporary_files_that_lost_their_writers_are_swept_wherever_they_are_written() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let layout = cache.layout();
        let digest = manifest::Digest::of(b"model");
        let dirs = [
            layout.root().to_owned(),
            layout.manifests(),
            layout.models(),
            layout.partials(),
            layout.series(),
            layout.model(&digest),
            layout.partial(&digest),
        ];
        for dir in &dirs {
            atomic::create_dir(dir).unwrap();
            for old in [".tmp-a1B2c3", ".tmpa1B2c3", "kept", ".tmp", ".tmp.a1B2"] {
                leave(&dir.join(old), 2 * STALE);
            }
            leave(&dir.join(".tmp-new"), Duration::ZERO);
            fs::create_dir(dir.join(".tmpFolder")).unwrap();
        }
        fs::create_dir(layout.models().join("staging-dead")).unwrap();
        Cache::open(dir.path()).unwrap();
        assert!(!layout.models().join("staging-dead").exists());
        for dir in &dirs {
            let left = |name: &str| dir.join(name).exists();
            assert!(!left(".tmp-a1B2c3") && !left(".tmpa1B2c3"), "{}", dir.display());
            let others = ["kept", ".tmp", ".tmp.a1B2", ".tmp-new", ".tmpFolder"];
            assert!(others.into_iter().all(left), "{}", dir.display());
        }
    }
}
