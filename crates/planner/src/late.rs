//! Rule 3, late pieces: who is asked for one instead, or besides, or for parity in its place.

use std::time::{Duration, Instant};

use manifest::PieceId;

use super::roster::Room;
use super::{MIN_HEDGE_INTERVAL, Planner, RequestId, SourceKey, Why};

/// How often late pieces are looked for at least; [`MIN_HEDGE_INTERVAL`] is at most.
const MAX_HEDGE_INTERVAL: Duration = Duration::from_millis(250);
const HEDGE_INTERVALS_IN_WAIT: u32 = 8;
/// A piece is asked of a second source only when that gains more than this.
const HEDGE_GAIN: Duration = Duration::from_millis(50);
/// Parity is asked for in place of a late piece only when that gains more than this: what is merely next in a
/// window is not late.
const PARITY_GAIN: Duration = Duration::from_millis(500);
/// Sources that a piece may be asked of at once.
const MAX_ASKED: usize = 2;

/// A piece that will take long, if it comes from whom it was asked of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Late {
    wait: Duration,
    piece: PieceId,
    source: SourceKey,
    /// Its source is overdue: nothing more is to be expected of it.
    is_overdue: bool,
    /// It can be asked of another source instead, and nothing is lost that would have come soon.
    can_move: bool,
}

impl Planner {
    /// A late piece that somebody who has room would bring much sooner, or parity in its place.
    pub(super) fn next_late(&mut self, room: Room, now: Instant) -> Option<(SourceKey, PieceId, Why)> {
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
            self.sources.has_room(*key, room)
                && (source.is_proven() || room.for_unproven && !source.is_overdue())
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

    /// What is asked of one source alone and not about to arrive, latest first.
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

    /// A late piece that `key` would bring much sooner; or, where `key` does not have it, parity in its place. One that has
    /// not proven itself may be asked for what is overdue.
    fn pick_late(&self, key: SourceKey, late: &[Late], now: Instant) -> Option<(PieceId, Why)> {
        let source = &self.sources[&key];
        let soonest = source.time_for(source.owed_bytes());
        // It is not taken from somebody for one that may not have it.
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

    /// Whether any data piece is missing that nobody is asked for.
    fn is_any_open(&self) -> bool {
        let (missing, asked) = (self.pieces.missing_places(), self.requests.asked_places());
        missing.words().iter().zip(asked.words()).any(|(missing, asked)| missing & !asked != 0)
    }

    /// Whether a piece is asked of as many sources as may be.
    pub(super) fn is_taken(&self, piece: PieceId) -> bool {
        self.requests.asked(piece).len() >= MAX_ASKED
    }

    /// Whether a piece is asked of a source that will take clearly longer than `key` would take for parity.
    pub(super) fn is_late(&self, piece: PieceId, key: SourceKey, now: Instant) -> bool {
        let wait = |id: &RequestId| {
            let source = self.requests.get(*id)?.source;
            Some(self.sources[&source].expected_wait(*id, now))
        };
        let soonest = self.requests.asked(piece).iter().filter_map(wait).min();
        soonest.is_some_and(|wait| self.is_gain(key, piece, wait, PARITY_GAIN))
    }

    /// Whether `key` would bring a piece, or one like it, much sooner than somebody who takes `wait`.
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
