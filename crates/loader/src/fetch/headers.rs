//! The headers of safetensors files, which are fetched before the rest where another model may have their tensors.

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::sync::Arc;

use manifest::{ByteRange, PieceId};
use store::Partial;

use super::blocking::blocking;
use crate::error::LoadError;
use crate::reuse::guess::{files_with_tensors, placed};
use crate::tensors::{self, LENGTH_BYTES, Tensor};

/// The pieces of headers that are not here and can be told now, of files of which something is missing; `None` when there are
/// no more. Each header takes at most two calls: its length, then the rest.
pub(super) async fn missing(
    store: &Arc<Partial>,
    wanted: Option<&BTreeSet<PieceId>>,
) -> Result<Option<BTreeSet<PieceId>>, LoadError> {
    let (store, wanted) = (Arc::clone(store), wanted.cloned());
    let find = move || {
        let geometry = store.geometry();
        let here: HashSet<PieceId> = store.verified().into_iter().collect();
        let of = |range: ByteRange| {
            let pieces = geometry.pieces_of(range).map(|slice| slice.piece);
            pieces
                .map(|piece| PieceId { shard: geometry.canonical(piece.shard), ..piece })
                .collect::<Vec<_>>()
        };
        let is_missing = |piece: &PieceId| {
            !here.contains(piece) && wanted.as_ref().is_none_or(|wanted| wanted.contains(piece))
        };
        let mut missing = BTreeSet::new();
        for file in files_with_tensors(geometry.manifest()) {
            if file.len() < LENGTH_BYTES || !of(file).iter().any(is_missing) {
                continue;
            }
            let length = of(ByteRange::new(file.start, file.start + LENGTH_BYTES));
            let mut first = [0; 8];
            let header = match length.iter().all(|piece| here.contains(piece)) {
                false => length,
                true => match store.read_weights(file.start, &mut first).map(|()| first) {
                    Ok(first) => tensors::data_start(first, file.len())
                        .map_or(Vec::new(), |end| of(ByteRange::new(file.start, file.start + end))),
                    Err(_) => Vec::new(),
                },
            };
            missing.extend(header.into_iter().filter(is_missing));
        }
        missing
    };
    Ok(Some(blocking(find).await?).filter(|missing| !missing.is_empty()))
}

/// The tensors of the headers that are here, placed in the weights, in their order.
pub(super) async fn tensors(store: &Arc<Partial>) -> Result<Vec<Tensor>, LoadError> {
    let store = Arc::clone(store);
    let read = move || {
        let geometry = store.geometry();
        let here: HashSet<PieceId> = store.verified().into_iter().collect();
        let is_here = |range: ByteRange| {
            let mut pieces = geometry.pieces_of(range).map(|slice| slice.piece);
            pieces.all(|piece| here.contains(&PieceId { shard: geometry.canonical(piece.shard), ..piece }))
        };
        let of = |file: ByteRange| {
            tensors::read(file.len(), |offset, buffer| {
                let start = file.start + offset;
                match is_here(ByteRange::new(start, start + buffer.len() as u64)) {
                    true => store.read_weights(start, buffer).map_err(io::Error::other),
                    false => Err(io::ErrorKind::NotFound.into()),
                }
            })
        };
        let files = files_with_tensors(geometry.manifest());
        files.filter_map(|file| Some(placed(file, of(file)?))).flatten().collect()
    };
    blocking(read).await
}
