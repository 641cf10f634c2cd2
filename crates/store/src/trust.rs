//! Finished models: mapped when their stamp is valid, else hashed first.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::available_parallelism;

use manifest::{Digest, Manifest};

use super::lock::LockFile;
use super::recheck::recheck_until;
use super::stamp::Verdict;
use super::sync::sync;
use super::{Cache, CacheError, Model, RecheckReport, atomic, stamp};

impl Cache {
    /// The finished model, mapped; `None` when there is none.
    ///
    /// Its files are trusted when their metadata match the stamp. Otherwise all of them are hashed first, which takes time;
    /// corrupt parity shards and a corrupt piece index are dropped, with a warning.
    ///
    /// # Errors
    /// [`CacheError::Corrupt`] when the weights are not what the manifest says; [`CacheError::Io`].
    pub fn model(&self, digest: &Digest) -> Result<Option<Model>, CacheError> {
        match self.manifest(digest)? {
            Some(manifest) => self.load(digest, &manifest),
            None => Ok(None),
        }
    }

    /// Hashes all files of a finished model, whatever its stamp says. `progress` is told how many bytes of how many
    /// are done, from several threads. A model found bad is not trusted by the next [`Self::model`].
    ///
    /// # Errors
    /// As [`Self::model`], but for what the report tells.
    pub fn verify(
        &self,
        digest: &Digest,
        threads: usize,
        progress: &(dyn Fn(u64, u64) + Sync),
    ) -> Result<Option<RecheckReport>, CacheError> {
        let is_there = self.layout().model(digest).exists() && !self.is_incomplete(digest);
        let corrupt = |damage: &str| {
            let (path, damage) = (self.layout().model(digest), damage.to_owned());
            Err(CacheError::Corrupt { digest: *digest, path, damage })
        };
        let Some(manifest) = self.manifest(digest)? else {
            return if is_there { corrupt("its manifest is gone") } else { Ok(None) };
        };
        match self.open_model(digest, &manifest)? {
            Some(model) => self.check(&model, threads, progress, &AtomicBool::new(false)).map(Some),
            None if is_there => corrupt("its weights are gone"),
            None => Ok(None),
        }
    }

    pub(crate) fn open_model(
        &self,
        digest: &Digest,
        manifest: &Arc<Manifest>,
    ) -> Result<Option<Model>, CacheError> {
        let lock = LockFile::usage(&self.layout().locks(), digest).shared()?;
        Model::open(&self.layout().model(digest), digest, Arc::clone(manifest), lock)
    }

    pub(crate) fn load(
        &self,
        digest: &Digest,
        manifest: &Arc<Manifest>,
    ) -> Result<Option<Model>, CacheError> {
        let threads = available_parallelism().map_or(1, usize::from);
        self.load_until(digest, manifest, threads, &AtomicBool::new(false))
    }

    /// The finished model, hashed if need be, unless told to stop.
    pub(crate) fn hashed(&self, digest: &Digest, stop: &AtomicBool) -> Result<Option<Model>, CacheError> {
        match self.manifest(digest)? {
            Some(manifest) => self.load_until(digest, &manifest, 1, stop),
            None => Ok(None),
        }
    }

    fn load_until(
        &self,
        digest: &Digest,
        manifest: &Arc<Manifest>,
        threads: usize,
        stop: &AtomicBool,
    ) -> Result<Option<Model>, CacheError> {
        loop {
            let Some(model) = self.open_model(digest, manifest)? else { return Ok(None) };
            match self.verdict(&model)? {
                Verdict::Good => return Ok(Some(model)),
                Verdict::Bad(damage) => return Err(corrupt(&model, damage)),
                Verdict::Unknown => {}
            }
            tracing::info!(%digest, "nobody knows whether the files of this model are right: hashing them");
            let report = self.check(&model, threads, &|_, _| (), stop)?;
            if report.is_good() {
                return Ok(Some(model));
            }
            if !report.weights_are_good() {
                return Err(corrupt(&model, report.to_string()));
            }
            if self.is_read_only() {
                tracing::warn!(%digest, damage = %report, "files of this model are bad; its weights are good");
                return Ok(Some(model.bare()));
            }
            tracing::warn!(%digest, damage = %report, "dropping bad files of this model; its weights are good");
            drop_damaged(&model, &report)?;
        }
    }

    /// The finished model, if it is known to be right: nothing is hashed.
    pub(crate) fn trusted(&self, digest: &Digest) -> Result<Trust, CacheError> {
        let Some(manifest) = self.manifest(digest)? else { return Ok(Trust::Nothing) };
        let Some(model) = self.open_model(digest, &manifest)? else { return Ok(Trust::Nothing) };
        Ok(match self.verdict(&model)? {
            Verdict::Good => Trust::Good(model),
            Verdict::Bad(damage) => return Err(corrupt(&model, damage)),
            Verdict::Unknown => Trust::Unknown,
        })
    }

    /// Whether the model is still what it was when it was found right.
    pub(crate) fn is_trusted(&self, model: &Model) -> bool {
        self.verdict(model).is_ok_and(|verdict| verdict == Verdict::Good)
    }

    fn verdict(&self, model: &Model) -> Result<Verdict, CacheError> {
        let verdict = stamp::verdict(model.dir(), model.list())?;
        if verdict != Verdict::Unknown {
            return Ok(verdict);
        }
        let files = stamp::of(model.dir(), model.list())?;
        let known = self.known().get(model.digest()).filter(|(known, _)| *known == files).cloned();
        Ok(known.map_or(Verdict::Unknown, |(_, verdict)| verdict))
    }

    /// Hashes a model, and stamps it with its metadata from before. A good one is synced first.
    fn check(
        &self,
        model: &Model,
        threads: usize,
        progress: &(dyn Fn(u64, u64) + Sync),
        stop: &AtomicBool,
    ) -> Result<RecheckReport, CacheError> {
        let before = stamp::of(model.dir(), model.list())?;
        model.check_sizes()?;
        let report = recheck_until(model, threads, progress, stop)?;
        let (stamped, verdict) = if report.is_good() {
            let synced =
                sync(model.dir(), model.list()).and_then(|()| stamp::write_good(model.dir(), &before));
            (synced, Verdict::Good)
        } else if report.weights_are_good() {
            (stamp::remove(model.dir()), Verdict::Unknown)
        } else {
            let damage = report.to_string();
            (stamp::write_bad(model.dir(), &before, &damage), Verdict::Bad(damage))
        };
        self.known().insert(*model.digest(), (before, verdict));
        if self.is_read_only() {
            tracing::info!(digest = %model.digest(), "each process that uses this cache hashes the model: it is read-only");
        } else if let Err(error) = stamped {
            tracing::warn!(%error, "what was found cannot be written down: another process will hash the model again");
        }
        Ok(report)
    }
}

/// Whether a finished model can be trusted.
pub(crate) enum Trust {
    /// It is right.
    Good(Model),
    /// It has to be hashed.
    Unknown,
    /// There is none.
    Nothing,
}

fn corrupt(model: &Model, damage: String) -> CacheError {
    CacheError::Corrupt { digest: *model.digest(), path: model.dir().to_owned(), damage }
}

fn drop_damaged(model: &Model, report: &RecheckReport) -> Result<(), CacheError> {
    for bad in &report.bad {
        atomic::remove_file(&model.parity_path(bad.shard))?;
    }
    if !report.index.is_good() {
        atomic::remove_file(&model.index_path())?;
    }
    Ok(())
}
