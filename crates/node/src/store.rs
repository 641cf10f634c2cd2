//! Serves what the cache holds.

use std::io;
use std::sync::Arc;

use loader::cache::{Blobs, Held};
use manifest::Digest;
use p2p_blob::{Blob, Have, ReadOutcome, Store};

/// The blobs of the cache, all of them proven whole.
pub(crate) struct CacheStore(pub(crate) Arc<Blobs>);

impl Store for CacheStore {
    fn open(&self, _: Option<&Digest>, blob: &Digest) -> io::Result<Option<Arc<dyn Blob>>> {
        Ok(self.0.lookup(blob)?.map(|held| Arc::new(CacheBlob(held)) as Arc<dyn Blob>))
    }

    fn have(&self, manifest: &Digest, _: u64) -> io::Result<Option<Have>> {
        let held = |whole| if whole { p2p_blob::Held::All } else { p2p_blob::Held::none() };
        let have = |shards: Vec<bool>| Have {
            version: 1,
            is_full: true,
            shards: shards.into_iter().map(held).collect(),
        };
        Ok(self.0.have(manifest)?.map(have))
    }
}

struct CacheBlob(Held);

impl Blob for CacheBlob {
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
