//! The files a model is published from.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use files::OpenFiles;
use rustix::fs::OFlags;

use super::PublishError;

/// Sources that stay open.
const MAX_OPEN: usize = 32;

/// Fills a buffer with weights from an offset on.
pub(super) type ReadAt<'a> = dyn Fn(u64, &mut [u8]) -> Result<(), PublishError> + Sync + 'a;

/// One input file, which must stay as it is until it has been read.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) size_bytes: u64,
    path: PathBuf,
    identity: Identity,
}

/// What is another when a file was replaced or written to.
type Identity = (u64, u64, u64, i64, i64);

fn identity(found: &Metadata) -> Identity {
    (found.dev(), found.ino(), found.len(), found.mtime(), found.mtime_nsec())
}

impl Source {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn fail(&self, source: io::Error) -> PublishError {
        PublishError::Read { path: self.path.clone(), source }
    }

    /// # Errors
    /// [`PublishError::Changed`] when it is not what it was.
    fn check(&self, found: &Metadata) -> Result<(), PublishError> {
        match identity(found) == self.identity {
            true => Ok(()),
            false => Err(PublishError::Changed { path: self.path.clone() }),
        }
    }
}

/// All input files, one after the other. A bounded number of them is open at a time.
#[derive(Debug)]
pub(super) struct Sources {
    list: Vec<Source>,
    /// Where each begins, and the end of the last.
    starts: Vec<u64>,
    open: OpenFiles,
}

impl Sources {
    /// # Errors
    /// When one is no regular file, is empty, or is not there.
    pub(super) fn new<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Result<Self, PublishError> {
        let (mut list, mut starts) = (Vec::new(), vec![0]);
        for path in paths {
            let fail = |source| PublishError::Read { path: path.to_owned(), source };
            let metadata = fs::metadata(path).map_err(fail)?;
            if !metadata.is_file() {
                return Err(PublishError::NotAFile { path: path.to_owned() });
            }
            if metadata.len() == 0 {
                return Err(PublishError::Empty { path: path.to_owned() });
            }
            let (size_bytes, identity) = (metadata.len(), identity(&metadata));
            starts.push(starts[starts.len() - 1] + size_bytes);
            list.push(Source { size_bytes, path: path.to_owned(), identity });
        }
        Ok(Self { list, starts, open: OpenFiles::new(MAX_OPEN) })
    }

    pub(super) fn list(&self) -> &[Source] {
        &self.list
    }

    /// Where one begins.
    pub(super) fn start(&self, source: usize) -> u64 {
        self.starts[source]
    }

    pub(super) fn total_bytes(&self) -> u64 {
        self.starts[self.list.len()]
    }

    /// One of them, open.
    ///
    /// # Errors
    /// [`PublishError::Changed`] when it is another by now.
    pub(super) fn file(&self, source: usize) -> Result<Arc<File>, PublishError> {
        self.open.get_or_open(source, false, || {
            let entry = &self.list[source];
            let file = open(&entry.path).map_err(|error| entry.fail(error))?;
            entry.check(&file.metadata().map_err(|error| entry.fail(error))?)?;
            Ok(file)
        })
    }

    /// Fills `buffer` with the bytes of one from `offset` on.
    pub(super) fn read_one(&self, source: usize, offset: u64, buffer: &mut [u8]) -> Result<(), PublishError> {
        self.file(source)?.read_exact_at(buffer, offset).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => PublishError::Changed { path: self.list[source].path.clone() },
            _ => self.list[source].fail(error),
        })
    }

    /// Fills `buffer` with the bytes of all from `offset` on, across their borders.
    pub(super) fn read_at(&self, mut offset: u64, mut buffer: &mut [u8]) -> Result<(), PublishError> {
        while !buffer.is_empty() {
            let source = self.starts.partition_point(|start| *start <= offset) - 1;
            let left = usize::try_from(self.starts[source + 1] - offset).unwrap_or(usize::MAX);
            let (part, rest) = buffer.split_at_mut(left.min(buffer.len()));
            self.read_one(source, offset - self.starts[source], part)?;
            offset += part.len() as u64;
            buffer = rest;
        }
        Ok(())
    }

    /// # Errors
    /// [`PublishError::Changed`] when somebody has written to one since it was opened.
    pub(super) fn check_unchanged(&self) -> Result<(), PublishError> {
        self.list.iter().try_for_each(|source| {
            let found = fs::metadata(&source.path).map_err(|error| source.fail(error))?;
            source.check(&found)
        })
    }
}

fn open(path: &Path) -> io::Result<File> {
    // Opening a pipe must not wait for somebody to write to it.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}
