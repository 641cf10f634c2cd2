//! Whether the disk of a cache does what is relied on.

use std::fs::{self, File, TryLockError};
use std::time::{Duration, Instant, SystemTime};

use super::{Cache, CacheError, atomic};

/// What a file on the disk has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DiskTrial {
    /// How long it took until the file, and its name, were on the disk.
    pub sync_took: Duration,
    /// Whether a lock that one holds is kept from another.
    pub has_locks: bool,
    /// How far the file system's clock is from this machine's.
    pub clock_off: Duration,
}

impl Cache {
    /// Writes a file, syncs it, takes its lock twice, and removes it.
    ///
    /// # Errors
    /// [`CacheError::ReadOnly`], [`CacheError::DiskFull`], [`CacheError::Io`].
    pub fn try_disk(&self) -> Result<DiskTrial, CacheError> {
        self.check_writable()?;
        let path = self.layout().locks().join(format!("trial-{}", std::process::id()));
        let fail = |action| {
            let path = path.clone();
            move |source| CacheError::io(action, &path, source)
        };
        let started = Instant::now();
        atomic::write(&path, b"trial\n", 0o600)?;
        let sync_took = started.elapsed();
        let now = SystemTime::now();
        let (first, second) = (atomic::open(&path), atomic::open(&path));
        let (first, second) = (first.map_err(fail("open"))?, second.map_err(fail("open"))?);
        let made = first.metadata().and_then(|metadata| metadata.modified()).map_err(fail("inspect"))?;
        let has_locks = takes_locks(&first, &second).map_err(fail("lock"))?;
        fs::remove_file(&path).map_err(fail("remove"))?;
        let clock_off = now.duration_since(made).unwrap_or_else(|error| error.duration());
        Ok(DiskTrial { sync_took, has_locks, clock_off: clock_off.saturating_sub(sync_took) })
    }
}

fn takes_locks(first: &File, second: &File) -> std::io::Result<bool> {
    match first.try_lock() {
        Ok(()) => Ok(matches!(second.try_lock(), Err(TryLockError::WouldBlock))),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let found = || fs::read_dir(dir.path().join("locks")).unwrap().count();
        let before = found();
        let trial = cache.try_disk().unwrap();
        assert!(trial.has_locks && trial.clock_off < Duration::from_secs(60), "{trial:?}");
        assert_eq!(found(), before);
    }
}
