//! Polls the sources' piece sets (HAVE), so that newly verified pieces are seen soon.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::source::SourceError;
use manifest::{Have, HaveChange, PieceId, PieceSet};
use planner::SourceKey;

/// Poll interval after an answer with new pieces, and its maximum, after doubling with each answer without.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LAST_PAUSE: Duration = Duration::from_secs(4);
/// With more sources than this intervals are longer, which bounds the rate of requests.
const SOURCES_AT_FIRST_PAUSE: usize = 32;
/// Requests in flight.
const MAX_ASKED: usize = 16;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct HavePoll {
    sources: HashMap<SourceKey, Watched>,
    asked: usize,
    next_epoch: u64,
}

#[derive(Debug)]
struct Watched {
    /// Identifies this connection of the source: answers from an earlier one are dropped.
    epoch: u64,
    /// Version of its last answer; 0 before that.
    version: u64,
    known: Known,
    /// Whether its first request has ended.
    has_been_asked: bool,
    /// `None` while a request is in flight, and when it holds everything.
    next_ask: Option<Instant>,
    pause: Duration,
}

/// The piece sets that a source has announced.
#[derive(Debug, Default)]
enum Known {
    #[default]
    Nothing,
    /// It has answered, but announces none.
    Unknown,
    Pieces(Vec<PieceSet>),
}

/// A HAVE request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ask {
    pub(super) source: SourceKey,
    pub(super) epoch: u64,
    pub(super) since: u64,
}

/// A change of a source's piece sets.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct HaveUpdate {
    /// It is the source's first announcement.
    pub(super) is_first: bool,
    pub(super) change: Change,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It may hold anything.
    Unknown,
    /// All that it holds.
    Holds(Vec<PieceSet>),
    /// Pieces gained since the last announcement.
    Gained(Vec<PieceId>),
}

impl Known {
    /// Applies an answer. `None`: no change.
    fn update(&mut self, change: Option<HaveChange>) -> Option<Change> {
        match (&mut *self, change) {
            (Self::Unknown, None) => None,
            (_, None) => {
                *self = Self::Unknown;
                Some(Change::Unknown)
            }
            (Self::Pieces(known), Some(HaveChange::Gained(gained))) => {
                let mut pieces = Vec::new();
                for (shard, (known, gained)) in (0..).zip(known.iter_mut().zip(&gained)) {
                    let new = gained.iter().filter(|piece| known.insert(*piece));
                    pieces.extend(new.map(|piece| PieceId { shard, piece }));
                }
                (!pieces.is_empty()).then_some(Change::Gained(pieces))
            }
            (Self::Pieces(known), Some(HaveChange::Holds(shards))) if *known == shards => None,
            // A delta without a full announcement before: at least those pieces.
            (_, Some(HaveChange::Holds(shards) | HaveChange::Gained(shards))) => {
                *self = Self::Pieces(shards.clone());
                Some(Change::Holds(shards))
            }
        }
    }

    fn is_everything(&self) -> bool {
        matches!(self, Self::Pieces(shards) if shards.iter().all(PieceSet::is_all))
    }
}

impl HavePoll {
    /// A source has connected: it is polled at once.
    pub(super) fn add(&mut self, source: SourceKey, now: Instant) {
        let epoch = self.next_epoch;
        self.next_epoch += 1;
        let next_ask = Some(now);
        let watched = Watched {
            epoch,
            version: 0,
            known: Known::default(),
            has_been_asked: false,
            next_ask,
            pause: FIRST_PAUSE,
        };
        self.sources.insert(source, watched);
    }

    /// A source has disconnected.
    pub(super) fn remove(&mut self, source: SourceKey) {
        self.sources.remove(&source);
    }

    /// Whether the first request to some source is pending.
    pub(super) fn is_expecting(&self) -> bool {
        self.sources.values().any(|source| !source.has_been_asked)
    }

    /// The next request that is due.
    pub(super) fn next(&mut self, now: Instant) -> Option<Ask> {
        if self.asked >= MAX_ASKED {
            return None;
        }
        let due = self.sources.iter_mut().filter(|(_, source)| source.next_ask.is_some_and(|at| at <= now));
        let (key, source) = due.min_by_key(|(key, source)| (source.next_ask, **key))?;
        source.next_ask = None;
        self.asked += 1;
        Some(Ask { source: *key, epoch: source.epoch, since: source.version })
    }

    /// When the next request is due.
    pub(super) fn next_wakeup(&self) -> Option<Instant> {
        if self.asked >= MAX_ASKED {
            return None;
        }
        self.sources.values().filter_map(|source| source.next_ask).min()
    }

    /// A source has answered, or failed to; returns the change. `luck` from 0 to 1 is jitter of the interval.
    pub(super) fn answered(
        &mut self,
        ask: Ask,
        result: Result<Option<Have>, &SourceError>,
        now: Instant,
        luck: f64,
    ) -> Option<HaveUpdate> {
        self.asked -= 1;
        let slowdown = (self.sources.len() / SOURCES_AT_FIRST_PAUSE).max(1);
        let source = self.sources.get_mut(&ask.source).filter(|source| source.epoch == ask.epoch)?;
        source.has_been_asked = true;
        let update = match result {
            Ok(answer) => {
                let is_first = matches!(source.known, Known::Nothing);
                source.version = answer.as_ref().map_or(0, |answer| answer.version);
                let change = source.known.update(answer.map(|answer| answer.change));
                change.map(|change| HaveUpdate { is_first, change })
            }
            Err(error) => {
                if let SourceError::Busy { retry_after } = error {
                    source.pause = source.pause.max(*retry_after);
                }
                None
            }
        };
        source.pause = if update.is_some() { FIRST_PAUSE } else { (source.pause * 2).min(LAST_PAUSE) };
        let is_done = source.known.is_everything();
        let pause = source.pause * u32::try_from(slowdown).unwrap_or(u32::MAX);
        source.next_ask = (!is_done).then(|| now + pause.mul_f64(0.75 + luck / 2.0));
        update
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: SourceKey = SourceKey(1);
    const B: SourceKey = SourceKey(2);

    fn pieces(bits: u8) -> Vec<PieceSet> {
        vec![PieceSet::from_bits(8, vec![bits])]
    }

    fn holds(version: u64, bits: u8) -> Option<Have> {
        Some(Have { version, change: HaveChange::Holds(pieces(bits)) })
    }

    fn gained(version: u64, bits: u8) -> Option<Have> {
        Some(Have { version, change: HaveChange::Gained(pieces(bits)) })
    }

    /// Answers what is being asked, and returns when the source is asked next.
    fn answer(
        poll: &mut HavePoll,
        ask: Ask,
        result: Result<Option<Have>, &SourceError>,
        now: Instant,
    ) -> Option<HaveUpdate> {
        poll.answered(ask, result, now, 0.5)
    }

    #[test]
    fn a_source_is_asked_for_what_is_new_to_us_and_less_often_when_nothing_is() {
        let (mut poll, mut now) = (HavePoll::default(), Instant::now());
        poll.add(A, now);
        assert!(poll.is_expecting());
        let ask = poll.next(now).unwrap();
        assert_eq!((ask.source, ask.since), (A, 0));
        assert!(poll.next(now).is_none() && poll.next_wakeup().is_none(), "it is being asked");
        let update = answer(&mut poll, ask, Ok(holds(7, 1)), now).unwrap();
        assert_eq!(update, HaveUpdate { is_first: true, change: Change::Holds(pieces(1)) });
        assert!(!poll.is_expecting());

        let mut pauses = Vec::new();
        for _ in 0..5 {
            let at = poll.next_wakeup().unwrap();
            pauses.push((at - now).as_millis());
            now = at;
            let ask = poll.next(now).unwrap();
            assert_eq!(ask.since, 7);
            assert_eq!(answer(&mut poll, ask, Ok(gained(7, 0)), now), None);
        }
        assert_eq!(pauses, [500, 1000, 2000, 4000, 4000]);
        now = poll.next_wakeup().unwrap();
        let ask = poll.next(now).unwrap();
        // One of the two pieces is known already.
        let update = answer(&mut poll, ask, Ok(gained(8, 3)), now).unwrap();
        let change = Change::Gained(vec![PieceId { shard: 0, piece: 1 }]);
        assert_eq!(update, HaveUpdate { is_first: false, change });
        assert_eq!(poll.next_wakeup().unwrap() - now, FIRST_PAUSE);
    }

    #[test]
    fn whoever_holds_everything_is_not_asked_again() {
        let (mut poll, now) = (HavePoll::default(), Instant::now());
        poll.add(A, now);
        let ask = poll.next(now).unwrap();
        assert!(answer(&mut poll, ask, Ok(holds(1, 0xFF)), now).is_some());
        assert_eq!(poll.next_wakeup(), None);
    }

    #[test]
    fn whoever_does_not_say_may_hold_anything_and_is_asked_again() {
        let (mut poll, mut now) = (HavePoll::default(), Instant::now());
        poll.add(A, now);
        for expected in [Some((true, Change::Unknown)), None, Some((false, Change::Holds(pieces(1))))] {
            let ask = poll.next(now).unwrap();
            assert_eq!(ask.since, 0);
            let have = match &expected {
                Some((false, _)) => holds(5, 1),
                _ => None,
            };
            let update = answer(&mut poll, ask, Ok(have), now);
            assert_eq!(update, expected.map(|(is_first, change)| HaveUpdate { is_first, change }));
            now = poll.next_wakeup().unwrap();
        }
    }

    #[test]
    fn answers_from_before_a_source_was_gone_do_not_count() {
        let (mut poll, now) = (HavePoll::default(), Instant::now());
        poll.add(A, now);
        let old = poll.next(now).unwrap();
        poll.remove(A);
        poll.add(A, now);
        assert_eq!(answer(&mut poll, old, Ok(holds(7, 1)), now), None);
        assert!(poll.is_expecting());
        assert_eq!(poll.next(now).unwrap().since, 0);
    }

    #[test]
    fn a_source_that_fails_is_asked_again_and_others_meanwhile() {
        let (mut poll, now) = (HavePoll::default(), Instant::now());
        poll.add(A, now);
        poll.add(B, now);
        let (a, b) = (poll.next(now).unwrap(), poll.next(now).unwrap());
        assert_eq!((a.source, b.source), (A, B));
        let busy = SourceError::Busy { retry_after: Duration::from_secs(3) };
        assert_eq!(answer(&mut poll, a, Err(&busy), now), None);
        assert_eq!(poll.next_wakeup().unwrap() - now, LAST_PAUSE);
        assert!(poll.is_expecting(), "the other one may hold something");
        assert_eq!(answer(&mut poll, b, Err(&SourceError::NotHeld), now), None);
        assert!(!poll.is_expecting());
        assert_eq!(poll.next(now + LAST_PAUSE).unwrap().source, B);
    }

    #[test]
    fn only_so_many_are_asked_at_once_and_a_crowd_less_often() {
        let (mut poll, now) = (HavePoll::default(), Instant::now());
        for source in 0..100 {
            poll.add(SourceKey(source), now);
        }
        let asks: Vec<Ask> = std::iter::from_fn(|| poll.next(now)).collect();
        assert_eq!(asks.len(), MAX_ASKED);
        assert_eq!(poll.next_wakeup(), None, "nobody more, for now");
        answer(&mut poll, asks[0], Ok(holds(1, 1)), now);
        assert_eq!(poll.sources[&asks[0].source].next_ask, Some(now + 3 * FIRST_PAUSE));
        assert!(poll.next(now).is_some());
    }
}
