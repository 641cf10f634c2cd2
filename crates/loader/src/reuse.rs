//! Bytes of a model that is here already which another model has as well: a new version moves only what changed.
//!
//! Two things are looked for in the old model: shards of the new one, by their digests, wherever they are; and, with a
//! piece index, bytes that are right at the same offsets of the weights file. All of them are hashed before they count.
//! What was inserted near the start of the file shifts the rest: then only equal shards are found.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use manifest::piece_index::{PieceCheck, PieceIndex, ShardHasher};
use manifest::{ByteRange, Digest, Geometry, PieceId};
use sha256_lanes::WIDE_LANES;
use store::Map;
use store::{CacheError, Held, Model};
use store::{bytes, on_threads};

/// So many pieces, spread evenly, are tried first: when none of them is right, the models have nothing to do with each
/// other. One that shares a hundredth of its bytes in one place, or a twentieth anywhere, is hardly missed.
const SAMPLE: usize = 128;

/// A piece of the new model whose bytes the old one has.
pub(crate) struct Match<'a> {
    pub(crate) piece: PieceId,
    /// The bytes, padding included.
    pub(crate) bytes: &'a [u8],
    /// Where the old model has them.
    pub(crate) held: &'a Held,
    /// From where on in that.
    pub(crate) offset: u64,
}

/// Is told of matches, from several threads.
pub(crate) type OnMatches<'a> = dyn Fn(&[Match<'_>]) -> Result<(), CacheError> + Sync + 'a;

/// What is looked for.
pub(crate) struct Search<'a> {
    /// The new model.
    pub(crate) geometry: &'a Geometry,
    /// Its piece index; without one only equal shards are found.
    pub(crate) index: Option<&'a PieceIndex<Map>>,
    /// Threads to hash on.
    pub(crate) threads: usize,
    /// Set to end early.
    pub(crate) stop: &'a AtomicBool,
}

/// Where a piece may be.
#[derive(Clone, Copy)]
struct Place {
    piece: PieceId,
    /// Which of the blobs.
    blob: usize,
    offset: u64,
}

impl Search<'_> {
    /// Pieces that are wanted of the new model for its weights: of shards with the same digest, of the first.
    pub(crate) fn wanted(geometry: &Geometry) -> impl Iterator<Item = PieceId> {
        let manifest = geometry.manifest();
        let shards = (0..manifest.data_shard_count()).filter(|shard| geometry.canonical(*shard) == *shard);
        let stored =
            shards.filter(|shard| manifest.weights_range(*shard).is_some_and(|range| !range.is_empty()));
        stored.flat_map(|shard| (0..manifest.piece_count(shard)).map(move |piece| PieceId { shard, piece }))
    }

    /// Tells `on_matches` of the `wanted` pieces that `old` has, and returns them, in order.
    ///
    /// # Errors
    /// [`CacheError::Io`] when the old model cannot be read; what `on_matches` returns.
    pub(crate) fn run(
        &self,
        old: &Model,
        wanted: &[PieceId],
        on_matches: &OnMatches<'_>,
    ) -> Result<Vec<PieceId>, CacheError> {
        let fail = |source| CacheError::io("read", old.dir(), source);
        let manifest = self.geometry.manifest();
        let row_bytes = manifest.row_size_bytes();
        let whole_bytes = row_bytes * u64::from(manifest.data());
        let mut blobs = vec![old.weights().padded(manifest.total_size_bytes(), whole_bytes)];
        let equal = equal_shards(self.geometry, old, &mut blobs).map_err(fail)?;
        let found = Mutex::new(Vec::new());
        let on_matches = |matches: &[Match<'_>]| {
            on_matches(matches)?;
            let pieces = matches.iter().map(|found| found.piece);
            found.lock().unwrap_or_else(PoisonError::into_inner).extend(pieces);
            Ok(())
        };
        match self.index {
            Some(index) => {
                let places: Vec<Place> =
                    wanted.iter().filter_map(|piece| self.place(*piece, &equal, &blobs)).collect();
                if !equal.is_empty() || self.is_related(index, &places, &blobs).map_err(fail)? {
                    self.check_pieces(index, &places, &blobs, old, &on_matches)?;
                }
            }
            None => self.check_shards(wanted, &equal, &blobs, old, &on_matches)?,
        }
        let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
        found.sort_unstable();
        Ok(found)
    }

    /// In the equal shard, or at the same offset of the weights.
    fn place(&self, piece: PieceId, equal: &HashMap<u32, usize>, blobs: &[Held]) -> Option<Place> {
        let range = self.geometry.manifest().piece_range(piece.shard, piece.piece);
        if let Some(blob) = equal.get(&piece.shard) {
            return Some(Place { piece, blob: *blob, offset: range.start });
        }
        let offset = self.geometry.weights_of(piece)?.start;
        (offset + range.len() <= blobs[0].size_bytes()).then_some(Place { piece, blob: 0, offset })
    }

    /// Whether some piece of a sample is right.
    fn is_related(&self, index: &PieceIndex<Map>, places: &[Place], blobs: &[Held]) -> io::Result<bool> {
        let sample: Vec<Place> =
            places.iter().step_by(places.len().div_ceil(SAMPLE).max(1)).copied().collect();
        let mut buffers = vec![Vec::new(); WIDE_LANES];
        for batch in sample.chunks(WIDE_LANES) {
            if self.checks(index, batch, blobs, &mut buffers)?.iter().any(|check| check.good) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn check_pieces(
        &self,
        index: &PieceIndex<Map>,
        places: &[Place],
        blobs: &[Held],
        old: &Model,
        on_matches: &OnMatches<'_>,
    ) -> Result<(), CacheError> {
        let next = AtomicUsize::new(0);
        on_threads(self.threads, || {
            let mut buffers = vec![Vec::new(); WIDE_LANES];
            loop {
                let first = next.fetch_add(WIDE_LANES, Ordering::Relaxed);
                let Some(batch) = places.get(first..).map(|rest| &rest[..rest.len().min(WIDE_LANES)]) else {
                    return Ok(());
                };
                if batch.is_empty() || self.stop.load(Ordering::Relaxed) {
                    return Ok(());
                }
                let checks = self.checks(index, batch, blobs, &mut buffers);
                let checks = checks.map_err(|source| CacheError::io("read", old.dir(), source))?;
                let good = batch.iter().zip(&checks).filter(|(_, check)| check.good);
                let matches: Vec<Match<'_>> = good
                    .map(|(place, check)| Match {
                        piece: place.piece,
                        bytes: check.bytes,
                        held: &blobs[place.blob],
                        offset: place.offset,
                    })
                    .collect();
                on_matches(&matches)?;
            }
        })
    }

    /// Hashes up to [`WIDE_LANES`] pieces together.
    fn checks<'b>(
        &self,
        index: &PieceIndex<Map>,
        places: &[Place],
        blobs: &'b [Held],
        buffers: &'b mut [Vec<u8>],
    ) -> io::Result<Vec<PieceCheck<'b>>> {
        let manifest = self.geometry.manifest();
        let mut checks = Vec::with_capacity(places.len());
        for (place, buffer) in places.iter().zip(buffers) {
            let PieceId { shard, piece } = place.piece;
            let end = place.offset + self.geometry.piece_bytes(place.piece);
            let bytes = bytes(&blobs[place.blob], ByteRange::new(place.offset, end), buffer)?;
            checks.push(PieceCheck { shard, piece, bytes, good: false });
        }
        index.verify(manifest, &mut checks);
        Ok(checks)
    }

    /// Without an index: hashes equal shards as a whole.
    fn check_shards(
        &self,
        wanted: &[PieceId],
        equal: &HashMap<u32, usize>,
        blobs: &[Held],
        old: &Model,
        on_matches: &OnMatches<'_>,
    ) -> Result<(), CacheError> {
        let fail = |source| CacheError::io("read", old.dir(), source);
        let manifest = self.geometry.manifest();
        let mut buffer = Vec::new();
        for (shard, blob) in equal {
            let held = &blobs[*blob];
            let entry = manifest.shards()[*shard as usize];
            let mut hashers = [ShardHasher::new(entry.size_bytes, manifest.piece_size_bytes())];
            for piece in 0..manifest.piece_count(*shard) {
                if self.stop.load(Ordering::Relaxed) {
                    return Ok(());
                }
                let bytes = bytes(held, manifest.piece_range(*shard, piece), &mut buffer).map_err(fail)?;
                ShardHasher::update_all(&mut hashers, &[bytes]);
            }
            let [hasher] = hashers;
            if hasher.finish().0 != entry.digest {
                continue;
            }
            for piece in wanted.iter().copied().filter(|piece| piece.shard == *shard) {
                let range = manifest.piece_range(*shard, piece.piece);
                let bytes = bytes(held, range, &mut buffer).map_err(fail)?;
                on_matches(&[Match { piece, bytes, held, offset: range.start }])?;
            }
        }
        Ok(())
    }
}

/// How much of one model another one saves its holders from fetching.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overlap {
    /// Bytes of shards that are taken from the base, padding included.
    pub reused_bytes: u64,
    /// Bytes of shards that are fetched, padding included.
    pub fetched_bytes: u64,
    /// Bytes of the piece index, which is always fetched; 0 when there is none.
    pub index_bytes: u64,
}

/// What a node that holds `base` would do for `new`, if nobody else has anything of it. Hashes `base`, on up to
/// `threads` threads.
///
/// # Errors
/// [`CacheError::Io`] when one of them cannot be read, [`CacheError::Index`] when the piece index of `new` is bad.
pub fn overlap(new: &Model, base: &Model, threads: usize) -> Result<Overlap, CacheError> {
    let (geometry, index) = (Geometry::new(Arc::clone(new.manifest())), new.index()?);
    let stop = AtomicBool::new(false);
    let search = Search { geometry: &geometry, index: index.as_ref(), threads, stop: &stop };
    let wanted: Vec<PieceId> = Search::wanted(&geometry).collect();
    let bytes = |pieces: &[PieceId]| pieces.iter().map(|piece| geometry.piece_bytes(*piece)).sum::<u64>();
    let reused_bytes = bytes(&search.run(base, &wanted, &|_| Ok(()))?);
    let index_bytes = index.map_or(0, |_| new.manifest().index_size_bytes());
    Ok(Overlap { reused_bytes, fetched_bytes: bytes(&wanted) - reused_bytes, index_bytes })
}

/// The data shards of the new model that the old one has, each with its place among `blobs`, where they are put.
fn equal_shards(geometry: &Geometry, old: &Model, blobs: &mut Vec<Held>) -> io::Result<HashMap<u32, usize>> {
    let mut by_digest: HashMap<Digest, u32> = HashMap::new();
    for (index, shard) in (0..).zip(old.manifest().shards()) {
        by_digest.entry(shard.digest).or_insert(index);
    }
    let mut equal = HashMap::new();
    for shard in 0..geometry.manifest().data_shard_count() {
        let entry = geometry.manifest().shards()[shard as usize];
        let Some(held) = by_digest.get(&entry.digest).map(|index| old.shard(*index)).transpose()?.flatten()
        else {
            continue;
        };
        if held.size_bytes() == entry.size_bytes {
            equal.insert(shard, blobs.len());
            blobs.push(held);
        }
    }
    Ok(equal)
}
