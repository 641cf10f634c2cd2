//! Syncing files while they are still being written.

use std::any::Any;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;

use super::CacheError;

/// Bytes written between two syncs.
const EVERY_BYTES: u64 = 64 << 20;

/// A thread that syncs files repeatedly while others write to them. Systems let gigabytes of dirty pages pile up, and a
/// single sync at the end would wait for all of it with an idle CPU.
///
/// Dropping it does not wait for the disk: the thread ends after its current sync, and keeps the lock on the files until
/// then.
#[derive(Debug)]
pub struct Writeback {
    unsynced_bytes: AtomicU64,
    /// Closed to end the thread.
    due: SyncSender<()>,
    thread: JoinHandle<Result<(), CacheError>>,
    _right: Right,
}

/// The lock on the files.
pub type Right = Arc<dyn Any + Send + Sync>;

impl Writeback {
    /// Starts the thread. `sync` waits until what was written before it was called is on the disk. When bytes are lost on
    /// their way there, the file `voucher`, which records them as right, is removed.
    pub fn start(
        sync: impl Fn() -> Result<(), CacheError> + Send + 'static,
        voucher: Option<PathBuf>,
        right: Right,
    ) -> Result<Self, CacheError> {
        // One queued sync is enough: it covers everything written before it starts.
        let (sender, due) = sync_channel(1);
        let weak = Arc::downgrade(&right);
        let work = move || {
            for () in due {
                // The files are not needed any more.
                let Some(_kept) = Weak::upgrade(&weak) else { break };
                let synced = sync();
                if let (Err(error), Some(voucher)) = (&synced, &voucher) {
                    void(voucher, error);
                }
                synced?;
            }
            Ok(())
        };
        let thread = std::thread::Builder::new().name("writeback".to_owned()).spawn(work);
        let thread =
            thread.map_err(|source| CacheError::io("start a thread for", Path::new("the disk"), source))?;
        Ok(Self { unsynced_bytes: AtomicU64::new(0), due: sender, thread, _right: right })
    }

    /// Counts written bytes. Never waits.
    pub fn wrote(&self, bytes: usize) {
        let unsynced_bytes = self.unsynced_bytes.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        if unsynced_bytes >= EVERY_BYTES {
            self.unsynced_bytes.store(0, Ordering::Relaxed);
            // Full: a sync is due already. Closed: one has failed, as `finish` tells.
            let _ = self.due.try_send(());
        }
    }

    /// Ends the thread. Bytes written since its last sync are not synced.
    ///
    /// # Errors
    /// When bytes could not be written. The system reports that once only: a further sync succeeds.
    pub fn finish(self) -> Result<(), CacheError> {
        let Self { due, thread, .. } = self;
        drop(due);
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// Bytes that a journal records were lost on their way to the disk. The system reports that once, and may still read them
/// from memory: removing the journal makes sure that they are fetched again.
pub(super) fn void(journal: &Path, error: &CacheError) {
    tracing::error!(%error, journal = %journal.display(), "bytes were lost on their way to the disk: starting anew");
    match std::fs::remove_file(journal) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::error!(%error, journal = %journal.display(), "cannot remove the journal");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{self, Write as _};

    use manifest::Digest;

    use super::super::{Cache, FillLock};
    use super::*;

    #[test]
    fn it_ends_when_told_and_when_dropped_whatever_was_written() {
        for written_bytes in [0, 1, EVERY_BYTES, 3 * EVERY_BYTES] {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(b"bytes").unwrap();
            for is_dropped in [true, false] {
                let file = file.try_clone().unwrap();
                let sync =
                    move || file.sync_data().map_err(|lost| CacheError::io("sync", Path::new("file"), lost));
                let writeback = Writeback::start(sync, None, Arc::new(())).unwrap();
                writeback.wrote(usize::try_from(written_bytes).unwrap());
                if !is_dropped {
                    writeback.finish().unwrap();
                }
            }
        }
    }

    #[test]
    fn dropping_it_waits_for_no_disk_and_the_files_are_nobody_elses_until_that_is_done() {
        let dir = tempfile::tempdir().unwrap();
        let (cache, digest) = (Cache::open(dir.path()).unwrap(), Digest::of(b"manifest"));
        let lock = Arc::new(cache.lock_fill(&digest).unwrap());
        let (begun, has_begun) = sync_channel(1);
        let (go_on, may_go_on) = sync_channel::<()>(0);
        let sync = move || {
            begun.send(()).unwrap();
            let _ = may_go_on.recv();
            Ok(())
        };
        let writeback = Writeback::start(sync, None, Arc::<FillLock>::clone(&lock)).unwrap();
        writeback.wrote(usize::try_from(EVERY_BYTES).unwrap());
        has_begun.recv().unwrap();
        // These would never return.
        drop(writeback);
        drop(lock);
        assert!(cache.try_lock_fill(&digest).unwrap().is_none(), "bytes are on their way to the disk");
        drop(go_on);
        cache.lock_fill(&digest).unwrap();
    }

    #[test]
    fn a_sync_that_fails_is_told_and_voids_what_was_said_of_the_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let journal = dir.path().join("journal");
        File::create(&journal).unwrap();
        let sync = || Err(CacheError::io("sync", Path::new("disk"), io::ErrorKind::Other.into()));
        let writeback = Writeback::start(sync, Some(journal.clone()), Arc::new(())).unwrap();
        writeback.wrote(usize::try_from(EVERY_BYTES).unwrap());
        assert_eq!(writeback.finish().unwrap_err().to_string(), "cannot sync disk");
        assert!(!journal.exists());
    }
}
