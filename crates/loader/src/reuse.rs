//! Reuse of bytes from a model in the cache: of a new version only the changes are fetched.
//!
//! Shards of the new model are looked for in the old one by their digests, wherever they are; and, with a piece index, pieces
//! where [guesses](guess) say. All of them are hashed before they count.

pub(crate) mod copy;
pub(crate) mod guess;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use manifest::piece_index::{PieceIndex, VerifiedPiece};
use manifest::{ByteRange, Digest, Geometry, PieceId};
use sha256_lanes::WIDE_LANES;
use store::Map;
use store::{BlobReader, CacheError, Model};
use store::{bytes, on_threads};

use guess::{Guesses, Part};

/// So many pieces, spread evenly, are tried first: when none of them is right, the models have nothing to do with each
/// other. One that shares a hundredth of its bytes in one place, or a twentieth anywhere, is hardly missed.
const SAMPLE: usize = 128;
/// At least so many of each file.
const MIN_SAMPLE: usize = 8;

/// Bytes of the new model which the old one has.
pub(crate) enum Matched<'a> {
    /// Pieces, each with where the old model has it, and from where on in that.
    Pieces(&'a [(VerifiedPiece<'a>, &'a BlobReader, u64)]),
    /// Pieces whose bytes lie in several places of it.
    Gathered(&'a [VerifiedPiece<'a>]),
    /// A whole shard that is listed as equal and was not hashed, and these pieces of it that are wanted.
    Shard { shard: u32, held: &'a BlobReader, wanted: &'a [PieceId] },
}

/// Called with matches, from several threads; returns whether they count.
pub(crate) type OnMatch<'a> = dyn Fn(&Matched<'_>) -> Result<bool, CacheError> + Sync + 'a;

/// The new model to match.
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
#[derive(Clone)]
struct Location {
    piece: PieceId,
    /// Which of the blobs.
    blob: usize,
    /// The parts of that which are the piece, but for its padding.
    parts: Vec<Part>,
}

impl Location {
    /// The only part.
    fn alone(&self) -> Option<Part> {
        match self.parts[..] {
            [part] => Some(part),
            _ => None,
        }
    }
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

    /// Calls `on_match` with the `wanted` pieces that `old` has, and returns them, in order.
    ///
    /// # Errors
    /// [`CacheError::Io`] when the old model cannot be read; what `on_match` returns.
    pub(crate) fn run(
        &self,
        old: &Model,
        guesses: &Guesses,
        wanted: &[PieceId],
        on_match: &OnMatch<'_>,
    ) -> Result<Vec<PieceId>, CacheError> {
        let fail = |source| CacheError::io("read", old.dir(), source);
        let manifest = self.geometry.manifest();
        let row_bytes = manifest.row_size_bytes();
        let old_bytes = old.manifest().total_size_bytes();
        let whole_bytes = (row_bytes * u64::from(manifest.data())).max(old_bytes);
        let mut blobs = vec![old.padded(old_bytes, whole_bytes)];
        let equal = equal_shards(self.geometry, old, &mut blobs).map_err(fail)?;
        let found = Mutex::new(Vec::new());
        let on_match = |matched: &Matched<'_>| {
            if !on_match(matched)? {
                return Ok(false);
            }
            let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
            match matched {
                Matched::Pieces(pieces) => found.extend(pieces.iter().map(|(piece, ..)| piece.piece())),
                Matched::Gathered(pieces) => found.extend(pieces.iter().map(VerifiedPiece::piece)),
                Matched::Shard { wanted, .. } => found.extend_from_slice(wanted),
            }
            Ok(true)
        };
        match self.index {
            Some(index) => {
                let mut by_file: BTreeMap<usize, Vec<Location>> = BTreeMap::new();
                for piece in wanted {
                    if let Some(location) = self.locate(*piece, &equal, guesses) {
                        by_file.entry(self.file_of(*piece)).or_default().push(location);
                    }
                }
                let samples = (SAMPLE / by_file.len().max(1)).max(MIN_SAMPLE);
                for locations in by_file.values() {
                    let any_equal = locations.iter().any(|location| location.blob > 0);
                    if any_equal || self.is_related(index, samples, locations, &blobs).map_err(fail)? {
                        self.check_pieces(index, locations, &blobs, old, &on_match)?;
                    }
                }
            }
            None => self.match_shards(wanted, &equal, &blobs, &on_match)?,
        }
        let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
        found.sort_unstable();
        Ok(found)
    }

    /// In the equal shard, or where it is guessed to be.
    fn locate(&self, piece: PieceId, equal: &HashMap<u32, usize>, guesses: &Guesses) -> Option<Location> {
        let range = self.geometry.manifest().piece_range(piece.shard, piece.piece);
        if let Some(blob) = equal.get(&piece.shard) {
            let part = Part { start: range.start, bytes: range.len() };
            return Some(Location { piece, blob: *blob, parts: vec![part] });
        }
        let parts = guesses.parts(self.geometry.weights_of(piece)?)?;
        Some(Location { piece, blob: 0, parts })
    }

    /// The file in which a piece begins: files are related or not, each by itself.
    fn file_of(&self, piece: PieceId) -> usize {
        let files = self.geometry.manifest().files();
        let start = self.geometry.weights_of(piece).map_or(0, |range| range.start);
        files.partition_point(|file| file.range().end <= start)
    }

    /// Whether some piece of a sample is right.
    fn is_related(
        &self,
        index: &PieceIndex<Map>,
        samples: usize,
        locations: &[Location],
        blobs: &[BlobReader],
    ) -> io::Result<bool> {
        let sample: Vec<Location> =
            locations.iter().step_by(locations.len().div_ceil(samples).max(1)).cloned().collect();
        let mut buffers = vec![Vec::new(); WIDE_LANES];
        for batch in sample.chunks(WIDE_LANES) {
            if self.verify(index, batch, blobs, &mut buffers)?.iter().any(Option::is_some) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn check_pieces(
        &self,
        index: &PieceIndex<Map>,
        locations: &[Location],
        blobs: &[BlobReader],
        old: &Model,
        on_match: &OnMatch<'_>,
    ) -> Result<(), CacheError> {
        let next = AtomicUsize::new(0);
        on_threads(self.threads, || {
            let mut buffers = vec![Vec::new(); WIDE_LANES];
            loop {
                let first = next.fetch_add(WIDE_LANES, Ordering::Relaxed);
                let Some(batch) = locations.get(first..).map(|rest| &rest[..rest.len().min(WIDE_LANES)])
                else {
                    return Ok(());
                };
                if batch.is_empty() || self.stop.load(Ordering::Relaxed) {
                    return Ok(());
                }
                let verified = self.verify(index, batch, blobs, &mut buffers);
                let verified = verified.map_err(|source| CacheError::io("read", old.dir(), source))?;
                let (mut matches, mut gathered) = (Vec::new(), Vec::new());
                for (location, verified) in batch.iter().zip(verified) {
                    match (verified, location.alone()) {
                        (Some(piece), Some(part)) => matches.push((piece, &blobs[location.blob], part.start)),
                        (Some(piece), None) => gathered.push(piece),
                        (None, _) => {}
                    }
                }
                on_match(&Matched::Pieces(&matches))?;
                on_match(&Matched::Gathered(&gathered))?;
            }
        })
    }

    /// Hashes up to [`WIDE_LANES`] pieces together.
    fn verify<'b>(
        &self,
        index: &PieceIndex<Map>,
        locations: &[Location],
        blobs: &'b [BlobReader],
        buffers: &'b mut [Vec<u8>],
    ) -> io::Result<Vec<Option<VerifiedPiece<'b>>>> {
        let mut pieces = Vec::with_capacity(locations.len());
        for (location, buffer) in locations.iter().zip(buffers) {
            let (blob, piece_bytes) = (&blobs[location.blob], self.geometry.piece_bytes(location.piece));
            let bytes = match location.alone() {
                Some(Part { start, bytes: length }) if length == piece_bytes => {
                    bytes(blob, ByteRange::new(start, start + length), buffer)?
                }
                _ => gather(blob, &location.parts, piece_bytes, buffer)?,
            };
            pieces.push((location.piece, bytes));
        }
        Ok(index.verify(&pieces))
    }

    /// Without an index: equal shards as a whole, which `on_match` hashes where it puts them.
    fn match_shards(
        &self,
        wanted: &[PieceId],
        equal: &HashMap<u32, usize>,
        blobs: &[BlobReader],
        on_match: &OnMatch<'_>,
    ) -> Result<(), CacheError> {
        for (shard, blob) in equal {
            if self.stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            let wanted: Vec<_> = wanted.iter().copied().filter(|piece| piece.shard == *shard).collect();
            on_match(&Matched::Shard { shard: *shard, held: &blobs[*blob], wanted: &wanted })?;
        }
        Ok(())
    }
}

/// The bytes of several parts, and zeros after them.
fn gather<'b>(
    blob: &BlobReader,
    parts: &[Part],
    piece_bytes: u64,
    buffer: &'b mut Vec<u8>,
) -> io::Result<&'b [u8]> {
    buffer.clear();
    buffer.resize(usize::try_from(piece_bytes).unwrap_or(usize::MAX), 0);
    let mut rest = buffer.as_mut_slice();
    for part in parts {
        let length = usize::try_from(part.bytes).unwrap_or(usize::MAX).min(rest.len());
        let (filled, after) = rest.split_at_mut(length);
        blob.read_at(part.start, filled)?;
        rest = after;
    }
    Ok(buffer)
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

/// How much of `new` a node that holds `base` would reuse, and how much it would fetch. With a piece index, hashes `base` on up to `threads`
/// threads.
///
/// # Errors
/// [`CacheError::Io`] when one of them cannot be read, [`CacheError::Index`] when the piece index of `new` is bad.
pub fn overlap(new: &Model, base: &Model, threads: usize) -> Result<Overlap, CacheError> {
    let (geometry, index) = (Geometry::new(Arc::clone(new.manifest())), new.index()?);
    let stop = AtomicBool::new(false);
    let search = Search { geometry: &geometry, index: index.as_ref(), threads, stop: &stop };
    let wanted: Vec<PieceId> = Search::wanted(&geometry).collect();
    let bytes = |pieces: &[PieceId]| pieces.iter().map(|piece| geometry.piece_bytes(*piece)).sum::<u64>();
    let guesses = Guesses::by_file(new.manifest(), base.manifest());
    let guesses = guesses.with_tensors(&guess::all_tensors(new), &guess::tensors_of(base));
    let reused_bytes = bytes(&search.run(base, &guesses, &wanted, &|_| Ok(true))?);
    let index_bytes = index.map_or(0, |_| new.manifest().index_size_bytes());
    Ok(Overlap { reused_bytes, fetched_bytes: bytes(&wanted) - reused_bytes, index_bytes })
}

/// The data shards of the new model that the old one has, each with its place among `blobs`, where they are put.
fn equal_shards(
    geometry: &Geometry,
    old: &Model,
    blobs: &mut Vec<BlobReader>,
) -> io::Result<HashMap<u32, usize>> {
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
