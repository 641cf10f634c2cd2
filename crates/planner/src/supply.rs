//! How much of the model can be had at all: what is here, and what connected sources hold.

use manifest::{Cell, Codec, PieceSet};

use super::Planner;

/// The supply of the column that is scarcest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Supply {
    /// How many of its cells are here, or with a source that is connected and not banned. Padding counts.
    pub rarest: u32,
    /// How many are needed: with fewer it cannot be rebuilt.
    pub needed: u32,
}

impl Planner {
    /// The supply now. Looks at every piece.
    pub fn supply(&self) -> Supply {
        let manifest = self.geometry().manifest();
        let needed = manifest.data();
        let held: Vec<PieceSet> = (0..).zip(manifest.shards()).map(|(shard, _)| self.held(shard)).collect();
        let has = |cell: Cell| match cell {
            Cell::Padding => true,
            Cell::Piece { piece, .. } => {
                self.pieces.is_good(piece)
                    || held.get(piece.shard as usize).is_some_and(|held| held.contains(piece.piece))
            }
        };
        let of_stripe = |stripe: usize| {
            let cells = self.geometry().cells(stripe).map(has);
            match manifest.codec() {
                Codec::Rs => cells.map(u32::from).sum(),
                // A copy stands for its row, and for no other.
                Codec::Replica => {
                    let mut rows = vec![false; needed as usize];
                    cells.enumerate().for_each(|(at, has)| rows[at % needed as usize] |= has);
                    rows.into_iter().map(u32::from).sum()
                }
            }
        };
        let rarest = (0..self.geometry().stripe_count()).map(of_stripe).min();
        Supply { rarest: rarest.unwrap_or(needed), needed }
    }

    /// What sources hold of a shard, together.
    fn held(&self, shard: u32) -> PieceSet {
        let manifest = self.geometry().manifest();
        let mut all = PieceSet::none(manifest.piece_count(shard));
        for (_, source) in self.sources.iter().filter(|(_, source)| source.is_holder(shard)) {
            match source.holdings.of(shard) {
                Some(pieces) => all.extend(pieces),
                None if source.has_refused(shard) => {}
                // It may hold anything.
                None => return PieceSet::all(manifest.piece_count(shard)),
            }
        }
        all
    }
}
