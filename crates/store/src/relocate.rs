//! Giving directories of models other names, and taking them away, where the file system cannot rename directories or is
//! full.
//!
//! A directory in a lower layer of an overlay cannot be renamed, nor can one go to another disk. Files in it can: they are
//! moved to a new directory, which is then renamed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::layout::{FILES, JOURNAL, STAMP, WEIGHTS};
use super::{Cache, CacheError, atomic, space};

impl Cache {
    /// Gives the directory of a model another name, all or nothing. False when there is something under that name.
    pub(super) fn rename_dir(&self, from: &Path, to: &Path) -> Result<bool, CacheError> {
        match rustix::fs::rename(from, to) {
            Ok(()) => return Ok(true),
            Err(Errno::NOTEMPTY | Errno::EXIST) => return Ok(false),
            Err(Errno::XDEV) => {}
            Err(error) => return Err(CacheError::io("move into place", from, error.into())),
        }
        if to.exists() {
            return Ok(false);
        }
        tracing::debug!(from = %from.display(), "the file system cannot rename this directory: moving its files");
        let staging = self.staging_in(to.parent().unwrap_or(to))?;
        let moved = move_files(from, staging.path()).and_then(|()| {
            fs::rename(staging.path(), to).map_err(|source| CacheError::io("move into place", from, source))
        });
        if let Err(error) = moved {
            move_files(staging.path(), from)?;
            return Err(error);
        }
        fs::remove_dir_all(from).map_err(|source| CacheError::io("remove", from, source))?;
        Ok(true)
    }

    /// Removes the directory of a model: at once if it can be renamed, else file by file, in an order in which an interrupted
    /// removal leaves nothing trusted. Takes no space. False when it is not there.
    pub(super) fn remove_dir(&self, dir: &Path) -> Result<bool, CacheError> {
        let fail = |source| CacheError::io("remove", dir, source);
        let (doomed, _lock) = self.doomed(dir)?;
        match fs::rename(dir, &doomed) {
            Ok(()) => return fs::remove_dir_all(&doomed).map(|()| true).map_err(fail),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => tracing::debug!(%error, dir = %dir.display(), "removing file by file"),
        }
        for vouching in [STAMP, JOURNAL, WEIGHTS] {
            atomic::remove_file(&dir.join(vouching))?;
        }
        fs::remove_dir_all(dir).map(|()| true).map_err(fail)
    }
}

/// Moves a file, to another disk too: there it appears whole or not at all.
pub(super) fn move_file(from: &Path, to: &Path) -> Result<(), CacheError> {
    match rustix::fs::rename(from, to) {
        Ok(()) => Ok(()),
        Err(Errno::XDEV) => {
            copy(from, to)?;
            atomic::remove_file(from)
        }
        Err(error) => Err(CacheError::io("move into place", from, error.into())),
    }
}

fn copy(from: &Path, to: &Path) -> Result<(), CacheError> {
    let fail = |source| CacheError::io("copy", from, source);
    let mut source = atomic::open(from).map_err(fail)?;
    let metadata = source.metadata().map_err(fail)?;
    space::require(to, metadata.len())?;
    let dir = to.parent().unwrap_or(to);
    let mut target = tempfile::Builder::new()
        .prefix(atomic::TEMPORARY_PREFIX)
        .permissions(metadata.permissions())
        .tempfile_in(dir)
        .map_err(fail)?;
    io::copy(&mut source, target.as_file_mut()).and_then(|_| target.as_file().sync_all()).map_err(fail)?;
    target.persist(to).map(drop).map_err(|refused| fail(refused.error))
}

/// Moves the files of a model from one directory to another. Weights go last: until then, all that is verified counts.
fn move_files(from: &Path, to: &Path) -> Result<(), CacheError> {
    let mut files = Vec::new();
    add_files(from, &mut files)?;
    let folder = from.join(FILES);
    files.sort_by_key(|file| file.starts_with(&folder) || file.file_name() == Some(WEIGHTS.as_ref()));
    for file in files {
        let target = to.join(file.strip_prefix(from).unwrap_or(&file));
        atomic::create_dir(target.parent().unwrap_or(to))?;
        move_file(&file, &target)?;
    }
    Ok(())
}

/// Adds the regular files below a directory.
fn add_files(dir: &Path, files: &mut Vec<PathBuf>) -> Result<(), CacheError> {
    let fail = |source| CacheError::io("list", dir, source);
    for entry in fs::read_dir(dir).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let kind = entry.file_type().map_err(fail)?;
        if kind.is_dir() {
            add_files(&entry.path(), files)?;
        } else if kind.is_file() {
            files.push(entry.path());
        }
    }
    Ok(())
}
