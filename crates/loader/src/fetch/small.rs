//! Blobs that are fetched into memory: the manifest and the piece index.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use manifest::{Digest, SourceId};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::sources::Sources;
use crate::observer::{Event, Observer};
use crate::plan::SourceKey;
use crate::source::{Source, SourceError, SourceEvent};

/// Sources asked at once for one small blob.
const MAX_ASKED: usize = 4;
/// How long one source has before the next is asked as well.
const HEAD_START: Duration = Duration::from_millis(500);
/// How long one source has in all. A source that stalls must not hold one of the few places for ever.
const PATIENCE: Duration = Duration::from_secs(20);

/// What came of looking for a small blob.
pub(super) enum Found {
    Blob(Vec<u8>),
    /// No source has it, and none came up for as long as was waited. One may have said that it is so much larger.
    Nowhere {
        too_large: Option<(SourceId, u64)>,
    },
}

/// What is looked for.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    pub(super) blob: Digest,
    pub(super) max_bytes: u64,
    /// How long to go on when no source is left to ask.
    pub(super) wait: Duration,
}

/// Asks the sources, some at a time, until one gives the bytes of the digest.
pub(super) async fn find(
    wanted: Wanted,
    sources: &mut Sources,
    events: &mut mpsc::Receiver<SourceEvent>,
    observer: &dyn Observer,
) -> Found {
    let mut asked: HashSet<SourceId> = HashSet::new();
    let mut asking = FuturesUnordered::new();
    let mut idle_since = Instant::now();
    let mut next_ask = Instant::now();
    let mut too_large = None;
    loop {
        let now = Instant::now();
        if asking.is_empty() || (asking.len() < MAX_ASKED && now >= next_ask) {
            let next = sources.up().find(|(_, source)| !asked.contains(source.id()));
            if let Some((key, source)) = next {
                asked.insert(source.id().clone());
                asking.push(ask(key, Arc::clone(source), wanted));
                next_ask = now + HEAD_START;
            }
        }
        if !asking.is_empty() || sources.connecting {
            idle_since = now;
        }
        let give_up = idle_since + wanted.wait;
        if asking.is_empty() && !sources.connecting && now >= give_up {
            return Found::Nowhere { too_large };
        }
        // A first connection that never ends is bounded by the network's own limit.
        let until = if asking.is_empty() { give_up } else { next_ask.max(now + Duration::from_millis(20)) };
        tokio::select! {
            event = events.recv() => match event {
                Some(SourceEvent::Up(source)) => {
                    asked.remove(source.id());
                    sources.on_event(SourceEvent::Up(source), observer);
                }
                Some(event) => {
                    sources.on_event(event, observer);
                }
                None => sources.connecting = false,
            },
            Some((key, result)) = asking.next() => {
                match result {
                    Ok(bytes) if Digest::of(&bytes) == wanted.blob => return Found::Blob(bytes),
                    Ok(bytes) => blame(key, bytes.len() as u64, sources, observer),
                    Err(error) => {
                        if let (SourceError::TooLarge { claimed_bytes }, Some(source)) = (&error, sources.get(key)) {
                            too_large.get_or_insert_with(|| (source.id().clone(), *claimed_bytes));
                        }
                        if let Some(report) = sources.report_mut(key) {
                            report.last_error = Some(error.with_causes());
                        }
                    }
                }
            }
            () = tokio::time::sleep_until(until) => {}
        }
    }
}

async fn ask(
    key: SourceKey,
    source: Arc<dyn Source>,
    wanted: Wanted,
) -> (SourceKey, Result<Vec<u8>, SourceError>) {
    let read = tokio::time::timeout(PATIENCE, source.read_blob(wanted.blob, wanted.max_bytes)).await;
    (key, read.unwrap_or_else(|elapsed| Err(SourceError::Lost(Box::new(elapsed)))))
}

/// A source sent bytes of another digest.
fn blame(key: SourceKey, bytes: u64, sources: &mut Sources, observer: &dyn Observer) {
    if let Some(source) = sources.get(key) {
        observer.on_event(&Event::WrongBytes { shard: None, source: source.id(), bytes });
    }
    if let Some(report) = sources.report_mut(key) {
        report.bad_bytes += bytes;
        report.last_error = Some("sent bytes of another digest".into());
    }
}
