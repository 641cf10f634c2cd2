//! Syncing models to the disk, directory entries included.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::layout::{PARITY, PIECES};
use super::model_files::{is_many, sync_file_system};
use super::{CacheError, WeightsFiles, atomic, stamp};

/// Waits until all files of a model are on the disk, and their names, and its own.
pub(super) fn sync(model_dir: &Path, weights: &WeightsFiles) -> Result<(), CacheError> {
    sync_files(model_dir, weights)?;
    model_dir.parent().map_or(Ok(()), atomic::sync_dir)
}

pub(super) fn sync_files(model_dir: &Path, weights: &WeightsFiles) -> Result<(), CacheError> {
    if is_many(weights.len()) && sync_file_system(model_dir)? {
        return Ok(());
    }
    let files = data_files(model_dir, weights)?;
    for path in &files {
        let synced = atomic::open(path).and_then(|file| file.sync_all());
        synced.map_err(|source| CacheError::io("sync", path, source))?;
    }
    let above = files.iter().flat_map(|file| file.ancestors().skip(1));
    let within: BTreeSet<&Path> = above.filter(|dir| dir.starts_with(model_dir)).collect();
    // The names of a folder are in the one above it: the deepest first.
    within.into_iter().rev().try_for_each(atomic::sync_dir)?;
    atomic::sync_dir(model_dir)
}

/// The files of a model that hold something of it: all but stamp and journal.
pub(super) fn data_files(model_dir: &Path, weights: &WeightsFiles) -> Result<Vec<PathBuf>, CacheError> {
    let mut files: Vec<PathBuf> = weights.iter().map(|file| model_dir.join(&file.path)).collect();
    files.retain(|file| file.exists());
    files.extend(other_files(model_dir)?);
    Ok(files)
}

/// Those that hold none of the weights.
pub(super) fn other_files(model_dir: &Path) -> Result<Vec<PathBuf>, CacheError> {
    let parity = model_dir.join(PARITY);
    let mut files = vec![model_dir.join(PIECES)];
    files.extend(stamp::parity_kept(model_dir)?.into_iter().map(|shard| parity.join(shard.to_string())));
    files.retain(|file| file.exists());
    Ok(files)
}
