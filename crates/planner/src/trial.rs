//! Rule 5: two sources sent equal bytes that the index calls wrong: is the index wrong, or are they lying?
//!
//! Identities are free, so equal lies cost a Sybil nothing. When two were equal and no source that has sent right bytes is
//! left for that piece, or one was wrong and no source at all is left, a *trial* begins: the missing rest of the shard
//! comes from the source with the most verified bytes alone, is written unchecked, and the shard is checked as a whole.
//! If its digest is right although the index calls some of it wrong, the index is wrong: from then on all shards are
//! checked as a whole. If digest and index agree, sources that sent other bytes have lied; if the digest is wrong, the
//! source on trial is not asked any more. One trial at a time, and at most three failed ones: they cost three shards.

use std::time::Instant;

use manifest::PieceId;

use super::source::Source;
use super::trials::Trial;
use super::{Planner, SourceKey};

/// Failed trials, for each model.
const MAX_FAILED: u32 = 3;

impl Planner {
    /// Whether a source that has sent right bytes can be asked for a disputed piece: that costs a piece, a trial a shard.
    pub(super) fn may_be_settled(&self, piece: PieceId) -> bool {
        self.sources.iter().any(|(_, source)| source.verified_bytes() > 0 && may_still_send(source, piece))
    }

    /// Starts a trial of a disputed shard, if there is a source for it and no trial runs.
    pub(super) fn try_shard(&mut self, shard: u32) {
        let trials = &self.pieces.trials;
        if trials.current.is_some() || trials.failed >= MAX_FAILED || !self.pieces.is_indexed(shard) {
            return;
        }
        let missing: Vec<PieceId> = self.pieces.missing_of(shard).collect();
        let can_be_tried =
            |source: &Source| source.may_be_tried(shard) && missing.iter().all(|piece| source.holds(*piece));
        let candidates = self.sources.iter().filter(|(_, source)| can_be_tried(source));
        // Among equals the first: sources cannot choose their keys.
        let best = candidates.max_by_key(|(key, source)| (source.verified_bytes(), std::cmp::Reverse(*key)));
        let Some((source, _)) = best else { return };
        self.sources.update(source, Source::lift_suspensions);
        self.pieces.trials.current = Some(Trial { shard, source });
        self.pieces.want_shard(shard);
        self.cancel_where(|request| request.shard == shard || request.source == source);
        self.changed = true;
    }

    /// Starts a trial of a shard with wrong bytes, when nothing else is left to do.
    pub(super) fn try_the_last_resort(&mut self, now: Instant) -> bool {
        let is_idle = self.pieces.is_quiet()
            && !self.waits_for_sources(now)
            && self.requests.iter().all(|(_, request)| request.stalled || request.retry);
        if !is_idle || self.pieces.trials.current.is_some() {
            return false;
        }
        let disputed: Vec<PieceId> = self.pieces.disputed().collect();
        for piece in disputed {
            if !self.sources.iter().any(|(_, source)| may_still_send(source, piece)) {
                self.try_shard(piece.shard);
            }
        }
        self.pieces.trials.current.is_some()
    }

    /// The shard on trial was checked.
    pub(super) fn on_tried(&mut self, trial: Trial, good: bool, index_agrees: bool) {
        let liars = self.pieces.tried(trial, good);
        self.pieces.trials.current = None;
        self.changed = true;
        if !good {
            self.fail(trial);
            self.sources.update(trial.source, Source::fail_trial);
            self.cancel_where(|request| request.source == trial.source);
            self.dismiss_if_useless(trial.source);
            return;
        }
        let bytes = self.geometry().manifest().shards()[trial.shard as usize].size_bytes;
        self.sources.update(trial.source, |source| source.verified(bytes));
        if index_agrees {
            liars.into_iter().for_each(|liar| self.ban(liar, Source::convict));
            return;
        }
        self.pieces.suspect_index();
        let keys: Vec<SourceKey> = self.sources.keys().collect();
        for key in keys {
            self.sources.update(key, Source::lift_suspensions);
        }
    }

    /// Ends a trial whose source cannot go on.
    pub(super) fn end_trial_without_source(&mut self) {
        let Some(trial) = self.pieces.trials.current else { return };
        let source = self.sources.get(trial.source);
        let can_go_on = source.is_some_and(|source| source.is_holder(trial.shard) && !source.is_stalled());
        if can_go_on || self.pieces.absent(trial.shard) == 0 {
            return;
        }
        self.pieces.tried(trial, false);
        self.pieces.trials.current = None;
        self.fail(trial);
    }

    fn fail(&mut self, trial: Trial) {
        self.pieces.trials.failed += 1;
        self.changed = true;
        self.cancel_where(|request| request.shard == trial.shard);
    }
}

/// Whether a source may be asked for a piece now or later, and has not sent wrong bytes for it.
fn may_still_send(source: &Source, piece: PieceId) -> bool {
    !source.is_stalled() && source.is_holder(piece.shard) && source.holds(piece)
}
