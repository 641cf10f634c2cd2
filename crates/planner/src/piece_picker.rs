//! The piece picker: which piece to request from which source next.

use std::ops::Range;
use std::time::Instant;

use manifest::PieceId;

use super::requests::Request;
use super::source::Source;
use super::trials::Trial;
use super::{PlanAction, Planner, SourceKey, Why};

/// Distrusted sources that are asked at the same time.
/// One of so many requests is for what is wanted soon, while there is any of that; the others go on as if nothing were. Nodes of
/// a crowd that read from the start while they fetch would else all have the same, and wait for their common seeder
/// (`docs/simulation.md`).
const SOON_SHARE: u64 = 2;
const MAX_RISKS: usize = 4;

impl Planner {
    /// The next request, to a source with free capacity, or `None`.
    pub(super) fn next_request(&mut self, now: Instant) -> Option<PlanAction> {
        let budget = self.sources.budget(self.pieces.arrived_count());
        if !budget.allows_any && !self.sources.has_overdue() {
            return None;
        }
        for key in self.sources.ready(SourceKey(self.next_source)) {
            if !self.sources.has_capacity(key, budget) {
                self.sources.unmark_ready(key);
                continue;
            }
            if !budget.allows_any || !self.sources[&key].is_proven() && !budget.allows_unproven {
                if self.evict_overdue(key, !budget.allows_any, now) {
                    return self.actions.pop_front();
                }
                continue;
            }
            if let Some((piece, why)) = self.pick(key, now) {
                if !self.is_worth_the_risk(key, piece) {
                    continue;
                }
                self.next_source = key.0 + 1;
                return Some(self.ask(key, piece, why, now));
            }
            if self.stays_without(key, now) {
                self.sources.unmark_ready(key);
            }
        }
        if !budget.allows_any {
            return None;
        }
        let (key, piece, why) = self.next_late(budget, now)?;
        match why {
            Why::Moved => self.reassign(piece, now),
            Why::Late | Why::EndGame => self.requests.add_hedge(),
            Why::Missing | Why::Parity | Why::Stalled | Why::SecondOpinion => {}
        }
        let ask = self.ask(key, piece, why, now);
        self.actions.push_back(ask);
        self.actions.pop_front()
    }

    /// Rule 5: a source that has sent only wrong bytes is asked only for what no other source can be asked for; and so is,
    /// once much was wasted, one that has never sent right bytes. A few are asked at a time.
    fn is_worth_the_risk(&self, key: SourceKey, piece: PieceId) -> bool {
        let is_frugal = self.pieces.is_frugal();
        let risk = |source: &Source| match source.verified_bytes() {
            _ if source.sent_only_bad() => 2,
            0 if is_frugal => 1,
            _ => 0,
        };
        let own = risk(&self.sources[&key]);
        if own == 0 || self.pieces.trials.is_on(piece.shard) {
            return true;
        }
        let (mut asked, mut is_needed) = (0, true);
        for (_, source) in self.sources.iter() {
            if risk(source) < own {
                is_needed &= !source.is_live_holder(piece.shard) || !source.holds(piece);
            } else {
                asked += usize::from(source.owed_bytes() > 0 && !source.is_stalled());
            }
        }
        is_needed && asked < MAX_RISKS
    }

    /// Requests a piece; of a source that serves only whole shards, all pieces of its shard.
    fn ask(&mut self, key: SourceKey, piece: PieceId, why: Why, now: Instant) -> PlanAction {
        let shard = piece.shard;
        let pieces = self.pieces_of_request(key, piece);
        let bytes = pieces.clone().map(|piece| self.geometry().piece_bytes(PieceId { shard, piece })).sum();
        let retry = self.sources[&key].is_doubtful(shard);
        let request = Request {
            source: key,
            shard,
            pieces: pieces.clone(),
            issued: now,
            stalled: false,
            moved: why == Why::Moved,
            retry,
        };
        let request = self.requests.add(request, |piece| self.pieces.is_missing(piece));
        self.sources.update(key, |source| source.asked(request, bytes, now));
        PlanAction::Request { request, source: key, shard, pieces, why }
    }

    fn pieces_of_request(&self, key: SourceKey, piece: PieceId) -> Range<u32> {
        if self.sources[&key].ranges {
            piece.piece..piece.piece + 1
        } else {
            0..self.geometry().manifest().piece_count(piece.shard)
        }
    }

    /// What to ask a source for.
    pub(super) fn pick(&mut self, key: SourceKey, now: Instant) -> Option<(PieceId, Why)> {
        self.pick_needed(key, now).or_else(|| self.pick_second_opinion(key))
    }

    /// A data piece; or parity, where there is no such piece, or where a column lacks only parity: then it is rebuilt, and
    /// its parity leaves the memory, before further columns begin.
    fn pick_needed(&mut self, key: SourceKey, now: Instant) -> Option<(PieceId, Why)> {
        let data = self.pick_data(key);
        if let Some(parity) = self.pick_parity(key, now)
            && (data.is_none() || self.completes(parity))
        {
            return Some((parity, Why::Parity));
        }
        let data = data?;
        let why = if self.requests.has_stalled(data) { Why::Stalled } else { Why::Missing };
        Some((data, why))
    }

    /// Rule 4, rarest first: of the data pieces that `key` has and that have no request, the one with the fewest holders;
    /// among equals the first in this planner's order. Every other request is for what is wanted soon, where there is such.
    fn pick_data(&mut self, key: SourceKey) -> Option<PieceId> {
        let positions = self.sources[&key].holdings.positions();
        if !self.open.assign(self.pieces.missing_positions(), self.requests.asked_positions(), positions) {
            return None;
        }
        for shard in self.barred(key) {
            for piece in 0..self.geometry().manifest().piece_count(shard) {
                if let Some(position) = self.pieces.order.position(PieceId { shard, piece }) {
                    self.open.remove(position);
                }
            }
        }
        if let Some(soon) = &self.soon
            && self.requests.next_number().is_multiple_of(SOON_SHARE)
        {
            self.open.narrow(soon);
        }
        self.rarity.rarest(&self.open).map(|position| self.pieces.order.piece(position))
    }

    /// The data shards that `key` may not be asked for now.
    fn barred(&mut self, key: SourceKey) -> Vec<u32> {
        let source = &self.sources[&key];
        let is_free = !self.pieces.whole.is_one_source_per_shard() && self.pieces.trials.current().is_none();
        if source.ranges && !source.is_barred() && is_free {
            return Vec::new();
        }
        self.count_holders();
        let is_barred = |shard: &u32| !self.may_ask(key, *shard) || !self.is_worth(key, *shard);
        self.pieces.needed_shards().iter().copied().filter(is_barred).collect()
    }

    /// Whether a source without a piece to ask for stays so until it is marked ready again: what it may be asked for can
    /// also depend on others' requests, and on the time.
    fn stays_without(&self, key: SourceKey, now: Instant) -> bool {
        self.sources[&key].ranges
            && !self.pieces.whole.is_one_source_per_shard()
            && !self.waits_for_sources(now)
    }

    /// Whether a source may be asked for some of a shard.
    pub(super) fn may_ask(&self, key: SourceKey, shard: u32) -> bool {
        self.sources[&key].may_hold(shard) && self.may_join(key, shard)
    }

    /// Whether this source may send a shard that is to come from one source alone.
    pub(super) fn may_join(&self, key: SourceKey, shard: u32) -> bool {
        if let Some(trial) = self.pieces.trials.current()
            && (trial.shard == shard || trial.source == key)
        {
            return trial == Trial { shard, source: key };
        }
        !self.pieces.is_one_source_per_shard(shard)
            || self.pieces.whole.may_own(shard, key)
                && self.requests.sources_of(shard).all(|other| other == key)
    }

    /// Whether a source that serves only whole shards should send this one, rather than sources that serve ranges.
    pub(super) fn is_worth(&self, key: SourceKey, shard: u32) -> bool {
        let count = self.geometry().manifest().piece_count(shard);
        // A shard that is to come from one source alone cannot be shared.
        let is_alone = self.pieces.is_one_source_per_shard(shard) || self.pieces.trials.is_on(shard);
        let may_others = !is_alone && self.holders[shard as usize].ranges_now;
        self.sources[&key].ranges
            || (2 * self.pieces.absent(shard) >= count || !may_others)
                && !(0..count).any(|piece| self.is_taken(PieceId { shard, piece }))
    }

    /// The first piece of `shard` that is missing, has no request, and is held by `key`.
    pub(super) fn next_open(&self, key: SourceKey, shard: u32) -> Option<PieceId> {
        let pieces = 0..self.geometry().manifest().piece_count(shard);
        pieces.map(|piece| PieceId { shard, piece }).find(|piece| {
            self.pieces.is_missing(*piece)
                && self.sources[&key].holds(*piece)
                && self.requests.asked(*piece).is_empty()
        })
    }

    /// A piece of which a source sent wrong bytes, when all holders of its shard sent some: whether another one sends the
    /// same bytes tells liars from a wrong index.
    fn pick_second_opinion(&mut self, key: SourceKey) -> Option<(PieceId, Why)> {
        self.pieces.wrong_of_others(key).next()?;
        self.count_holders();
        let source = &self.sources[&key];
        let mut wrong = self.pieces.wrong_of_others(key);
        // A whole-shard request ends at its first wrong piece: its other pieces prove nothing.
        let may_tell = |shard: u32| source.ranges || !source.is_suspended(shard);
        let piece = wrong.find(|piece| {
            self.holders[piece.shard as usize].count == 0
                && may_tell(piece.shard)
                && source.may_answer(piece.shard)
                && source.holds(*piece)
                && self.requests.asked(*piece).is_empty()
        })?;
        Some((piece, Why::SecondOpinion))
    }
}
