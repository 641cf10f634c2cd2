//! Files of a partial model: made with their size, and room for it.

use std::collections::{BTreeSet, HashSet};
use std::fs::{self, File};
use std::path::Path;

use manifest::Geometry;

use crate::layout::PARITY;
use crate::weights_files::WeightsFile;
use crate::{CacheError, ModelFiles, WeightsFiles, atomic, journal, space};

/// Files and directories of a partial model, without parity that overflows memory; rather more than fewer.
const NEW_FILES: u64 = 8;

/// Where a partial model gets room.
pub(super) struct Room<'a> {
    pub(super) dir: &'a Path,
    /// Where some of its files are in place already.
    pub(super) placed: Option<&'a Path>,
    pub(super) list: &'a WeightsFiles,
    /// The files that are wanted; `None`: all.
    pub(super) wanted: Option<&'a BTreeSet<usize>>,
}

impl Room<'_> {
    fn is_wanted(&self, file: usize) -> bool {
        self.wanted.is_none_or(|wanted| wanted.contains(&file))
    }

    fn is_placed(&self, file: &WeightsFile) -> bool {
        let found = self.placed.and_then(|dir| dir.join(&file.path).symlink_metadata().ok());
        found.is_some_and(|found| found.len() == file.range.len()) && !self.dir.join(&file.path).exists()
    }

    /// How much disk space the files will still take.
    pub(super) fn missing_bytes(&self) -> u64 {
        let is_new = !self.dir.exists();
        let files = self.list.iter().enumerate().filter(|(index, _)| self.is_wanted(*index));
        let missing = files.filter(|(_, file)| !self.is_placed(file)).map(|(_, file)| {
            // A file of a few bytes takes a block: it counts as what it is.
            let held_bytes = if is_new { 0 } else { space::held_bytes(&self.dir.join(&file.path)) };
            file.range.len().saturating_sub(held_bytes)
        });
        missing.sum()
    }

    /// The same with the piece index and the journal.
    pub(super) fn needed_bytes(&self, geometry: &Geometry) -> u64 {
        let beside_bytes =
            geometry.manifest().index_size_bytes() + journal::size_bytes(geometry.piece_total());
        self.missing_bytes().saturating_add(beside_bytes)
    }

    /// Makes the files that are to be reserved, and gives those that were not there with their size.
    fn make_files(&self, reserve: bool) -> Result<HashSet<usize>, CacheError> {
        let mut absent = HashSet::new();
        for (index, file) in self.list.iter().enumerate() {
            let (path, size_bytes) = (self.dir.join(&file.path), file.range.len());
            if self.is_placed(file) {
                continue;
            }
            if !self.list.is_large(index) || !self.is_wanted(index) {
                space::allow_size(&path, size_bytes)?;
                let found = path.symlink_metadata().ok().map(|found| found.len());
                if found != Some(size_bytes) {
                    absent.insert(index);
                }
                if found.is_some_and(|found| found != size_bytes) {
                    open_sized(&path, size_bytes, false)?;
                }
                continue;
            }
            atomic::create_dir(path.parent().unwrap_or(self.dir))?;
            let (_, was_there) = open_sized(&path, size_bytes, reserve)?;
            if !was_there {
                absent.insert(index);
            }
        }
        Ok(absent)
    }
}

/// Makes the directory of a partial model, and reserves its space: all or nothing. Returns the files of the weights that
/// were not there with their size: nothing in them counts.
pub(super) fn make_room(room: &Room<'_>, geometry: &Geometry) -> Result<HashSet<usize>, CacheError> {
    let Room { dir, list, .. } = *room;
    let (path, is_new) = (dir.join(list.root()), !dir.exists());
    let missing_bytes = room.missing_bytes();
    if missing_bytes > 0 {
        space::require(&path, room.needed_bytes(geometry))?;
    }
    if is_new {
        let files = room.wanted.map_or(list.len(), BTreeSet::len) as u64;
        space::require_files(&path, NEW_FILES + 2 * files)?;
    }
    let made = atomic::create_dir(&dir.join(PARITY));
    let made = made.and_then(|()| room.make_files(is_proven(geometry)));
    if made.is_err()
        && is_new
        && let Err(error) = fs::remove_dir_all(dir)
    {
        tracing::warn!(%error, dir = %dir.display(), "cannot remove what there was no room for");
    }
    made
}

/// Releases space of the weights that was reserved and not written.
pub(super) fn give_back_all(weights: &ModelFiles) {
    for index in (0..weights.list().len()).filter(|index| weights.list().is_large(*index)) {
        if let Ok(open) = weights.file(index, false) {
            give_back(&open);
        }
    }
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
