//! Bringing files to the disk while they are still being written.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
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
    thread: Option<JoinHandle<Result<(), CacheError>>>,
}

impl Writeback {
    /// Starts the thread, for these files.
    pub(crate) fn start<'a>(
        files: impl IntoIterator<Item = (&'a File, &'a Path)>,
    ) -> Result<Self, CacheError> {
        let mut open = Vec::new();
        for (file, path) in files {
            let file = file.try_clone().map_err(|source| CacheError::io("open", path, source))?;
            open.push((file, path.to_owned()));
        }
        // One that waits is enough: it is about everything written before it is taken.
        let (sender, receiver) = sync_channel(1);
        let thread = std::thread::spawn(move || sync(&open, receiver));
        Ok(Self { unsynced_bytes: AtomicU64::new(0), due: Some(sender), thread: Some(thread) })
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
        // The files are given up, and with them what became of them.
        let _ = self.end();
    }
}

fn sync(files: &[(File, PathBuf)], due: Receiver<()>) -> Result<(), CacheError> {
    for () in due {
        for (file, path) in files {
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
                let writeback = Writeback::start([(&file, Path::new("file"))]).unwrap();
                writeback.wrote(usize::try_from(written_bytes).unwrap());
                if !is_dropped {
                    writeback.finish().unwrap();
                }
            }
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_sync_that_fails_is_told() {
        // A pipe cannot be synced.
        let (reader, _writer) = io::pipe().unwrap();
        let file = File::from(std::os::fd::OwnedFd::from(reader));
        let writeback = Writeback::start([(&file, Path::new("pipe"))]).unwrap();
        writeback.wrote(usize::try_from(EVERY_BYTES).unwrap());
        assert_eq!(writeback.finish().unwrap_err().to_string(), "cannot sync pipe");
    }
}
