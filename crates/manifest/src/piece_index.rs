//! The piece index: the SHA-256 chaining values inside each shard, so that each piece is verified alone.
//!
//! SHA-256 is a chain of 64-byte compressions from the initial value `v(0)`; the index holds `v(1) … v(n-1)`, the
//! values after each whole piece but the last. Piece `i` is right when it leads from `v(i)` to `v(i+1)`, the last one
//! when it leads to the shard's digest. Pieces that are all right therefore have the shard's digest, whatever the
//! index says. Source: `docs/manifest.md`, "Piece index".

use sha256_lanes::{INITIAL, Lane, State};

pub use crate::shard_hasher::ShardHasher;
use crate::{Digest, IndexError, Manifest};

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
    /// For each shard, how many values stand before its own; for one whose digest is in an earlier shard too, before
    /// those of the first such shard.
    value_bases: Vec<usize>,
}

/// A piece to be verified, and whether it was right.
#[derive(Debug, Clone, Copy)]
pub struct PieceCheck<'a> {
    /// Index of the shard.
    pub shard: u32,
    /// Index of the piece in the shard.
    pub piece: u32,
    /// What the piece should be.
    pub bytes: &'a [u8],
    /// Set by [`PieceIndex::verify`].
    pub good: bool,
}

impl<B: AsRef<[u8]>> PieceIndex<B> {
    /// Checks that `blob` is the piece index of `manifest`: its size, its digest and its header.
    ///
    /// # Errors
    /// - [`IndexError::NoIndex`]: the manifest names none.
    /// - [`IndexError::WrongSize`], [`IndexError::WrongDigest`]: not the bytes that the manifest names.
    /// - the others: the manifest names something that is not its index.
    pub fn parse(blob: B, manifest: &Manifest) -> Result<Self, IndexError> {
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
        Ok(Self { blob, value_bases })
    }

    /// Hashes each piece and sets `good` where it is the right one. Several pieces are hashed at once on the calling
    /// thread: pass as many as there are.
    ///
    /// Not good as well: bytes of another length than the piece, and pieces that there are not. In shards with the
    /// same digest the values of the first of them count.
    pub fn verify(&self, manifest: &Manifest, checks: &mut [PieceCheck<'_>]) {
        let mut states: Vec<State> = Vec::with_capacity(checks.len());
        for check in &mut *checks {
            check.good = is_piece(manifest, check);
            states.push(if check.good { self.value(check.shard, check.piece) } else { INITIAL });
        }
        let mut lanes: Vec<Lane<'_>> = Vec::with_capacity(checks.len());
        for (check, state) in checks.iter().zip(&mut states).filter(|(check, _)| check.good) {
            lanes.push(Lane { state, blocks: whole_blocks(check.bytes).0 });
        }
        sha256_lanes::compress(&mut lanes);
        for (check, state) in checks.iter_mut().zip(states).filter(|(check, _)| check.good) {
            check.good = if check.piece + 1 < manifest.piece_count(check.shard) {
                state == self.value(check.shard, check.piece + 1)
            } else {
                let shard = manifest.shards()[check.shard as usize];
                let tail = whole_blocks(check.bytes).1;
                sha256_lanes::finish(state, tail, shard.size_bytes) == *shard.digest.as_bytes()
            };
        }
    }

    /// Whether it holds just these values for a shard: `v(1) … v(n-1)`, as [`ShardHasher::finish`] gives them. In shards
    /// with the same digest the values of the first of them count.
    pub fn agrees(&self, manifest: &Manifest, shard: u32, values: &[[u8; VALUE_BYTES]]) -> bool {
        let Some(base) = self.value_bases.get(shard as usize) else { return false };
        let start = HEADER_BYTES + VALUE_BYTES * base;
        let held = values.len() + 1 == manifest.piece_count(shard) as usize;
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
    let (found, expected) =
        (u32::from_be_bytes([s0, s1, s2, s3]), manifest.data_shard_count() + manifest.parity());
    if found != expected {
        return Err(IndexError::ShardCount { found, expected });
    }
    Ok(())
}

fn value_bases(manifest: &Manifest) -> Vec<usize> {
    let mut next = 0;
    let mut bases = Vec::with_capacity(manifest.shards().len());
    for shard in 0..manifest.data_shard_count() + manifest.parity() {
        let first = manifest.canonical(shard);
        bases.push(if first == shard { next } else { bases[first as usize] });
        next += manifest.piece_count(shard) as usize - 1;
    }
    bases
}

fn is_piece(manifest: &Manifest, check: &PieceCheck<'_>) -> bool {
    (check.shard as usize) < manifest.shards().len()
        && check.piece < manifest.piece_count(check.shard)
        && check.bytes.len() as u64 == manifest.piece_range(check.shard, check.piece).len()
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
