//! When to rebuild pieces instead of waiting for them.

use manifest::{Cell, Codec, Layout, PieceId};

use super::pieces::PieceState;
use super::{MAX_REBUILDS, PlanAction, Planner};

impl Planner {
    /// Pieces whose stripes all have enough good cells: a whole column at once where layers are rows, since one
    /// decoding gives all that is missing in it.
    pub(super) fn next_rebuild(&mut self) -> Option<PlanAction> {
        while self.rebuilding < MAX_REBUILDS {
            let candidate = self.pieces.pop_candidate()?;
            let pieces: Vec<PieceId> = match self.geometry().manifest().layout() {
                Layout::Uniform => {
                    let cells = self.geometry().cells(candidate.piece as usize);
                    let piece = |cell| match cell {
                        Cell::Piece { piece, .. } => Some(piece),
                        Cell::Padding => None,
                    };
                    let data = self.geometry().manifest().data() as usize;
                    let mut pieces: Vec<PieceId> =
                        cells.take(data).filter_map(piece).filter(|piece| self.can_rebuild(*piece)).collect();
                    pieces.sort_unstable();
                    pieces.dedup();
                    pieces
                }
                Layout::LayerWise if self.can_rebuild(candidate) => vec![candidate],
                Layout::LayerWise => Vec::new(),
            };
            if pieces.is_empty() {
                continue;
            }
            self.rebuilding += 1;
            self.pieces.start_rebuild(&pieces);
            for piece in &pieces {
                self.cancel_single(*piece);
            }
            return Some(PlanAction::Rebuild { pieces });
        }
        None
    }

    fn can_rebuild(&self, piece: PieceId) -> bool {
        let manifest = self.geometry().manifest();
        if !self.pieces.may_rebuild(piece) {
            return false;
        }
        let data = manifest.data();
        let enough = |(stripe, row): (usize, u32)| match manifest.codec() {
            Codec::Rs => self.pieces.known_cells(stripe) >= data,
            Codec::Replica => self.geometry().cells(stripe).enumerate().any(|(other, cell)| match cell {
                Cell::Piece { piece, .. } => {
                    other >= data as usize
                        && (other - data as usize) % data as usize == row as usize
                        && self.pieces.state(piece) == PieceState::Good
                }
                Cell::Padding => false,
            }),
        };
        self.geometry().stripes_of(piece).into_iter().all(enough)
    }

    /// A piece is rebuilt: nobody needs to send it. Streams of whole shards go on.
    fn cancel_single(&mut self, piece: PieceId) {
        let flat = self.geometry().flat(piece);
        let single = |id: &super::RequestId| self.requests.get(id).is_some_and(|r| r.pieces.len() == 1);
        let ids: Vec<_> = self.asked.get(&flat).into_iter().flatten().copied().filter(single).collect();
        for request in ids {
            self.drop_request(request);
            self.actions.push_back(PlanAction::Cancel { request });
        }
    }
}
