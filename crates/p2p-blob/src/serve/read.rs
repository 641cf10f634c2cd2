//! Reads of the store, on blocking threads.

use std::io;
use std::sync::Arc;

use manifest::{ByteRange, Digest};
use tokio::sync::OwnedSemaphorePermit;

use crate::store::{Blob, ReadOutcome, Store};

/// How much is read at one time, into one buffer per stream.
pub(super) const CHUNK_BYTES: usize = 256 << 10;

/// The blob that a stream read last, and the buffer that it reads into.
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
    /// The bytes that were read last.
    pub(super) fn chunk(&self) -> &[u8] {
        &self.buf
    }

    /// Opens a blob and reads the first chunk of `range` of it (`None`: of all of it), when all of that is held.
    pub(super) async fn first(
        self,
        permit: OwnedSemaphorePermit,
        store: Arc<dyn Store>,
        manifest: Option<Digest>,
        digest: Digest,
        range: Option<ByteRange>,
    ) -> (Self, io::Result<Outcome>) {
        blocking(self, permit, move |reader| reader.open_and_read(&*store, manifest, digest, range)).await
    }

    /// Reads the next chunk of the blob of [`Reader::first`]; `range` is what is left. False: it is not held any more.
    pub(super) async fn next(
        self,
        permit: OwnedSemaphorePermit,
        range: ByteRange,
    ) -> (Self, io::Result<bool>) {
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

    /// Reads the first chunk of `range`.
    fn fill(&mut self, blob: &dyn Blob, range: ByteRange) -> io::Result<bool> {
        let length = usize::try_from(range.len()).unwrap_or(usize::MAX).min(CHUNK_BYTES);
        self.buf.resize(length, 0);
        Ok(blob.read_at(range.start, &mut self.buf)? == ReadOutcome::Held)
    }
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
