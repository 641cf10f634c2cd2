//! Rule 3, late pieces: reassigned, asked of a second source, or replaced by parity.

use std::time::{Duration, Instant};

use manifest::PieceId;

use super::roster::Budget;
use super::{MIN_HEDGE_INTERVAL, Planner, RequestId, SourceKey, Why};

/// How often late pieces are looked for at least; [`MIN_HEDGE_INTERVAL`] is at most.
const MAX_HEDGE_INTERVAL: Duration = Duration::from_millis(250);
const HEDGE_INTERVALS_IN_WAIT: u32 = 8;
/// A duplicate request must gain more than this.
const HEDGE_GAIN: Duration = Duration::from_millis(50);
/// Parity in place of a late piece must gain more than this: a piece that is merely next in a window is not late.
const PARITY_GAIN: Duration = Duration::from_millis(500);
/// Sources that a piece may be asked of at once.
const MAX_ASKED: usize = 2;

/// A piece that its source will take long to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Late {
    wait: Duration,
    piece: PieceId,
    source: SourceKey,
    /// Its source is overdue.
    is_overdue: bool,
    /// It can be reassigned: its source has most likely not begun to send it, or is overdue.
    can_move: bool,
}

impl Planner {
    /// A late piece that a source with free capacity would send much sooner, or parity in its place.
    pub(super) fn next_late(&mut self, budget: Budget, now: Instant) -> Option<(SourceKey, PieceId, Why)> {
        if now < self.next_hedge {
            return None;
        }
        let late = self.late(now);
        let longest = late.first().map_or(Duration::ZERO, |late| late.wait);
        if !late.is_empty() {
            self.count_holders();
        }
        let helpers = self.sources.keys().filter(|key| {
            let source = &self.sources[key];
            self.sources.has_capacity(*key, budget)
                && (source.is_proven() || budget.allows_unproven && !source.is_overdue())
        });
        let found = helpers.filter_map(|key| {
            let (piece, why) = self.pick_late(key, &late, now)?;
            Some((key, piece, why))
        });
        let found = { found }.next();
        if found.is_none() {
            let interval = longest / HEDGE_INTERVALS_IN_WAIT;
            self.next_hedge = now + interval.clamp(MIN_HEDGE_INTERVAL, MAX_HEDGE_INTERVAL);
        }
        found
    }

    /// Pieces requested from one source only and not about to arrive, latest first.
    fn late(&self, now: Instant) -> Vec<Late> {
        let mut late = Vec::new();
        for (id, request) in self.requests.iter() {
            let wait = self.sources[&request.source].expected_wait(id, now);
            if wait <= HEDGE_GAIN {
                continue;
            }
            let is_open = |piece: &PieceId| {
                let asked = self.requests.asked(*piece);
                asked.contains(&id)
                    && (asked.len() < MAX_ASKED || self.all_overdue(asked))
                    && self.pieces.is_missing(*piece)
            };
            // The last missing piece of a stream is the one that will take longest.
            let piece = request.piece_ids().filter(is_open).last();
            let source = &self.sources[&request.source];
            let is_overdue = source.is_overdue();
            let has_begun = request.is_stream() || source.may_have_begun(id, request.issued);
            let can_move = is_overdue || !request.moved && !has_begun;
            late.extend(piece.map(|piece| Late {
                wait,
                piece,
                source: request.source,
                is_overdue,
                can_move,
            }));
        }
        late.sort_by(|a, b| b.cmp(a));
        late
    }

    /// A late piece that `key` would send much sooner; or, where `key` does not have it, parity in its place. An unproven
    /// source may be asked for overdue ones only.
    fn pick_late(&self, key: SourceKey, late: &[Late], now: Instant) -> Option<(PieceId, Why)> {
        let source = &self.sources[&key];
        let soonest = source.time_for(source.owed_bytes());
        // Not reassigned to a source that may not have it.
        let moves = |late: &Late| late.can_move && !source.is_doubtful(late.piece.shard);
        let why = |late: &Late| match () {
            () if moves(late) => Why::Moved,
            () if self.is_any_open() => Why::Late,
            () => Why::EndGame,
        };
        let late =
            late.iter().take_while(|late| soonest.is_none_or(|time| is_gain(late.wait, time, HEDGE_GAIN)));
        late.filter(|late| late.source != key).find_map(|late| {
            let is_sooner = match soonest {
                Some(_) => self.is_gain(key, late.piece, late.wait, HEDGE_GAIN),
                None => late.is_overdue,
            };
            if !is_sooner {
                return None;
            }
            let shard = late.piece.shard;
            let may_add = late.is_overdue || self.requests.may_hedge();
            let may_take = moves(late) || may_add && !self.is_taken(late.piece);
            if may_take && self.may_ask(key, shard) && source.holds(late.piece) && self.is_worth(key, shard) {
                return Some((late.piece, why(late)));
            }
            let parity = soonest.and_then(|_| self.parity_instead(key, late.piece, now));
            parity.map(|parity| (parity, Why::Parity))
        })
    }

    fn all_overdue(&self, asked: &[RequestId]) -> bool {
        let requests = asked.iter().filter_map(|id| self.requests.get(*id));
        requests.into_iter().all(|request| self.sources[&request.source].is_overdue())
    }

    /// Whether any missing data piece has no request.
    fn is_any_open(&self) -> bool {
        let (missing, asked) = (self.pieces.missing_positions(), self.requests.asked_positions());
        missing.words().iter().zip(asked.words()).any(|(missing, asked)| missing & !asked != 0)
    }

    /// Whether a piece has as many requests as allowed.
    pub(super) fn is_taken(&self, piece: PieceId) -> bool {
        self.requests.asked(piece).len() >= MAX_ASKED
    }

    /// Whether a piece's source will take clearly longer than `key` would for parity.
    pub(super) fn is_late(&self, piece: PieceId, key: SourceKey, now: Instant) -> bool {
        let wait = |id: &RequestId| {
            let source = self.requests.get(*id)?.source;
            Some(self.sources[&source].expected_wait(*id, now))
        };
        let soonest = self.requests.asked(piece).iter().filter_map(wait).min();
        soonest.is_some_and(|wait| self.is_gain(key, piece, wait, PARITY_GAIN))
    }

    /// Whether `key` would send a piece, or one like it, much sooner than in `wait`.
    fn is_gain(&self, key: SourceKey, piece: PieceId, wait: Duration, gain: Duration) -> bool {
        let source = &self.sources[&key];
        let asked_bytes = if source.ranges {
            self.geometry().piece_bytes(piece)
        } else {
            self.geometry().manifest().shards()[piece.shard as usize].size_bytes
        };
        let time = source.time_for(source.owed_bytes() + asked_bytes);
        time.is_some_and(|time| is_gain(wait, time, gain))
    }
}

fn is_gain(wait: Duration, time: Duration, gain: Duration) -> bool {
    wait > 2 * time + gain
}
