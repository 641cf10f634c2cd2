//! Syncing models to the disk, directory entries included.

use std::path::{Path, PathBuf};

use super::layout::{PARITY, PIECES, WEIGHTS};
use super::{CacheError, atomic, stamp};

/// Waits until all files of a model are on the disk, and their names, and its own.
pub(super) fn sync(model_dir: &Path) -> Result<(), CacheError> {
    sync_files(model_dir)?;
    model_dir.parent().map_or(Ok(()), atomic::sync_dir)
}

pub(super) fn sync_files(model_dir: &Path) -> Result<(), CacheError> {
    for path in data_files(model_dir)? {
        let synced = atomic::open(&path).and_then(|file| file.sync_all());
        synced.map_err(|source| CacheError::io("sync", &path, source))?;
    }
    let parity = model_dir.join(PARITY);
    if parity.exists() {
        atomic::sync_dir(&parity)?;
    }
    atomic::sync_dir(model_dir)
}

/// The files of a model that hold something of it: all but stamp and journal.
pub(super) fn data_files(model_dir: &Path) -> Result<Vec<PathBuf>, CacheError> {
    let parity = model_dir.join(PARITY);
    let mut files = vec![model_dir.join(WEIGHTS), model_dir.join(PIECES)];
    files.extend(stamp::parity_kept(model_dir)?.into_iter().map(|shard| parity.join(shard.to_string())));
    files.retain(|file| file.exists());
    Ok(files)
}
