//! Rule 6: only some pieces of the weights may be wanted, and more of them later; some sooner than others.
//!
//! Of a model of which only some files are fetched, a lost piece costs its whole column: the pieces that it is rebuilt
//! from are wanted, too, but only when nobody can be asked for it.

use std::time::Instant;

use manifest::{Cell, Codec, PieceId};

use super::Planner;
use super::bits::Bits;
use super::pieces::Pieces;

impl Planner {
    /// From now on only these pieces are wanted, and those of earlier calls: it is done when they are there. Without a piece
    /// index, so are all pieces of their shards, which prove each other.
    pub fn want(&mut self, pieces: impl IntoIterator<Item = PieceId>) {
        self.pieces.want(pieces);
        self.changed = true;
    }

    /// Every other request is for one of these pieces, in place of those of the last call: who reads the model while it arrives
    /// reads them next. The rarest of them goes first.
    pub fn want_soon(&mut self, pieces: impl IntoIterator<Item = PieceId>) {
        let mut soon = Bits::new(self.pieces.order.len());
        for PieceId { shard, piece } in pieces {
            let piece = PieceId { shard: self.geometry().canonical(shard), piece };
            self.pieces.order.position(piece).into_iter().for_each(|position| soon.insert(position));
        }
        self.soon = Some(soon);
    }

    /// Wants the columns of wanted pieces that nobody can be asked for, if they can be rebuilt. Returns whether there are
    /// such.
    pub(super) fn want_columns_of_lost(&mut self, now: Instant) -> bool {
        let is_copied = self.geometry().manifest().codec() == Codec::Replica;
        if self.pieces.wants_all() || is_copied || self.waits_for_sources(now) {
            return false;
        }
        self.count_holders();
        let is_lost = |piece: &PieceId| {
            self.pieces.may_rebuild(*piece)
                && self.requests.asked(*piece).is_empty()
                && !self.has_live_holder(*piece)
        };
        let lost: Vec<PieceId> = self.pieces.missing_wanted().filter(is_lost).collect();
        let columns = lost.into_iter().filter_map(|piece| self.column_to_rebuild(piece));
        let inputs: Vec<PieceId> = columns.flatten().filter(|piece| !self.pieces.is_wanted(*piece)).collect();
        let any = !inputs.is_empty();
        if any {
            self.want(inputs);
        }
        any
    }

    /// The data pieces of the stripes of a piece, if enough of each stripe is here or can be asked for.
    fn column_to_rebuild(&self, piece: PieceId) -> Option<Vec<PieceId>> {
        let data = self.geometry().manifest().data() as usize;
        let mut column = Vec::new();
        for (stripe, _) in self.geometry().stripes_of(piece) {
            let mut to_be_had = 0;
            for (row, cell) in self.geometry().cells(stripe).enumerate() {
                let Cell::Piece { piece, .. } = cell else {
                    to_be_had += 1;
                    continue;
                };
                to_be_had += usize::from(!self.pieces.is_missing(piece) || self.has_live_holder(piece));
                if row < data {
                    column.push(piece);
                }
            }
            if to_be_had < data {
                return None;
            }
        }
        Some(column)
    }

    /// Whether a stripe has data that is neither here nor wanted: then parity of it is of no use.
    pub(super) fn is_partly_wanted(&self, stripe: usize) -> bool {
        let data = self.geometry().manifest().data() as usize;
        let mut cells = self.geometry().cells(stripe).take(data);
        !self.pieces.wants_all()
            && cells.any(|cell| {
                matches!(cell, Cell::Piece { piece, .. } if self.pieces.is_missing(piece) && !self.pieces.is_wanted(piece))
            })
    }
}

impl Pieces {
    pub(super) fn wants_all(&self) -> bool {
        self.wanted.is_none()
    }

    /// Whether a piece of the weights is wanted.
    pub(super) fn is_wanted(&self, piece: PieceId) -> bool {
        self.order
            .position(piece)
            .is_some_and(|position| self.wanted.as_ref().is_none_or(|wanted| wanted.contains(position)))
    }

    /// The pieces that are wanted and missing.
    pub(super) fn missing_wanted(&self) -> impl Iterator<Item = PieceId> {
        self.missing_positions().iter().map(|position| self.order.piece(position))
    }

    fn want(&mut self, pieces: impl IntoIterator<Item = PieceId>) {
        if self.wanted.is_none() {
            self.wanted = Some(Bits::new(self.order.len()));
            self.missing_positions = Bits::new(self.order.len());
            self.missing_total = 0;
        }
        for PieceId { shard, piece } in pieces {
            let shard = self.geometry.canonical(shard);
            if self.is_indexed(shard) {
                self.want_one(PieceId { shard, piece });
            } else {
                self.want_shard(shard);
            }
        }
    }

    /// Wants all of a shard, as it is to be checked as a whole.
    pub(super) fn want_shard(&mut self, shard: u32) {
        for piece in 0..self.geometry.manifest().piece_count(shard) {
            self.want_one(PieceId { shard, piece });
        }
    }

    /// Wants all of each shard of which something is wanted.
    pub(super) fn want_whole_shards(&mut self) {
        if self.wants_all() {
            return;
        }
        let shards = self.needed_shards().to_vec();
        for shard in shards {
            let mut pieces = 0..self.geometry.manifest().piece_count(shard);
            if pieces.any(|piece| self.is_wanted(PieceId { shard, piece })) {
                self.want_shard(shard);
            }
        }
    }

    fn want_one(&mut self, piece: PieceId) {
        let Some(position) = self.order.position(piece) else { return };
        match &mut self.wanted {
            Some(wanted) if !wanted.contains(position) => wanted.insert(position),
            _ => return,
        }
        self.missing_total += usize::from(!self.is_good(piece));
        if self.is_missing(piece) {
            self.missing_positions.insert(position);
            self.recheck_candidate(piece);
        }
    }
}
