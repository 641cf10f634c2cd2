//! Where each piece of a model that is being loaded came from, and what changed since somebody last asked.

use std::sync::Arc;

use manifest::{Geometry, PieceId};
use store::Offer;

/// It is not here.
pub const MISSING: u8 = 0;
/// An earlier run has left it.
pub const KEPT: u8 = 1;
/// It was taken from another model in the cache.
pub const REUSED: u8 = 2;
/// It was rebuilt from others.
pub const REBUILT: u8 = 3;
/// It came from a source that has no number of its own.
pub const OTHER: u8 = 4;
/// It came from the first source, and so on.
pub const FIRST_SOURCE: u8 = 5;

/// The pieces of one model.
#[derive(Debug)]
pub(super) struct Grid {
    geometry: Geometry,
    /// By shard, the place of its first piece.
    starts: Vec<usize>,
    cells: Vec<u8>,
    /// Places that changed, oldest first; the first of them is change number `forgotten`.
    log: Vec<u32>,
    forgotten: u64,
    /// What can be read of the model: pieces that nothing else tells of are found there.
    offer: Option<Arc<Offer>>,
    seen: u64,
}

/// What has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// What all pieces are, shard by shard.
    All {
        /// How many pieces each shard has.
        shards: Vec<u32>,
        /// By piece.
        cells: Vec<u8>,
    },
    /// Places of pieces, counted through all shards, and what they are now.
    Some(Vec<(u32, u8)>),
}

impl Grid {
    pub(super) fn new(offer: &Arc<Offer>) -> Self {
        let mut grid = Self::of(Geometry::new(Arc::clone(offer.manifest())));
        grid.offer = Some(Arc::clone(offer));
        grid
    }

    fn of(geometry: Geometry) -> Self {
        let manifest = geometry.manifest();
        let mut all = 0;
        let starts = (0..).zip(manifest.shards()).map(|(shard, _)| {
            let start = all;
            all += manifest.piece_count(shard) as usize;
            start
        });
        let starts: Vec<usize> = starts.collect();
        Self {
            cells: vec![MISSING; all],
            starts,
            geometry,
            log: Vec::new(),
            forgotten: 0,
            offer: None,
            seen: 0,
        }
    }

    /// A piece is this now, wherever else its shard stands in the model.
    pub(super) fn set(&mut self, piece: PieceId, cell: u8) {
        let shards: Vec<u32> = self.geometry.same(self.geometry.canonical(piece.shard)).collect();
        for shard in shards {
            let Some(start) = self.starts.get(shard as usize) else { continue };
            let at = start + piece.piece as usize;
            if self.cells.get(at).is_some_and(|before| *before != cell) {
                self.cells[at] = cell;
                self.note(at);
            }
        }
    }

    /// Every piece of a shard is this now.
    pub(super) fn set_shard(&mut self, shard: u32, cell: u8) {
        let Some(_) = self.geometry.manifest().shards().get(shard as usize) else { return };
        for piece in 0..self.geometry.manifest().piece_count(shard) {
            self.set(PieceId { shard, piece }, cell);
        }
    }

    /// Pieces that are there, though nothing has told of them, are this. Returns how many those are.
    pub(super) fn look(&mut self, cell: u8) -> u64 {
        let Some(offer) = &self.offer else { return 0 };
        let have = offer.have(self.seen);
        self.seen = have.version;
        let mut found = 0;
        for (shard, pieces) in (0..).zip(have.change.shards()) {
            let Some(start) = self.starts.get(shard as usize).copied() else { break };
            let is_first = self.geometry.canonical(shard) == shard;
            for piece in pieces.iter() {
                let at = start + piece as usize;
                if self.cells.get(at) == Some(&MISSING) {
                    self.cells[at] = cell;
                    self.note(at);
                    found += u64::from(is_first);
                }
            }
        }
        found
    }

    /// The model is here, or its load has ended: nothing of it is kept open.
    pub(super) fn close(&mut self) {
        self.look(KEPT);
        self.offer = None;
    }

    /// What has changed since change number `since`, or everything; and the number of the next change.
    pub(super) fn since(&mut self, since: Option<u64>) -> (Change, u64) {
        self.look(KEPT);
        let next = self.forgotten + self.log.len() as u64;
        let known = since.filter(|since| (self.forgotten..=next).contains(since));
        let skipped = known.and_then(|since| usize::try_from(since - self.forgotten).ok());
        let change = match skipped {
            // As many places as there are pieces would be more than all of them.
            Some(skipped) if 4 * (self.log.len() - skipped) <= self.cells.len().max(64) => {
                let mut places: Vec<u32> = self.log[skipped..].to_vec();
                places.sort_unstable();
                places.dedup();
                Change::Some(places.into_iter().map(|at| (at, self.cells[at as usize])).collect())
            }
            _ => {
                let manifest = self.geometry.manifest();
                let shards = (0..).zip(manifest.shards()).map(|(shard, _)| manifest.piece_count(shard));
                Change::All { shards: shards.collect(), cells: self.cells.clone() }
            }
        };
        (change, next)
    }

    fn note(&mut self, at: usize) {
        if self.log.len() > self.cells.len().max(64) {
            // Whoever has not asked for so long gets everything.
            self.forgotten += self.log.len() as u64;
            self.log.clear();
        }
        self.log.push(u32::try_from(at).unwrap_or(u32::MAX));
    }
}

#[cfg(test)]
mod tests {
    use manifest::{Codec, Digest, Manifest, Pieces, Shard};

    use super::*;

    /// Two rows of three pieces, and one of parity.
    fn grid() -> Grid {
        let size_bytes = 3 * 65_536;
        let digest = |number: u8| Digest::of(&[number]);
        let shards = (0..3).map(|at| Shard { digest: digest(at), size_bytes, is_parity: at == 2 }).collect();
        let pieces = Some(Pieces { size_bytes: 65_536, index: Digest::ZERO });
        let kind = "simplenet".to_owned();
        let manifest = Manifest::new(kind, 2 * size_bytes, shards, 2, 1, Codec::Rs, pieces).unwrap();
        Grid::of(Geometry::new(Arc::new(manifest)))
    }

    #[test]
    fn whoever_asks_again_is_told_of_what_changed() {
        let mut grid = grid();
        let (Change::All { shards, cells }, next) = grid.since(None) else { panic!("all of it") };
        assert_eq!((shards, cells, next), (vec![3, 3, 3], vec![MISSING; 9], 0));
        grid.set(PieceId { shard: 1, piece: 2 }, FIRST_SOURCE);
        grid.set(PieceId { shard: 1, piece: 2 }, FIRST_SOURCE);
        grid.set_shard(2, REBUILT);
        grid.set_shard(7, REBUILT);
        let (Change::Some(some), next) = grid.since(Some(0)) else { panic!("what changed") };
        assert_eq!(some, [(5, FIRST_SOURCE), (6, REBUILT), (7, REBUILT), (8, REBUILT)]);
        assert_eq!(next, 4);
        assert_eq!(grid.since(Some(4)), (Change::Some(vec![]), 4));
        assert!(matches!(grid.since(Some(5)), (Change::All { .. }, 4)), "a number from elsewhere");
    }

    #[test]
    fn what_is_kept_of_changes_is_bounded() {
        let mut grid = grid();
        for round in 0..1000_u32 {
            grid.set(PieceId { shard: 0, piece: 0 }, if round % 2 == 0 { REBUILT } else { MISSING });
        }
        assert!(grid.log.len() <= 65, "{}", grid.log.len());
        let (change, next) = grid.since(Some(0));
        assert!(matches!(change, Change::All { .. }));
        assert_eq!(next, 1000);
    }
}
