//! Which bytes of the weights each piece is, and which pieces rebuild which.
//!
//! Rows are what the codec sees: row *r* is weights `[r·S, (r+1)·S)`. A *stripe* is a range of row offsets in which
//! no piece of any row begins or ends, so that in one stripe every row lies in exactly one piece. In the uniform
//! layout the stripes are the columns; where layers straddle rows they are finer.

use std::collections::HashMap;
use std::sync::Arc;

use crate::{ByteRange, Layout, Manifest};

/// One piece of one shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PieceId {
    /// Index of the shard in the manifest.
    pub shard: u32,
    /// Index of the piece in the shard.
    pub piece: u32,
}

/// Part of one shard that lies in one of its pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PieceSlice {
    /// The piece it lies in.
    pub piece: PieceId,
    /// Which bytes of the shard.
    pub range: ByteRange,
}

/// What one row, or one parity shard, has in one stripe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cell {
    /// Zeros past the end of the weights, known without being fetched.
    Padding,
    /// Bytes of this piece, beginning at `offset` of its shard.
    Piece {
        /// The piece, of the first shard that has its digest.
        piece: PieceId,
        /// Where in the shard the stripe begins.
        offset: u64,
    },
}

/// The geometry of one manifest. Clones share it.
#[derive(Debug, Clone)]
pub struct Geometry {
    manifest: Arc<Manifest>,
    tables: Arc<Tables>,
}

#[derive(Debug)]
struct Tables {
    /// Number of pieces before each shard.
    piece_bases: Vec<u32>,
    /// First row offset of each stripe, then `S`.
    stripe_bounds: Vec<u64>,
    /// The shards that share a digest with others, by the first of them.
    same: HashMap<u32, Vec<u32>>,
}

impl Geometry {
    /// Works out the geometry of `manifest`: time and memory grow with its number of pieces.
    pub fn new(manifest: Arc<Manifest>) -> Self {
        let mut piece_bases = vec![0];
        let mut base = 0;
        let mut same: HashMap<u32, Vec<u32>> = HashMap::new();
        for shard in 0..manifest.shard_count() {
            base += manifest.piece_count(shard);
            piece_bases.push(base);
            same.entry(manifest.canonical(shard)).or_default().push(shard);
        }
        same.retain(|_, shards| shards.len() > 1);
        let stripe_bounds = stripe_bounds(&manifest);
        Self { manifest, tables: Arc::new(Tables { piece_bases, stripe_bounds, same }) }
    }

    /// The manifest it was made from.
    pub fn manifest(&self) -> &Arc<Manifest> {
        &self.manifest
    }

    /// The first shard with the digest of `shard`: replicas are fetched once, under this index.
    pub fn canonical(&self, shard: u32) -> u32 {
        self.manifest.canonical(shard)
    }

    /// All shards with the digest of `shard`, which is the first of them, in index order.
    pub fn same(&self, shard: u32) -> impl Iterator<Item = u32> {
        let others = self.tables.same.get(&shard).map(Vec::as_slice).unwrap_or_default();
        std::iter::once(shard).chain(others.iter().copied().filter(move |other| *other != shard))
    }

    /// Number of pieces of all shards.
    pub fn piece_total(&self) -> u32 {
        self.tables.piece_bases[self.manifest.shards().len()]
    }

    /// The position of a piece among all pieces, shard by shard: `0..piece_total()`.
    pub fn flat(&self, piece: PieceId) -> usize {
        (self.tables.piece_bases[piece.shard as usize] + piece.piece) as usize
    }

    /// How many bytes a piece has.
    pub fn piece_bytes(&self, piece: PieceId) -> u64 {
        self.manifest.piece_range(piece.shard, piece.piece).len()
    }

    /// The pieces that hold `range` of the weights, in order. What lies past the end of the weights is left out.
    pub fn pieces_of(&self, range: ByteRange) -> impl Iterator<Item = PieceSlice> {
        let end = range.end.min(self.manifest.total_size_bytes());
        let mut at = range.start;
        std::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            let (piece, offset) = self.piece_at(at);
            let piece_end = self.manifest.piece_range(piece.shard, piece.piece).end;
            let taken = (piece_end - offset).min(end - at);
            at += taken;
            Some(PieceSlice { piece, range: ByteRange::new(offset, offset + taken) })
        })
    }

    /// Which bytes of the weights a piece of a data shard holds, without padding; empty for padding only, `None` for
    /// a piece of a parity shard.
    pub fn weights_of(&self, piece: PieceId) -> Option<ByteRange> {
        let start = self.manifest.weights_start(piece.shard)?;
        let range = self.manifest.piece_range(piece.shard, piece.piece);
        let total = self.manifest.total_size_bytes();
        Some(ByteRange::new((start + range.start).min(total), (start + range.end).min(total)))
    }

    /// Number of stripes.
    pub fn stripe_count(&self) -> usize {
        self.tables.stripe_bounds.len() - 1
    }

    /// The row offsets of a stripe.
    pub fn stripe(&self, stripe: usize) -> ByteRange {
        ByteRange::new(self.tables.stripe_bounds[stripe], self.tables.stripe_bounds[stripe + 1])
    }

    /// The stripe that begins at or holds a row offset; the number of stripes for one past the end.
    pub fn stripe_at(&self, offset: u64) -> usize {
        if offset >= self.manifest.row_size_bytes() {
            return self.stripe_count();
        }
        self.tables.stripe_bounds.partition_point(|bound| *bound <= offset) - 1
    }

    /// What each row, then each parity shard, has in a stripe: `data + parity` cells.
    pub fn cells(&self, stripe: usize) -> impl Iterator<Item = Cell> {
        let offset = self.tables.stripe_bounds[stripe];
        (0..self.manifest.data() + self.manifest.parity()).map(move |row| self.cell(row, offset))
    }

    /// The stripes in which one row has bytes of `piece`, each with that row. `piece` is of a first shard with its
    /// digest; the places of the others with the same digest are included.
    pub fn stripes_of(&self, piece: PieceId) -> Vec<(usize, u32)> {
        let mut places = Vec::new();
        for shard in self.same(piece.shard) {
            let range = self.manifest.piece_range(shard, piece.piece);
            if shard >= self.manifest.data_shard_count() {
                let row = self.manifest.data() + shard - self.manifest.data_shard_count();
                places.extend(self.stripes_between(range).map(|stripe| (stripe, row)));
                continue;
            }
            // A row that is padding only has no cells of its own.
            let Some(start) = self.manifest.weights_start(shard) else { continue };
            if start >= self.manifest.total_size_bytes() {
                continue;
            }
            let row_bytes = self.manifest.row_size_bytes();
            let start = start + range.start;
            let mut at = start;
            while at < start + range.len() {
                let row = at / row_bytes;
                let end = (start + range.len()).min((row + 1) * row_bytes);
                let offsets = ByteRange::new(at - row * row_bytes, end - row * row_bytes);
                #[expect(clippy::cast_possible_truncation, reason = "there are at most 256 rows")]
                places.extend(self.stripes_between(offsets).map(|stripe| (stripe, row as u32)));
                at = end;
            }
        }
        places
    }

    fn stripes_between(&self, offsets: ByteRange) -> std::ops::Range<usize> {
        let first = self.tables.stripe_bounds.partition_point(|bound| *bound < offsets.start);
        let end = self.tables.stripe_bounds.partition_point(|bound| *bound < offsets.end);
        first..end
    }

    fn cell(&self, row: u32, offset: u64) -> Cell {
        let (shard, offset) = if row >= self.manifest.data() {
            (self.manifest.data_shard_count() + row - self.manifest.data(), offset)
        } else {
            let at = u64::from(row) * self.manifest.row_size_bytes() + offset;
            // A stripe that begins inside a row with weights may end in padding; that padding is the shard's own.
            let row_has_weights =
                u64::from(row) * self.manifest.row_size_bytes() < self.manifest.total_size_bytes();
            match self.manifest.layout() {
                Layout::Uniform if row_has_weights => (row, offset),
                Layout::LayerWise if at < self.manifest.total_size_bytes() => {
                    let (piece, offset) = self.piece_at(at);
                    (piece.shard, offset)
                }
                _ => return Cell::Padding,
            }
        };
        let piece = self.piece_index_at(offset);
        Cell::Piece { piece: PieceId { shard: self.canonical(shard), piece }, offset }
    }

    /// The piece that holds the weights byte `at`, and where in its shard that byte is.
    fn piece_at(&self, at: u64) -> (PieceId, u64) {
        let (shard, offset) = self.manifest.shard_at(at);
        (PieceId { shard, piece: self.piece_index_at(offset) }, offset)
    }

    fn piece_index_at(&self, shard_offset: u64) -> u32 {
        #[expect(clippy::cast_possible_truncation, reason = "a manifest has at most 2^24 pieces")]
        let piece = (shard_offset / u64::from(self.manifest.piece_size_bytes())) as u32;
        piece
    }
}

fn stripe_bounds(manifest: &Manifest) -> Vec<u64> {
    let row_bytes = manifest.row_size_bytes();
    let piece_bytes = u64::from(manifest.piece_size_bytes());
    let columns = (0..row_bytes.div_ceil(piece_bytes)).map(|column| column * piece_bytes);
    let mut bounds: Vec<u64> = columns.chain([row_bytes]).collect();
    if manifest.layout() == Layout::LayerWise {
        for shard in 0..manifest.data_shard_count() {
            let start = manifest.weights_start(shard).unwrap_or(0);
            for piece in 0..manifest.piece_count(shard) {
                bounds.push((start + manifest.piece_range(shard, piece).end) % row_bytes);
            }
        }
        bounds.sort_unstable();
        bounds.dedup();
    }
    bounds
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Codec, Digest, Shard};

    #[test]
    fn a_clone_costs_the_same_whatever_the_model() {
        let shard = Shard { digest: Digest::of(b"shard"), size_bytes: 1 << 30, is_parity: false };
        let manifest = Manifest::new("m".to_owned(), 1 << 30, vec![shard], 1, 0, Codec::Rs, None).unwrap();
        let geometry = Geometry::new(Arc::new(manifest));
        let clone = geometry.clone();
        assert!(
            Arc::ptr_eq(&geometry.tables, &clone.tables) && Arc::ptr_eq(&geometry.manifest, &clone.manifest)
        );
    }
}
