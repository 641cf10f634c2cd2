//! What the planner knows of one source: what it holds, how fast it is, whether it may be asked.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use manifest::{Geometry, PieceId};

use super::rate::Meter;
use super::{Failure, PlanConfig, RequestId};

/// What a source holds of one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holding {
    /// Not known: worth asking.
    Unknown,
    /// Nothing.
    None,
    /// All of it.
    All,
    /// The pieces whose bits are set: bit *i* of byte *i*/8, least significant first.
    Some(Vec<u8>),
}

impl Holding {
    fn has(&self, piece: u32) -> bool {
        match self {
            Self::Unknown | Self::All => true,
            Self::None => false,
            Self::Some(bits) => bits.get(piece as usize / 8).is_some_and(|byte| byte >> (piece % 8) & 1 == 1),
        }
    }

    /// What a source holds that says this of one shard and `other` of another one with the same bytes.
    fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::All, _) | (_, Self::All) => Self::All,
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
            (Self::None, other) | (other, Self::None) => other,
            (Self::Some(mut bits), Self::Some(others)) => {
                bits.iter_mut().zip(others).for_each(|(byte, other)| *byte |= other);
                Self::Some(bits)
            }
        }
    }
}

/// What the planner thinks of a source, for a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceState {
    /// It can be reached.
    pub up: bool,
    /// It lied or broke the protocol, and is not asked again.
    pub banned: bool,
    /// It owes bytes and sends none.
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
    stalled: bool,
    /// It has delivered something right since it came up, or last failed.
    proven: bool,
    /// Pieces that arrived from it and are being checked.
    unchecked: usize,
    /// Not asked for anything before this time: it was busy, or its stream broke.
    paused_until: Option<Instant>,
    failures_in_a_row: u32,
    /// One entry per shard, or none when it did not say.
    holdings: Vec<Holding>,
    /// Shards it refused and is not asked for until their time in `refusal_ends`.
    refused: HashSet<u32>,
    /// When refusals are over, soonest first.
    refusal_ends: VecDeque<(Instant, u32)>,
    /// Shards it refused and has not delivered anything of since.
    doubted: HashSet<u32>,
    /// Shards of which it sent wrong bytes.
    suspended: HashSet<u32>,
    /// Requests under way, oldest first, each with its bytes still owed.
    requests: VecDeque<(RequestId, u64)>,
    meter: Meter,
    last_progress: Instant,
    last_arrival: Instant,
    bad_pieces: u32,
    refusals: u32,
    /// By shard: no piece before this one is held, missing and unasked.
    pub(super) first_open: Vec<u32>,
    /// No stripe before this one needs parity that is held.
    pub(super) first_stripe: usize,
}

/// Requests under way at one source: the most that protocol 2.0.0 lets a stream have unanswered.
const MAX_REQUESTS: usize = 16;
/// Pieces of a stream of a whole shard that are in memory at once.
const STREAM_PIECES: u64 = 4;
/// Pause after a failure; doubled with each further one, six times at most.
const PAUSE: Duration = Duration::from_millis(50);
/// Shortest pause of a busy source, whatever it says.
const MIN_BUSY: Duration = Duration::from_millis(10);

impl Source {
    pub(super) fn new(shards: usize, now: Instant) -> Self {
        Self {
            up: false,
            ranges: false,
            banned: false,
            stalled: false,
            proven: false,
            unchecked: 0,
            paused_until: None,
            failures_in_a_row: 0,
            holdings: Vec::new(),
            refused: HashSet::new(),
            refusal_ends: VecDeque::new(),
            doubted: HashSet::new(),
            suspended: HashSet::new(),
            requests: VecDeque::new(),
            meter: Meter::new(now),
            last_progress: now,
            last_arrival: now,
            bad_pieces: 0,
            refusals: 0,
            first_open: vec![0; shards],
            first_stripe: 0,
        }
    }

    pub(super) fn state(&self) -> SourceState {
        SourceState {
            up: self.up,
            banned: self.banned,
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
        self.first_open.fill(0);
    }

    /// Its requests are void.
    pub(super) fn go_down(&mut self) {
        self.up = false;
        self.stalled = false;
        if !self.requests.is_empty() {
            self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
        }
        self.holdings.clear();
        self.requests.clear();
    }

    /// Takes in what it says to hold of each shard. Of shards with the same bytes, any will do.
    pub(super) fn set_holdings(&mut self, mut shards: Vec<Holding>, geometry: &Geometry) {
        for shard in (0..shards.len()).rev() {
            #[expect(clippy::cast_possible_truncation, reason = "a manifest has at most 65,536 shards")]
            let canonical = geometry.manifest().shards().get(shard).map(|_| geometry.canonical(shard as u32));
            if let Some(canonical) = canonical.map(|first| first as usize).filter(|first| *first < shard) {
                let holding = shards[shard].clone();
                let first = std::mem::replace(&mut shards[canonical], Holding::None);
                shards[canonical] = first.or(holding);
            }
        }
        self.holdings = shards;
        self.first_open.fill(0);
    }

    pub(super) fn ban(&mut self) {
        self.banned = true;
    }

    /// It sent wrong bytes for a shard.
    pub(super) fn suspend(&mut self, shard: u32) {
        self.suspended.insert(shard);
        self.bad_pieces += 1;
        self.proven = false;
    }

    pub(super) fn lift_suspension(&mut self, shard: u32) {
        self.suspended.remove(&shard);
    }

    /// Bytes of it turned out to be right, as far as can be told.
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
        self.may_answer(shard) && !self.suspended.contains(&shard)
    }

    /// The same, whether or not it sent wrong bytes for this shard before.
    pub(super) fn may_answer(&self, shard: u32) -> bool {
        self.is_live() && !self.refused.contains(&shard) && !self.denies(shard)
    }

    /// Whether it may be asked for this shard now or some time.
    pub(super) fn is_holder(&self, shard: u32) -> bool {
        self.up && !self.banned && !self.suspended.contains(&shard) && !self.denies(shard)
    }

    /// Whether it says to hold nothing of this shard.
    fn denies(&self, shard: u32) -> bool {
        matches!(self.holdings.get(shard as usize), Some(Holding::None))
    }

    pub(super) fn holds(&self, piece: PieceId) -> bool {
        self.holdings.get(piece.shard as usize).is_none_or(|holding| holding.has(piece.piece))
    }

    /// Whether it holds every piece of the shard, as far as it said.
    pub(super) fn holds_all(&self, shard: u32) -> bool {
        !matches!(self.holdings.get(shard as usize), Some(Holding::Some(_) | Holding::None))
    }

    /// Whether its last answers leave little hope for a request for this shard.
    pub(super) fn is_doubtful(&self, shard: u32) -> bool {
        self.failures_in_a_row > 0 || self.doubted.contains(&shard)
    }

    /// Ends refusals and pauses whose time is over; returns whether there were any.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        let mut ended = self.paused_until.take_if(|until| now >= *until).is_some();
        while let Some((_, shard)) = self.refusal_ends.pop_front_if(|(until, _)| now >= *until) {
            self.refused.remove(&shard);
            ended = true;
        }
        ended
    }

    pub(super) fn is_proven(&self) -> bool {
        self.proven
    }

    pub(super) fn is_stalled(&self) -> bool {
        self.stalled
    }

    pub(super) fn owed_bytes(&self) -> u64 {
        self.requests.iter().map(|(_, bytes)| bytes).sum()
    }

    /// How much of what it owes may lie in memory at once: a stream of a whole shard passes piece by piece.
    pub(super) fn owed_in_memory(&self, piece_bytes: u64) -> u64 {
        let owed = self.owed_bytes();
        if self.ranges { owed } else { owed.min(STREAM_PIECES * piece_bytes) }
    }

    /// Rule 2: whether one more request fits into its window. What an unproven one sent must be checked first.
    pub(super) fn has_room(&self, piece_bytes: u64) -> bool {
        if !self.proven && self.unchecked > 0 {
            return false;
        }
        if !self.ranges || !self.proven {
            return self.requests.is_empty();
        }
        let window_bytes = self.meter.window_bytes().max(2 * piece_bytes);
        self.requests.len() < MAX_REQUESTS && self.owed_bytes() + piece_bytes <= window_bytes
    }

    /// How long until `request` is done, going by how fast the source was, or how long nothing has come.
    pub(super) fn expected_wait(&self, request: RequestId, now: Instant) -> Duration {
        let position = self.requests.iter().position(|(id, _)| *id == request);
        let owed = self.requests.iter().take(position.map_or(0, |at| at + 1)).map(|(_, bytes)| bytes).sum();
        let silent = now.saturating_duration_since(self.last_arrival);
        self.time_for(owed).map_or(silent, |time| time.max(silent))
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
        self.requests.push_back((request, bytes));
    }

    /// Returns whether it had stalled until now.
    pub(super) fn on_progress(&mut self, now: Instant) -> bool {
        self.last_progress = now;
        std::mem::take(&mut self.stalled)
    }

    /// A piece of `shard` is complete that `request`, made at `issued`, asked for.
    pub(super) fn on_arrived(
        &mut self,
        request: RequestId,
        shard: u32,
        bytes: u64,
        issued: Instant,
        now: Instant,
    ) {
        self.failures_in_a_row = 0;
        self.doubted.remove(&shard);
        self.meter.add(bytes, issued, now);
        self.last_arrival = now;
        if let Some((_, owed)) = self.requests.iter_mut().find(|(id, _)| *id == request) {
            *owed = owed.saturating_sub(bytes);
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
                self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
                self.paused_until = Some(now + pause.max(MIN_BUSY).min(ttl.max(MIN_BUSY)));
            }
            Failure::Misbehaved => self.bad_pieces += 1,
            Failure::Lost => self.on_lost(now),
        }
        // What stalled has ended: it is tried again after the pause.
        self.stalled &= !self.requests.is_empty();
    }

    /// Its stream or connection broke, or nothing came of it for long: a pause, longer each time.
    pub(super) fn on_lost(&mut self, now: Instant) {
        self.stalled = false;
        self.proven = false;
        self.paused_until = Some(now + PAUSE * 2_u32.pow(self.failures_in_a_row.min(6)));
        self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
    }

    pub(super) fn forget(&mut self, request: RequestId) {
        self.requests.retain(|(id, _)| *id != request);
    }

    /// When it will have stalled, if nothing comes until then.
    pub(super) fn stalls_at(&self, config: &PlanConfig) -> Option<Instant> {
        (!self.stalled && !self.requests.is_empty()).then(|| self.last_progress + config.stall_after)
    }

    /// Marks it stalled and says what it was asked for, oldest first.
    pub(super) fn stall(&mut self) -> Vec<RequestId> {
        self.stalled = true;
        self.proven = false;
        self.requests.iter().map(|(id, _)| *id).collect()
    }

    pub(super) fn next_wakeup(&self, config: &PlanConfig) -> Option<Instant> {
        self.refusal_ends
            .front()
            .map(|(until, _)| *until)
            .into_iter()
            .chain(self.paused_until)
            .chain(self.stalls_at(config))
            .min()
    }
}
