//! The planner's state of one source: its pieces, its rate, its requests, its failures.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use manifest::PieceId;

use super::holdings::Holdings;
use super::rate::{Issued, Meter};
use super::{Failure, PlanConfig, RequestId};

/// The state of a source, for a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceState {
    /// It is connected.
    pub up: bool,
    /// It lied or broke the protocol, and is not asked again.
    pub banned: bool,
    /// It sent wrong bytes, and another source then sent right ones.
    pub lied: bool,
    /// It has requests in flight and sends no bytes.
    pub stalled: bool,
    /// How often its bytes were wrong.
    pub bad_pieces: u32,
    /// How often it refused.
    pub refusals: u32,
}

#[derive(Debug)]
pub(super) struct Source {
    up: bool,
    pub(super) ranges: bool,
    banned: bool,
    lied: bool,
    /// It has requests in flight and has sent no bytes for `late_after`.
    late: bool,
    stalled: bool,
    /// It completed no piece within its piece timeout.
    overdue: bool,
    /// It has sent right bytes since it connected, or last failed.
    proven: bool,
    /// It sent the manifest.
    sent_manifest: bool,
    /// Pieces that arrived from it and are being checked.
    unchecked: usize,
    /// Backoff: it was busy, or its stream broke.
    paused_until: Option<Instant>,
    failures_in_a_row: u32,
    pub(super) holdings: Holdings,
    /// Shards it refused, until their time in `refusal_ends`.
    refused: HashSet<u32>,
    /// When refusals expire, soonest first.
    refusal_ends: VecDeque<(Instant, u32)>,
    /// Shards it refused and has sent nothing of since.
    doubted: HashSet<u32>,
    /// Shards of which it sent wrong bytes.
    suspended: HashSet<u32>,
    /// A shard that came from it alone was wrong.
    failed_trial: bool,
    /// It sent wrong bytes before anything right.
    sent_only_bad: bool,
    /// It is not asked for anything any more, except on trial.
    is_hopeless: bool,
    /// How much of it was verified, piece by piece or with its whole shard.
    verified_bytes: u64,
    /// Requests in flight, oldest first.
    requests: VecDeque<Asked>,
    /// The sum of these.
    owed_bytes: u64,
    meter: Meter,
    last_progress: Instant,
    last_arrival: Instant,
    bad_pieces: u32,
    refusals: u32,
    /// Of the stripes in their order, the first so many need no parity of this source.
    pub(super) stripes_done: usize,
}

/// A request in flight.
#[derive(Debug, Clone, Copy)]
struct Asked {
    id: RequestId,
    owed_bytes: u64,
    issued: Issued,
}

/// A source that has sent wrong bytes of so many shards, and nothing right, is not asked for more.
pub(super) const MAX_WRONG_AT_FIRST: usize = 3;
/// What the source of the manifest is asked for at first: no more can be lost to a liar before the first piece is checked.
const FIRST_BYTES: u64 = 2 << 20;
const FIRST_PIECES: usize = 10;
/// Requests in flight at one source: 16 are the most that protocol 2.0.0 lets a stream have unanswered, and over a long way
/// there are several streams.
const MAX_REQUESTS: u64 = 192;
/// Answers that it sends at once.
const MAX_ANSWERS: usize = 2;
/// Pieces of a stream of a whole shard that are in memory at once.
const STREAM_PIECES: u64 = 4;
/// How often its piece timeout is doubled.
const MAX_PATIENCE_DOUBLINGS: u32 = 6;
/// Backoff after a failure; doubled with each further one, six times at most.
const PAUSE: Duration = Duration::from_millis(50);
/// Shortest backoff of a busy source, whatever it asks for.
const MIN_BUSY: Duration = Duration::from_millis(10);
/// How often the backoff of a source that stays busy is doubled.
const MAX_BUSY_DOUBLINGS: u32 = 3;

impl Source {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            up: false,
            ranges: false,
            banned: false,
            lied: false,
            late: false,
            stalled: false,
            overdue: false,
            proven: false,
            sent_manifest: false,
            unchecked: 0,
            paused_until: None,
            failures_in_a_row: 0,
            holdings: Holdings::default(),
            refused: HashSet::new(),
            refusal_ends: VecDeque::new(),
            doubted: HashSet::new(),
            suspended: HashSet::new(),
            failed_trial: false,
            sent_only_bad: false,
            is_hopeless: false,
            verified_bytes: 0,
            requests: VecDeque::new(),
            owed_bytes: 0,
            meter: Meter::new(now),
            last_progress: now,
            last_arrival: now,
            bad_pieces: 0,
            refusals: 0,
            stripes_done: 0,
        }
    }

    pub(super) fn state(&self) -> SourceState {
        SourceState {
            up: self.up,
            banned: self.banned,
            lied: self.lied,
            stalled: self.stalled,
            bad_pieces: self.bad_pieces,
            refusals: self.refusals,
        }
    }

    pub(super) fn come_up(&mut self, ranges: bool, now: Instant) {
        self.up = true;
        self.ranges = ranges;
        self.proven = false;
        self.refused.clear();
        self.refusal_ends.clear();
        self.last_progress = now;
    }

    /// Its requests are void.
    pub(super) fn go_down(&mut self) {
        self.up = false;
        self.late = false;
        self.stalled = false;
        self.overdue = false;
        if !self.requests.is_empty() {
            self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
        }
        self.requests.clear();
        self.owed_bytes = 0;
    }

    pub(super) fn ban(&mut self) {
        self.banned = true;
    }

    /// It was caught lying.
    pub(super) fn convict(&mut self) {
        self.banned = true;
        self.lied = true;
    }

    /// It sent wrong bytes for a shard.
    pub(super) fn suspend(&mut self, shard: u32) {
        self.suspended.insert(shard);
        self.bad_pieces += 1;
        self.proven = false;
    }

    pub(super) fn is_suspended(&self, shard: u32) -> bool {
        self.suspended.contains(&shard)
    }

    pub(super) fn lift_suspension(&mut self, shard: u32) {
        self.suspended.remove(&shard);
    }

    /// It may be asked for everything again.
    pub(super) fn lift_suspensions(&mut self) {
        self.suspended.clear();
        self.sent_only_bad = false;
        self.is_hopeless = false;
    }

    /// A piece of it was wrong. With so many wrong shards and nothing right before, it is hopeless.
    pub(super) fn sent_wrong(&mut self, max_shards: usize) {
        self.sent_only_bad |= self.verified_bytes == 0;
        self.is_hopeless |= self.sent_only_bad && self.suspended.len() >= max_shards;
    }

    /// Whether it may be put on trial with a shard.
    pub(super) fn may_be_tried(&self, shard: u32) -> bool {
        self.is_live()
            && !self.failed_trial
            && !self.refused.contains(&shard)
            && !self.holdings.has_none(shard)
    }

    /// It failed a trial: it is not asked for anything any more.
    pub(super) fn fail_trial(&mut self) {
        self.failed_trial = true;
        self.proven = false;
        self.bad_pieces += 1;
    }

    /// Whether it is not asked for anything any more.
    pub(super) fn is_dismissed(&self) -> bool {
        self.banned || self.failed_trial
    }

    pub(super) fn is_up(&self) -> bool {
        self.up
    }

    /// So many bytes of it were verified.
    pub(super) fn verified(&mut self, bytes: u64) {
        self.verified_bytes += bytes;
        self.sent_only_bad = false;
        self.is_hopeless = false;
    }

    pub(super) fn verified_bytes(&self) -> u64 {
        self.verified_bytes
    }

    /// Whether it has sent only wrong bytes so far.
    pub(super) fn sent_only_bad(&self) -> bool {
        self.sent_only_bad
    }

    /// Whether it sent wrong bytes of this shard, or failed its trial.
    fn is_excluded_from(&self, shard: u32) -> bool {
        self.failed_trial || self.is_hopeless || self.suspended.contains(&shard)
    }

    /// Bytes of it are right, as far as can be told.
    pub(super) fn prove(&mut self) {
        self.proven = true;
    }

    /// A piece of it is being checked.
    pub(super) fn checking(&mut self) {
        self.unchecked += 1;
    }

    /// A piece of it was checked.
    pub(super) fn checked(&mut self) {
        self.unchecked = self.unchecked.saturating_sub(1);
    }

    /// Whether it may be asked for anything.
    pub(super) fn is_live(&self) -> bool {
        self.up && !self.banned && !self.stalled && self.paused_until.is_none()
    }

    /// Whether it may be asked for this shard, as far as shards go.
    pub(super) fn may_hold(&self, shard: u32) -> bool {
        self.may_answer(shard) && !self.is_excluded_from(shard)
    }

    /// The same, and it is expected to answer soon.
    pub(super) fn is_live_holder(&self, shard: u32) -> bool {
        self.may_hold(shard) && !self.late
    }

    /// The same as `may_hold`, whether or not it sent wrong bytes for this shard before.
    pub(super) fn may_answer(&self, shard: u32) -> bool {
        self.is_live()
            && !self.failed_trial
            && !self.refused.contains(&shard)
            && !self.holdings.has_none(shard)
    }

    /// Whether it may be asked for this shard now or later.
    pub(super) fn is_holder(&self, shard: u32) -> bool {
        self.up && !self.banned && !self.is_excluded_from(shard) && !self.holdings.has_none(shard)
    }

    /// Whether it has refused this shard, and sent nothing of it since: what it has not announced, it does not seem to have.
    pub(super) fn has_refused(&self, shard: u32) -> bool {
        self.doubted.contains(&shard)
    }

    pub(super) fn holds(&self, piece: PieceId) -> bool {
        self.holdings.has(piece)
    }

    /// Whether it may not be asked for some shards.
    pub(super) fn is_barred(&self) -> bool {
        !self.refused.is_empty() || !self.suspended.is_empty() || self.failed_trial
    }

    /// Whether a request for this shard is likely to fail, going by its last answers.
    pub(super) fn is_doubtful(&self, shard: u32) -> bool {
        self.failures_in_a_row > 0 || self.has_refused(shard)
    }

    /// Ends refusals and backoffs that have expired.
    pub(super) fn expire(&mut self, now: Instant) {
        self.paused_until.take_if(|until| now >= *until);
        while let Some((_, shard)) = self.refusal_ends.pop_front_if(|(until, _)| now >= *until) {
            self.refused.remove(&shard);
        }
    }

    pub(super) fn is_late(&self) -> bool {
        self.late
    }

    pub(super) fn is_proven(&self) -> bool {
        self.proven
    }

    pub(super) fn is_stalled(&self) -> bool {
        self.stalled
    }

    pub(super) fn is_overdue(&self) -> bool {
        self.overdue
    }

    pub(super) fn owed_bytes(&self) -> u64 {
        self.owed_bytes
    }

    /// How many of its outstanding bytes may be in memory at once: a whole shard streams through piece by piece.
    pub(super) fn owed_in_memory(&self, piece_bytes: u64) -> u64 {
        let owed = self.owed_bytes();
        if self.ranges { owed } else { owed.min(STREAM_PIECES * piece_bytes) }
    }

    /// Rule 2: whether one more request fits into this share of its window. Of an unproven source, arrived pieces must be
    /// checked first.
    /// `rush`: its window is twice as large until that brings no more.
    pub(super) fn has_capacity(&self, piece_bytes: u64, share: f64, rush: bool) -> bool {
        if !self.proven && self.unchecked > 0 {
            return false;
        }
        if self.requests.is_empty() {
            return true;
        }
        if !self.ranges || !self.proven {
            return self.ranges
                && self.may_begin_with_more()
                && self.requests.len() < FIRST_PIECES
                && self.owed_bytes + piece_bytes <= FIRST_BYTES;
        }
        #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let window_bytes = (self.window_bytes(piece_bytes) as f64 * share) as u64;
        let window_bytes = if rush && self.meter.is_growing() { 2 * window_bytes } else { window_bytes };
        self.owed_bytes() + piece_bytes <= window_bytes
    }

    pub(super) fn has_sent_manifest(&mut self) {
        self.sent_manifest = true;
    }

    /// Whether nothing speaks against it before its first piece.
    fn may_begin_with_more(&self) -> bool {
        self.sent_manifest && self.bad_pieces == 0 && self.failures_in_a_row == 0 && self.verified_bytes == 0
    }

    /// How much it may be asked for, if there is memory for that.
    pub(super) fn window_bytes(&self, piece_bytes: u64) -> u64 {
        self.meter.window_bytes().clamp(2 * piece_bytes, MAX_REQUESTS * piece_bytes)
    }

    /// What is under way from it, and as much again.
    pub(super) fn pipe_bytes(&self) -> u64 {
        self.meter.pipe_bytes()
    }

    /// How long until `request` is done, going by the source's rate, or how long it has sent nothing.
    pub(super) fn expected_wait(&self, request: RequestId, now: Instant) -> Duration {
        let position = self.requests.iter().position(|asked| asked.id == request);
        let owed =
            self.requests.iter().take(position.map_or(0, |at| at + 1)).map(|asked| asked.owed_bytes).sum();
        let silent = now.saturating_duration_since(self.last_arrival);
        self.time_for(owed).map_or(silent, |time| time.max(silent))
    }

    /// Whether it may have begun to send what was asked at `issued`, going by what it sent since. Answers come in order, but
    /// on two connections.
    pub(super) fn may_have_begun(&self, request: RequestId, issued: Instant) -> bool {
        let is_next = self.requests.iter().take(MAX_ANSWERS).any(|asked| asked.id == request);
        is_next && self.last_progress > self.last_arrival.max(issued)
    }

    /// How long it takes to deliver so many bytes, when that is known.
    pub(super) fn time_for(&self, bytes: u64) -> Option<Duration> {
        self.meter.time_for(bytes).filter(|_| self.proven)
    }

    pub(super) fn asked(&mut self, request: RequestId, bytes: u64, now: Instant) {
        if self.requests.is_empty() {
            self.last_progress = now;
            self.last_arrival = now;
            self.meter.start(now);
        }
        let issued = self.meter.issue(now);
        self.requests.push_back(Asked { id: request, owed_bytes: bytes, issued });
        self.owed_bytes += bytes;
    }

    /// Returns whether it was late or stalled.
    pub(super) fn on_progress(&mut self, now: Instant) -> bool {
        self.last_progress = now;
        std::mem::take(&mut self.late) | std::mem::take(&mut self.stalled)
    }

    /// A piece of `shard` is complete that `request` asked for.
    pub(super) fn on_arrived(&mut self, request: RequestId, shard: u32, bytes: u64, now: Instant) {
        self.failures_in_a_row = 0;
        self.overdue = false;
        self.doubted.remove(&shard);
        self.last_arrival = now;
        if let Some(asked) = self.requests.iter_mut().find(|asked| asked.id == request) {
            self.meter.add(bytes, asked.issued, now);
            let paid = bytes.min(asked.owed_bytes);
            asked.owed_bytes -= paid;
            self.owed_bytes -= paid;
        }
    }

    pub(super) fn on_failure(&mut self, shard: u32, failure: Failure, ttl: Duration, now: Instant) {
        match failure {
            Failure::Refused => {
                self.refusals += 1;
                self.doubted.insert(shard);
                if self.refused.insert(shard) {
                    self.refusal_ends.push_back((now + ttl, shard));
                }
            }
            Failure::Busy(pause) => {
                self.refusals += 1;
                self.proven = false;
                // Exponential backoff while it stays busy.
                let pause = pause.max(MIN_BUSY) * 2_u32.pow(self.failures_in_a_row.min(MAX_BUSY_DOUBLINGS));
                self.paused_until = Some(now + pause.min(ttl.max(MIN_BUSY)));
                self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
            }
            Failure::Misbehaved => self.bad_pieces += 1,
            Failure::Lost => self.on_lost(now),
        }
        // The late request has ended: it is tried again after the backoff.
        self.late &= !self.requests.is_empty();
        self.stalled &= !self.requests.is_empty();
        self.overdue &= !self.requests.is_empty();
    }

    /// Its stream or connection broke, or it stalled: exponential backoff.
    pub(super) fn on_lost(&mut self, now: Instant) {
        self.late = false;
        self.stalled = false;
        self.overdue = false;
        self.proven = false;
        self.paused_until = Some(now + PAUSE * 2_u32.pow(self.failures_in_a_row.min(6)));
        self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
    }

    /// Its requests in flight, oldest first.
    pub(super) fn requests(&self) -> Vec<RequestId> {
        self.requests.iter().map(|asked| asked.id).collect()
    }

    pub(super) fn forget(&mut self, request: RequestId) {
        if let Some(at) = self.requests.iter().position(|asked| asked.id == request)
            && let Some(asked) = self.requests.remove(at)
        {
            self.owed_bytes -= asked.owed_bytes;
        }
        self.late &= !self.requests.is_empty();
        self.overdue &= !self.requests.is_empty();
    }

    /// When it will be late, if it sends nothing until then.
    pub(super) fn late_at(&self, config: &PlanConfig) -> Option<Instant> {
        (!self.late && !self.requests.is_empty()).then(|| self.last_progress + config.late_after)
    }

    /// When it will have stalled, if it sends nothing until then.
    pub(super) fn stalls_at(&self, config: &PlanConfig) -> Option<Instant> {
        (!self.stalled && !self.requests.is_empty()).then(|| self.last_progress + config.stall_after)
    }

    /// Its piece timeout: twice as long as its pieces took so far, within bounds, and doubled each time it runs out, so
    /// that really slow sources get a piece through.
    pub(super) fn overdue_at(&self, config: &PlanConfig, piece_bytes: u64) -> Option<Instant> {
        let usual = self.meter.time_for(piece_bytes).unwrap_or_default();
        let patience = (2 * usual).clamp(config.min_patience, config.max_patience);
        let patience = patience * 2_u32.pow(self.failures_in_a_row.min(MAX_PATIENCE_DOUBLINGS));
        (!self.overdue && !self.requests.is_empty()).then(|| self.last_arrival + patience)
    }

    /// Its piece timeout ran out.
    pub(super) fn be_overdue(&mut self) {
        self.overdue = true;
    }

    /// When its last piece was complete.
    pub(super) fn last_arrival(&self) -> Instant {
        self.last_arrival
    }

    /// It has sent no bytes for `late_after`.
    pub(super) fn be_late(&mut self) {
        self.late = true;
    }

    /// It has sent no bytes for `stall_after`.
    pub(super) fn stall(&mut self) {
        self.stalled = true;
        self.proven = false;
    }

    pub(super) fn next_wakeup(&self, config: &PlanConfig, piece_bytes: u64) -> Option<Instant> {
        self.refusal_ends
            .front()
            .map(|(until, _)| *until)
            .into_iter()
            .chain(self.paused_until)
            .chain(self.late_at(config))
            .chain(self.stalls_at(config))
            .chain(self.overdue_at(config, piece_bytes))
            .min()
    }
}
