//! In which order pieces are fetched that are equally rare.
//!
//! Each planner has an order of its own, made from its seed, so that those who start at the same moment ask for
//! different pieces. All pieces of a column stand together, so that a column completes soon after it was begun, and its
//! parity leaves the memory; and columns are only shuffled among their neighbours, so that the file fills from the front.

use manifest::{Geometry, PieceId};
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};

/// So many columns in a row are shuffled.
const SHUFFLED_COLUMNS: usize = 64;

/// Gives each data piece that the weights need its place in the order.
#[derive(Debug)]
pub(super) struct Order {
    /// By place.
    pieces: Vec<PieceId>,
    /// By shard and piece; nothing for shards that are not fetched for their own sake.
    places: Vec<Vec<u32>>,
    stripes: Vec<u32>,
}

impl Order {
    /// Without `by_column`, for shards that are checked as a whole, one shard comes after the other, so that a lie
    /// shows early.
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
        let mut places = vec![Vec::new(); manifest.shards().len()];
        for shard in needed {
            places[*shard as usize] = vec![0; manifest.piece_count(*shard) as usize];
        }
        for (place, piece) in (0..).zip(&pieces) {
            places[piece.shard as usize][piece.piece as usize] = place;
        }
        Self { pieces, places, stripes }
    }

    /// How many pieces have a place.
    pub(super) fn len(&self) -> u32 {
        #[expect(clippy::cast_possible_truncation, reason = "a manifest has at most 2^24 pieces")]
        let len = self.pieces.len() as u32;
        len
    }

    pub(super) fn piece(&self, place: u32) -> PieceId {
        self.pieces[place as usize]
    }

    /// The place of a piece, if it has one.
    pub(super) fn place(&self, piece: PieceId) -> Option<u32> {
        self.places.get(piece.shard as usize)?.get(piece.piece as usize).copied()
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

/// By column, when its turn is.
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
