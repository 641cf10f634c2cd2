//! The piece index: the SHA-256 chaining values inside each shard, so that each piece is verified alone.
//!
//! SHA-256 is a chain of 64-byte compressions from the initial value `v(0)`; the index holds `v(1) … v(n-1)`, the
//! values after each whole piece but the last. Piece `i` is right when it leads from `v(i)` to `v(i+1)`, the last one
//! when it leads to the shard's digest. Pieces that are all right therefore have the shard's digest, whatever the
//! index says. Source: `docs/manifest.md`, "Piece index".

use std::sync::Arc;

use sha256_lanes::{INITIAL, Lane, State};

pub use crate::shard_hasher::ShardHasher;
use crate::{Digest, IndexError, Manifest, PieceId};

/// The first bytes of an index.
const MAGIC: [u8; 4] = *b"RPBX";
const VERSION: u8 = 1;
/// Magic, version, piece size and shard count.
const HEADER_BYTES: usize = 13;
const VALUE_BYTES: usize = 32;

/// The piece index of one manifest, over a blob that may be a memory map.
#[derive(Debug)]
pub struct PieceIndex<B> {
    blob: B,
    manifest: Arc<Manifest>,
    /// For each shard, how many values stand before its own; for one whose digest is in an earlier shard too, before
    /// those of the first such shard.
    value_bases: Vec<usize>,
}

/// Bytes that are a piece of some manifest: they were hashed. Only [`PieceIndex::verify`] makes one.
#[derive(Debug, Clone, Copy)]
pub struct VerifiedPiece<'a> {
    piece: PieceId,
    bytes: &'a [u8],
    /// The Merkle root of the manifest's shards.
    root: Digest,
    index: Digest,
}

impl<'a> VerifiedPiece<'a> {
    /// Which piece.
    pub fn piece(&self) -> PieceId {
        self.piece
    }

    /// All of it, padding included.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Whether it is a piece of this manifest, or of one with the same shards and the same index.
    pub fn is_of(&self, manifest: &Manifest) -> bool {
        self.root == manifest.merkle_root()
            && manifest.pieces().is_some_and(|pieces| pieces.index == self.index)
    }
}

impl<B: AsRef<[u8]>> PieceIndex<B> {
    /// Checks that `blob` is the piece index of `manifest`: its size, its digest and its header.
    ///
    /// # Errors
    /// - [`IndexError::NoIndex`]: the manifest names none.
    /// - [`IndexError::WrongSize`], [`IndexError::WrongDigest`]: not the bytes that the manifest names.
    /// - the others: the manifest names something that is not its index.
    pub fn parse(blob: B, manifest: &Arc<Manifest>) -> Result<Self, IndexError> {
        let pieces = manifest.pieces().ok_or(IndexError::NoIndex)?;
        let bytes = blob.as_ref();
        let (found_bytes, expected_bytes) = (bytes.len() as u64, manifest.index_size_bytes());
        let header = match bytes.first_chunk() {
            Some(header) if found_bytes == expected_bytes => header,
            _ => return Err(IndexError::WrongSize { found_bytes, expected_bytes }),
        };
        let found = Digest::of(bytes);
        if found != pieces.index {
            return Err(IndexError::WrongDigest { found, expected: pieces.index });
        }
        check_header(header, manifest, pieces.size_bytes)?;
        let value_bases = value_bases(manifest);
        Ok(Self { blob, manifest: Arc::clone(manifest), value_bases })
    }

    /// Hashes each piece; `out[i]` is `pieces[i]` when it is right. Several pieces are hashed at once on the calling
    /// thread: pass as many as there are.
    ///
    /// Not right as well: bytes of another length than the piece, and pieces that there are not. In shards with the
    /// same digest the values of the first of them count.
    pub fn verify<'a>(&self, pieces: &[(PieceId, &'a [u8])]) -> Vec<Option<VerifiedPiece<'a>>> {
        let mut states: Vec<Option<State>> = pieces
            .iter()
            .map(|(piece, bytes)| {
                self.has_length(*piece, bytes).then(|| self.value(piece.shard, piece.piece))
            })
            .collect();
        let lanes = pieces.iter().zip(&mut states);
        let mut lanes: Vec<Lane<'_>> = lanes
            .filter_map(|((_, bytes), state)| {
                Some(Lane { state: state.as_mut()?, blocks: whole_blocks(bytes).0 })
            })
            .collect();
        sha256_lanes::compress(&mut lanes);
        let hashed = pieces.iter().zip(states);
        hashed.map(|((piece, bytes), state)| self.end(*piece, bytes, state?)).collect()
    }

    /// `state` is what whole blocks of the piece lead to.
    fn end<'a>(&self, piece: PieceId, bytes: &'a [u8], state: State) -> Option<VerifiedPiece<'a>> {
        let PieceId { shard, piece: number } = piece;
        let is_right = if number + 1 < self.manifest.piece_count(shard) {
            state == self.value(shard, number + 1)
        } else {
            let shard = self.manifest.shards()[shard as usize];
            sha256_lanes::finish(state, whole_blocks(bytes).1, shard.size_bytes) == *shard.digest.as_bytes()
        };
        let index = self.manifest.pieces()?.index;
        is_right.then(|| VerifiedPiece { piece, bytes, root: self.manifest.merkle_root(), index })
    }

    fn has_length(&self, PieceId { shard, piece }: PieceId, bytes: &[u8]) -> bool {
        shard < self.manifest.shard_count()
            && piece < self.manifest.piece_count(shard)
            && bytes.len() as u64 == self.manifest.piece_range(shard, piece).len()
    }

    /// Whether it holds just these values for a shard: `v(1) … v(n-1)`, as [`ShardHasher::finish`] gives them. In shards
    /// with the same digest the values of the first of them count.
    pub fn agrees(&self, shard: u32, values: &[[u8; VALUE_BYTES]]) -> bool {
        let Some(base) = self.value_bases.get(shard as usize) else { return false };
        let start = HEADER_BYTES + VALUE_BYTES * base;
        let held = values.len() + 1 == self.manifest.piece_count(shard) as usize;
        held && self.blob.as_ref()[start..].starts_with(values.as_flattened())
    }

    /// `v(piece)` of a shard.
    fn value(&self, shard: u32, piece: u32) -> State {
        let Some(before) = (piece as usize).checked_sub(1) else { return INITIAL };
        let start = HEADER_BYTES + VALUE_BYTES * (self.value_bases[shard as usize] + before);
        let bytes = &self.blob.as_ref()[start..start + VALUE_BYTES];
        let mut state = INITIAL;
        for (word, bytes) in state.iter_mut().zip(bytes.as_chunks().0) {
            *word = u32::from_be_bytes(*bytes);
        }
        state
    }
}

fn check_header(
    header: &[u8; HEADER_BYTES],
    manifest: &Manifest,
    piece_bytes: u32,
) -> Result<(), IndexError> {
    let [m0, m1, m2, m3, version, p0, p1, p2, p3, s0, s1, s2, s3] = *header;
    let magic = [m0, m1, m2, m3];
    if magic != MAGIC {
        return Err(IndexError::NotAnIndex { found: magic });
    }
    if version != VERSION {
        return Err(IndexError::UnknownVersion { found: version });
    }
    let found_bytes = u32::from_be_bytes([p0, p1, p2, p3]);
    if found_bytes != piece_bytes {
        return Err(IndexError::PieceSize { found_bytes, expected_bytes: piece_bytes });
    }
    let (found, expected) = (u32::from_be_bytes([s0, s1, s2, s3]), manifest.shard_count());
    if found != expected {
        return Err(IndexError::ShardCount { found, expected });
    }
    Ok(())
}

fn value_bases(manifest: &Manifest) -> Vec<usize> {
    let mut next = 0;
    let mut bases = Vec::with_capacity(manifest.shards().len());
    for shard in 0..manifest.shard_count() {
        let first = manifest.canonical(shard);
        bases.push(if first == shard { next } else { bases[first as usize] });
        next += manifest.piece_count(shard) as usize - 1;
    }
    bases
}

/// Splits bytes into whole SHA-256 blocks and the fewer than 64 bytes after them.
fn whole_blocks(bytes: &[u8]) -> (&[u8], &[u8]) {
    bytes.split_at(bytes.len() - bytes.len() % 64)
}

/// The blob of a piece index.
///
/// `values_per_shard[i]` are the chaining values of shard *i*, as [`ShardHasher::finish`] gives them.
pub fn encode_index(piece_size_bytes: u32, values_per_shard: &[Vec<[u8; 32]>]) -> Vec<u8> {
    let values: usize = values_per_shard.iter().map(Vec::len).sum();
    let mut blob = Vec::with_capacity(HEADER_BYTES + VALUE_BYTES * values);
    blob.extend(MAGIC);
    blob.push(VERSION);
    blob.extend(piece_size_bytes.to_be_bytes());
    #[expect(clippy::cast_possible_truncation, reason = "a manifest has at most 65,536 shards")]
    blob.extend((values_per_shard.len() as u32).to_be_bytes());
    blob.extend(values_per_shard.iter().flatten().flatten());
    blob
}
