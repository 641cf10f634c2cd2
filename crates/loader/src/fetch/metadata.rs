//! Blobs that are fetched into memory: the manifest and the piece index.
//!
//! Only the whole of one can be verified: a liar, or a source that trickles, looks like an honest one before that. Several
//! sources are asked in parallel, each for the whole, in time slices while others wait.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::{AbortHandle, Abortable};
use futures::stream::FuturesUnordered;
use manifest::{Digest, SourceId};
use planner::SourceKey;
use tokio::time::Instant;

use super::blocking::blocking;
use super::source_table::{Arrivals, SourceTable};
use crate::observer::{Event, Observer};
use crate::source::{Source, SourceError, SourceEvent};

/// Sources that may have sent a part: bounds the memory to so many blobs.
const MAX_SENDING: usize = 4;
/// Requests in flight, those without any bytes included.
const MAX_ASKED: usize = 64;
/// Interval at which further sources are asked: one more, or twice as many each time while none sends.
const HEAD_START: Duration = Duration::from_millis(500);
/// Time slice of a source while others wait; doubled each time it is asked again.
const FIRST_SLICE: Duration = Duration::from_secs(1);
const MAX_SLICE: Duration = Duration::from_secs(64);
/// How soon a source that did not have it, or was lost, is asked again while there is nobody else; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const MAX_PAUSE: Duration = Duration::from_secs(16);
/// Timeout of a source when none waits: this, plus the time the blob takes at so many bytes a second.
const PATIENCE: Duration = Duration::from_secs(20);
const MIN_BYTES_PER_S: u64 = 64 << 10;
/// How often progress is polled.
const POLL_EVERY: Duration = Duration::from_millis(50);

/// The result of [`find`].
pub(super) enum Found {
    Blob(Vec<u8>),
    /// No source has it, and none connected within the wait. One may have claimed a size over the limit.
    Nowhere {
        too_large: Option<(SourceId, u64)>,
    },
}

/// The blob to find.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    pub(super) blob: Digest,
    pub(super) max_bytes: u64,
    /// How long to go on when no source is left to ask.
    pub(super) wait: Duration,
}

/// Asks the sources, some at a time, until one sends the right bytes.
pub(super) async fn find(
    wanted: Wanted,
    sources: &mut SourceTable,
    events: &mut Arrivals,
    observer: &dyn Observer,
) -> Found {
    let mut queue = Queue::new(wanted);
    let mut answers = FuturesUnordered::new();
    let mut idle_since = Instant::now();
    let mut too_large = None;
    loop {
        let now = Instant::now();
        queue.look(sources, now);
        while let Some((key, source)) = queue.next(sources) {
            let (abort, registration) = AbortHandle::new_pair();
            queue.asked(key, source, abort, now);
            answers.push(Abortable::new(ask(key, Arc::clone(source), wanted), registration));
        }
        let is_hoping = sources.connecting || queue.asked.iter().any(|asked| !asked.is_repeated);
        if is_hoping {
            idle_since = now;
        }
        let give_up = idle_since + wanted.wait;
        if !is_hoping && now >= give_up {
            return Found::Nowhere { too_large };
        }
        // First connection attempts are bounded by the network's connect timeout.
        let until = match queue.asked.is_empty() {
            true => queue.next_repeat().map_or(give_up, |at| give_up.min(at.max(now + POLL_EVERY))),
            false => now + POLL_EVERY,
        };
        tokio::select! {
            event = events.next() => {
                if let SourceEvent::Up(source) = &event {
                    queue.on_up(source.id());
                }
                sources.on_event(event, observer);
            }
            Some(answer) = answers.next() => {
                // One that was evicted.
                let Ok((key, result)) = answer else { continue };
                queue.answered(key);
                match result {
                    Ok(Answer::Right(bytes)) => {
                        sources.has_given = Some(key);
                        return Found::Blob(bytes);
                    }
                    Ok(Answer::Wrong { bytes }) => blame(key, bytes, sources, observer),
                    Err(error) => {
                        let is_refused = matches!(
                            error,
                            SourceError::NotHeld | SourceError::Busy { .. } | SourceError::Lost(_)
                        );
                        if let Some(source) = sources.get(key).filter(|_| is_refused) {
                            queue.repeat(source.id(), Instant::now());
                        }
                        if let (SourceError::TooLarge { claimed_bytes }, Some(source)) =
                            (&error, sources.get(key))
                        {
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

/// Requests in flight, and which source is next.
struct Queue {
    /// Timeout of a source when none waits.
    patience: Duration,
    /// How often each source was asked, and whether it is done.
    attempts: HashMap<SourceId, Attempts>,
    asked: Vec<Asked>,
    /// How many more may be asked now; then, from `next_ask` on, `next_burst` more.
    may_ask: usize,
    next_ask: Instant,
    next_burst: usize,
}

#[derive(Default)]
struct Attempts {
    count: u32,
    is_done: bool,
    /// When one that is done may be asked again: it may hold the blob by then.
    again_at: Option<Instant>,
}

impl Attempts {
    fn may_be_asked(&self, now: Instant) -> bool {
        !self.is_done || self.again_at.is_some_and(|at| at <= now)
    }
}

struct Asked {
    key: SourceKey,
    id: SourceId,
    since: Instant,
    time_slice: Duration,
    /// It timed out.
    is_given_up: bool,
    /// It has said before that it does not have it.
    is_repeated: bool,
    before_bytes: u64,
    /// Bytes it has sent, when it first did, and when last.
    bytes: u64,
    began: Option<Instant>,
    moved: Instant,
    abort: AbortHandle,
}

impl Asked {
    /// Asked for the first time, it sends so little that all others are better tried first.
    fn is_slow(&self, now: Instant) -> bool {
        let Some(began) = self.began.filter(|_| self.time_slice == FIRST_SLICE) else { return false };
        let elapsed = now.saturating_duration_since(began);
        let least_bytes = elapsed.as_millis().saturating_mul(MIN_BYTES_PER_S.into()) / 1000;
        elapsed >= self.time_slice / 4 && u128::from(self.bytes) < least_bytes
    }
}

impl Queue {
    fn new(wanted: Wanted) -> Self {
        let patience = PATIENCE + Duration::from_secs(wanted.max_bytes / MIN_BYTES_PER_S);
        let (attempts, asked) = (HashMap::new(), Vec::new());
        Self { patience, attempts, asked, may_ask: 0, next_ask: Instant::now(), next_burst: 1 }
    }

    /// Polls progress, and evicts sources that timed out or used up their time slice.
    fn look(&mut self, sources: &SourceTable, now: Instant) {
        for asked in &mut self.asked {
            let Some(source) = sources.get(asked.key) else { continue };
            let bytes = source.received_bytes().saturating_sub(asked.before_bytes);
            if bytes > asked.bytes {
                (asked.bytes, asked.moved) = (bytes, now);
                asked.began.get_or_insert(now);
            }
        }
        // The oldest first, those that have stopped sending last.
        self.asked.sort_by_key(|asked| (now >= asked.moved + asked.time_slice / 4, asked.since));
        let is_new = |source: &Arc<dyn Source>| {
            self.attempts.get(source.id()).is_none_or(|attempts| attempts.again_at.is_none())
        };
        let has_waiting = self.waiting(sources).is_some_and(|(_, source)| is_new(source));
        let is_full = self.asked.len() >= MAX_ASKED;
        let mut sending = 0;
        let ended = self.asked.extract_if(.., |asked| {
            let is_over = now >= asked.since + asked.time_slice;
            let is_evictable = if asked.bytes == 0 {
                is_full && is_over
            } else {
                sending += 1;
                is_over
                    || asked.is_slow(now)
                    || sending > MAX_SENDING
                    || now >= asked.moved + asked.time_slice / 2
            };
            asked.is_given_up = now >= (asked.moved + PATIENCE).min(asked.since + self.patience);
            asked.is_given_up || is_evictable && (has_waiting || sending > MAX_SENDING)
        });
        for asked in ended {
            asked.abort.abort();
            self.attempts.entry(asked.id).or_default().is_done |= asked.is_given_up;
            // Another in its place.
            self.may_ask += 1;
        }
        if now >= self.next_ask {
            self.next_ask = now + HEAD_START;
            let sending = self.sending_count();
            let (burst, most) = match sending {
                0 => (self.next_burst, MAX_ASKED),
                _ => (1, MAX_SENDING.saturating_sub(sending)),
            };
            self.may_ask = (self.may_ask + burst).min(most);
            self.next_burst = (burst * 2).min(MAX_ASKED);
        }
    }

    /// The waiting source that was asked least often; among equals first the one that sent the blob before.
    fn waiting<'a>(&self, sources: &'a SourceTable) -> Option<(SourceKey, &'a Arc<dyn Source>)> {
        let now = Instant::now();
        let attempts = |source: &Arc<dyn Source>| match self.attempts.get(source.id()) {
            Some(attempts) if !attempts.may_be_asked(now) => None,
            attempts => Some(attempts.map_or(0, |attempts| attempts.count)),
        };
        let is_asked = |key| self.asked.iter().any(|asked| asked.key == key);
        let waiting = sources.up().filter(|(key, _)| !is_asked(*key));
        let waiting = waiting.filter_map(|(key, source)| Some((attempts(source)?, key, source)));
        let rank =
            |(attempts, key, _): &(u32, SourceKey, _)| (*attempts, sources.has_given != Some(*key), key.0);
        waiting.min_by_key(rank).map(|(_, key, source)| (key, source))
    }

    /// How many have sent a part.
    fn sending_count(&self) -> usize {
        self.asked.iter().filter(|asked| asked.bytes > 0).count()
    }

    /// The source to ask now.
    fn next<'a>(&self, sources: &'a SourceTable) -> Option<(SourceKey, &'a Arc<dyn Source>)> {
        let has_capacity = self.sending_count() < MAX_SENDING && self.asked.len() < MAX_ASKED;
        let may_ask = has_capacity && (self.may_ask > 0 || self.asked.is_empty());
        self.waiting(sources).filter(|_| may_ask)
    }

    fn asked(&mut self, key: SourceKey, source: &Arc<dyn Source>, abort: AbortHandle, now: Instant) {
        self.may_ask = self.may_ask.saturating_sub(1);
        let id = source.id().clone();
        let attempts = self.attempts.entry(id.clone()).or_default();
        let time_slice = FIRST_SLICE.saturating_mul(1 << attempts.count.min(6)).min(MAX_SLICE);
        attempts.count += 1;
        let before_bytes = source.received_bytes();
        self.asked.push(Asked {
            key,
            id,
            since: now,
            time_slice,
            is_given_up: false,
            is_repeated: attempts.again_at.is_some(),
            before_bytes,
            bytes: 0,
            began: None,
            moved: now,
            abort,
        });
    }

    fn answered(&mut self, key: SourceKey) {
        for asked in self.asked.extract_if(.., |asked| asked.key == key) {
            self.attempts.entry(asked.id).or_default().is_done = true;
        }
    }

    /// Asks a source again after a while.
    fn repeat(&mut self, id: &SourceId, now: Instant) {
        let attempts = self.attempts.entry(id.clone()).or_default();
        let pause = FIRST_PAUSE.saturating_mul(1 << attempts.count.saturating_sub(1).min(6)).min(MAX_PAUSE);
        attempts.again_at = Some(now + pause);
    }

    /// When one that is not asked now may be asked again.
    fn next_repeat(&self) -> Option<Instant> {
        self.attempts.values().filter_map(|attempts| attempts.again_at).min()
    }

    /// A source has reconnected: it may have the blob now, and its earlier request is lost.
    fn on_up(&mut self, id: &SourceId) {
        self.asked.extract_if(.., |asked| asked.id == *id).for_each(|asked| asked.abort.abort());
        self.attempts.remove(id);
    }
}

/// A source's answer.
enum Answer {
    Right(Vec<u8>),
    Wrong { bytes: u64 },
}

async fn ask(
    key: SourceKey,
    source: Arc<dyn Source>,
    wanted: Wanted,
) -> (SourceKey, Result<Answer, SourceError>) {
    let bytes = match source.read_blob(wanted.blob, wanted.max_bytes).await {
        Ok(bytes) => bytes,
        Err(error) => return (key, Err(error)),
    };
    let check = move || match Digest::of(&bytes) == wanted.blob {
        true => Answer::Right(bytes),
        false => Answer::Wrong { bytes: bytes.len() as u64 },
    };
    (key, blocking(check).await.map_err(|error| SourceError::Lost(Box::new(error))))
}

/// A source sent bytes of another digest.
fn blame(key: SourceKey, bytes: u64, sources: &mut SourceTable, observer: &dyn Observer) {
    if let Some(source) = sources.get(key) {
        observer.on_event(&Event::WrongBytes { shard: None, source: source.id(), bytes });
    }
    if let Some(report) = sources.report_mut(key) {
        report.bad_bytes += bytes;
        report.last_error = Some("sent bytes of another digest".into());
    }
}
