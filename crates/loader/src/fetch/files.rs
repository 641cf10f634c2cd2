//! Loading some files of a model.

use std::collections::BTreeSet;

use manifest::{Digest, Geometry, Manifest, PieceId};
use store::{Cache, CacheError, Model};

use super::options::FetchOptions;
use crate::error::LoadError;

/// The files that are wanted, by their numbers; `None` for all.
pub(super) fn wanted(
    digest: Digest,
    manifest: &Manifest,
    options: &FetchOptions,
) -> Result<Option<BTreeSet<usize>>, LoadError> {
    if options.files.is_all() {
        return Ok(None);
    }
    let names: Vec<&str> = match manifest.files() {
        [] => vec!["weights"],
        files => files.iter().map(|file| file.path().as_str()).collect(),
    };
    let wanted = names.iter().enumerate().filter(|(_, name)| options.files.has(name));
    let wanted: BTreeSet<usize> = wanted.map(|(file, _)| file).collect();
    if wanted.is_empty() {
        let files = names.into_iter().map(str::to_owned).collect();
        return Err(LoadError::NoSuchFiles { digest, selection: options.files.clone(), files });
    }
    Ok(Some(wanted).filter(|wanted| wanted.len() < names.len()))
}

/// The pieces that hold files; of shards with the same digest, of the first.
pub(super) fn pieces(geometry: &Geometry, files: &BTreeSet<usize>) -> BTreeSet<PieceId> {
    let all = geometry.manifest().files();
    let ranges = files.iter().filter_map(|file| all.get(*file)).map(manifest::ModelFile::range);
    let pieces = ranges.flat_map(|range| geometry.pieces_of(range)).map(|slice| slice.piece);
    pieces.map(|piece| PieceId { shard: geometry.canonical(piece.shard), ..piece }).collect()
}

/// The files that are wanted of a model, if they are in place: while others are not. Blocks.
pub(super) fn cached(
    cache: &Cache,
    digest: &Digest,
    options: &FetchOptions,
) -> Result<Option<Model>, CacheError> {
    if options.files.is_all() {
        return Ok(None);
    }
    let Some(manifest) = cache.manifest(digest)? else { return Ok(None) };
    match wanted(*digest, &manifest, options) {
        Ok(Some(files)) => cache.some_files(digest, &manifest, &files),
        _ => Ok(None),
    }
}
