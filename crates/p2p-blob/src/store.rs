//! The store that a node serves from.

use std::io;
use std::sync::Arc;

use manifest::{ByteRange, Digest, Have};
/// Where served bytes come from. Calls may block: they run on blocking threads, at most
/// [`crate::Limits::with_disk_reads`] at a time.
///
/// An error means that this read failed, not that the blob is missing: the peer is answered "busy".
pub trait Store: Send + Sync + 'static {
    /// The blob with this digest, or `None` when it is not here.
    ///
    /// Without a `manifest` only a complete, verified blob; with one also a shard of that manifest with some verified
    /// pieces.
    ///
    /// # Errors
    /// When the store cannot tell.
    fn open(&self, manifest: Option<&Digest>, blob: &Digest) -> io::Result<Option<Arc<dyn Blob>>>;

    /// Which pieces of the manifest's shards are here; `None` when nothing is known of the manifest.
    ///
    /// `since` is the `version` of an earlier answer (0: none): the answer may then be limited to what was added
    /// after it ([`HaveChange::Gained`](manifest::HaveChange::Gained)). A `since` that the store does not know gets a full answer.
    ///
    /// # Errors
    /// When the store cannot tell.
    fn have(&self, manifest: &Digest, since: u64) -> io::Result<Option<Have>>;
}

/// An open blob: it stays readable until it is dropped. Only reads may block.
pub trait Blob: Send + Sync + 'static {
    /// Its size, whether or not all of it is here.
    fn size_bytes(&self) -> u64;

    /// Whether it is complete and verified.
    fn is_whole(&self) -> bool;

    /// Whether every byte of `range` is here and verified. That never reverts.
    ///
    /// The default is for complete blobs.
    fn holds(&self, range: ByteRange) -> bool {
        self.is_whole() && range.end <= self.size_bytes()
    }

    /// Fills `buf` with the bytes from `offset` on, all of them inside the blob.
    ///
    /// # Errors
    /// When reading fails.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<ReadOutcome>;

    /// Like [`Blob::read_at`], but never waits for a disk: `None` when it would have to, or cannot tell. Called on the
    /// threads of the runtime, which saves the way to a blocking thread and back.
    ///
    /// # Errors
    /// When reading fails.
    fn try_read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<Option<ReadOutcome>> {
        let _ = (offset, buf);
        Ok(None)
    }
}

/// The outcome of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadOutcome {
    /// The buffer is filled.
    Held,
    /// Not all of these bytes are here; the buffer's content means nothing.
    NotHeld,
}
