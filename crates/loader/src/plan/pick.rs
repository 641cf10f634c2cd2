//! Whom to ask for what next.

use std::ops::Range;
use std::time::{Duration, Instant};

use manifest::PieceId;

use super::requests::Request;
use super::{HEDGE_INTERVAL, PlanAction, Planner, RequestId, SourceKey};

/// A piece is asked of a second source only when that gains more than this.
const HEDGE_GAIN: Duration = Duration::from_millis(50);
/// Parity is asked for in place of a late piece only when that gains more than this: what is merely next in a
/// window is not late.
const PARITY_GAIN: Duration = Duration::from_millis(500);
/// Sources that a piece may be asked of at once.
const MAX_ASKED: usize = 2;

impl Planner {
    /// The next request, to a source that has room for one, or `None`.
    pub(super) fn next_request(&mut self, now: Instant) -> Option<PlanAction> {
        let piece_bytes = u64::from(self.geometry().manifest().piece_size_bytes());
        let owed: u64 = self.sources.values().map(|source| source.owed_in_memory(piece_bytes)).sum();
        let in_memory = owed + self.pieces.arrived_count() as u64 * piece_bytes;
        if in_memory + piece_bytes > self.config.max_in_flight_bytes {
            return None;
        }
        let unproven: u64 = self
            .sources
            .values()
            .filter(|source| !source.is_proven() && !source.is_stalled())
            .map(|source| source.owed_in_memory(piece_bytes))
            .sum();
        let has_room_for_unproven =
            unproven == 0 || unproven + piece_bytes <= self.config.max_in_flight_bytes / 4;
        let may_ask = |key: &SourceKey| {
            let source = &self.sources[key];
            source.is_live() && source.has_room(piece_bytes) && (source.is_proven() || has_room_for_unproven)
        };
        let mut keys: Vec<SourceKey> = self.sources.keys().copied().filter(may_ask).collect();
        let split = keys.partition_point(|key| key.0 < self.turn);
        keys.rotate_left(split);
        let hedge = now >= self.next_hedge;
        for key in keys {
            let piece = self
                .pick_needed(key, now)
                .or_else(|| if hedge { self.pick_late(key, now) } else { None })
                .or_else(|| self.pick_second_opinion(key));
            if let Some(piece) = piece {
                self.turn = key.0 + 1;
                return Some(self.ask(key, piece, now));
            }
        }
        if hedge {
            self.next_hedge = now + HEDGE_INTERVAL;
        }
        None
    }

    /// Asks for a piece: where only whole shards are served, for all pieces of its shard.
    fn ask(&mut self, key: SourceKey, piece: PieceId, now: Instant) -> PlanAction {
        let shard = piece.shard;
        let pieces = self.pieces_of_request(key, piece);
        let bytes = pieces.clone().map(|piece| self.geometry().piece_bytes(PieceId { shard, piece })).sum();
        let retry = self.sources[&key].is_doubtful(shard);
        let request =
            Request { source: key, shard, pieces: pieces.clone(), issued: now, stalled: false, retry };
        let request = self.requests.add(request, |piece| self.pieces.is_missing(piece));
        if let Some(source) = self.sources.get_mut(&key) {
            source.asked(request, bytes, now);
        }
        PlanAction::Request { request, source: key, shard, pieces }
    }

    fn pieces_of_request(&self, key: SourceKey, piece: PieceId) -> Range<u32> {
        if self.sources[&key].ranges {
            piece.piece..piece.piece + 1
        } else {
            0..self.geometry().manifest().piece_count(piece.shard)
        }
    }

    /// A data piece; or parity, where there is no such piece, or all that a column lacks is parity: then the column is
    /// rebuilt, and its parity leaves the memory, before further ones begin.
    fn pick_needed(&mut self, key: SourceKey, now: Instant) -> Option<PieceId> {
        let data = self.pick_data(key);
        match self.pick_parity(key, now) {
            Some(parity) if data.is_none() || self.completes(parity) => Some(parity),
            _ => data,
        }
    }

    /// A data piece nobody was asked for: of the shard that the fewest hold, front first, so that columns complete; but
    /// one shard after the other where they are checked as a whole, so that a lie shows early.
    fn pick_data(&mut self, key: SourceKey) -> Option<PieceId> {
        let mut best: Option<(u32, u32, u32, u32)> = None;
        for at in 0..self.pieces.needed_shards().len() {
            let shard = self.pieces.needed_shards()[at];
            let Some(piece) = self.next_open(key, shard) else { continue };
            let column = if self.pieces.is_indexed(shard) { piece } else { 0 };
            let rank = (self.holders[shard as usize].count, column, shard, piece);
            if best.is_none_or(|best| rank < best) && self.may_ask(key, shard) && self.is_worth(key, shard) {
                best = Some(rank);
            }
        }
        best.map(|(_, _, shard, piece)| PieceId { shard, piece })
    }

    /// Whether a source may be asked for some of a shard.
    pub(super) fn may_ask(&self, key: SourceKey, shard: u32) -> bool {
        self.sources[&key].may_hold(shard) && self.may_join(key, shard)
    }

    /// Whether no other source keeps this one from a shard that is to come from one source alone.
    pub(super) fn may_join(&self, key: SourceKey, shard: u32) -> bool {
        !self.pieces.is_solo(shard)
            || self.pieces.whole.may_own(shard, key)
                && self.requests.sources_of(shard).all(|other| other == key)
    }

    /// Whether a piece is asked of as many sources as may be.
    pub(super) fn is_taken(&self, piece: PieceId) -> bool {
        self.requests.asked(piece).len() >= MAX_ASKED
    }

    /// Whether a source should send a shard, if it can only send the whole: others may be at it, or could be.
    pub(super) fn is_worth(&self, key: SourceKey, shard: u32) -> bool {
        let count = self.geometry().manifest().piece_count(shard);
        self.sources[&key].ranges
            || (2 * self.pieces.absent(shard) >= count || !self.holders[shard as usize].ranges_now)
                && !(0..count).any(|piece| self.is_taken(PieceId { shard, piece }))
    }

    /// The first piece of `shard` that is missing, not asked of anybody, and held by `key`.
    pub(super) fn next_open(&mut self, key: SourceKey, shard: u32) -> Option<u32> {
        let count = self.geometry().manifest().piece_count(shard);
        let source = self.sources.get_mut(&key)?;
        let is_open = |at: &u32| {
            let piece = PieceId { shard, piece: *at };
            self.pieces.is_missing(piece) && self.requests.asked(piece).is_empty() && source.holds(piece)
        };
        let found = (source.first_open[shard as usize]..count).find(is_open);
        source.first_open[shard as usize] = found.unwrap_or(count);
        found
    }

    /// Rule 3, end game: a piece that is asked of a source that will take clearly longer than `key` would; or, where
    /// `key` does not have it, parity in its place.
    fn pick_late(&self, key: SourceKey, now: Instant) -> Option<PieceId> {
        let mut late: Vec<(Duration, PieceId)> = Vec::new();
        for (id, request) in self.requests.iter().filter(|(_, request)| request.source != key) {
            let is_open = |piece: &PieceId| {
                let asked = self.requests.asked(*piece);
                asked.contains(&id) && asked.len() < MAX_ASKED && self.pieces.is_missing(*piece)
            };
            // The last missing piece of a stream is the one that will take longest.
            let Some(piece) = request.piece_ids().filter(is_open).last() else { continue };
            let wait = self.sources[&request.source].expected_wait(id, now);
            if self.is_gain(key, piece, wait, HEDGE_GAIN) {
                late.push((wait, piece));
            }
        }
        late.sort_by(|a, b| b.cmp(a));
        let here = |piece: PieceId| {
            let is_here = self.may_ask(key, piece.shard) && self.sources[&key].holds(piece);
            (is_here && self.is_worth(key, piece.shard)).then_some(piece)
        };
        late.iter().find_map(|(_, piece)| here(*piece).or_else(|| self.parity_instead(key, *piece, now)))
    }

    /// A piece of which somebody sent wrong bytes, when all who hold its shard did that: whether another one sends the
    /// same tells liars from a wrong index.
    fn pick_second_opinion(&self, key: SourceKey) -> Option<PieceId> {
        let source = &self.sources[&key];
        let mut wrong = self.pieces.wrong_of_others(key);
        wrong.find(|piece| {
            self.holders[piece.shard as usize].count == 0
                && source.may_answer(piece.shard)
                && source.holds(*piece)
                && self.requests.asked(*piece).is_empty()
        })
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
        time.is_some_and(|time| wait > 2 * time + gain)
    }

    /// Whether a source that stalls now may keep a request: those of stalled sources together hold at most a quarter
    /// of the memory.
    pub(super) fn has_room_for_probe(&self, key: SourceKey) -> bool {
        let piece_bytes = u64::from(self.geometry().manifest().piece_size_bytes());
        let others = self.sources.iter().filter(|(other, source)| **other != key && source.is_stalled());
        let held: u64 = others.map(|(_, source)| source.owed_in_memory(piece_bytes)).sum();
        held + piece_bytes <= self.config.max_in_flight_bytes / 4
    }
}
