//! What a load takes from the cache, keeps in it, and removes from it.

use std::sync::Arc;

use manifest::{Digest, Manifest};
use store::{Cache, CacheError, Model, Partial};

use super::blocking::blocking;
use super::options::FetchOptions;
use super::{files, single_blob};
use crate::error::LoadError;

/// The model of a digest, if it is finished: [`crate::load`] maps it without a source. `None` also for a corrupt one: [`crate::load`]
/// heals it. Blocks.
///
/// # Errors
/// Those of [`Cache::model`].
pub fn cached(cache: &Cache, digest: &Digest, options: &FetchOptions) -> Result<Option<Model>, CacheError> {
    if let Some(some) = files::cached(cache, digest, options)? {
        return Ok(Some(some));
    }
    match healthy(cache.model(digest))? {
        None if options.single_blob_max_bytes.is_some() => healthy(single_blob::cached(cache, digest)),
        found => Ok(found),
    }
}

/// A corrupt model counts as missing.
fn healthy(found: Result<Option<Model>, CacheError>) -> Result<Option<Model>, CacheError> {
    match found {
        Err(error @ CacheError::Corrupt { .. }) => {
            // Healing it logs that.
            tracing::debug!("{error}");
            Ok(None)
        }
        found => found,
    }
}

pub(super) async fn find_cached(
    cache: &Cache,
    digest: Digest,
    options: &FetchOptions,
) -> Result<Option<Model>, LoadError> {
    let (cache, options) = (cache.clone(), options.clone());
    let find = move || match files::cached(&cache, &digest, &options)? {
        None => healthy(cache.model(&digest)),
        found => Ok(found),
    };
    Ok(blocking(find).await??)
}

/// Keeps the bytes in the cache, if they are a manifest's.
pub(super) async fn keep_manifest(cache: &Cache, bytes: Vec<u8>) -> Result<Arc<Manifest>, LoadError> {
    let cache = cache.clone();
    match blocking(move || cache.store_manifest(&bytes)).await? {
        Ok((_, manifest)) => Ok(manifest),
        Err(CacheError::Manifest { digest, source }) => Err(LoadError::NotAManifest { digest, source }),
        Err(error) => Err(error.into()),
    }
}

/// Ends a failed load: closes the partial files. On a full disk, reserved space is released.
pub(super) fn close(store: Arc<Partial>, error: LoadError) -> LoadError {
    let error = match error {
        LoadError::Cache(full) if full.is_disk_full() => store.give_back(full).into(),
        error => error,
    };
    if let Some(store) = Arc::into_inner(store) {
        store.close();
    }
    error
}

/// Removes what is of no use from the cache. That this fails is no reason for more to fail.
pub(super) async fn tidy(remove: impl FnOnce() -> Result<(), CacheError> + Send + 'static) {
    match blocking(remove).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "could not clean up in the cache"),
        Err(error) => tracing::warn!(%error, "could not clean up in the cache"),
    }
}
