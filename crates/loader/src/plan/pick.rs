//! Whom to ask for what next.

use std::time::{Duration, Instant};

use manifest::{Cell, Codec, PieceId};

use super::pieces::PieceState;
use super::{PlanAction, Planner, Request, RequestId, SourceKey};

/// A piece is asked of a second source only when that gains more than this.
const HEDGE_GAIN: Duration = Duration::from_millis(50);
/// Sources that a piece may be asked of at once.
const MAX_ASKED: usize = 2;

impl Planner {
    pub(super) fn next_request(&mut self, now: Instant) -> Option<PlanAction> {
        let piece_bytes = u64::from(self.geometry().manifest().piece_size_bytes());
        let owed: u64 = self.sources.values().map(|source| source.owed_in_memory(piece_bytes)).sum();
        if owed + piece_bytes > self.config.max_in_flight_bytes {
            return None;
        }
        let unproven: u64 = self
            .sources
            .values()
            .filter(|source| !source.is_proven())
            .map(|source| source.owed_in_memory(piece_bytes))
            .sum();
        let room_for_unproven =
            unproven == 0 || unproven + piece_bytes <= self.config.max_in_flight_bytes / 4;
        let may_ask = |key: &SourceKey| {
            let source = &self.sources[key];
            source.is_live(now)
                && source.has_room(piece_bytes)
                && (source.is_proven() || room_for_unproven)
        };
        let mut keys: Vec<SourceKey> = self.sources.keys().copied().filter(may_ask).collect();
        let split = keys.partition_point(|key| key.0 < self.turn);
        keys.rotate_left(split);
        for key in keys {
            let Some((shard, pieces)) = self.pick(key, now) else { continue };
            self.turn = key.0 + 1;
            return Some(self.ask(key, shard, pieces, now));
        }
        None
    }

    fn pick(&mut self, key: SourceKey, now: Instant) -> Option<(u32, std::ops::Range<u32>)> {
        let piece = self
            .pick_data(key, now)
            .or_else(|| self.pick_parity(key, now, false))
            .or_else(|| self.pick_late(key, now))
            .or_else(|| self.pick_parity(key, now, true))?;
        let pieces = if self.sources[&key].ranges {
            piece.piece..piece.piece + 1
        } else {
            0..self.geometry().manifest().piece_count(piece.shard)
        };
        Some((piece.shard, pieces))
    }

    fn ask(&mut self, key: SourceKey, shard: u32, pieces: std::ops::Range<u32>, now: Instant) -> PlanAction {
        let request = RequestId(self.next_request);
        self.next_request += 1;
        let mut bytes = 0;
        for piece in pieces.clone() {
            let piece = PieceId { shard, piece };
            bytes += self.geometry().piece_bytes(piece);
            if self.pieces.is_missing(piece) {
                let flat = self.geometry().flat(piece);
                self.asked.entry(flat).or_default().push(request);
            }
        }
        if let Some(source) = self.sources.get_mut(&key) {
            source.asked(request, bytes, now);
        }
        let asked = Request { source: key, shard, pieces: pieces.clone(), issued: now, stalled: false };
        self.requests.insert(request, asked);
        PlanAction::Request { request, source: key, shard, pieces }
    }

    /// A data piece nobody was asked for: of the shard that the fewest hold, front first, so that columns complete.
    fn pick_data(&mut self, key: SourceKey, now: Instant) -> Option<PieceId> {
        let mut best: Option<(usize, PieceId)> = None;
        let shards: Vec<u32> = self.pieces.needed_shards().collect();
        for shard in shards {
            if self.pieces.is_closed(shard) || !self.may_ask(key, shard, now) {
                continue;
            }
            let Some(piece) = self.next_open(key, shard) else { continue };
            let holders = self.sources.values().filter(|source| source.may_hold(shard, now)).count();
            let better = |(fewest, first): &(usize, PieceId)| {
                (holders, piece.piece, piece.shard) < (*fewest, first.piece, first.shard)
            };
            if best.as_ref().is_none_or(better) {
                best = Some((holders, piece));
            }
        }
        best.map(|(_, piece)| piece)
    }

    fn may_ask(&self, key: SourceKey, shard: u32, now: Instant) -> bool {
        if !self.sources[&key].may_hold(shard, now) {
            return false;
        }
        if !self.pieces.is_solo(shard) {
            return true;
        }
        let asked: Vec<SourceKey> =
            self.requests.values().filter(|r| r.shard == shard).map(|r| r.source).collect();
        self.pieces.may_join(shard, key, &asked)
    }

    /// The first piece of `shard` that is missing, not asked of anybody, and held by `key`.
    fn next_open(&mut self, key: SourceKey, shard: u32) -> Option<PieceId> {
        let count = self.geometry().manifest().piece_count(shard);
        let mut all_closed = true;
        for piece in self.pieces.first_open(shard)..count {
            let id = PieceId { shard, piece };
            let open = self.pieces.is_missing(id) && !self.is_asked(id);
            if open && self.sources[&key].holds(shard, piece) {
                return Some(id);
            }
            all_closed &= !open;
            if all_closed {
                self.pieces.close_until(shard, piece + 1);
            }
        }
        None
    }

    fn is_asked(&self, piece: PieceId) -> bool {
        self.asked.contains_key(&self.geometry().flat(piece))
    }

    /// Rule 1: a parity piece, in the first column in which a data piece has no live holder, or, when `late`, in which
    /// a data piece is asked of a source that is late.
    fn pick_parity(&mut self, key: SourceKey, now: Instant, late: bool) -> Option<PieceId> {
        let manifest = self.geometry().manifest().clone();
        if self.connecting && now < self.started + self.config.grace {
            return None;
        }
        let parity_shards = manifest.data_shard_count()..manifest.data_shard_count() + manifest.parity();
        let mine: Vec<u32> = parity_shards.filter(|shard| self.may_ask(key, *shard, now)).collect();
        if mine.is_empty() || (!late && !self.some_shard_is_lost(now)) {
            return None;
        }
        let column_bytes = u64::from(manifest.piece_size_bytes());
        let first = if late { 0 } else { self.parity_cursor };
        let mut stripe = self.geometry().stripe_at(u64::from(first) * column_bytes);
        let mut all_served = !late;
        while stripe < self.geometry().stripe_count() {
            let wanted = self.parity_wanted(stripe, key, now, late);
            let here = |piece: &PieceId| {
                mine.contains(&piece.shard) && self.sources[&key].holds(piece.shard, piece.piece)
            };
            if let Some(piece) = wanted.iter().copied().find(here) {
                return Some(piece);
            }
            all_served &= wanted.is_empty();
            stripe += 1;
            if all_served && stripe < self.geometry().stripe_count() {
                let offset = self.geometry().stripe(stripe).start;
                #[expect(clippy::cast_possible_truncation, reason = "a shard has at most 2^24 pieces")]
                if offset % column_bytes == 0 {
                    self.parity_cursor = (offset / column_bytes) as u32;
                }
            }
        }
        if all_served {
            self.parity_cursor = manifest.piece_count(manifest.data_shard_count());
        }
        None
    }

    /// Whether some data shard has missing pieces that nobody can be asked for.
    fn some_shard_is_lost(&self, now: Instant) -> bool {
        let lost = |shard| {
            self.pieces.has_missing(shard)
                && !self
                    .sources
                    .values()
                    .any(|source| source.may_hold(shard, now) && source.holds_all(shard))
        };
        self.pieces.needed_shards().any(lost)
    }

    /// The parity pieces of a stripe that would help: none when nothing is lost in it, or when all of them together
    /// would not be enough.
    fn parity_wanted(&self, stripe: usize, key: SourceKey, now: Instant, late: bool) -> Vec<PieceId> {
        let manifest = self.geometry().manifest();
        let data = manifest.data() as usize;
        let cells: Vec<Cell> = self.geometry().cells(stripe).collect();
        let (data_cells, parity_cells) = cells.split_at(data);
        let lost: Vec<usize> =
            (0..data).filter(|row| self.is_lost(data_cells[*row], key, now, late)).collect();
        if lost.is_empty() {
            return Vec::new();
        }
        let (mut coming, mut open) = (Vec::new(), Vec::new());
        for (index, cell) in parity_cells.iter().enumerate() {
            let Cell::Piece { piece, .. } = cell else { continue };
            if self.pieces.state(*piece) != PieceState::Missing || self.is_asked(*piece) {
                coming.push(index);
            } else if self.has_live_holder(*piece, now) {
                open.push((index, *piece));
            }
        }
        match manifest.codec() {
            Codec::Rs if coming.len() >= lost.len() || coming.len() + open.len() < lost.len() => Vec::new(),
            Codec::Rs => open.into_iter().map(|(_, piece)| piece).collect(),
            Codec::Replica => {
                let unserved = |row: &usize| !coming.iter().any(|index| index % data == *row);
                let rows: Vec<usize> = lost.into_iter().filter(unserved).collect();
                let helps = |(index, _): &(usize, PieceId)| rows.contains(&(index % data));
                open.into_iter().filter(helps).map(|(_, piece)| piece).collect()
            }
        }
    }

    fn is_lost(&self, cell: Cell, key: SourceKey, now: Instant, late: bool) -> bool {
        let Cell::Piece { piece, .. } = cell else { return false };
        if !self.pieces.is_missing(piece) {
            return false;
        }
        if self.is_asked(piece) { late && self.is_late(piece, key, now) } else { !self.has_live_holder(piece, now) }
    }

    fn has_live_holder(&self, piece: PieceId, now: Instant) -> bool {
        let holds = |(key, source): (&SourceKey, &super::Source)| {
            source.may_hold(piece.shard, now)
                && source.holds(piece.shard, piece.piece)
                && (!self.pieces.is_solo(piece.shard) || self.may_ask(*key, piece.shard, now))
        };
        self.sources.iter().any(holds)
    }

    /// Rule 3, end game: a piece asked of a source that will take clearly longer than `key` would.
    fn pick_late(&mut self, key: SourceKey, now: Instant) -> Option<PieceId> {
        let mut latest: Option<(Duration, PieceId)> = None;
        for (id, request) in &self.requests {
            if request.source == key || !self.may_ask(key, request.shard, now) {
                continue;
            }
            // The last missing one of a stream of a whole shard is the one that will take longest.
            let missing = request.pieces.clone().rev().find(|piece| {
                let piece = PieceId { shard: request.shard, piece: *piece };
                self.pieces.is_missing(piece)
                    && self.sources[&key].holds(piece.shard, piece.piece)
                    && self.asked.get(&self.geometry().flat(piece)).is_none_or(|ids| ids.len() < MAX_ASKED)
            });
            let Some(piece) = missing else { continue };
            let piece = PieceId { shard: request.shard, piece };
            let wait = self.sources[&request.source].expected_wait(*id, now);
            if self.gains(key, piece, wait) && latest.as_ref().is_none_or(|(longest, _)| wait > *longest) {
                latest = Some((wait, piece));
            }
        }
        latest.map(|(_, piece)| piece)
    }

    fn is_late(&self, piece: PieceId, key: SourceKey, now: Instant) -> bool {
        let Some(ids) = self.asked.get(&self.geometry().flat(piece)) else { return false };
        let wait = |id: &RequestId| {
            let request = &self.requests[id];
            self.sources[&request.source].expected_wait(*id, now)
        };
        ids.iter().map(wait).min().is_some_and(|wait| self.gains(key, piece, wait))
    }

    /// Whether `key` would bring a piece much sooner than somebody who takes `wait`.
    fn gains(&self, key: SourceKey, piece: PieceId, wait: Duration) -> bool {
        let source = &self.sources[&key];
        let asked_bytes = if source.ranges {
            self.geometry().piece_bytes(piece)
        } else {
            self.geometry().manifest().shards()[piece.shard as usize].size_bytes
        };
        let bytes = source.owed_bytes() + asked_bytes;
        source.time_for(bytes).is_some_and(|time| wait > 2 * time + HEDGE_GAIN)
    }
}
