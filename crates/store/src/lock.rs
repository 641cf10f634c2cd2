//! Locks between processes, and between the threads of one.
//!
//! They are advisory locks (`flock`) on files in `locks/` that are never deleted: deleting one while another process
//! waits for it would let two hold it at once. The system drops a lock when its holder ends, however it ends.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use manifest::Digest;

use super::CacheError;
use super::lock_holder::LockHolders;

/// Lock timeout: holders are done in a moment, unless they are stopped or their disk hangs.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// The exclusive lock for filling one model's partial directory. Released on drop.
#[derive(Debug)]
pub struct FillLock {
    digest: Digest,
    _held: Guard,
}

impl FillLock {
    /// Digest of the manifest it was taken for.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }
}

/// A lock that is held until it is dropped.
#[derive(Debug)]
pub(super) struct Guard(#[expect(dead_code, reason = "dropping the file gives the lock back")] Option<File>);

/// A lock file.
#[derive(Debug)]
pub(super) struct LockFile {
    path: PathBuf,
}

impl LockFile {
    /// Exclusive to the filler of a model.
    pub(super) fn fill(locks: &Path, digest: &Digest) -> Self {
        Self { path: locks.join(format!("{digest}.fill")) }
    }

    /// Shared by users of a finished model, exclusive for eviction.
    pub(super) fn usage(locks: &Path, digest: &Digest) -> Self {
        Self { path: locks.join(format!("{digest}.use")) }
    }

    /// Shared by owners of staging directories, exclusive for the sweep.
    pub(super) fn staging(locks: &Path) -> Self {
        Self { path: locks.join("staging") }
    }

    /// Exclusive for changing the lists of series.
    pub(super) fn series(locks: &Path) -> Self {
        Self { path: locks.join("series") }
    }

    /// Exclusive for making room.
    pub(super) fn room(locks: &Path) -> Self {
        Self { path: locks.join("room") }
    }

    /// Exclusive for changing the bans.
    pub(super) fn bans(locks: &Path) -> Self {
        Self { path: locks.join("bans") }
    }

    /// Acquires it exclusively, within [`PATIENCE`].
    pub(super) fn exclusive(&self) -> Result<Guard, CacheError> {
        self.wait(File::try_lock, PATIENCE)
    }

    /// Acquires it shared, within [`PATIENCE`]. A user that may neither create nor read the file goes without: removing the
    /// model then only unlinks it, which harms no map.
    pub(super) fn shared(&self) -> Result<Guard, CacheError> {
        match self.wait(File::try_lock_shared, PATIENCE) {
            Err(error) if error.is_denied() => Ok(Guard(None)),
            // Where the directory of locks cannot be created either.
            Err(CacheError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(Guard(None)),
            held => held,
        }
    }

    /// `None` when it is held.
    pub(super) fn try_exclusive(&self) -> Result<Option<Guard>, CacheError> {
        let file = self.open()?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Guard(Some(file)))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(CacheError::io("lock", &self.path, source)),
        }
    }

    /// Ids of the processes that hold it, as far as the system tells.
    pub(super) fn holders(&self) -> Vec<u32> {
        let Ok(metadata) = fs::metadata(&self.path) else { return Vec::new() };
        let table = fs::read_to_string("/proc/locks").unwrap_or_default();
        holders_in(&table, metadata.ino())
    }

    fn wait(
        &self,
        take: impl Fn(&File) -> Result<(), TryLockError>,
        patience: Duration,
    ) -> Result<Guard, CacheError> {
        let file = self.open()?;
        match files::lock_within(&file, take, patience) {
            Ok(true) => Ok(Guard(Some(file))),
            Ok(false) => Err(self.held(patience)),
            Err(source) => Err(CacheError::io("lock", &self.path, source)),
        }
    }

    /// The error after waiting so long.
    pub(super) fn held(&self, waited: Duration) -> CacheError {
        CacheError::Locked { path: self.path.clone(), holders: LockHolders::of(&self.holders()), waited }
    }

    fn open(&self) -> Result<File, CacheError> {
        files::open_to_lock(files::Place::of(&self.path))
            .map_err(|source| CacheError::io("open", &self.path, source))
    }
}

/// The fill lock of a model, unless it is held.
pub(super) fn try_fill(locks: &Path, digest: &Digest) -> Result<Option<FillLock>, CacheError> {
    let held = LockFile::fill(locks, digest).try_exclusive()?;
    Ok(held.map(|held| FillLock { digest: *digest, _held: held }))
}

/// Reads Linux's table of locks: `1: FLOCK  ADVISORY  READ 4242 fe:00:1234 0 EOF`, the inode last of the three.
/// Waiting processes have `->` as their second word and are left out.
fn holders_in(table: &str, inode: u64) -> Vec<u32> {
    let holder = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        (words.next()? == "FLOCK").then_some(())?;
        let process = words.nth(2)?.parse().ok()?;
        let file = words.next()?;
        (file.rsplit(':').next()?.parse::<u64>().ok()? == inode).then_some(process)
    };
    let mut holders: Vec<u32> = table.lines().filter_map(holder).collect();
    holders.sort_unstable();
    holders.dedup();
    holders
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exclusive_excludes_everybody_and_is_given_back_by_dropping() {
        let dir = tempfile::tempdir().unwrap();
        let digest = Digest::of(b"model");
        let lock = LockFile::usage(dir.path(), &digest);
        let (one, two) = (lock.shared().unwrap(), lock.shared().unwrap());
        drop(one);
        assert!(lock.try_exclusive().unwrap().is_none(), "one user is left");
        drop(two);
        let alone = lock.try_exclusive().unwrap().expect("nobody is left");
        assert!(lock.try_exclusive().unwrap().is_none());
        drop(alone);
        assert!(lock.path.exists(), "a lock file is never deleted");
    }

    #[test]
    fn the_fill_lock_is_one_per_model() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let held = try_fill(dir.path(), &a).unwrap().unwrap();
        assert_eq!(held.digest(), &a);
        assert!(try_fill(dir.path(), &a).unwrap().is_none());
        assert!(try_fill(dir.path(), &b).unwrap().is_some());
    }

    #[test]
    fn a_holder_that_does_not_end_is_not_waited_for_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let lock = LockFile::usage(dir.path(), &Digest::of(b"model"));
        let held = lock.exclusive().unwrap();
        let error = lock.wait(File::try_lock_shared, Duration::from_millis(1)).unwrap_err().to_string();
        if cfg!(target_os = "linux") {
            assert!(error.contains(&format!("process {} (", std::process::id())), "{error}");
        }
        drop(held);
        lock.wait(File::try_lock_shared, Duration::from_millis(1)).unwrap();
    }

    #[test]
    fn holders_are_read_from_the_table_of_locks() {
        let table = "1: POSIX  ADVISORY  WRITE 5 fe:00:77 0 EOF\n\
                     2: FLOCK  ADVISORY  READ  42 fe:00:77 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 43 fe:00:77 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 44 fe:00:78 0 EOF\n\
                     4: FLOCK  ADVISORY  READ  41 fe:00:77 0 EOF\nnonsense\n";
        assert_eq!(holders_in(table, 77), [41, 42]);
        assert_eq!(holders_in(table, 79), [0u32; 0]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_is_found_as_a_holder() {
        let dir = tempfile::tempdir().unwrap();
        let lock = LockFile::usage(dir.path(), &Digest::of(b"model"));
        let _held = lock.shared().unwrap();
        assert_eq!(lock.holders(), [std::process::id()]);
    }
}
