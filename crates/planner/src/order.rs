//! The order in which equally rare pieces are fetched.
//!
//! Each planner shuffles by its own seed, so that fetchers that start together ask for different pieces. The pieces of
//! a column stay together, so that it completes soon and its parity leaves the memory; columns are only shuffled among
//! neighbours, so that the file fills from the front.

use manifest::{Geometry, PieceId};
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};

/// So many columns in a row are shuffled.
const SHUFFLED_COLUMNS: usize = 64;

/// The position of each data piece that the weights need.
#[derive(Debug)]
pub(super) struct Order {
    /// By position.
    pieces: Vec<PieceId>,
    /// By shard and piece; empty for shards that the weights do not need.
    positions: Vec<Vec<u32>>,
    stripes: Vec<u32>,
}

impl Order {
    /// Without `by_column`, for shards that are checked as a whole, shard after shard, so that bad bytes show early.
    pub(super) fn new(geometry: &Geometry, needed: &[u32], by_column: bool, seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let manifest = geometry.manifest();
        let mut pieces: Vec<PieceId> = Vec::new();
        let mut stripes: Vec<u32> = (0..).take(geometry.stripe_count()).collect();
        let mut shards = needed.to_vec();
        if !by_column {
            shards.shuffle(&mut random);
        }
        for shard in shards {
            pieces.extend((0..manifest.piece_count(shard)).map(|piece| PieceId { shard, piece }));
        }
        if by_column {
            let ranks = column_ranks(geometry, &mut random);
            let rank = |stripe: usize| ranks[column_of(geometry, stripe)];
            let first_stripe = |piece| geometry.stripes_of(piece).first().map_or(0, |(stripe, _)| *stripe);
            pieces.sort_by_cached_key(|piece| (rank(first_stripe(*piece)), random.random::<u32>()));
            stripes.sort_by_key(|stripe| rank(*stripe as usize));
        }
        let mut positions = vec![Vec::new(); manifest.shards().len()];
        for shard in needed {
            positions[*shard as usize] = vec![0; manifest.piece_count(*shard) as usize];
        }
        for (position, piece) in (0..).zip(&pieces) {
            positions[piece.shard as usize][piece.piece as usize] = position;
        }
        Self { pieces, positions, stripes }
    }

    /// How many pieces have a position.
    pub(super) fn len(&self) -> u32 {
        #[expect(clippy::cast_possible_truncation, reason = "a manifest has at most 2^24 pieces")]
        let len = self.pieces.len() as u32;
        len
    }

    pub(super) fn piece(&self, position: u32) -> PieceId {
        self.pieces[position as usize]
    }

    /// The position of a piece, if it has one.
    pub(super) fn position(&self, piece: PieceId) -> Option<u32> {
        self.positions.get(piece.shard as usize)?.get(piece.piece as usize).copied()
    }

    /// All stripes, in the order in which their pieces come.
    pub(super) fn stripes(&self) -> &[u32] {
        &self.stripes
    }
}

fn column_of(geometry: &Geometry, stripe: usize) -> usize {
    let column = geometry.stripe(stripe).start / u64::from(geometry.manifest().piece_size_bytes());
    #[expect(clippy::cast_possible_truncation, reason = "a manifest has at most 2^24 pieces")]
    let column = column as usize;
    column
}

/// By column, its rank.
fn column_ranks(geometry: &Geometry, random: &mut StdRng) -> Vec<u32> {
    let count = column_of(geometry, geometry.stripe_count() - 1) + 1;
    let mut columns: Vec<usize> = (0..count).collect();
    columns.chunks_mut(SHUFFLED_COLUMNS).for_each(|window| window.shuffle(random));
    let mut ranks = vec![0; count];
    for (rank, column) in (0..).zip(columns) {
        ranks[column] = rank;
    }
    ranks
}
