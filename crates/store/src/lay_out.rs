//! A model's files laid out in a folder of the user's.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::{CacheError, Model, space};

impl Model {
    /// Lays the files out in `dir`, which is new or empty: as clones where the file system can, as copies elsewhere. They are
    /// put into a folder beside it, which gets its name when all are there and on the disk. Returns what a runtime opens:
    /// the folder, or the file of a model of one.
    ///
    /// # Errors
    /// [`CacheError::NotEmpty`], [`CacheError::NoRoom`], [`CacheError::DiskFull`], [`CacheError::Io`].
    pub fn lay_out(&self, dir: &Path) -> Result<PathBuf, CacheError> {
        let fail = |path: &Path, source| CacheError::io("lay out", path, source);
        let dir = std::path::absolute(dir).map_err(|source| fail(dir, source))?;
        check_empty(&dir)?;
        let above = dir.parent().unwrap_or(&dir);
        fs::create_dir_all(above).map_err(|source| fail(above, source))?;
        let staging = tempfile::Builder::new().prefix(".loader-").tempdir_in(above);
        let staging = staging.map_err(|source| fail(above, source))?;
        for file in self.files() {
            let target = staging.path().join(file.path);
            let parent = target.parent().unwrap_or(&target);
            fs::create_dir_all(parent).map_err(|source| fail(parent, source))?;
            let source = self.file_path(file.path);
            put(&source, &target).map_err(|error| match error {
                Failed::NoRoom(error) => error,
                Failed::Io(error) => fail(&dir.join(file.path), error),
            })?;
        }
        // A temporary directory is private.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(staging.path(), mode).map_err(|source| fail(&dir, source))?;
        // Takes the place of an empty one.
        fs::rename(staging.path(), &dir).map_err(|source| fail(&dir, source))?;
        File::open(above).and_then(|above| above.sync_all()).map_err(|source| fail(above, source))?;
        let mut files = self.files();
        Ok(match (files.next(), self.manifest().files().len()) {
            (Some(one), 0 | 1) => dir.join(one.path),
            _ => dir,
        })
    }
}

/// Fails when something is there.
///
/// # Errors
/// [`CacheError::NotEmpty`], [`CacheError::Io`].
pub fn check_empty(dir: &Path) -> Result<(), CacheError> {
    match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            Err(CacheError::NotEmpty { path: dir.to_owned() })
        }
        Err(error) => Err(CacheError::io("list", dir, error)),
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(CacheError::NotEmpty { path: dir.to_owned() }),
        },
    }
}

enum Failed {
    NoRoom(CacheError),
    Io(io::Error),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Clones or copies a file, to the disk.
fn put(from: &Path, to: &Path) -> Result<(), Failed> {
    let (source, target) = (File::open(from)?, File::create_new(to)?);
    if !files::try_clone(&source, &target) {
        space::require(to, source.metadata()?.len()).map_err(Failed::NoRoom)?;
        io::copy(&mut &source, &mut &target)?;
    }
    Ok(target.sync_all()?)
}
