//! Blobs that are fetched into memory: the manifest and the piece index.
//!
//! Only the whole of one can be verified, so that a liar, and whoever sends a byte now and then, cannot be told from an
//! honest source before that. Several are asked at once, for the whole each, and none for long while others wait.

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

/// SourceTable that may have sent a part: as much memory as so many blobs is used.
const PLACES: usize = 4;
/// SourceTable that may be asked in all, those that have sent nothing yet included.
const MAX_ASKED: usize = 64;
/// How long those that are asked have before more are: one more, or twice as many each time while nobody sends.
const HEAD_START: Duration = Duration::from_millis(500);
/// How long a source may send while others wait to be asked; twice as long each time it is asked again.
const FIRST_TURN: Duration = Duration::from_secs(1);
const MAX_TURN: Duration = Duration::from_secs(64);
/// How long one source has in all when nobody waits: this, and what the blob takes at so many bytes a second.
const PATIENCE: Duration = Duration::from_secs(20);
const MIN_BYTES_PER_S: u64 = 64 << 10;
/// How often it is looked who sends.
const LOOK_EVERY: Duration = Duration::from_millis(50);

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
        if !queue.asked.is_empty() || sources.connecting {
            idle_since = now;
        }
        let give_up = idle_since + wanted.wait;
        if queue.asked.is_empty() && !sources.connecting && now >= give_up {
            return Found::Nowhere { too_large };
        }
        // A first connection that never ends is bounded by the network's own limit.
        let until = if queue.asked.is_empty() { give_up } else { now + LOOK_EVERY };
        tokio::select! {
            event = events.next() => {
                if let SourceEvent::Up(source) = &event {
                    queue.came_up(source.id());
                }
                sources.on_event(event, observer);
            }
            Some(answer) = answers.next() => {
                // One whose turn was ended.
                let Ok((key, result)) = answer else { continue };
                queue.answered(key);
                match result {
                    Ok(Answer::Right(bytes)) => {
                        sources.has_given = Some(key);
                        return Found::Blob(bytes);
                    }
                    Ok(Answer::Wrong { bytes }) => blame(key, bytes, sources, observer),
                    Err(error) => {
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

/// Who is asked, and who is next.
struct Queue {
    /// How long a source has when nobody waits.
    patience: Duration,
    /// How often each source was asked. Whoever was and is not being asked had its turn, or has answered.
    turns: HashMap<SourceId, Turns>,
    asked: Vec<Asked>,
    /// How many more may be asked now, and from when on how many.
    may_ask: usize,
    next_ask: Instant,
    next_burst: usize,
}

#[derive(Default)]
struct Turns {
    count: u32,
    is_done: bool,
}

struct Asked {
    key: SourceKey,
    id: SourceId,
    since: Instant,
    turn: Duration,
    /// It had more time than anybody needs.
    is_given_up: bool,
    before_bytes: u64,
    /// What it has sent, and when it did last.
    bytes: u64,
    moved: Instant,
    abort: AbortHandle,
}

impl Queue {
    fn new(wanted: Wanted) -> Self {
        let patience = PATIENCE + Duration::from_secs(wanted.max_bytes / MIN_BYTES_PER_S);
        let (turns, asked) = (HashMap::new(), Vec::new());
        Self { patience, turns, asked, may_ask: 0, next_ask: Instant::now(), next_burst: 1 }
    }

    /// Looks who has sent something, and ends the turns of those that have to make room.
    fn look(&mut self, sources: &SourceTable, now: Instant) {
        for asked in &mut self.asked {
            let Some(source) = sources.get(asked.key) else { continue };
            let bytes = source.received_bytes().saturating_sub(asked.before_bytes);
            if bytes > asked.bytes {
                (asked.bytes, asked.moved) = (bytes, now);
            }
        }
        // Whoever came first keeps its place, but for those that have stopped.
        self.asked.sort_by_key(|asked| (now >= asked.moved + asked.turn / 4, asked.since));
        let someone_waits = self.waiting(sources).is_some();
        let is_full = self.asked.len() >= MAX_ASKED;
        let mut places = 0;
        let ended = self.asked.extract_if(.., |asked| {
            let is_over = now >= asked.since + asked.turn;
            let makes_room = if asked.bytes == 0 {
                is_full && is_over
            } else {
                places += 1;
                is_over || places > PLACES || now >= asked.moved + asked.turn / 2
            };
            asked.is_given_up = now >= (asked.moved + PATIENCE).min(asked.since + self.patience);
            asked.is_given_up || makes_room && (someone_waits || places > PLACES)
        });
        for asked in ended {
            asked.abort.abort();
            self.turns.entry(asked.id).or_default().is_done |= asked.is_given_up;
            // Another in its place.
            self.may_ask += 1;
        }
        if now >= self.next_ask {
            self.next_ask = now + HEAD_START;
            let places = self.places();
            let (burst, most) = match places {
                0 => (self.next_burst, MAX_ASKED),
                _ => (1, PLACES.saturating_sub(places)),
            };
            self.may_ask = (self.may_ask + burst).min(most);
            self.next_burst = (burst * 2).min(MAX_ASKED);
        }
    }

    /// The source that waits to be asked and was asked least often; of those, first the one that gave the blob before.
    fn waiting<'a>(&self, sources: &'a SourceTable) -> Option<(SourceKey, &'a Arc<dyn Source>)> {
        let turns = |source: &Arc<dyn Source>| match self.turns.get(source.id()) {
            Some(turns) if turns.is_done => None,
            turns => Some(turns.map_or(0, |turns| turns.count)),
        };
        let is_asked = |key| self.asked.iter().any(|asked| asked.key == key);
        let waiting = sources.up().filter(|(key, _)| !is_asked(*key));
        let waiting = waiting.filter_map(|(key, source)| Some((turns(source)?, key, source)));
        let rank = |(turns, key, _): &(u32, SourceKey, _)| (*turns, sources.has_given != Some(*key), key.0);
        waiting.min_by_key(rank).map(|(_, key, source)| (key, source))
    }

    /// How many have sent a part.
    fn places(&self) -> usize {
        self.asked.iter().filter(|asked| asked.bytes > 0).count()
    }

    /// Whom to ask now.
    fn next<'a>(&self, sources: &'a SourceTable) -> Option<(SourceKey, &'a Arc<dyn Source>)> {
        let has_room = self.places() < PLACES && self.asked.len() < MAX_ASKED;
        let may_ask = has_room && (self.may_ask > 0 || self.asked.is_empty());
        self.waiting(sources).filter(|_| may_ask)
    }

    fn asked(&mut self, key: SourceKey, source: &Arc<dyn Source>, abort: AbortHandle, now: Instant) {
        self.may_ask = self.may_ask.saturating_sub(1);
        let id = source.id().clone();
        let turns = self.turns.entry(id.clone()).or_default();
        let turn = FIRST_TURN.saturating_mul(1 << turns.count.min(6)).min(MAX_TURN);
        turns.count += 1;
        let before_bytes = source.received_bytes();
        self.asked.push(Asked {
            key,
            id,
            since: now,
            turn,
            is_given_up: false,
            before_bytes,
            bytes: 0,
            moved: now,
            abort,
        });
    }

    fn answered(&mut self, key: SourceKey) {
        for asked in self.asked.extract_if(.., |asked| asked.key == key) {
            self.turns.entry(asked.id).or_default().is_done = true;
        }
    }

    /// It may have the blob now, and whatever it was asked before is lost.
    fn came_up(&mut self, id: &SourceId) {
        self.asked.extract_if(.., |asked| asked.id == *id).for_each(|asked| asked.abort.abort());
        self.turns.remove(id);
    }
}

/// What a source has sent.
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
