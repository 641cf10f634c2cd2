//! Serves the models in the cache, and the verified pieces of models that are being fetched.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use loader::{Event, Observer, Progress};
use manifest::{ByteRange, Digest, Have};
use p2p_blob::{Blob, ReadOutcome, Store};
use store::{BlobReader, Blobs, Offer, Offered};

/// The blobs of the cache.
pub(crate) struct CacheStore(pub(crate) Arc<Blobs>);

impl Store for CacheStore {
    fn open(&self, manifest: Option<&Digest>, blob: &Digest) -> io::Result<Option<Arc<dyn Blob>>> {
        if let Some(held) = self.0.lookup(blob)? {
            return Ok(Some(Arc::new(WholeBlob(held))));
        }
        let offered = manifest.map_or(Ok(None), |manifest| self.0.pieces(manifest, blob))?;
        Ok(offered.map(|offered| Arc::new(OfferedShard(offered)) as Arc<dyn Blob>))
    }

    fn have(&self, manifest: &Digest, since: u64) -> io::Result<Option<Have>> {
        self.0.have(manifest, since)
    }
}

struct WholeBlob(BlobReader);

impl Blob for WholeBlob {
    fn size_bytes(&self) -> u64 {
        self.0.size_bytes()
    }

    fn is_whole(&self) -> bool {
        true
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<ReadOutcome> {
        self.0.read_at(offset, buf).map(|()| ReadOutcome::Held)
    }

    fn try_read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<Option<ReadOutcome>> {
        Ok(self.0.try_read_at(offset, buf)?.then_some(ReadOutcome::Held))
    }
}

/// A shard that is being filled.
struct OfferedShard(Offered);

impl Blob for OfferedShard {
    fn size_bytes(&self) -> u64 {
        self.0.size_bytes()
    }

    fn is_whole(&self) -> bool {
        self.0.is_whole()
    }

    fn holds(&self, range: ByteRange) -> bool {
        self.0.holds(range)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<ReadOutcome> {
        self.0.read_at(offset, buf).map(outcome)
    }

    fn try_read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<Option<ReadOutcome>> {
        Ok(self.0.try_read_at(offset, buf)?.map(outcome))
    }
}

fn outcome(is_held: bool) -> ReadOutcome {
    if is_held { ReadOutcome::Held } else { ReadOutcome::NotHeld }
}

/// Offers the verified pieces of a fetch to peers, counts its events, and forwards them. Dropping it ends the offer.
pub(crate) struct Offering<'a> {
    blobs: &'a Blobs,
    observer: &'a dyn Observer,
    progress: Arc<Progress>,
    /// A blob may be tried in several sizes, one after the other.
    offer: Mutex<Option<Arc<Offer>>>,
}

impl<'a> Offering<'a> {
    pub(crate) fn new(blobs: &'a Blobs, observer: &'a dyn Observer) -> Self {
        Self { blobs, observer, progress: Arc::default(), offer: Mutex::default() }
    }

    /// How far the fetch is.
    pub(crate) fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    /// Goes on offering what there is of a model that is not complete.
    pub(crate) fn keep(&self) {
        self.offer().take();
    }

    fn offer(&self) -> MutexGuard<'_, Option<Arc<Offer>>> {
        self.offer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Offering<'_> {
    fn on_event(&self, event: &Event<'_>) {
        if let Event::Filling { offer } = event {
            let before = self.offer().replace(Arc::clone(offer));
            before.iter().for_each(|before| self.blobs.withdraw(before));
            self.blobs.offer(Arc::clone(offer));
        }
        self.progress.on_event(event);
        self.observer.on_event(event);
    }
}

impl Drop for Offering<'_> {
    fn drop(&mut self) {
        self.offer().take().iter().for_each(|offer| self.blobs.withdraw(offer));
    }
}
