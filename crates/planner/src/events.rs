//! What events do to the plan.

use std::time::Instant;

use manifest::PieceId;

use super::holdings::{Holdings, Tallies};
use super::requests::Request;
use super::source::{MAX_WRONG_AT_FIRST, Source};
use super::whole_shards::Verdict;
use super::{Checked, Failure, PlanAction, PlanEvent, Planner, RequestId, SourceKey};

impl Planner {
    /// Takes in what happened.
    pub fn on_event(&mut self, event: PlanEvent, now: Instant) {
        match event {
            PlanEvent::Up { source, ranges } => {
                self.sources.add(source, now);
                self.sources.update(source, |source| source.come_up(ranges, now));
                self.changed = true;
                self.dismiss_if_useless(source);
            }
            PlanEvent::SentManifest { source } => {
                self.sources.update(source, Source::has_sent_manifest);
            }
            PlanEvent::Holds { source, shards } => {
                self.change_holdings(source, |holdings, tallies| holdings.replace(shards, tallies));
            }
            PlanEvent::Gained { source, pieces } => {
                self.change_holdings(source, |holdings, tallies| holdings.add(&pieces, tallies));
            }
            PlanEvent::Banned { source } => {
                self.sources.add(source, now);
                self.ban(source, Source::ban);
            }
            PlanEvent::Down { source } => self.on_down(source),
            PlanEvent::Progress { source } => self.on_progress(source, now),
            PlanEvent::Checked { piece, source, outcome } => self.on_checked(piece, source, outcome),
            PlanEvent::Rechecked { piece, good } => self.on_rechecked(piece, good),
            PlanEvent::ShardChecked { shard, good, index_agrees } => {
                self.on_shard_checked(shard, good, index_agrees);
            }
            PlanEvent::Ended { request, failure } => self.on_ended(request, failure, now),
            PlanEvent::Connecting { pending } => {
                self.connecting = pending;
                self.changed = true;
            }
        }
    }

    /// All bytes of a piece arrived. Returns whether they are needed: then the driver has them checked and reports
    /// [`PlanEvent::Checked`]; else it drops them, as after a cancel.
    pub fn arrived(&mut self, id: RequestId, piece: PieceId, now: Instant) -> bool {
        let Some(request) = self.requests.get(id) else { return false };
        let (key, is_last) = (request.source, !request.is_stream());
        let bytes = self.pieces.geometry.piece_bytes(piece);
        let wanted = self.pieces.arrived(piece, key);
        self.sources.update(key, |source| {
            source.on_arrived(id, piece.shard, bytes, now);
            if wanted {
                source.checking();
            }
        });
        self.requests.remove_piece(id, piece);
        if is_last {
            self.drop_request(id);
        }
        self.on_progress(key, now);
        wanted
    }

    /// `change` returns whether it only added data pieces: then all cached conclusions hold, except that this source has
    /// nothing to offer.
    fn change_holdings(
        &mut self,
        key: SourceKey,
        change: impl FnOnce(&mut Holdings, &mut Tallies<'_>) -> bool,
    ) {
        let (geometry, order) = (&self.pieces.geometry, &self.pieces.order);
        let mut tallies = Tallies { geometry, order, rarity: &mut self.rarity };
        let is_growth = self.sources.update(key, |source| change(&mut source.holdings, &mut tallies));
        self.holders_are_counted = false;
        self.changed |= is_growth == Some(false);
    }

    fn on_down(&mut self, key: SourceKey) {
        let requests = self.sources.get(key).map(Source::requests).unwrap_or_default();
        self.sources.update(key, Source::go_down);
        self.change_holdings(key, |holdings, tallies| {
            holdings.forget(tallies);
            false
        });
        for request in requests {
            self.drop_request(request);
        }
    }

    fn on_progress(&mut self, key: SourceKey, now: Instant) {
        let progress = self.sources.update(key, |source| (source.on_progress(now), source.requests()));
        let Some((had_been_late, requests)) = progress else { return };
        self.holders_are_counted &= !had_been_late;
        self.changed |= had_been_late && self.pieces.whole.is_one_source_per_shard();
        for id in requests {
            let Some(request) = self.requests.get_mut(id) else { continue };
            request.retry = false;
            if std::mem::take(&mut request.stalled) {
                self.resume_request(id);
            }
        }
    }

    /// A stalled source sends again: its request counts again, unless others were asked instead.
    fn resume_request(&mut self, id: RequestId) {
        let Some(request) = self.requests.get(id) else { return };
        let mut missing: Vec<PieceId> = request.piece_ids().collect();
        missing.retain(|piece| self.pieces.is_missing(*piece));
        let is_taken = !request.is_stream() && missing.iter().any(|piece| self.is_taken(*piece));
        if missing.is_empty() || is_taken || !self.may_join(request.source, request.shard) {
            self.cancel(id);
            return;
        }
        missing.into_iter().for_each(|piece| self.requests.add_piece(id, piece));
    }

    fn on_ended(&mut self, id: RequestId, failure: Option<Failure>, now: Instant) {
        let Some(request) = self.drop_request(id) else { return };
        let Some(failure) = failure else { return };
        self.holders_are_counted = false;
        self.changed |= self.pieces.whole.is_one_source_per_shard();
        self.sources.mark_parity_ready();
        let ttl = self.config.refusal_ttl;
        self.sources.update(request.source, |source| source.on_failure(request.shard, failure, ttl, now));
        if failure == Failure::Misbehaved {
            self.ban(request.source, Source::ban);
        }
    }

    fn on_checked(&mut self, piece: PieceId, source: Option<SourceKey>, outcome: Checked) {
        match source {
            Some(key) => {
                self.sources.update(key, Source::checked);
            }
            None => self.pieces.rebuilt(piece),
        }
        let is_indexed = self.pieces.is_indexed(piece.shard);
        match (outcome, source) {
            (Checked::Bad { .. }, None) => self.on_bad_rebuild(piece),
            (Checked::Bad { fingerprint }, Some(source)) if is_indexed => {
                self.on_bad(piece, source, fingerprint)
            }
            // Checked against an index that has become suspect since.
            (Checked::Bad { .. }, Some(_)) => {
                self.pieces.drop_bad(piece);
                self.reopen(piece);
            }
            (Checked::Stored, _) if self.pieces.is_left_of_trial(piece, source) => {
                self.pieces.drop_bad(piece);
                self.reopen(piece);
            }
            (Checked::Good, _) if is_indexed => {
                for liar in self.pieces.proven(piece, source) {
                    self.ban(liar, Source::convict);
                }
                let bytes = self.pieces.geometry.piece_bytes(piece);
                source.map(|key| self.sources.update(key, |source| source.verified(bytes)));
                self.on_written(piece, source);
            }
            // Also what was checked against an index that has become suspect since: only the whole shard will tell.
            (Checked::Good | Checked::Stored, _) => {
                self.pieces.stored(piece, source);
                self.changed |= self.pieces.is_one_source_per_shard(piece.shard);
                self.on_written(piece, source);
            }
        }
    }

    /// A rebuilt piece is wrong: so is one of its inputs, on disk or as published.
    fn on_bad_rebuild(&mut self, piece: PieceId) {
        for input in self.pieces.bad_rebuild(piece) {
            self.actions.push_back(PlanAction::Recheck { piece: input });
        }
        self.changed = true;
        self.reopen(piece);
    }

    /// A claimed piece was hashed: it is good, or missing like any other. No source is blamed.
    fn on_rechecked(&mut self, piece: PieceId, good: bool) {
        self.pieces.rechecked(piece, good);
        self.changed |= !good;
        self.reopen(piece);
    }

    /// A piece is written: its source is proven, and duplicate requests for it are cancelled.
    fn on_written(&mut self, piece: PieceId, source: Option<SourceKey>) {
        if let Some(key) = source.filter(|_| !self.pieces.trials.is_on(piece.shard)) {
            self.sources.update(key, Source::prove);
        }
        self.cancel_singles(piece);
        if self.pieces.absent(piece.shard) == 0 {
            self.cancel_where(|request| request.shard == piece.shard && request.is_stream());
        }
    }

    fn on_bad(&mut self, piece: PieceId, source: SourceKey, fingerprint: u64) {
        let is_disputed = self.pieces.bad(piece, source, fingerprint);
        self.reopen(piece);
        if self.pieces.trials.is_of(source) {
            // The trial will settle it.
            return;
        }
        self.suspend(source, piece.shard);
        let max_shards = if self.pieces.is_frugal() { 1 } else { MAX_WRONG_AT_FIRST };
        self.sources.update(source, |source| source.sent_wrong(max_shards));
        // Its other requests would most likely bring bad bytes, too.
        self.cancel_where(|request| request.source == source);
        if is_disputed && !self.may_be_settled(piece) {
            self.try_shard(piece.shard);
        }
    }

    fn on_shard_checked(&mut self, shard: u32, good: bool, index_agrees: bool) {
        if let Some(trial) = self.pieces.trials.current().filter(|trial| trial.shard == shard) {
            self.on_tried(trial, good, index_agrees);
            return;
        }
        let verdict = self.pieces.shard_checked(shard, good);
        self.changed |= !good;
        match verdict {
            Verdict::Right(liars) => liars.into_iter().for_each(|liar| self.ban(liar, Source::convict)),
            Verdict::Alone(source) => self.suspend(source, shard),
            Verdict::Mixed => self.changed = true,
            Verdict::Rebuilt => self.lift_suspensions(shard),
        }
    }

    fn suspend(&mut self, key: SourceKey, shard: u32) {
        self.changed = true;
        self.sources.update(key, |source| source.suspend(shard));
        self.cancel_where(|request| request.source == key && request.shard == shard);
    }

    fn lift_suspensions(&mut self, shard: u32) {
        self.changed = true;
        let keys: Vec<SourceKey> = self.sources.keys().collect();
        for key in keys {
            self.sources.update(key, |source| source.lift_suspension(shard));
        }
    }

    pub(super) fn ban(&mut self, key: SourceKey, how: impl FnOnce(&mut Source)) {
        self.changed = true;
        let was_dismissed = self.sources[&key].is_dismissed();
        self.sources.update(key, how);
        self.cancel_where(|request| request.source == key);
        if !was_dismissed {
            self.dismiss_if_useless(key);
        }
    }

    /// A source that is never asked again gives up its connection and its slot.
    pub(super) fn dismiss_if_useless(&mut self, key: SourceKey) {
        if self.sources[&key].is_up() && self.sources[&key].is_dismissed() {
            self.actions.push_back(PlanAction::Dismiss { source: key });
        }
    }

    /// Cancels the requests for this piece alone.
    pub(super) fn cancel_singles(&mut self, piece: PieceId) {
        let is_single = |id: &RequestId| self.requests.get(*id).is_some_and(|request| !request.is_stream());
        let ids: Vec<RequestId> =
            self.requests.asked(piece).iter().copied().filter(|id| is_single(id)).collect();
        ids.into_iter().for_each(|id| self.cancel(id));
    }

    pub(super) fn cancel_where(&mut self, which: impl Fn(&Request) -> bool) {
        self.requests.ids_where(which).into_iter().for_each(|id| self.cancel(id));
    }

    fn cancel(&mut self, request: RequestId) {
        self.drop_request(request);
        self.actions.push_back(PlanAction::Cancel { request });
    }

    fn drop_request(&mut self, id: RequestId) -> Option<Request> {
        let (request, unasked) = self.requests.remove(id)?;
        self.sources.update(request.source, |source| source.forget(id));
        unasked.into_iter().for_each(|piece| self.reopen(piece));
        Some(request)
    }

    /// A missing piece may have no request any more.
    fn reopen(&mut self, piece: PieceId) {
        if self.pieces.is_missing(piece) {
            self.sources.mark_holders_ready(piece);
            self.sources.mark_parity_ready();
        }
    }

    pub(super) fn empty_shard(&mut self, shard: u32) {
        self.pieces.empty_shard(shard);
        self.changed = true;
    }

    /// Rule 3: a source that stalls loses all of its requests but the oldest.
    pub(super) fn find_stalls(&mut self, now: Instant) {
        for key in self.sources.due(now) {
            self.sources.update(key, |source| source.expire(now));
            self.holders_are_counted = false;
            if self.sources[&key].late_at(&self.config).is_some_and(|at| now >= at) {
                self.sources.update(key, Source::be_late);
                self.sources.mark_parity_ready();
            }
            if self.sources.overdue_at(key).is_some_and(|at| now >= at) {
                self.sources.update(key, Source::be_overdue);
            }
            let source = &self.sources[&key];
            if source.stalls_at(&self.config).is_none_or(|at| now < at) {
                continue;
            }
            self.changed = true;
            let mut requests = source.requests().into_iter();
            let keeps_probe = self.sources.may_keep_probe(key);
            self.sources.update(key, Source::stall);
            if keeps_probe && let Some(probe) = requests.next() {
                self.stall_request(probe);
            }
            requests.for_each(|id| self.cancel(id));
            if !keeps_probe {
                self.sources.update(key, |source| source.on_lost(now));
            }
        }
        self.sources.done(now);
    }

    /// Rule 2: evicts the requests of the longest overdue source, if that frees memory for a request to `key`. Returns
    /// whether it did; without `proven`, only unproven sources are evicted.
    pub(super) fn evict_overdue(&mut self, key: SourceKey, proven: bool, now: Instant) -> bool {
        if !self.sources.has_overdue() || self.sources[&key].is_overdue() || self.pick(key, now).is_none() {
            return false;
        }
        let Some(overdue) = self.sources.longest_overdue(proven) else { return false };
        self.cancel_where(|request| request.source == overdue);
        self.sources.update(overdue, |source| source.on_lost(now));
        self.changed = true;
        true
    }

    /// Cancels the requests for a piece that another source is to send. An overdue source is paused.
    pub(super) fn reassign(&mut self, piece: PieceId, now: Instant) {
        let asked =
            self.requests.asked(piece).iter().filter_map(|id| Some((*id, self.requests.get(*id)?.source)));
        let overdue: Vec<_> = asked.filter(|(_, source)| self.sources[source].is_overdue()).collect();
        for (id, source) in overdue {
            self.cancel(id);
            self.sources.update(source, |source| source.on_lost(now));
            self.changed = true;
        }
        self.cancel_singles(piece);
    }

    /// A stalled request: its pieces may be asked of others.
    fn stall_request(&mut self, id: RequestId) {
        let Some(request) = self.requests.get_mut(id) else { return };
        request.stalled = true;
        for piece in request.piece_ids() {
            if self.requests.remove_piece(id, piece) {
                self.reopen(piece);
            }
        }
    }
}
