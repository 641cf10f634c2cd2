//! Blobs of weights without a manifest, as contracts named them before there were manifests: their sizes are asked for,
//! and a manifest is made of each.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use manifest::{Digest, Manifest};
use planner::SourceKey;
use store::{Cache, CacheError, Model};
use tokio::time::Instant;

use super::blocking::blocking;
use super::source_table::{Arrivals, SourceTable};
use crate::error::LoadError;
use crate::observer::Observer;
use crate::source::{Source, SourceError, SourceEvent};

/// Sources asked for the size in all: each liar costs at most one fetch.
const MAX_ASKED: usize = 32;
/// Timeout of a source.
const PATIENCE: Duration = Duration::from_secs(20);
/// Largest manifest that is read.
pub(super) const MAX_MANIFEST_BYTES: u64 = 16 << 20;
/// Sizes that are tried in all.
pub(super) const MAX_SIZES: usize = 32;
/// Retries of a source that was lost, and the pause between: it may hash a large file before it first answers.
const MAX_ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(500);
/// How long others have to answer once one has.
const SETTLE: Duration = Duration::from_secs(1);

/// The finished model whose only shard is the blob.
pub(super) fn cached(cache: &Cache, blob: &Digest) -> Result<Option<Model>, CacheError> {
    for digest in cache.finished()? {
        let Some(manifest) = cache.manifest(&digest)? else { continue };
        if matches!(manifest.shards(), [shard] if shard.digest == *blob) {
            return cache.model(&digest);
        }
    }
    Ok(None)
}

/// Removes what earlier runs have left of this blob in sizes that nothing proves. Only the whole blob can be verified:
/// nobody goes on with a part of it.
pub(super) fn remove_left(cache: &Cache, blob: &Digest) -> Result<(), CacheError> {
    for digest in cache.begun()? {
        let manifest = cache.manifest(&digest)?;
        if manifest.is_some_and(|manifest| manifest.single_blob() == Some(*blob)) {
            cache.remove_unverified(&digest)?;
        }
    }
    Ok(())
}

/// Keeps the manifest of a blob; gives its digest, too.
pub(super) async fn store(cache: &Cache, manifest: &Manifest) -> Result<(Digest, Arc<Manifest>), LoadError> {
    let (cache, bytes) = (cache.clone(), manifest.to_json());
    Ok(blocking(move || cache.store_manifest(&bytes)).await??)
}

/// Whether what has this size may be a manifest.
pub(super) fn may_be_manifest(size_bytes: u64) -> bool {
    size_bytes <= MAX_MANIFEST_BYTES
}

/// The sizes that sources claim for a blob, but for those that were tried, the one that most claim first. None when no
/// source claims another one, and none came up for as long as `wait`.
pub(super) async fn sizes(
    blob: Digest,
    wait: Duration,
    tried: &[u64],
    sources: &mut SourceTable,
    events: &mut Arrivals,
    observer: &dyn Observer,
) -> Vec<u64> {
    let mut attempts: HashMap<SourceKey, u32> = HashMap::new();
    let mut asking = FuturesUnordered::new();
    let mut claims: HashMap<u64, usize> = HashMap::new();
    let mut give_up = Instant::now() + wait;
    let mut settled: Option<Instant> = None;
    loop {
        for (key, source) in sources.up() {
            if attempts.len() < MAX_ASKED && !attempts.contains_key(&key) {
                attempts.insert(key, 1);
                asking.push(ask(key, Arc::clone(source), blob, Duration::ZERO).boxed());
            }
        }
        let now = Instant::now();
        let is_open = !asking.is_empty() || sources.connecting;
        if is_open {
            give_up = now + wait;
        }
        // Sources that are being dialed, or have not answered, may know better: wait a moment.
        let until = match settled {
            Some(settled) if !is_open || now >= settled => break,
            Some(settled) => settled,
            None if !is_open && now >= give_up => break,
            None if is_open => now + PATIENCE,
            None => give_up,
        };
        tokio::select! {
            event = events.next() => match event {
                SourceEvent::Up(source) => {
                    // It may hold the blob by now.
                    if let Some(key) = sources.on_event(SourceEvent::Up(source), observer)
                        && let Some(again) = again(key, Duration::ZERO, blob, sources, &mut attempts)
                    {
                        asking.push(again);
                    }
                }
                event => {
                    sources.on_event(event, observer);
                }
            },
            Some((key, result)) = asking.next() => match result {
                Ok(size_bytes) if tried.contains(&size_bytes) => {}
                Ok(size_bytes) => {
                    *claims.entry(size_bytes).or_default() += 1;
                    settled.get_or_insert_with(|| Instant::now() + SETTLE);
                }
                Err(error) => {
                    if let SourceError::Lost(_) = &error
                        && let Some(again) = again(key, PAUSE, blob, sources, &mut attempts)
                    {
                        asking.push(again);
                    }
                    if let Some(report) = sources.report_mut(key) {
                        report.last_error = Some(SourceError::with_causes(&error));
                    }
                }
            },
            () = tokio::time::sleep_until(until) => {}
        }
    }
    let mut claims: Vec<(u64, usize)> = claims.into_iter().collect();
    claims.sort_by_key(|(size_bytes, count)| (std::cmp::Reverse(*count), *size_bytes));
    claims.into_iter().map(|(size_bytes, _)| size_bytes).collect()
}

type Asking = BoxFuture<'static, (SourceKey, Result<u64, SourceError>)>;

/// Retries a source, when it is connected and was not asked too often.
fn again(
    key: SourceKey,
    pause: Duration,
    blob: Digest,
    sources: &SourceTable,
    attempts: &mut HashMap<SourceKey, u32>,
) -> Option<Asking> {
    let attempt = attempts.get_mut(&key).filter(|attempt| **attempt < MAX_ATTEMPTS)?;
    let source = sources.get(key)?;
    *attempt += 1;
    Some(ask(key, Arc::clone(source), blob, pause).boxed())
}

async fn ask(
    key: SourceKey,
    source: Arc<dyn Source>,
    blob: Digest,
    pause: Duration,
) -> (SourceKey, Result<u64, SourceError>) {
    tokio::time::sleep(pause).await;
    let size = tokio::time::timeout(PATIENCE, source.blob_size(blob)).await;
    (key, size.unwrap_or_else(|elapsed| Err(SourceError::Lost(Box::new(elapsed)))))
}
