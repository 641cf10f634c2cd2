//! The pieces that a source has announced (HAVE).

use manifest::{Geometry, PieceId, PieceSet};

use super::bits::Bits;
use super::order::Order;
use super::rarity::Rarity;

/// A source's piece sets, by shard and by position in the order. Before its first announcement it may hold anything,
/// and does not count as a holder.
#[derive(Debug, Default)]
pub(super) struct Holdings {
    /// Empty before the first announcement.
    shards: Vec<PieceSet>,
    positions: Option<Bits>,
}

/// Counts that the planner updates with every change of a source's holdings.
pub(super) struct Tallies<'a> {
    pub(super) geometry: &'a Geometry,
    pub(super) order: &'a Order,
    pub(super) rarity: &'a mut Rarity,
}

impl Holdings {
    /// Whether it has announced that it holds nothing of this shard.
    pub(super) fn has_none(&self, shard: u32) -> bool {
        self.shards.get(shard as usize).is_some_and(PieceSet::is_empty)
    }

    pub(super) fn has(&self, piece: PieceId) -> bool {
        self.shards.get(piece.shard as usize).is_none_or(|pieces| pieces.contains(piece.piece))
    }

    /// What it has announced of this shard; `None` before its first announcement.
    pub(super) fn of(&self, shard: u32) -> Option<&PieceSet> {
        self.shards.get(shard as usize)
    }

    /// Whether it has announced every piece of the shard.
    pub(super) fn has_all(&self, shard: u32) -> bool {
        self.shards.get(shard as usize).is_none_or(PieceSet::is_all)
    }

    /// Its pieces, by position in the order. `None`: not announced yet.
    pub(super) fn positions(&self) -> Option<&Bits> {
        self.positions.as_ref()
    }

    /// A full announcement. Shards with equal bytes share their pieces. Returns whether it only added data pieces to an
    /// earlier one.
    pub(super) fn replace(&mut self, mut shards: Vec<PieceSet>, tallies: &mut Tallies<'_>) -> bool {
        let geometry = tallies.geometry;
        let manifest = geometry.manifest();
        let counts = (0..).zip(manifest.shards()).map(|(shard, _)| manifest.piece_count(shard));
        // A shard that is left out may be held; one of another size is of another model.
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
        self.positions.get_or_insert_with(|| Bits::new(tallies.order.len()));
        self.shards = shards;
        is_growth
    }

    /// Further pieces. Returns whether all are data, and a full announcement came before.
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

    /// It disconnected: it is no holder any more, and its holdings are unknown.
    pub(super) fn forget(&mut self, tallies: &mut Tallies<'_>) {
        for (shard, before) in (0..).zip(std::mem::take(&mut self.shards)) {
            self.change(shard, &before, &PieceSet::none(0), tallies);
        }
        self.positions = None;
    }

    /// Returns whether it lost no piece.
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
        let Some(position) = tallies.order.position(piece) else { return };
        tallies.rarity.count(position, is_held);
        let positions = self.positions.get_or_insert_with(|| Bits::new(tallies.order.len()));
        if is_held { positions.insert(position) } else { positions.remove(position) }
    }
}
