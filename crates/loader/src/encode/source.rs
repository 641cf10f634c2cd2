//! The files a model is published from.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::PublishError;

/// Fills a buffer with weights from an offset on.
pub(super) type ReadAt<'a> = dyn Fn(u64, &mut [u8]) -> Result<(), PublishError> + Sync + 'a;

/// One input file, which must stay as it is until it has been read.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) file: File,
    pub(super) size_bytes: u64,
    path: PathBuf,
    changed: (i64, i64),
}

impl Source {
    /// # Errors
    /// When it is no regular file, is empty, or cannot be opened.
    pub(super) fn open(path: &Path) -> Result<Self, PublishError> {
        let fail = |source| PublishError::Read { path: path.to_owned(), source };
        // Opening a pipe must not wait for somebody to write to it.
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(fail)?;
        let metadata = file.metadata().map_err(fail)?;
        if !metadata.is_file() {
            return Err(PublishError::NotAFile { path: path.to_owned() });
        }
        if metadata.len() == 0 {
            return Err(PublishError::Empty { path: path.to_owned() });
        }
        let changed = (metadata.mtime(), metadata.mtime_nsec());
        Ok(Self { file, size_bytes: metadata.len(), path: path.to_owned(), changed })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Fills `buffer` from `offset` on.
    pub(super) fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), PublishError> {
        self.file.read_exact_at(buffer, offset).map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => PublishError::Changed { path: self.path.clone() },
            _ => PublishError::Read { path: self.path.clone(), source },
        })
    }

    /// # Errors
    /// [`PublishError::Changed`] when somebody has written to it since it was opened.
    pub(super) fn check_unchanged(&self) -> Result<(), PublishError> {
        let metadata = self.file.metadata();
        let now = metadata.map_err(|source| PublishError::Read { path: self.path.clone(), source })?;
        if now.len() != self.size_bytes || (now.mtime(), now.mtime_nsec()) != self.changed {
            return Err(PublishError::Changed { path: self.path.clone() });
        }
        Ok(())
    }
}
