//! Copies matching bytes from models in the cache, before anything is fetched.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use manifest::piece_index::PieceIndex;
use manifest::{Digest, Geometry, Manifest, PieceId};
use store::{Cache, CacheError, Map, Partial, bytes};
use tokio::sync::watch;

use super::guess::{Guesses, tensors_of};
use super::{Matched, Search};
use crate::error::LoadError;
use crate::fetch::blocking::blocking;
use crate::observer::{Event, Observer};
use crate::tensors::Tensor;

/// The model to fill.
pub(crate) struct Reuse {
    pub(crate) cache: Cache,
    pub(crate) digest: Digest,
    pub(crate) store: Arc<Partial>,
    pub(crate) index: Option<Arc<PieceIndex<Map>>>,
    pub(crate) geometry: Geometry,
    pub(crate) threads: usize,
    /// The tensors of the model, once its headers are known.
    pub(crate) tensors: Option<Vec<Tensor>>,
    /// The pieces that are looked for; `None`: all.
    pub(crate) wanted: Option<BTreeSet<PieceId>>,
}

/// What was copied.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) pieces: Vec<PieceId>,
    /// How many bytes from which model.
    pub(crate) from: Vec<(Digest, u64)>,
}

impl Reuse {
    /// Whether a model in the cache has tensors that may be some of this one's. Blocks.
    pub(crate) fn may_share_tensors(
        cache: &Cache,
        digest: &Digest,
        manifest: &Manifest,
    ) -> Result<bool, CacheError> {
        Ok(cache.donors(digest, manifest)?.iter().any(|donor| !tensors_of(donor).is_empty()))
    }

    /// Copies what there is, but for the pieces of `here`; returns the pieces that were copied. Models that cannot be
    /// read are passed over.
    ///
    /// **Cancel safety.** When the future is dropped the threads end soon; what was copied is recorded.
    pub(crate) async fn run(self, here: &[PieceId], observer: &dyn Observer) -> Result<Found, LoadError> {
        let mut wanted: Vec<PieceId> = Search::wanted(&self.geometry).collect();
        let mut here = here.to_vec();
        here.sort_unstable();
        wanted.retain(|piece| here.binary_search(piece).is_err());
        if let Some(only) = &self.wanted {
            wanted.retain(|piece| only.contains(piece));
        }
        if wanted.is_empty() {
            return Ok(Found::default());
        }
        let stop = StopOnDrop(Arc::default());
        let (copied, mut seen) = watch::channel(0);
        let work = {
            let stop = Arc::clone(&stop.0);
            blocking(move || self.copy(wanted, &stop, &copied))
        };
        tokio::pin!(work);
        let mut reported_bytes = 0;
        loop {
            let result = tokio::select! {
                result = &mut work => Some(result),
                // The counter is gone: the work has ended, or is about to.
                Ok(()) = seen.changed() => None,
            };
            let copied_bytes = *seen.borrow_and_update();
            if copied_bytes > reported_bytes {
                observer.on_event(&Event::Reused { bytes: copied_bytes - reported_bytes });
                reported_bytes = copied_bytes;
            }
            if let Some(result) = result {
                return Ok(result??);
            }
        }
    }

    fn copy(
        self,
        mut wanted: Vec<PieceId>,
        stop: &AtomicBool,
        copied: &watch::Sender<u64>,
    ) -> Result<Found, CacheError> {
        let search =
            Search { geometry: &self.geometry, index: self.index.as_deref(), threads: self.threads, stop };
        let mut found = Found::default();
        for donor in self.cache.donors(&self.digest, self.geometry.manifest())? {
            let mut guesses = Guesses::by_file(self.geometry.manifest(), donor.manifest());
            if let Some(tensors) = &self.tensors {
                guesses = guesses.with_tensors(tensors, &tensors_of(&donor));
            }
            let matched = search.run(&donor, &guesses, &wanted, &|matched| {
                let Some(bytes) = self.take(matched, stop)? else { return Ok(false) };
                copied.send_modify(|copied| *copied += bytes);
                Ok(true)
            })?;
            tracing::info!(donor = %donor.digest(), pieces = matched.len(), "took bytes of a model in the cache");
            wanted.retain(|piece| matched.binary_search(piece).is_err());
            let bytes = matched.iter().map(|piece| self.geometry.piece_bytes(*piece)).sum();
            found.from.extend((bytes > 0).then_some((*donor.digest(), bytes)));
            found.pieces.extend(matched);
        }
        Ok(found)
    }

    /// Returns how many bytes were copied; `None` when they were wrong.
    fn take(&self, matched: &Matched<'_>, stop: &AtomicBool) -> Result<Option<u64>, CacheError> {
        match matched {
            Matched::Pieces(pieces) => {
                self.store.copy_verified(pieces)?;
                Ok(Some(pieces.iter().map(|(piece, ..)| piece.bytes().len() as u64).sum()))
            }
            Matched::Gathered(pieces) => {
                self.store.write_verified(pieces)?;
                Ok(Some(pieces.iter().map(|piece| piece.bytes().len() as u64).sum()))
            }
            Matched::Shard { shard, held, wanted } => {
                let (mut buffer, mut copied_bytes) = (Vec::new(), 0);
                for piece in *wanted {
                    if stop.load(Ordering::Relaxed) {
                        return Ok(None);
                    }
                    let range = self.geometry.manifest().piece_range(*shard, piece.piece);
                    let bytes = bytes(held, range, &mut buffer)
                        .map_err(|source| CacheError::io("read", self.cache.dir(), source))?;
                    self.store.copy_unverified(*piece, bytes, held, range.start)?;
                    copied_bytes += range.len();
                }
                let go_on = || !stop.load(Ordering::Relaxed);
                let checked = self.store.check_shard(*shard, &HashMap::new(), &go_on)?;
                Ok(checked.filter(|checked| checked.good).map(|_| copied_bytes))
            }
        }
    }
}

struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
