//! Reads of the store: at once when the bytes are in memory, else on a blocking thread.

use std::io;
use std::sync::Arc;

use manifest::{ByteRange, Digest};
use tokio::sync::OwnedSemaphorePermit;

use crate::store::{Blob, ReadOutcome, Store};

/// How much is read at one time, into one buffer per answer.
pub(super) const CHUNK_BYTES: usize = 256 << 10;

/// The blob that a stream read last, and the buffer that it reads into during an answer.
#[derive(Default)]
pub(super) struct Reader {
    last: Option<OpenBlob>,
    buf: Vec<u8>,
}

struct OpenBlob {
    manifest: Option<Digest>,
    digest: Digest,
    blob: Arc<dyn Blob>,
}

/// What became of the first read of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    NotFound,
    OutOfBounds {
        size_bytes: u64,
    },
    NotHeld,
    /// [`Reader::chunk`] is the start of the range.
    Read {
        size_bytes: u64,
    },
}

impl Reader {
    /// Reads into this buffer from now on; gives the one before.
    pub(super) fn swap_buffer(&mut self, buf: Vec<u8>) -> Vec<u8> {
        std::mem::replace(&mut self.buf, buf)
    }

    /// The bytes that were read last.
    pub(super) fn chunk(&self) -> &[u8] {
        &self.buf
    }

    /// Opens a blob and reads the first chunk of `range` of it (`None`: of all of it), when all of that is held.
    pub(super) async fn first(
        mut self,
        permit: OwnedSemaphorePermit,
        store: Arc<dyn Store>,
        manifest: Option<Digest>,
        digest: Digest,
        range: Option<ByteRange>,
    ) -> (Self, io::Result<Outcome>) {
        if let Some(outcome) = self.try_first(manifest, digest, range).transpose() {
            return (self, outcome);
        }
        blocking(self, permit, move |reader| reader.open_and_read(&*store, manifest, digest, range)).await
    }

    /// Reads the next chunk of the blob of [`Reader::first`]; `range` is what is left. False: it is not held any more.
    pub(super) async fn next(
        mut self,
        permit: OwnedSemaphorePermit,
        range: ByteRange,
    ) -> (Self, io::Result<bool>) {
        if let Some(held) = self.try_fill(range).transpose() {
            return (self, held);
        }
        blocking(self, permit, move |reader| match reader.last.take() {
            Some(open) => {
                let held = reader.fill(&*open.blob, range);
                reader.last = Some(open);
                held
            }
            None => Ok(false),
        })
        .await
    }

    fn open_and_read(
        &mut self,
        store: &dyn Store,
        manifest: Option<Digest>,
        digest: Digest,
        range: Option<ByteRange>,
    ) -> io::Result<Outcome> {
        let last = self.last.take().filter(|last| last.manifest == manifest && last.digest == digest);
        let blob = match last {
            Some(last) => last.blob,
            None => match store.open(manifest.as_ref(), &digest)? {
                // Pieces of an unfinished blob belong to a manifest.
                Some(blob) if manifest.is_some() || blob.is_whole() => blob,
                _ => return Ok(Outcome::NotFound),
            },
        };
        let size_bytes = blob.size_bytes();
        let range = range.unwrap_or(ByteRange::new(0, size_bytes));
        let outcome = if range.end > size_bytes {
            Outcome::OutOfBounds { size_bytes }
        } else if blob.holds(range) && self.fill(&*blob, range)? {
            Outcome::Read { size_bytes }
        } else {
            Outcome::NotHeld
        };
        self.last = Some(OpenBlob { manifest, digest, blob });
        Ok(outcome)
    }

    /// Like [`Reader::open_and_read`], when it is the blob that was read last and the chunk is in memory.
    fn try_first(
        &mut self,
        manifest: Option<Digest>,
        digest: Digest,
        range: Option<ByteRange>,
    ) -> io::Result<Option<Outcome>> {
        let is_last = |last: &&OpenBlob| last.manifest == manifest && last.digest == digest;
        let Some(last) = self.last.as_ref().filter(is_last) else { return Ok(None) };
        let size_bytes = last.blob.size_bytes();
        let range = range.unwrap_or(ByteRange::new(0, size_bytes));
        if range.end > size_bytes || !last.blob.holds(range) {
            return Ok(None);
        }
        let held = self.try_fill(range)?;
        Ok(held.map(|held| if held { Outcome::Read { size_bytes } } else { Outcome::NotHeld }))
    }

    /// Reads the first chunk of `range` of the blob that was read last, when the chunk is in memory.
    fn try_fill(&mut self, range: ByteRange) -> io::Result<Option<bool>> {
        let Some(last) = &self.last else { return Ok(None) };
        self.buf.resize(chunk_bytes(range), 0);
        let outcome = last.blob.try_read_at(range.start, &mut self.buf)?;
        Ok(outcome.map(|outcome| outcome == ReadOutcome::Held))
    }

    /// Reads the first chunk of `range`.
    fn fill(&mut self, blob: &dyn Blob, range: ByteRange) -> io::Result<bool> {
        self.buf.resize(chunk_bytes(range), 0);
        Ok(blob.read_at(range.start, &mut self.buf)? == ReadOutcome::Held)
    }
}

fn chunk_bytes(range: ByteRange) -> usize {
    usize::try_from(range.len()).unwrap_or(usize::MAX).min(CHUNK_BYTES)
}

/// Runs `read` on a blocking thread, which gives the permit back when it is done, waited for or not.
async fn blocking<T: Send + 'static>(
    mut reader: Reader,
    permit: OwnedSemaphorePermit,
    read: impl FnOnce(&mut Reader) -> io::Result<T> + Send + 'static,
) -> (Reader, io::Result<T>) {
    let job = tokio::task::spawn_blocking(move || {
        let result = read(&mut reader);
        drop(permit);
        (reader, result)
    });
    job.await.unwrap_or_else(|error| (Reader::default(), Err(io::Error::other(error))))
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;

    use super::*;

    /// A blob of zeros on a disk and of ones in memory, up to some byte.
    struct Cached {
        cached_bytes: u64,
    }

    impl Blob for Cached {
        fn size_bytes(&self) -> u64 {
            100
        }

        fn is_whole(&self) -> bool {
            true
        }

        fn read_at(&self, _: u64, buf: &mut [u8]) -> io::Result<ReadOutcome> {
            buf.fill(0);
            Ok(ReadOutcome::Held)
        }

        fn try_read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<Option<ReadOutcome>> {
            buf.fill(1);
            Ok((offset + buf.len() as u64 <= self.cached_bytes).then_some(ReadOutcome::Held))
        }
    }

    struct OneBlob;

    impl Store for OneBlob {
        fn open(&self, _: Option<&Digest>, _: &Digest) -> io::Result<Option<Arc<dyn Blob>>> {
            Ok(Some(Arc::new(Cached { cached_bytes: 50 })))
        }

        fn have(&self, _: &Digest, _: u64) -> io::Result<Option<manifest::Have>> {
            Ok(None)
        }
    }

    #[tokio::test]
    async fn an_open_blob_is_read_at_once_where_it_is_in_memory() {
        let permits = Arc::new(Semaphore::new(1));
        let permit = || Arc::clone(&permits).try_acquire_owned().unwrap();
        let (store, digest) = (Arc::new(OneBlob), Digest::of(b"blob"));
        let mut reader = Reader::default();
        // Opening a blob may block: the first read is not tried.
        for (start, expected) in [(0, 0), (0, 1), (40, 1), (45, 0), (90, 0), (10, 1)] {
            let range = ByteRange::new(start, start + 10);
            let store: Arc<dyn Store> = Arc::<OneBlob>::clone(&store);
            let (after, outcome) = reader.first(permit(), store, None, digest, Some(range)).await;
            assert_eq!(outcome.unwrap(), Outcome::Read { size_bytes: 100 });
            assert_eq!(after.chunk(), [expected; 10], "{range}");
            let (after, held) = after.next(permit(), range).await;
            assert!(held.unwrap());
            let expected = u8::from(range.end <= 50);
            assert_eq!(after.chunk(), [expected; 10], "{range}");
            reader = after;
        }
        let past_end = ByteRange::new(95, 105);
        let (_, outcome) = reader.first(permit(), store, None, digest, Some(past_end)).await;
        assert_eq!(outcome.unwrap(), Outcome::OutOfBounds { size_bytes: 100 });
    }
}
