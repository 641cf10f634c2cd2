//! What a source says to hold.

use manifest::{Geometry, PieceId, PieceSet};

use super::bits::Bits;
use super::order::Order;
use super::rarity::Rarity;

/// What one source said, by shard and by place in the order. Until it says something, it may hold anything, and does
/// not count as a holder.
#[derive(Debug, Default)]
pub(super) struct Holdings {
    /// Empty until it said.
    shards: Vec<PieceSet>,
    places: Option<Bits>,
}

/// What the planner keeps up to date with every change of a source's holdings.
pub(super) struct Tallies<'a> {
    pub(super) geometry: &'a Geometry,
    pub(super) order: &'a Order,
    pub(super) rarity: &'a mut Rarity,
}

impl Holdings {
    /// Whether it says to hold nothing of this shard.
    pub(super) fn denies(&self, shard: u32) -> bool {
        self.shards.get(shard as usize).is_some_and(PieceSet::is_empty)
    }

    pub(super) fn has(&self, piece: PieceId) -> bool {
        self.shards.get(piece.shard as usize).is_none_or(|pieces| pieces.contains(piece.piece))
    }

    /// Whether it holds every piece of the shard, as far as it said.
    pub(super) fn has_all(&self, shard: u32) -> bool {
        self.shards.get(shard as usize).is_none_or(PieceSet::is_all)
    }

    /// By place in the order, what it holds. `None`: it may be anything.
    pub(super) fn places(&self) -> Option<&Bits> {
        self.places.as_ref()
    }

    /// Takes in what it says of each shard. Of shards with the same bytes, any will do. Returns whether that is no more
    /// than further data pieces beside what it said before.
    pub(super) fn replace(&mut self, mut shards: Vec<PieceSet>, tallies: &mut Tallies<'_>) -> bool {
        let geometry = tallies.geometry;
        let manifest = geometry.manifest();
        let counts = (0..).zip(manifest.shards()).map(|(shard, _)| manifest.piece_count(shard));
        // What it does not speak of, it may hold; what is of another size is of another model.
        let shard_of = |(at, count)| {
            let told = shards.get_mut(at).map(|pieces| std::mem::replace(pieces, PieceSet::none(0)));
            told.map_or(PieceSet::all(count), |pieces| match pieces.count() == count {
                true => pieces,
                false => PieceSet::none(count),
            })
        };
        let mut shards: Vec<PieceSet> = counts.enumerate().map(shard_of).collect();
        for (shard, at) in (0..).zip(0..shards.len()) {
            let first = geometry.canonical(shard) as usize;
            if first < at {
                let (before, after) = shards.split_at_mut(at);
                before[first].extend(&after[0]);
            }
        }
        let mut is_growth = !self.shards.is_empty();
        let before = std::mem::take(&mut self.shards);
        let none = PieceSet::none(0);
        for (shard, after) in (0..).zip(&shards) {
            let before = before.get(shard as usize).unwrap_or(&none);
            if before != after {
                is_growth &= shard < manifest.data_shard_count();
                is_growth &= self.change(shard, before, after, tallies);
            }
        }
        self.places.get_or_insert_with(|| Bits::new(tallies.order.len()));
        self.shards = shards;
        is_growth
    }

    /// More pieces. Returns whether they are all of data, and it had said what it holds.
    pub(super) fn add(&mut self, pieces: &[PieceId], tallies: &mut Tallies<'_>) -> bool {
        let manifest = tallies.geometry.manifest();
        let mut is_growth = true;
        for piece in pieces {
            if self.shards.is_empty() || piece.shard as usize >= self.shards.len() {
                continue;
            }
            for shard in [piece.shard, tallies.geometry.canonical(piece.shard)] {
                if self.shards[shard as usize].insert(piece.piece) {
                    self.set(PieceId { shard, piece: piece.piece }, true, tallies);
                }
            }
            is_growth &= piece.shard < manifest.data_shard_count();
        }
        is_growth
    }

    /// It is gone: it does not count as a holder any more, and what it will hold when it comes back is not known.
    pub(super) fn forget(&mut self, tallies: &mut Tallies<'_>) {
        for (shard, before) in (0..).zip(std::mem::take(&mut self.shards)) {
            self.change(shard, &before, &PieceSet::none(0), tallies);
        }
        self.places = None;
    }

    /// Returns whether nothing was lost.
    fn change(&mut self, shard: u32, before: &PieceSet, after: &PieceSet, tallies: &mut Tallies<'_>) -> bool {
        let count = tallies.geometry.manifest().piece_count(shard);
        let mut is_growth = true;
        for at in 0..count.div_ceil(8) {
            let (old, new) = (before.byte(at as usize), after.byte(at as usize));
            let mut changed = old ^ new;
            is_growth &= old & !new == 0;
            while changed != 0 {
                let bit = changed.trailing_zeros();
                changed &= changed - 1;
                let piece = PieceId { shard, piece: 8 * at + bit };
                if piece.piece < count {
                    self.set(piece, new >> bit & 1 == 1, tallies);
                }
            }
        }
        is_growth
    }

    fn set(&mut self, piece: PieceId, is_held: bool, tallies: &mut Tallies<'_>) {
        let Some(place) = tallies.order.place(piece) else { return };
        tallies.rarity.count(place, is_held);
        let places = self.places.get_or_insert_with(|| Bits::new(tallies.order.len()));
        if is_held { places.insert(place) } else { places.remove(place) }
    }
}
