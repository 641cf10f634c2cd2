//! When parity is asked for: where data pieces have no live holder, or are late.

use std::time::Instant;

use manifest::{Cell, Codec, PieceId};

use super::Planner;
use super::SourceKey;

/// What to ask for parity in place of.
#[derive(Clone, Copy)]
enum Instead {
    /// Data pieces that no source can be asked for.
    OfLost,
    /// Those, and pieces that are late.
    OfLate(Instant),
}

impl Planner {
    /// Rule 1: a parity piece that `key` holds, in the first stripe in which a data piece has no live holder.
    pub(super) fn pick_parity(&mut self, key: SourceKey, now: Instant) -> Option<PieceId> {
        // While all sources are late, parity from one of them comes no sooner.
        if self.sources[&key].is_late()
            || self.waits_for_sources(now)
            || !self.parity_shards().any(|shard| self.may_ask(key, shard))
        {
            return None;
        }
        self.count_holders();
        if !self.is_some_shard_lost() {
            return None;
        }
        if let Some(piece) = self.begun_parity(key) {
            return Some(piece);
        }
        let mut done = self.sources[&key].stripes_done;
        let mut found = None;
        while let Some(stripe) = self.pieces.order.stripes().get(done) {
            found = self.parity_of(*stripe as usize, key, Instead::OfLost);
            if found.is_some() {
                break;
            }
            done += 1;
        }
        self.sources.set_stripes_done(key, done);
        found
    }

    /// Parity that `key` holds, where `piece` is late.
    pub(super) fn parity_instead(&self, key: SourceKey, piece: PieceId, now: Instant) -> Option<PieceId> {
        let stripes = self.geometry().stripes_of(piece).into_iter();
        stripes.map(|(stripe, _)| stripe).find_map(|stripe| self.parity_of(stripe, key, Instead::OfLate(now)))
    }

    fn parity_shards(&self) -> std::ops::Range<u32> {
        let manifest = self.geometry().manifest();
        manifest.data_shard_count()..manifest.shard_count()
    }

    /// Where parity shards are checked as a whole, one that was begun must be completed.
    fn begun_parity(&self, key: SourceKey) -> Option<PieceId> {
        self.parity_shards().find_map(|shard| {
            if !self.is_begun_whole(shard) || !self.may_ask(key, shard) || !self.is_worth(key, shard) {
                return None;
            }
            self.next_open(key, shard)
        })
    }

    fn is_begun_whole(&self, shard: u32) -> bool {
        !self.pieces.is_indexed(shard)
            && (self.pieces.is_begun(shard) || self.requests.sources_of(shard).next().is_some())
    }

    /// Whether some data shard has missing pieces that perhaps no source can be asked for.
    fn is_some_shard_lost(&self) -> bool {
        let is_lost = |shard: &u32| self.pieces.absent(*shard) > 0 && !self.holders[*shard as usize].all_now;
        self.pieces.needed_shards().iter().any(is_lost)
    }

    /// A parity piece of a stripe that `key` holds: none when no data is lost there, when enough is in flight, or when
    /// all available parity would not be enough.
    fn parity_of(&self, stripe: usize, key: SourceKey, instead: Instead) -> Option<PieceId> {
        let manifest = self.geometry().manifest();
        let data = manifest.data() as usize;
        if manifest.codec() == Codec::Rs
            && (self.pieces.known_cells(stripe) >= manifest.data() || self.is_partly_wanted(stripe))
        {
            return None;
        }
        let cells: Vec<Cell> = self.geometry().cells(stripe).collect();
        let (data_cells, parity_cells) = cells.split_at(data);
        let lost: Vec<usize> = (0..data).filter(|row| self.is_lost(data_cells[*row], key, instead)).collect();
        if lost.is_empty() {
            return None;
        }
        let (mut coming, mut open) = (Vec::new(), Vec::new());
        for (index, cell) in parity_cells.iter().enumerate() {
            let Cell::Piece { piece, .. } = *cell else { continue };
            let is_coming = !self.pieces.is_missing(piece)
                || !self.requests.asked(piece).is_empty()
                || (self.is_begun_whole(piece.shard) && self.has_live_holder(piece));
            if is_coming {
                coming.push(index);
            } else if self.has_live_holder(piece) {
                open.push((index, piece));
            }
        }
        let is_wanted = |index: usize| match manifest.codec() {
            Codec::Rs => coming.len() < lost.len() && lost.len() <= coming.len() + open.len(),
            Codec::Replica => {
                let row = index % data;
                lost.contains(&row) && !coming.iter().any(|other| other % data == row)
            }
        };
        let may_ask = |piece: PieceId| {
            self.sources[&key].holds(piece)
                && self.may_ask(key, piece.shard)
                && self.is_worth(key, piece.shard)
        };
        open.iter().find(|(index, piece)| is_wanted(*index) && may_ask(*piece)).map(|(_, piece)| *piece)
    }

    /// Whether all data in the stripes of a parity piece is good, in flight, or to be rebuilt.
    pub(super) fn completes(&self, parity: PieceId) -> bool {
        let data = self.geometry().manifest().data() as usize;
        let is_open = |cell: Cell| {
            matches!(cell, Cell::Piece { piece, .. } if self.pieces.is_missing(piece)
                && self.requests.asked(piece).is_empty()
                && self.has_live_holder(piece))
        };
        let mut stripes = self.geometry().stripes_of(parity).into_iter();
        self.pieces.is_indexed(parity.shard)
            && stripes.all(|(stripe, _)| !self.geometry().cells(stripe).take(data).any(is_open))
    }

    fn is_lost(&self, cell: Cell, key: SourceKey, instead: Instead) -> bool {
        let Cell::Piece { piece, .. } = cell else { return false };
        if !self.pieces.may_rebuild(piece) || !self.pieces.is_wanted(piece) {
            return false;
        }
        if self.requests.asked(piece).is_empty() {
            return !self.has_live_holder(piece);
        }
        matches!(instead, Instead::OfLate(now) if self.is_late(piece, key, now))
    }

    pub(super) fn has_live_holder(&self, piece: PieceId) -> bool {
        let holders = self.holders[piece.shard as usize];
        holders.all_now
            || holders.some_now
                && self
                    .sources
                    .iter()
                    .any(|(_, source)| source.is_live_holder(piece.shard) && source.holds(piece))
    }
}
