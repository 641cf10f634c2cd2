//! Asks sources again and again what they hold, so that what others have verified since is seen soon.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::source::SourceError;
use manifest::{Have, HaveChange, PieceId, PieceSet};
use planner::SourceKey;

/// Pause before a source is asked again that has told something new, and the longest one, after doubling it each time
/// that nothing was new.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LAST_PAUSE: Duration = Duration::from_secs(4);
/// Pauses are longer when there are more sources than this, so that not more and more is asked.
const SOURCES_AT_FIRST_PAUSE: usize = 32;
/// SourceTable that are being asked at one time.
const MAX_ASKED: usize = 16;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct HavePoll {
    sources: HashMap<SourceKey, Watched>,
    asked: usize,
    next_turn: u64,
}

#[derive(Debug)]
struct Watched {
    /// Told apart from an earlier time in which the source was up.
    turn: u64,
    /// Of its last answer; 0 before that.
    version: u64,
    known: Known,
    /// Whether the first time that it was asked is over.
    has_been_asked: bool,
    /// None while it is being asked, and when it holds everything.
    next_ask: Option<Instant>,
    pause: Duration,
}

/// What a source holds, as far as it said.
#[derive(Debug, Default)]
enum Known {
    #[default]
    Nothing,
    /// It has answered, and does not say.
    Unknown,
    Pieces(Vec<PieceSet>),
}

/// What a source is to be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ask {
    pub(super) source: SourceKey,
    pub(super) turn: u64,
    pub(super) since: u64,
}

/// What is new of a source.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct News {
    /// It has not said before what it holds.
    pub(super) is_first: bool,
    pub(super) change: Change,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It may hold anything.
    Unknown,
    /// All that it holds.
    Holds(Vec<PieceSet>),
    /// What it has got since it said that.
    Gained(Vec<PieceId>),
}

impl Known {
    /// Takes in an answer. `None`: nothing is new.
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
            // Whoever adds to what it has not told holds that at least.
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
    /// A source is up: it is asked at once.
    pub(super) fn add(&mut self, source: SourceKey, now: Instant) {
        let turn = self.next_turn;
        self.next_turn += 1;
        let next_ask = Some(now);
        let watched = Watched {
            turn,
            version: 0,
            known: Known::default(),
            has_been_asked: false,
            next_ask,
            pause: FIRST_PAUSE,
        };
        self.sources.insert(source, watched);
    }

    /// A source is gone.
    pub(super) fn remove(&mut self, source: SourceKey) {
        self.sources.remove(&source);
    }

    /// Whether a source is up that has not been asked to the end yet.
    pub(super) fn is_expecting(&self) -> bool {
        self.sources.values().any(|source| !source.has_been_asked)
    }

    /// Whom to ask now, if anybody.
    pub(super) fn next(&mut self, now: Instant) -> Option<Ask> {
        if self.asked >= MAX_ASKED {
            return None;
        }
        let due = self.sources.iter_mut().filter(|(_, source)| source.next_ask.is_some_and(|at| at <= now));
        let (key, source) = due.min_by_key(|(key, source)| (source.next_ask, **key))?;
        source.next_ask = None;
        self.asked += 1;
        Some(Ask { source: *key, turn: source.turn, since: source.version })
    }

    /// When somebody is to be asked next.
    pub(super) fn next_wakeup(&self) -> Option<Instant> {
        if self.asked >= MAX_ASKED {
            return None;
        }
        self.sources.values().filter_map(|source| source.next_ask).min()
    }

    /// A source has answered, or failed to; returns what is new. `luck` from 0 to 1 spreads the times of asking again.
    pub(super) fn answered(
        &mut self,
        ask: Ask,
        result: Result<Option<Have>, &SourceError>,
        now: Instant,
        luck: f64,
    ) -> Option<News> {
        self.asked -= 1;
        let crowd = (self.sources.len() / SOURCES_AT_FIRST_PAUSE).max(1);
        let source = self.sources.get_mut(&ask.source).filter(|source| source.turn == ask.turn)?;
        source.has_been_asked = true;
        let news = match result {
            Ok(answer) => {
                let is_first = matches!(source.known, Known::Nothing);
                source.version = answer.as_ref().map_or(0, |answer| answer.version);
                let change = source.known.update(answer.map(|answer| answer.change));
                change.map(|change| News { is_first, change })
            }
            Err(error) => {
                if let SourceError::Busy { retry_after } = error {
                    source.pause = source.pause.max(*retry_after);
                }
                None
            }
        };
        source.pause = if news.is_some() { FIRST_PAUSE } else { (source.pause * 2).min(LAST_PAUSE) };
        let is_done = source.known.is_everything();
        let pause = source.pause * u32::try_from(crowd).unwrap_or(u32::MAX);
        source.next_ask = (!is_done).then(|| now + pause.mul_f64(0.75 + luck / 2.0));
        news
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
        watch: &mut HavePoll,
        ask: Ask,
        result: Result<Option<Have>, &SourceError>,
        now: Instant,
    ) -> Option<News> {
        watch.answered(ask, result, now, 0.5)
    }

    #[test]
    fn a_source_is_asked_for_what_is_new_to_us_and_less_often_when_nothing_is() {
        let (mut watch, mut now) = (HavePoll::default(), Instant::now());
        watch.add(A, now);
        assert!(watch.is_expecting());
        let ask = watch.next(now).unwrap();
        assert_eq!((ask.source, ask.since), (A, 0));
        assert!(watch.next(now).is_none() && watch.next_wakeup().is_none(), "it is being asked");
        let news = answer(&mut watch, ask, Ok(holds(7, 1)), now).unwrap();
        assert_eq!(news, News { is_first: true, change: Change::Holds(pieces(1)) });
        assert!(!watch.is_expecting());

        let mut pauses = Vec::new();
        for _ in 0..5 {
            let at = watch.next_wakeup().unwrap();
            pauses.push((at - now).as_millis());
            now = at;
            let ask = watch.next(now).unwrap();
            assert_eq!(ask.since, 7);
            assert_eq!(answer(&mut watch, ask, Ok(gained(7, 0)), now), None);
        }
        assert_eq!(pauses, [500, 1000, 2000, 4000, 4000]);
        now = watch.next_wakeup().unwrap();
        let ask = watch.next(now).unwrap();
        // One of them is known already.
        let news = answer(&mut watch, ask, Ok(gained(8, 3)), now).unwrap();
        let change = Change::Gained(vec![PieceId { shard: 0, piece: 1 }]);
        assert_eq!(news, News { is_first: false, change });
        assert_eq!(watch.next_wakeup().unwrap() - now, FIRST_PAUSE);
    }

    #[test]
    fn whoever_holds_everything_is_not_asked_again() {
        let (mut watch, now) = (HavePoll::default(), Instant::now());
        watch.add(A, now);
        let ask = watch.next(now).unwrap();
        assert!(answer(&mut watch, ask, Ok(holds(1, 0xFF)), now).is_some());
        assert_eq!(watch.next_wakeup(), None);
    }

    #[test]
    fn whoever_does_not_say_may_hold_anything_and_is_asked_again() {
        let (mut watch, mut now) = (HavePoll::default(), Instant::now());
        watch.add(A, now);
        for expected in [Some((true, Change::Unknown)), None, Some((false, Change::Holds(pieces(1))))] {
            let ask = watch.next(now).unwrap();
            assert_eq!(ask.since, 0);
            let said = match &expected {
                Some((false, _)) => holds(5, 1),
                _ => None,
            };
            let news = answer(&mut watch, ask, Ok(said), now);
            assert_eq!(news, expected.map(|(is_first, change)| News { is_first, change }));
            now = watch.next_wakeup().unwrap();
        }
    }

    #[test]
    fn answers_from_before_a_source_was_gone_do_not_count() {
        let (mut watch, now) = (HavePoll::default(), Instant::now());
        watch.add(A, now);
        let old = watch.next(now).unwrap();
        watch.remove(A);
        watch.add(A, now);
        assert_eq!(answer(&mut watch, old, Ok(holds(7, 1)), now), None);
        assert!(watch.is_expecting());
        assert_eq!(watch.next(now).unwrap().since, 0);
    }

    #[test]
    fn a_source_that_fails_is_asked_again_and_others_meanwhile() {
        let (mut watch, now) = (HavePoll::default(), Instant::now());
        watch.add(A, now);
        watch.add(B, now);
        let (a, b) = (watch.next(now).unwrap(), watch.next(now).unwrap());
        assert_eq!((a.source, b.source), (A, B));
        let busy = SourceError::Busy { retry_after: Duration::from_secs(3) };
        assert_eq!(answer(&mut watch, a, Err(&busy), now), None);
        assert_eq!(watch.next_wakeup().unwrap() - now, LAST_PAUSE);
        assert!(watch.is_expecting(), "the other one may hold something");
        assert_eq!(answer(&mut watch, b, Err(&SourceError::NotHeld), now), None);
        assert!(!watch.is_expecting());
        assert_eq!(watch.next(now + LAST_PAUSE).unwrap().source, B);
    }

    #[test]
    fn only_so_many_are_asked_at_once_and_a_crowd_less_often() {
        let (mut watch, now) = (HavePoll::default(), Instant::now());
        for source in 0..100 {
            watch.add(SourceKey(source), now);
        }
        let asks: Vec<Ask> = std::iter::from_fn(|| watch.next(now)).collect();
        assert_eq!(asks.len(), MAX_ASKED);
        assert_eq!(watch.next_wakeup(), None, "nobody more, for now");
        answer(&mut watch, asks[0], Ok(holds(1, 1)), now);
        assert_eq!(watch.sources[&asks[0].source].next_ask, Some(now + 3 * FIRST_PAUSE));
        assert!(watch.next(now).is_some());
    }
}
