//! When models were last used, and which are pinned: files named by their digests in `used/` and `pins/`.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::time::SystemTime;

use manifest::Digest;

use crate::entries::digests_in;
use crate::layout::JOURNAL;
use crate::{Cache, CacheError, atomic};

impl Cache {
    /// Notes that the model is used now. That it cannot be noted is no reason to fail: it may be evicted sooner.
    pub fn note_used(&self, digest: &Digest) {
        if self.is_read_only() {
            return;
        }
        let path = self.layout().used(digest);
        // It has no content that could be torn, and need not outlive the machine.
        let note = || {
            atomic::create_dir(path.parent().unwrap_or(&path)).map_err(CacheError::into_io)?;
            files::open_or_create(atomic::place(&path))?.set_modified(SystemTime::now())
        };
        if let Err(error) = note() {
            tracing::debug!(%digest, %error, "cannot note that this model is used");
        }
    }

    /// When the model was last used, or else finished or written to.
    pub fn last_used(&self, digest: &Digest) -> SystemTime {
        let modified = |path: &Path| fs::metadata(path).and_then(|found| found.modified()).ok();
        let (model, partial) = (self.layout().model(digest), self.layout().partial(digest));
        let times =
            [modified(&self.layout().used(digest)), modified(&model), modified(&partial.join(JOURNAL))];
        times.into_iter().flatten().max().unwrap_or(SystemTime::UNIX_EPOCH)
    }

    /// Keeps a model from being evicted or removed, whether or not it is there yet.
    ///
    /// # Errors
    /// [`CacheError::ReadOnly`], [`CacheError::Io`].
    pub fn pin(&self, digest: &Digest) -> Result<(), CacheError> {
        self.check_writable()?;
        atomic::create_dir(&self.layout().pins())?;
        atomic::write(&self.layout().pins().join(digest.to_string()), b"", 0o644)
    }

    /// Ends that. Nothing happens when it was not pinned.
    ///
    /// # Errors
    /// [`CacheError::ReadOnly`], [`CacheError::Io`].
    pub fn unpin(&self, digest: &Digest) -> Result<(), CacheError> {
        self.check_writable()?;
        atomic::remove_file(&self.layout().pins().join(digest.to_string()))
    }

    /// The models that are pinned.
    ///
    /// # Errors
    /// [`CacheError::Io`].
    pub fn pinned(&self) -> Result<HashSet<Digest>, CacheError> {
        Ok(digests_in(&self.layout().pins())?.into_iter().collect())
    }
}
