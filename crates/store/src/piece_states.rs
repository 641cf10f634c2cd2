//! The state of each piece of a partial model, from its journal.

use manifest::{Geometry, PieceId};

use super::journal::Record;

/// The state of a piece on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum PieceState {
    /// It is not there.
    Missing,
    /// An earlier process recorded it as verified.
    Claimed,
    /// This process has verified it.
    Verified,
}

/// The state of every piece. Shards with the same digest are one: they are written together, and counted under the
/// first of them.
#[derive(Debug)]
pub(super) struct PieceStates {
    states: Vec<PieceState>,
}

impl PieceStates {
    pub(super) fn new(geometry: &Geometry) -> Self {
        Self { states: vec![PieceState::Missing; geometry.piece_total() as usize] }
    }

    /// Applies a record; its pieces get this state. Pieces that the manifest does not have are ignored.
    pub(super) fn apply(&mut self, geometry: &Geometry, record: Record, state: PieceState) {
        match record {
            Record::Piece(shard, piece) => {
                if let Some(found) = self.state_mut(geometry, PieceId { shard, piece }) {
                    *found = (*found).max(state);
                }
            }
            Record::Forget(shard) => self.forget(geometry, shard),
            Record::Void(shard, piece) => {
                if let Some(found) = self.state_mut(geometry, PieceId { shard, piece }) {
                    *found = PieceState::Missing;
                }
            }
        }
    }

    pub(super) fn state(&self, geometry: &Geometry, piece: PieceId) -> PieceState {
        self.states[flat(geometry, piece)]
    }

    /// The first piece of a shard below this state.
    pub(super) fn first_below(&self, geometry: &Geometry, shard: u32, state: PieceState) -> Option<u32> {
        let mut pieces = 0..geometry.manifest().piece_count(shard);
        pieces.find(|piece| self.state(geometry, PieceId { shard, piece: *piece }) < state)
    }

    /// Whether anything is claimed of a shard.
    pub(super) fn any(&self, geometry: &Geometry, shard: u32) -> bool {
        let mut pieces = 0..geometry.manifest().piece_count(shard);
        pieces.any(|piece| self.state(geometry, PieceId { shard, piece }) > PieceState::Missing)
    }

    /// The pieces with at least this state, in order.
    pub(super) fn pieces(&self, geometry: &Geometry, state: PieceState) -> impl Iterator<Item = PieceId> {
        first_shards(geometry)
            .flat_map(|shard| {
                (0..geometry.manifest().piece_count(shard)).map(move |piece| PieceId { shard, piece })
            })
            .filter(move |piece| self.state(geometry, *piece) >= state)
    }

    /// Bytes of the shards that are at least claimed.
    pub(super) fn bytes(&self, geometry: &Geometry) -> u64 {
        let pieces = self.pieces(geometry, PieceState::Claimed);
        pieces.map(|piece| geometry.piece_bytes(piece)).sum()
    }

    fn state_mut(&mut self, geometry: &Geometry, piece: PieceId) -> Option<&mut PieceState> {
        if !exists(geometry, piece) {
            return None;
        }
        self.states.get_mut(flat(geometry, piece))
    }

    fn forget(&mut self, geometry: &Geometry, shard: u32) {
        let pieces = if exists(geometry, PieceId { shard, piece: 0 }) {
            geometry.manifest().piece_count(shard)
        } else {
            0
        };
        for piece in 0..pieces {
            self.states[flat(geometry, PieceId { shard, piece })] = PieceState::Missing;
        }
    }
}

/// Whether the manifest has such a piece.
pub(super) fn exists(geometry: &Geometry, PieceId { shard, piece }: PieceId) -> bool {
    let manifest = geometry.manifest();
    shard < manifest.shard_count() && piece < manifest.piece_count(shard)
}

fn flat(geometry: &Geometry, PieceId { shard, piece }: PieceId) -> usize {
    geometry.flat(PieceId { shard: geometry.canonical(shard), piece })
}

/// The shards that are the first with their digest, in order.
pub(super) fn first_shards(geometry: &Geometry) -> impl Iterator<Item = u32> {
    let shards = 0..geometry.manifest().shard_count();
    shards.filter(|shard| geometry.canonical(*shard) == *shard)
}
