//! Giving a model its final name.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use manifest::Manifest;

use super::layout::{JOURNAL, PARITY, PIECES};
use super::stamp::Verdict;
use super::sync::{other_files, sync, sync_files};
use super::{
    Cache, CacheError, FillLock, Model, ModelFiles, Staging, WeightsFiles, atomic, relocate, stamp, writeback,
};

impl Cache {
    /// Makes a finished model of one that was written from its source: read-only, on the disk, under its final name. When there is a good one
    /// already, that one is the result.
    ///
    /// **Trust.** Nothing is hashed here: `manifest` is what the caller made of the digests of the very bytes that it wrote.
    ///
    /// # Errors
    /// [`CacheError::DiskFull`], [`CacheError::Io`].
    pub fn install_encoded(
        &self,
        staging: &Staging,
        lock: &FillLock,
        manifest: Arc<Manifest>,
    ) -> Result<Model, CacheError> {
        self.install(staging.path(), lock, manifest, true)
    }

    /// Makes the model in `dir`, whose bytes have all been verified, read-only, moves it to its final name, and stamps it
    /// there; if it is to be `durable`, once all of it is on the disk. If not, it is trusted by this process only. When
    /// there is a good one already, that one is the result; a bad one gives way, and lives on for those who have it
    /// mapped.
    pub(crate) fn install(
        &self,
        dir: &Path,
        lock: &FillLock,
        manifest: Arc<Manifest>,
        durable: bool,
    ) -> Result<Model, CacheError> {
        let weights = WeightsFiles::of(&manifest);
        ModelFiles::filling(weights.clone(), dir.to_owned(), None).protect()?;
        for file in other_files(dir)? {
            make_read_only(&file)?;
        }
        if durable {
            sync_files(dir, &weights).inspect_err(|error| writeback::void(&dir.join(JOURNAL), error))?;
        }
        let path = self.layout().model(lock.digest());
        while !self.rename_dir(dir, &path)? {
            match self.load(lock.digest(), &manifest) {
                Ok(Some(model)) => {
                    fs::remove_dir_all(dir).map_err(|source| CacheError::io("remove", dir, source))?;
                    return Ok(model);
                }
                Ok(None) => {}
                Err(CacheError::Corrupt { damage, .. }) => {
                    tracing::warn!(path = %path.display(), damage, "a bad model gives way to a good one");
                }
                Err(error) => return Err(error),
            }
            self.remove_dir(&path)?;
        }
        atomic::remove_file(&path.join(JOURNAL))?;
        let files = stamp::of(&path, &weights)?;
        if durable {
            // The stamp comes last: what fails before is done again by whoever uses the model next.
            sync(&path, &weights)?;
            atomic::sync_dir(&self.layout().partials())?;
            match stamp::write_good(&path, &files) {
                Err(error) if error.is_disk_full() => {
                    tracing::warn!(%error, "the model is complete, and will be hashed again: that it is right cannot be noted");
                    self.known().insert(*lock.digest(), (files, Verdict::Good));
                }
                stamped => stamped?,
            }
        } else {
            self.known().insert(*lock.digest(), (files, Verdict::Good));
        }
        self.installed(lock, &manifest)
    }

    /// Adds to a finished model the parity shards and the piece index of `staging` that it does not have. **Trust**: see
    /// [`Self::install_encoded`].
    ///
    /// # Errors
    /// [`CacheError::DiskFull`], [`CacheError::Io`].
    pub fn complete(&self, model: Model, staging: &Staging) -> Result<Model, CacheError> {
        let dir = staging.path();
        let mut moves = Vec::new();
        for shard in stamp::parity_kept(dir)? {
            moves.push((dir.join(PARITY).join(shard.to_string()), model.parity_path(shard)));
        }
        moves.push((dir.join(PIECES), model.index_path()));
        moves.retain(|(from, to)| from.exists() && !to.exists());
        if moves.is_empty() {
            return Ok(model);
        }
        atomic::create_dir(&model.dir().join(PARITY))?;
        for (from, to) in moves {
            make_read_only(&from)?;
            relocate::move_file(&from, &to)?;
        }
        // The stamp does not fit any more, so that loading verifies and syncs the whole before it stamps it again.
        let loaded = self.load(model.digest(), model.manifest())?;
        loaded.ok_or_else(|| CacheError::gone(model.digest(), model.dir()))
    }

    fn installed(&self, lock: &FillLock, manifest: &Arc<Manifest>) -> Result<Model, CacheError> {
        let model = self.open_model(lock.digest(), manifest)?;
        model.ok_or_else(|| CacheError::gone(lock.digest(), &self.layout().model(lock.digest())))
    }
}

fn make_read_only(path: &Path) -> Result<(), CacheError> {
    atomic::set_mode(path, 0o444).map_err(|source| CacheError::io("protect", path, source))
}
