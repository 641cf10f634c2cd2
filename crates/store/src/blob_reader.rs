//! The bytes of one blob, by position.

use std::fs::File;
use std::io;
#[cfg(target_os = "linux")]
use std::io::IoSliceMut;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, OnceLock};

use manifest::ByteRange;
#[cfg(target_os = "linux")]
use rustix::io::{Errno, ReadWriteFlags, preadv2};

use super::ModelFiles;
use super::model_files::Failed;
use crate::mmap::Map;

/// A file, or part of one, that is smaller is read rather than mapped.
const MAPPED_BYTES: u64 = 1 << 18;

/// The bytes of one blob that is held on disk, read by position. Reading never moves a cursor, so that any number of
/// threads may read at once.
#[derive(Debug)]
pub struct BlobReader {
    bytes: Stored,
    /// Where in what is stored the blob begins.
    start: u64,
    /// How much of it is stored; the rest is zeros.
    stored_bytes: u64,
    size_bytes: u64,
}

#[derive(Debug)]
enum Stored {
    /// Any stretch of a model's weights.
    Weights(Arc<ModelFiles>),
    File {
        file: Arc<File>,
        /// Made when it is first asked for.
        map: OnceLock<Map>,
    },
}

impl BlobReader {
    /// All of a file.
    pub(super) fn file(file: File) -> io::Result<Self> {
        let size_bytes = file.metadata()?.len();
        let bytes = Stored::File { file: Arc::new(file), map: OnceLock::new() };
        Ok(Self { bytes, start: 0, stored_bytes: size_bytes, size_bytes })
    }

    /// A range of a model's weights, and zeros after it.
    pub(super) fn weights(files: Arc<ModelFiles>, range: ByteRange, size_bytes: u64) -> Self {
        Self { bytes: Stored::Weights(files), start: range.start, stored_bytes: range.len(), size_bytes }
    }

    /// How long the blob is, padding included.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Fills `buffer` with the blob's bytes from `offset` on; padding is produced.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] when the blob has fewer bytes, and whatever the disk says.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let stored = self.prepare(offset, buffer)?;
        match &self.bytes {
            Stored::File { file, .. } => file.read_exact_at(stored, self.start + offset),
            Stored::Weights(files) => {
                files.read(self.start + offset, stored).map_err(|Failed { source, .. }| source)
            }
        }
    }

    /// Like [`BlobReader::read_at`], but only what is in the page cache. False: not all of it is, or the system cannot tell;
    /// the buffer's content means nothing then.
    ///
    /// # Errors
    /// Those of [`BlobReader::read_at`].
    #[cfg(target_os = "linux")]
    pub fn try_read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<bool> {
        let stored = self.prepare(offset, buffer)?;
        let start = self.start + offset;
        match &self.bytes {
            Stored::File { file, .. } => read_now(file, start, stored),
            Stored::Weights(files) => {
                let range = ByteRange::new(start, start + stored.len() as u64);
                for stretch in files.list().stretches(range) {
                    let Some(file) = files.opened(stretch.file) else { return Ok(false) };
                    if !read_now(&file, stretch.offset, &mut stored[stretch.bytes])? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
        }
    }

    /// Only Linux can read without waiting for a disk.
    ///
    /// # Errors
    /// None.
    #[cfg(not(target_os = "linux"))]
    pub fn try_read_at(&self, _: u64, _: &mut [u8]) -> io::Result<bool> {
        Ok(false)
    }

    /// The file that all bytes of `range` are in, and where; `None` when some of them are padding, or in another file.
    pub(super) fn in_one_file(&self, range: ByteRange) -> Option<(Arc<File>, u64)> {
        if range.end > self.stored_bytes {
            return None;
        }
        let range = ByteRange::new(self.start + range.start, self.start + range.end);
        match &self.bytes {
            Stored::File { file, .. } => Some((Arc::clone(file), range.start)),
            Stored::Weights(files) => files.in_one_file(range),
        }
    }

    /// The bytes of `range` where they are mapped, for a file that nobody changes; `None` when they are not all in one
    /// file, or when mapping does not do: then [`BlobReader::read_at`] does, or says why not.
    pub(crate) fn resident(&self, range: ByteRange) -> Option<&[u8]> {
        if range.end > self.stored_bytes {
            return None;
        }
        let (start, end) = (self.start + range.start, self.start + range.end);
        let (map, start): (&Map, u64) = match &self.bytes {
            Stored::Weights(files) => {
                let mut stretches = files.list().stretches(ByteRange::new(start, end));
                let (stretch, None) = (stretches.next()?, stretches.next()) else { return None };
                if !files.is_finished() || files.list().get(stretch.file).range.len() < MAPPED_BYTES {
                    return None;
                }
                (files.map(stretch.file).ok()?, stretch.offset)
            }
            Stored::File { file, map } => (
                match map.get() {
                    Some(map) => map,
                    None => {
                        let new = Map::of(file).ok()?;
                        map.get_or_init(|| new)
                    }
                },
                start,
            ),
        };
        let start = usize::try_from(start).ok()?;
        map.resident(start..start + usize::try_from(range.len()).ok()?)
    }

    /// Produces the padding at the end of `buffer`; gives the part to read.
    fn prepare<'a>(&self, offset: u64, buffer: &'a mut [u8]) -> io::Result<&'a mut [u8]> {
        let end = offset.checked_add(buffer.len() as u64).filter(|end| *end <= self.size_bytes);
        end.ok_or(io::ErrorKind::UnexpectedEof)?;
        let stored = self.stored_bytes.saturating_sub(offset);
        let stored = usize::try_from(stored).unwrap_or(usize::MAX).min(buffer.len());
        let (stored, padding) = buffer.split_at_mut(stored);
        padding.fill(0);
        Ok(stored)
    }
}

/// Reads what is in the page cache. False: not all of it is, or the system cannot tell.
#[cfg(target_os = "linux")]
fn read_now(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<bool> {
    if buffer.is_empty() {
        return Ok(true);
    }
    let wanted_bytes = buffer.len();
    match preadv2(file, &mut [IoSliceMut::new(buffer)], offset, ReadWriteFlags::NOWAIT) {
        Ok(read_bytes) => Ok(read_bytes == wanted_bytes),
        Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn held(stored: &[u8], padding_bytes: u64) -> BlobReader {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(stored).unwrap();
        let held = BlobReader::file(file).unwrap();
        BlobReader { size_bytes: held.size_bytes + padding_bytes, ..held }
    }

    #[test]
    fn reads_give_the_stored_bytes_and_then_zeros() {
        let held = held(b"abcdef", 3);
        for (offset, expected) in
            [(0, &b"abcdef\0\0\0"[..]), (2, b"cd"), (5, b"f\0"), (6, b"\0\0\0"), (7, b"\0"), (9, b"")]
        {
            let mut buffer = vec![9; expected.len()];
            held.read_at(offset, &mut buffer).unwrap();
            assert_eq!(buffer, expected, "from {offset}");
        }
    }

    #[test]
    fn a_read_that_does_not_wait_gives_the_same_or_says_that_it_cannot() {
        let held = held(b"abcdef", 3);
        for (offset, length) in [(0, 9), (2, 2), (5, 2), (6, 3), (9, 0)] {
            let (mut tried, mut read) = (vec![9; length], vec![9; length]);
            held.read_at(offset, &mut read).unwrap();
            if held.try_read_at(offset, &mut tried).unwrap() {
                assert_eq!(tried, read, "{length} bytes from {offset}");
            }
        }
    }

    #[test]
    fn reads_past_the_end_fail() {
        let held = held(b"abcdef", 3);
        for (offset, length) in [(0, 10), (9, 1), (u64::MAX, 2)] {
            let error = held.read_at(offset, &mut vec![0; length]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{length} bytes from {offset}");
        }
    }
}
