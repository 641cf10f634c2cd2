//! Bringing files to the disk while they are still being written.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use super::CacheError;

/// How much is written before the disk is set to work on it.
const EVERY_BYTES: u64 = 64 << 20;

/// A thread that syncs files over and over while others write to them. Systems let gigabytes pile up before they begin
/// by themselves, and whoever syncs at the end waits for all of it with the processor idle.
#[derive(Debug)]
pub(crate) struct Writeback {
    unsynced_bytes: AtomicU64,
    /// Closed to end the thread.
    due: Option<SyncSender<()>>,
    /// Nobody waits for the files any more.
    given_up: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<(), CacheError>>>,
}

impl Writeback {
    /// Starts the thread, for these files. When bytes of them are lost, the file `voucher`, which says that they are
    /// right, is removed.
    pub(crate) fn start<'a>(
        files: impl IntoIterator<Item = (&'a File, &'a Path)>,
        voucher: Option<PathBuf>,
    ) -> Result<Self, CacheError> {
        let mut open = Vec::new();
        for (file, path) in files {
            let file = file.try_clone().map_err(|source| CacheError::io("open", path, source))?;
            open.push((file, path.to_owned()));
        }
        // One that waits is enough: it is about everything written before it is taken.
        let (sender, receiver) = sync_channel(1);
        let given_up = Arc::<AtomicBool>::default();
        let is_given_up = Arc::clone(&given_up);
        let work = move || {
            let synced = sync(&open, receiver, &is_given_up);
            if let (Err(error), Some(voucher)) = (&synced, &voucher) {
                void(voucher, error);
            }
            synced
        };
        let thread = std::thread::Builder::new().name("writeback".to_owned()).spawn(work);
        let thread =
            thread.map_err(|source| CacheError::io("start a thread for", Path::new("the disk"), source))?;
        Ok(Self { unsynced_bytes: AtomicU64::new(0), due: Some(sender), given_up, thread: Some(thread) })
    }

    /// Says that so many bytes were written. Never waits.
    pub(crate) fn wrote(&self, bytes: usize) {
        let unsynced_bytes = self.unsynced_bytes.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        if unsynced_bytes >= EVERY_BYTES
            && let Some(due) = &self.due
        {
            self.unsynced_bytes.store(0, Ordering::Relaxed);
            // Full: a sync is due already. Closed: one has failed, as `finish` tells.
            let _ = due.try_send(());
        }
    }

    /// Ends the thread. What it did not get to is still to be synced.
    ///
    /// # Errors
    /// When bytes could not be written. The system says so once only: whoever syncs again hears nothing of it.
    pub(crate) fn finish(mut self) -> Result<(), CacheError> {
        match self.end() {
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            Some(Ok(synced)) => synced,
            None => Ok(()),
        }
    }

    fn end(&mut self) -> Option<std::thread::Result<Result<(), CacheError>>> {
        self.due = None;
        self.thread.take().map(JoinHandle::join)
    }
}

impl Drop for Writeback {
    fn drop(&mut self) {
        // What became of the files, `void` has said where it matters.
        self.given_up.store(true, Ordering::Relaxed);
        let _ = self.end();
    }
}

/// Bytes that a journal says are there were lost on their way to the disk. The system says so once, and reads them back
/// from memory until then: only without the journal are they fetched again.
pub(super) fn void(journal: &Path, error: &CacheError) {
    tracing::error!(%error, journal = %journal.display(), "bytes were lost on their way to the disk: starting anew");
    match std::fs::remove_file(journal) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::error!(%error, journal = %journal.display(), "cannot remove the journal");
        }
        _ => {}
    }
}

fn sync(files: &[(File, PathBuf)], due: Receiver<()>, is_given_up: &AtomicBool) -> Result<(), CacheError> {
    for () in due {
        for (file, path) in files {
            if is_given_up.load(Ordering::Relaxed) {
                return Ok(());
            }
            file.sync_data().map_err(|source| CacheError::io("sync", path, source))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write as _};

    use super::*;

    #[test]
    fn it_ends_when_told_and_when_dropped_whatever_was_written() {
        for written_bytes in [0, 1, EVERY_BYTES, 3 * EVERY_BYTES] {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(b"bytes").unwrap();
            for is_dropped in [true, false] {
                let writeback = Writeback::start([(&file, Path::new("file"))], None).unwrap();
                writeback.wrote(usize::try_from(written_bytes).unwrap());
                if !is_dropped {
                    writeback.finish().unwrap();
                }
            }
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_sync_that_fails_is_told_and_voids_what_was_said_of_the_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let journal = dir.path().join("journal");
        File::create(&journal).unwrap();
        // A pipe cannot be synced.
        let (reader, _writer) = io::pipe().unwrap();
        let file = File::from(std::os::fd::OwnedFd::from(reader));
        let writeback = Writeback::start([(&file, Path::new("pipe"))], Some(journal.clone())).unwrap();
        writeback.wrote(usize::try_from(EVERY_BYTES).unwrap());
        assert_eq!(writeback.finish().unwrap_err().to_string(), "cannot sync pipe");
        assert!(!journal.exists());
    }
}
