//! `--link`: a path that leads to the newest model.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use store::{Cache, Model};

/// Where the link is, and into which cache it leads.
#[derive(Debug, Clone)]
pub(super) struct Link {
    cache: Cache,
    path: PathBuf,
}

impl Link {
    /// Finds out that there is something else before anything is fetched.
    pub(super) fn new(path: Option<&Path>, cache_dir: &Path) -> Result<Option<Self>> {
        let Some(path) = path else { return Ok(None) };
        let (cache, path) = (Cache::open(cache_dir)?, path.to_owned());
        cache.check_link(&path)?;
        Ok(Some(Self { cache, path }))
    }

    /// Makes it lead to this model.
    pub(super) async fn set(&self, model: &Model) -> Result<()> {
        let (link, model) = (self.clone(), model.clone());
        let set = tokio::task::spawn_blocking(move || link.cache.link(&link.path, &model));
        set.await.context("the thread that makes a link has failed")??;
        Ok(())
    }
}
