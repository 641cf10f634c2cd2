//! Files of a partial model: made with their size, and room for it.

use std::fs::{self, File};
use std::path::Path;

use manifest::Geometry;

use crate::layout::{PARITY, WEIGHTS};
use crate::{CacheError, atomic, journal, space};

/// Files and directories of a partial model, without parity that overflows memory; rather more than fewer.
const NEW_FILES: u64 = 8;

/// Makes the directory of a partial model, and reserves its space: all or nothing. Returns the weights file, and whether
/// it existed.
pub(super) fn make_room(dir: &Path, geometry: &Geometry) -> Result<(File, bool), CacheError> {
    let (manifest, path, is_new) = (geometry.manifest(), dir.join(WEIGHTS), !dir.exists());
    let total_bytes = manifest.total_size_bytes();
    let missing_bytes = total_bytes.saturating_sub(space::held_bytes(&path));
    if missing_bytes > 0 {
        let beside_bytes = manifest.index_size_bytes() + journal::size_bytes(geometry.piece_total());
        space::require(&path, missing_bytes.saturating_add(beside_bytes))?;
    }
    if is_new {
        space::require_files(&path, NEW_FILES)?;
    }
    let made = atomic::create_dir(&dir.join(PARITY));
    let made = made.and_then(|()| open_sized(&path, total_bytes, is_proven(geometry)));
    if made.is_err()
        && is_new
        && let Err(error) = fs::remove_dir_all(dir)
    {
        tracing::warn!(%error, dir = %dir.display(), "cannot remove what there was no room for");
    }
    made
}

/// Whether the manifest proves how large the model is: nothing is reserved for sizes that are only claimed.
pub(super) fn is_proven(geometry: &Geometry) -> bool {
    geometry.manifest().single_blob().is_none()
}

pub(super) fn give_back(file: &File) {
    if let Err(error) = space::give_back(file) {
        tracing::warn!(%error, "cannot give back reserved space");
    }
}

/// Opens a file for reading and writing and makes it `size_bytes` long, if need be by reserving space. A new one that does
/// not fit is removed. The second value says whether it was there with that size already.
pub(super) fn open_sized(path: &Path, size_bytes: u64, reserve: bool) -> Result<(File, bool), CacheError> {
    let is_new = !path.exists();
    let file =
        files::open_or_create(atomic::place(path)).map_err(|source| CacheError::io("open", path, source))?;
    let found = file.metadata().map_err(|source| CacheError::io("inspect", path, source))?.len();
    let sized = if reserve && (found != size_bytes || space::held_bytes(path) < size_bytes) {
        space::reserve(&file, path, size_bytes)
    } else if found != size_bytes {
        space::allow_size(path, size_bytes)
            .and_then(|()| file.set_len(size_bytes).map_err(|source| CacheError::io("resize", path, source)))
    } else {
        Ok(())
    };
    if let (Err(_), true) = (&sized, is_new) {
        atomic::remove_file(path)?;
    }
    sized.map(|()| (file, found == size_bytes))
}

/// Copies bytes between files within the system, which shares blocks where it can. False: not all of them were copied.
#[cfg(target_os = "linux")]
pub(super) fn copy_range(from: &File, mut from_at: u64, to: &File, mut to_at: u64, mut left: usize) -> bool {
    while left > 0 {
        match rustix::fs::copy_file_range(from, Some(&mut from_at), to, Some(&mut to_at), left) {
            Ok(copied) if copied > 0 => left -= copied,
            _ => return false,
        }
    }
    true
}

/// Only Linux can.
#[cfg(not(target_os = "linux"))]
pub(super) fn copy_range(_: &File, _: u64, _: &File, _: u64, _: usize) -> bool {
    false
}
