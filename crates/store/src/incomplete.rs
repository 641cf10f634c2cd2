//! Models of which only some files are in place.
//!
//! Until all are there, `models/<digest>/incomplete` says so. What there is of other files, such as bytes of pieces that lie
//! across borders, stays in the partial model with its journal, and goes on being claimed from there.

use std::collections::BTreeSet;
use std::sync::Arc;

use manifest::{Digest, Manifest};

use super::layout::INCOMPLETE;
use super::lock::LockFile;
use super::{Cache, CacheError, Model};

impl Cache {
    /// The files of a model of which only some are in place, mapped, if these are among them and known to be right: by
    /// their numbers.
    ///
    /// # Errors
    /// [`CacheError::Io`].
    pub fn some_files(
        &self,
        digest: &Digest,
        manifest: &Arc<Manifest>,
        files: &BTreeSet<usize>,
    ) -> Result<Option<Model>, CacheError> {
        let Some(model) = self.open_some(digest, manifest)? else { return Ok(None) };
        Ok(Some(model).filter(|model| files.iter().all(|file| model.has(*file)) && self.is_trusted(model)))
    }

    /// Whether only some files of a model are in place.
    pub(crate) fn is_incomplete(&self, digest: &Digest) -> bool {
        self.layout().model(digest).join(INCOMPLETE).exists()
    }

    pub(crate) fn open_some(
        &self,
        digest: &Digest,
        manifest: &Arc<Manifest>,
    ) -> Result<Option<Model>, CacheError> {
        if !self.is_incomplete(digest) {
            return Ok(None);
        }
        let lock = LockFile::usage(&self.layout().locks(), digest).shared()?;
        Ok(Some(Model::open_some(&self.layout().model(digest), digest, Arc::clone(manifest), lock)))
    }
}
