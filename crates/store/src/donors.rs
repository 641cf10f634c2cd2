//! Models that a new one may share bytes with.

use std::cmp::Reverse;
use std::fs;
use std::time::SystemTime;

use manifest::{Digest, Manifest};

use super::{Cache, CacheError, Model};

/// Donors that are searched: hashing a model of gigabytes costs seconds, and a new version is close to the last.
const MAX_DONORS: usize = 2;

impl Cache {
    /// The newest finished models of the same kind as the one named `digest`, newest first. Their bytes are not trusted: the
    /// caller hashes them.
    ///
    /// # Errors
    /// [`CacheError::Io`] when the cache cannot be listed.
    pub fn donors(&self, digest: &Digest, manifest: &Manifest) -> Result<Vec<Model>, CacheError> {
        let mut found: Vec<(SystemTime, Model)> = Vec::new();
        for candidate in self.finished()?.into_iter().filter(|candidate| candidate != digest) {
            match self.donor(&candidate, manifest) {
                Ok(model) => found.extend(model),
                // It is skipped here; loading it reports what is wrong with it.
                Err(error) => tracing::debug!(%candidate, %error, "cannot take bytes of this model"),
            }
        }
        found.sort_by_key(|(finished, _)| Reverse(*finished));
        Ok(found.into_iter().take(MAX_DONORS).map(|(_, model)| model).collect())
    }

    /// A finished model and when it was finished, if it is of the same kind.
    fn donor(&self, digest: &Digest, like: &Manifest) -> Result<Option<(SystemTime, Model)>, CacheError> {
        let manifest = self.manifest(digest)?.filter(|manifest| manifest.model_kind() == like.model_kind());
        let Some(manifest) = manifest else { return Ok(None) };
        let Some(model) = self.open_model(digest, &manifest)? else { return Ok(None) };
        let modified = fs::metadata(model.dir()).and_then(|metadata| metadata.modified());
        Ok(Some((modified.unwrap_or(SystemTime::UNIX_EPOCH), model)))
    }
}
