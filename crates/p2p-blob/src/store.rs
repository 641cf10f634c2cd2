//! What serving needs of a store.

use std::io;
use std::sync::Arc;

use manifest::{ByteRange, Digest, Have};
/// Where served bytes come from. Calls may block: they run on blocking threads, at most
/// [`crate::Limits::with_disk_reads`] at a time.
///
/// An error says that this read failed, not that the blob is missing: the peer is told to ask again later.
pub trait Store: Send + Sync + 'static {
    /// The blob of this name, or `None` when it is not here.
    ///
    /// Without a `manifest` only a blob that was proven whole; with one also a shard of that manifest some pieces of
    /// which were verified.
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

/// An open blob: it stays readable while somebody holds it. What it says of itself it says without blocking.
pub trait Blob: Send + Sync + 'static {
    /// Its size, whether or not all of it is here.
    fn size_bytes(&self) -> u64;

    /// Whether all of it is here and proven.
    fn is_whole(&self) -> bool;

    /// Whether every byte of `range` is here and verified. A range that once was stays so.
    ///
    /// The default is right for a blob that is all here or not at all.
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

/// What became of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadOutcome {
    /// The buffer is filled.
    Held,
    /// Not all of these bytes are here; the buffer's content means nothing.
    NotHeld,
}
