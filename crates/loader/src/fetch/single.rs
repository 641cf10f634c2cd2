//! Blobs of weights without a manifest, as contracts named them before there were manifests: their sizes are asked for,
//! and a manifest is made of each.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use manifest::{Codec, Digest, Manifest, Shard};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::sources::Sources;
use super::{MAX_MANIFEST_BYTES, blocking};
use crate::cache::{Cache, CacheError, Model};
use crate::error::LoadError;
use crate::observer::Observer;
use crate::plan::SourceKey;
use crate::source::{Source, SourceError, SourceEvent};

/// What such a model is called.
const MODEL_KIND: &str = "single-blob";
/// Sources asked for the size in all: liars among them cost a fetch each at most.
const MAX_ASKED: usize = 32;
/// How long one source has to answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long others have to answer once one has.
const SETTLE: Duration = Duration::from_secs(1);

/// The manifest of weights that are one shard, which is the blob: the same for everybody who knows its size. `None` for a
/// size that no manifest can have.
pub(super) fn manifest(blob: Digest, size_bytes: u64) -> Option<Manifest> {
    let shard = Shard { digest: blob, size_bytes, is_parity: false };
    Manifest::new(MODEL_KIND.to_owned(), size_bytes, vec![shard], 1, 0, Codec::Rs, None).ok()
}

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

/// Keeps the manifest of a blob; gives its digest, too.
pub(super) async fn store(cache: &Cache, manifest: &Manifest) -> Result<(Digest, Arc<Manifest>), LoadError> {
    let (cache, bytes) = (cache.clone(), manifest.to_json());
    Ok(blocking(move || cache.store_manifest(&bytes)).await??)
}

/// Whether what has this size may be a manifest.
pub(super) fn may_be_manifest(size_bytes: u64) -> bool {
    size_bytes <= MAX_MANIFEST_BYTES
}

/// The sizes that sources claim for a blob, those that most claim first. None when no source has it, and none came up for
/// as long as `wait`.
pub(super) async fn sizes(
    blob: Digest,
    wait: Duration,
    sources: &mut Sources,
    events: &mut mpsc::Receiver<SourceEvent>,
    observer: &dyn Observer,
) -> Vec<u64> {
    let mut asked = Vec::new();
    let mut asking = FuturesUnordered::new();
    let mut claims: HashMap<u64, usize> = HashMap::new();
    let mut give_up = Instant::now() + wait;
    let mut settled: Option<Instant> = None;
    loop {
        for (key, source) in sources.up() {
            if asked.len() < MAX_ASKED && !asked.contains(&key) {
                asked.push(key);
                asking.push(ask(key, Arc::clone(source), blob));
            }
        }
        let now = Instant::now();
        if !asking.is_empty() || sources.connecting {
            give_up = now + wait;
        }
        // Whoever is still being connected to, or has not answered, may know better: for a moment.
        let is_open = !asking.is_empty() || sources.connecting;
        let until = settled.map_or(give_up, |settled| settled.min(give_up));
        if now >= until || (settled.is_some() && !is_open) {
            break;
        }
        tokio::select! {
            event = events.recv() => match event {
                Some(SourceEvent::Up(source)) => {
                    if let Some(key) = sources.on_event(SourceEvent::Up(source), observer) {
                        // It may hold the blob by now.
                        asked.retain(|asked| *asked != key);
                    }
                }
                Some(event) => {
                    sources.on_event(event, observer);
                }
                None => sources.connecting = false,
            },
            Some((key, result)) = asking.next() => match result {
                Ok(size_bytes) => {
                    *claims.entry(size_bytes).or_default() += 1;
                    settled.get_or_insert_with(|| Instant::now() + SETTLE);
                }
                Err(error) => {
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

async fn ask(key: SourceKey, source: Arc<dyn Source>, blob: Digest) -> (SourceKey, Result<u64, SourceError>) {
    let size = tokio::time::timeout(PATIENCE, source.blob_size(blob)).await;
    (key, size.unwrap_or_else(|elapsed| Err(SourceError::Lost(Box::new(elapsed)))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_and_its_size_make_one_manifest() {
        let blob = Digest::of(b"weights");
        let one = manifest(blob, 7).unwrap();
        assert_eq!(one.to_json(), manifest(blob, 7).unwrap().to_json());
        assert_eq!((one.total_size_bytes(), one.shards().len(), one.pieces()), (7, 1, None));
        assert_eq!(Manifest::parse(&one.to_json()).unwrap().to_json(), one.to_json());
        assert!(manifest(blob, 0).is_none() && manifest(blob, u64::MAX).is_none());
    }
}
