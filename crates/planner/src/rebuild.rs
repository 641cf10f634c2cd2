//! When to rebuild pieces instead of waiting for them.

use manifest::{Cell, Codec, Layout, PieceId};

use super::{PlanAction, Planner};

/// Rebuilds under way at once: each holds its output in memory.
const MAX_REBUILDS: usize = 2;

impl Planner {
    /// Pieces whose stripes all have enough good cells: a whole column at once where layers are rows, since one
    /// decoding gives all that is missing in it.
    pub(super) fn next_rebuild(&mut self) -> Option<PlanAction> {
        while self.pieces.rebuild_count() < MAX_REBUILDS {
            let candidate = self.pieces.pop_candidate()?;
            let mut pieces = match self.geometry().manifest().layout() {
                Layout::Uniform => self.column_of(candidate),
                Layout::LayerWise => vec![candidate],
            };
            pieces.retain(|piece| self.can_rebuild(*piece));
            let (piece_bytes, budget) =
                (self.geometry().manifest().piece_size_bytes(), self.config.usual_in_flight_bytes());
            let max = usize::try_from(budget / 4 / u64::from(piece_bytes)).unwrap_or(usize::MAX).max(1);
            for later in pieces.drain(max.min(pieces.len())..) {
                self.pieces.recheck_candidate(later);
            }
            if pieces.is_empty() {
                continue;
            }
            self.pieces.start_rebuild(&pieces);
            for piece in &pieces {
                self.cancel_singles(*piece);
            }
            return Some(PlanAction::Rebuild { pieces });
        }
        None
    }

    /// Parity of columns that are complete.
    pub(super) fn next_spent(&mut self) -> Option<PlanAction> {
        let piece = self.pieces.pop_spent()?;
        Some(PlanAction::DropParity { piece })
    }

    /// The data pieces in the column of `piece`, in the uniform layout.
    fn column_of(&self, piece: PieceId) -> Vec<PieceId> {
        let data_cells =
            self.geometry().cells(piece.piece as usize).take(self.geometry().manifest().data() as usize);
        let mut pieces: Vec<PieceId> = data_cells
            .filter_map(|cell| match cell {
                Cell::Piece { piece, .. } => Some(piece),
                Cell::Padding => None,
            })
            .collect();
        pieces.sort_unstable();
        pieces.dedup();
        pieces
    }

    fn can_rebuild(&self, piece: PieceId) -> bool {
        let manifest = self.geometry().manifest();
        if !self.pieces.may_rebuild(piece) {
            return false;
        }
        let data = manifest.data();
        let is_good_copy = |other: usize, row: u32, cell: Cell| {
            let data = data as usize;
            let is_copy = other >= data && (other - data) % data == row as usize;
            is_copy && matches!(cell, Cell::Piece { piece, .. } if self.pieces.is_good(piece))
        };
        let is_enough = |(stripe, row): (usize, u32)| match manifest.codec() {
            Codec::Rs => self.pieces.known_cells(stripe) >= data,
            Codec::Replica => {
                let mut cells = self.geometry().cells(stripe).enumerate();
                cells.any(|(other, cell)| is_good_copy(other, row, cell))
            }
        };
        self.geometry().stripes_of(piece).into_iter().all(is_enough)
    }
}
