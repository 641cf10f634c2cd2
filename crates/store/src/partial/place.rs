//! Putting some files of a model in place, each once it is whole.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use manifest::PieceId;

use super::Partial;
use crate::layout::{INCOMPLETE, PIECES};
use crate::model_files::{is_many, sync_file_system};
use crate::piece_states::PieceState;
use crate::stamp::Verdict;
use crate::sync::sync;
use crate::{CacheError, Model, Writeback, atomic, relocate, stamp};

impl Partial {
    /// Puts these files of the model in place, by their numbers: read-only, and each all or nothing. Once all are there, the
    /// model is finished. What is recorded stays for the next run.
    ///
    /// # Errors
    /// [`CacheError::Incomplete`] unless every piece of them was hashed by this process; [`CacheError::DiskFull`],
    /// [`CacheError::Io`].
    pub fn place(mut self, files: &BTreeSet<usize>) -> Result<Model, CacheError> {
        self.check_files(files)?;
        let (digest, manifest) = (*self.lock.digest(), Arc::clone(self.manifest()));
        let writeback = self.writeback.take();
        let is_durable = writeback.is_some();
        writeback.map_or(Ok(()), Writeback::finish)?;
        let target = self.cache.layout().model(&digest);
        atomic::create_dir(&target)?;
        atomic::write(&target.join(INCOMPLETE), b"", 0o644)?;
        let moves = self.moves(files, &target);
        for (file, (from, _)) in &moves {
            self.weights.protect_one(*file)?;
            if is_durable && !is_many(moves.len()) {
                let synced = atomic::open(from).and_then(|file| file.sync_all());
                synced.map_err(|source| CacheError::io("sync", from, source))?;
            }
        }
        if is_durable && is_many(moves.len()) {
            sync_file_system(&self.dir)?;
        }
        for (_, (from, to)) in &moves {
            atomic::create_dir(to.parent().unwrap_or(&target))?;
            relocate::move_file(from, to)?;
        }
        let list = self.weights.list().clone();
        let is_all = list.iter().all(|file| target.join(&file.path).exists());
        if is_all && self.dir.join(PIECES).exists() {
            relocate::move_file(&self.dir.join(PIECES), &target.join(PIECES))?;
        }
        let found = stamp::of(&target, &list)?;
        if is_durable {
            sync(&target, &list)?;
            stamp::write_good(&target, &found)?;
        } else {
            self.cache.known().insert(digest, (found, Verdict::Good));
        }
        if !is_all {
            let model = self.cache.open_some(&digest, &manifest)?;
            return model.ok_or_else(|| CacheError::gone(&digest, &target));
        }
        atomic::remove_file(&target.join(INCOMPLETE))?;
        atomic::sync_dir(&target)?;
        self.cache.remove_dir(&self.dir)?;
        let model = self.cache.open_model(&digest, &manifest)?;
        model.ok_or_else(|| CacheError::gone(&digest, &target))
    }

    /// Whether some files are in place already.
    pub(crate) fn is_begun_in_place(&self) -> bool {
        self.cache.is_incomplete(self.lock.digest())
    }

    fn check_files(&self, files: &BTreeSet<usize>) -> Result<(), CacheError> {
        let (_, progress) = &*self.journal();
        for file in files {
            for slice in self.geometry.pieces_of(self.weights.list().get(*file).range) {
                let PieceId { shard, piece } = slice.piece;
                if progress.state(&self.geometry, slice.piece) < PieceState::Verified {
                    return Err(CacheError::Incomplete { digest: *self.lock.digest(), shard, piece });
                }
            }
        }
        Ok(())
    }

    /// Which files are to be moved, from where to where: those that are not in place.
    fn moves(&self, files: &BTreeSet<usize>, target: &Path) -> Vec<(usize, (PathBuf, PathBuf))> {
        let place = |file: &usize| {
            let path = &self.weights.list().get(*file).path;
            (*file, (self.dir.join(path), target.join(path)))
        };
        files.iter().map(place).filter(|(_, (from, to))| from.exists() || !to.exists()).collect()
    }
}
