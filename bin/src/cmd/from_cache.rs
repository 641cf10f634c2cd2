//! `fetch --from-cache`: another process puts the model into the cache, which this one may only read.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use chain_reader::{ChainReader, MatureModel};
use manifest::Digest;
use node::Loaded;
use store::Cache;
use tokio::time::{Instant, sleep};

use crate::cmd::which::which;
use crate::exit::NotPutThere;

/// How often the cache is looked into, and after how many looks the contract is read again: it may name another model by then,
/// and nobody fetches the old one any more.
const PAUSE: Duration = Duration::from_secs(1);
const LOOKS: u32 = 12;

/// What is waited for, until when.
pub(super) struct Wait<'a> {
    cache_dir: &'a Path,
    within: Duration,
    until: Instant,
}

impl<'a> Wait<'a> {
    pub(super) fn new(cache_dir: &'a Path, within: Duration) -> Self {
        Self { cache_dir, within, until: Instant::now() + within }
    }

    /// Waits until there is a cache at all.
    pub(super) async fn for_cache(&self) -> Result<()> {
        while Cache::open_existing(self.cache_dir)?.is_none() {
            self.pause(None).await?;
        }
        Ok(())
    }

    /// Waits for the model that was named, or else for the one that the contract names.
    pub(super) async fn for_model(
        &self,
        config: &node::Config,
        named: Option<Digest>,
        reader: Option<&ChainReader>,
    ) -> Result<(Loaded, Option<MatureModel>)> {
        loop {
            let (digest, current) = which(named, reader).await?;
            for _ in 0..LOOKS {
                if let Some(loaded) = node::cached(config, digest).await? {
                    return Ok((loaded, current));
                }
                self.pause(Some(digest)).await?;
            }
        }
    }

    async fn pause(&self, digest: Option<Digest>) -> Result<(), NotPutThere> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let cache_dir = self.cache_dir.to_owned();
            return Err(NotPutThere { digest, cache_dir, within: self.within });
        }
        sleep(PAUSE.min(left)).await;
        Ok(())
    }
}
