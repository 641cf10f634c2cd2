//! Waiting for the fill lock of a model while another holder has it, and detecting whether that one makes progress.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use manifest::Digest;

use super::layout::{FILES, JOURNAL, WEIGHTS};
use super::lock::{self, LockFile, PATIENCE};
use super::lock_holder::LockHolders;
use super::{Cache, CacheError, FillLock};

/// How often the lock is tried.
pub const PAUSE: Duration = Duration::from_millis(50);
/// Interval over which CPU usage is measured.
const MEASURED: Duration = Duration::from_secs(1);
/// A process that uses this part of a CPU makes progress, such as by hashing claims. One that waits uses less.
const BUSY_PERCENT: u128 = 20;

/// A waiter for the fill lock. Dropping it leaves nothing behind.
#[derive(Debug)]
pub struct FillWait {
    cache: Cache,
    digest: Digest,
    files: Vec<Option<(u64, SystemTime)>>,
    measured: (Instant, u64),
    /// When the holder last made progress.
    alive: Instant,
}

/// The state of the lock.
#[derive(Debug)]
pub enum FillState {
    /// Acquired.
    Mine(FillLock),
    /// Held by others, that have made no progress for so long.
    Theirs {
        /// The holders, as far as the system tells.
        holders: LockHolders,
        /// For how long.
        idle: Duration,
    },
}

impl FillWait {
    /// A waiter for this model from now on.
    pub fn new(cache: &Cache, digest: Digest, now: Instant) -> Self {
        Self { cache: cache.clone(), digest, files: Vec::new(), measured: (now, 0), alive: now }
    }

    /// Tries to acquire the lock. Does not wait.
    ///
    /// # Errors
    /// [`CacheError::Io`].
    pub fn look(&mut self, now: Instant) -> Result<FillState, CacheError> {
        let locks = self.cache.layout().locks();
        if let Some(lock) = lock::try_fill(&locks, &self.digest)? {
            return Ok(FillState::Mine(lock));
        }
        let holders = LockHolders::of(&LockFile::fill(&locks, &self.digest).holders());
        let dir = self.cache.layout().partial(&self.digest);
        let files =
            [&dir, &dir.join(JOURNAL), &dir.join(WEIGHTS), &dir.join(FILES)].map(|path| looks(path)).to_vec();
        let has_written = files != self.files;
        self.files = files;
        if self.is_busy(&holders, now) || has_written {
            self.alive = now;
        }
        Ok(FillState::Theirs { holders, idle: now.saturating_duration_since(self.alive) })
    }

    fn is_busy(&mut self, holders: &LockHolders, now: Instant) -> bool {
        let (since, before_ticks) = self.measured;
        let elapsed = now.saturating_duration_since(since);
        if elapsed < MEASURED {
            return false;
        }
        let used_ticks = holders.0.iter().map(|holder| holder.used_ticks).fold(0, u64::saturating_add);
        self.measured = (now, used_ticks);
        let used_ms = u128::from(used_ticks.saturating_sub(before_ticks)) * 10;
        before_ticks > 0 && used_ms * 100 > elapsed.as_millis() * BUSY_PERCENT
    }
}

impl Cache {
    /// The fill lock of this model; waits while another process, or thread, holds it and makes progress. Once acquired, that
    /// one may have finished the model: check [`Self::model`] again.
    ///
    /// # Errors
    /// [`CacheError::Locked`], [`CacheError::Io`].
    pub fn lock_fill(&self, digest: &Digest) -> Result<FillLock, CacheError> {
        self.check_writable()?;
        let mut wait = FillWait::new(self, *digest, Instant::now());
        loop {
            match wait.look(Instant::now())? {
                FillState::Mine(lock) => return Ok(lock),
                FillState::Theirs { idle, .. } if idle < PATIENCE => std::thread::sleep(PAUSE),
                FillState::Theirs { .. } => {
                    return Err(LockFile::fill(&self.layout().locks(), digest).held(PATIENCE));
                }
            }
        }
    }

    /// As [`Self::lock_fill`], but `None` instead of waiting.
    ///
    /// # Errors
    /// [`CacheError::Io`].
    pub fn try_lock_fill(&self, digest: &Digest) -> Result<Option<FillLock>, CacheError> {
        self.check_writable()?;
        lock::try_fill(&self.layout().locks(), digest)
    }
}

/// Metadata that changes when a file is written to.
fn looks(path: &Path) -> Option<(u64, SystemTime)> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.len(), metadata.modified().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock_holder::LockHolder;

    fn idle(look: FillState) -> Duration {
        match look {
            FillState::Theirs { idle, .. } => idle,
            FillState::Mine(_) => panic!("somebody has it"),
        }
    }

    #[test]
    fn a_waiting_filler_gets_it_when_the_first_is_done() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let digest = Digest::of(b"a");
        let first = cache.lock_fill(&digest).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| cache.lock_fill(&digest).map(|_| ()));
            drop(first);
            waiting.join().unwrap().unwrap();
        });
    }

    #[test]
    fn who_writes_gets_on_and_who_does_not_is_idle() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let digest = Digest::of(b"model");
        let held = cache.try_lock_fill(&digest).unwrap().unwrap();
        let start = Instant::now();
        // Too short for CPU usage to be measured.
        let at = |ms| start + Duration::from_millis(ms);
        let mut wait = FillWait::new(&cache, digest, start);
        idle(wait.look(at(0)).unwrap());
        assert_eq!(idle(wait.look(at(400)).unwrap()), Duration::from_millis(400));
        let partial = cache.layout().partial(&digest);
        fs::create_dir(&partial).unwrap();
        assert_eq!(idle(wait.look(at(500)).unwrap()), Duration::ZERO);
        fs::File::create(partial.join(JOURNAL)).unwrap();
        assert_eq!(idle(wait.look(at(600)).unwrap()), Duration::ZERO);
        assert_eq!(idle(wait.look(at(700)).unwrap()), Duration::from_millis(100));
        let FillState::Theirs { holders, .. } = wait.look(at(800)).unwrap() else {
            panic!("somebody has it")
        };
        if cfg!(target_os = "linux") {
            assert_eq!(holders.0[0].process, std::process::id());
        }
        drop(held);
        assert!(matches!(wait.look(at(900)).unwrap(), FillState::Mine(_)));
    }

    #[test]
    fn who_is_busy_gets_on() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let start = Instant::now();
        let mut wait = FillWait::new(&cache, Digest::of(b"model"), start);
        let mut looks = |seconds, used_ticks| {
            let holder = LockHolder { process: 1, name: None, is_stopped: false, used_ticks };
            wait.is_busy(&LockHolders(vec![holder]), start + Duration::from_secs(seconds))
        };
        assert!(!looks(1, 5000), "what it did before is nothing new");
        assert!(!looks(2, 5010), "waiting takes a little, too");
        assert!(looks(3, 5060));
        assert!(!looks(13, 5200), "over ten seconds that is waiting");
    }
}
