//! What an earlier run left: which of its claims can be believed.

use std::collections::BTreeMap;

use manifest::piece_index::{PieceCheck, PieceIndex};
use manifest::{Geometry, PieceId};

use super::{no_padding, workers};
use crate::cache::{CacheError, Partial};
use crate::mmap::Map;

/// The pieces that are in `store` and right. In the boot in which they were recorded the journal is believed: a
/// killed process loses nothing that the system has taken. After a reboot each piece is hashed again.
pub(super) fn verified(store: &Partial, geometry: &Geometry) -> Result<Vec<PieceId>, CacheError> {
    let resumed = store.resumed();
    let claimed: Vec<PieceId> =
        resumed.pieces.iter().map(|(shard, piece)| PieceId { shard: *shard, piece: *piece }).collect();
    if resumed.trusted {
        return Ok(claimed);
    }
    let good = match store.index()? {
        Some(index) => by_piece(store, &index, geometry, &claimed)?,
        None => by_shard(store, geometry, &claimed)?,
    };
    store.record(&good.iter().map(|id| (id.shard, id.piece)).collect::<Vec<_>>())?;
    Ok(good)
}

fn by_piece(
    store: &Partial,
    index: &PieceIndex<Map>,
    geometry: &Geometry,
    claimed: &[PieceId],
) -> Result<Vec<PieceId>, CacheError> {
    let mut good = Vec::new();
    let mut buffers = vec![Vec::new(); sha256_lanes::MAX_LANES];
    for batch in claimed.chunks(sha256_lanes::MAX_LANES) {
        for (piece, buffer) in batch.iter().zip(&mut buffers) {
            let range = geometry.manifest().piece_range(piece.shard, piece.piece);
            #[expect(clippy::cast_possible_truncation, reason = "a piece has at most 4 MiB")]
            buffer.resize(range.len() as usize, 0);
            store.read(piece.shard, range, buffer)?;
        }
        let mut checks: Vec<PieceCheck<'_>> = batch
            .iter()
            .zip(&buffers)
            .map(|(id, bytes)| PieceCheck { shard: id.shard, piece: id.piece, bytes, good: false })
            .collect();
        index.verify(geometry.manifest(), &mut checks);
        good.extend(batch.iter().zip(&checks).filter(|(_, check)| check.good).map(|(piece, _)| *piece));
    }
    Ok(good)
}

fn by_shard(store: &Partial, geometry: &Geometry, claimed: &[PieceId]) -> Result<Vec<PieceId>, CacheError> {
    let mut shards: BTreeMap<u32, Vec<PieceId>> = BTreeMap::new();
    for piece in claimed {
        shards.entry(piece.shard).or_default().push(*piece);
    }
    let mut good = Vec::new();
    for (shard, pieces) in shards {
        let digest = workers::hash_shard(geometry, store, shard, &no_padding())?;
        if digest == geometry.manifest().shards()[shard as usize].digest {
            good.extend(pieces);
        }
    }
    Ok(good)
}
