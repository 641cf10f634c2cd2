//! What the planner knows of one source: what it holds, how fast it is, whether it may be asked.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

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
    pub(super) banned: bool,
    stalled: bool,
    /// Its last checked piece was right, or could not be checked alone.
    proven: bool,
    /// Pieces that arrived from it and are being checked.
    unchecked: usize,
    /// Not asked for anything before this time: it was busy, or its stream broke.
    paused_until: Option<Instant>,
    failures_in_a_row: u32,
    /// One entry per shard, or none when it did not say.
    pub(super) holdings: Vec<Holding>,
    refused: HashMap<u32, Instant>,
    pub(super) suspended: HashSet<u32>,
    /// Requests under way, oldest first, each with its bytes still owed.
    requests: VecDeque<(RequestId, u64)>,
    bytes_per_s: f64,
    last_progress: Instant,
    last_arrival: Instant,
    pub(super) bad_pieces: u32,
    refusals: u32,
}

/// Throughput times this is what a source is asked for ahead: enough for a round trip and a scheduling delay.
const WINDOW: Duration = Duration::from_millis(300);
/// Requests under way at one source: the most that protocol 2.0.0 lets a stream have unanswered.
const MAX_REQUESTS: usize = 16;
/// Pieces of a stream of a whole shard that are in memory at once.
const STREAM_PIECES: u64 = 4;
/// How much one arrival changes the measured throughput.
const SMOOTHING: f64 = 0.3;

impl Source {
    pub(super) fn new(now: Instant) -> Self {
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
            refused: HashMap::new(),
            suspended: HashSet::new(),
            requests: VecDeque::new(),
            bytes_per_s: 0.0,
            last_progress: now,
            last_arrival: now,
            bad_pieces: 0,
            refusals: 0,
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
        self.stalled = false;
        self.proven = false;
        self.refused.clear();
        self.last_progress = now;
    }

    pub(super) fn go_down(&mut self) {
        self.up = false;
        self.stalled = false;
        self.holdings.clear();
        self.requests.clear();
    }

    /// Whether it may be asked for anything now.
    pub(super) fn is_live(&self, now: Instant) -> bool {
        self.up && !self.banned && !self.stalled && self.paused_until.is_none_or(|until| now >= until)
    }

    /// Whether it may be asked for this shard now, as far as shards go.
    pub(super) fn may_hold(&self, shard: u32, now: Instant) -> bool {
        self.is_live(now)
            && !self.suspended.contains(&shard)
            && self.refused.get(&shard).is_none_or(|until| now >= *until)
            && !matches!(self.holdings.get(shard as usize), Some(Holding::None))
    }

    pub(super) fn holds(&self, shard: u32, piece: u32) -> bool {
        self.holdings.get(shard as usize).is_none_or(|holding| holding.has(piece))
    }

    /// Whether it holds every piece of the shard, as far as it said.
    pub(super) fn holds_all(&self, shard: u32) -> bool {
        !matches!(self.holdings.get(shard as usize), Some(Holding::Some(_) | Holding::None))
    }

    /// Ends refusals and pauses whose time is over; returns whether there were any.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        let before = self.refused.len();
        self.refused.retain(|_, until| now < *until);
        let paused = self.paused_until.take_if(|until| now >= *until).is_some();
        paused || self.refused.len() < before
    }

    pub(super) fn is_proven(&self) -> bool {
        self.proven
    }

    pub(super) fn owed_bytes(&self) -> u64 {
        self.requests.iter().map(|(_, bytes)| bytes).sum()
    }

    /// How much of what it owes may lie in memory at once: a stream of a whole shard passes piece by piece.
    pub(super) fn owed_in_memory(&self, piece_bytes: u64) -> u64 {
        let owed = self.owed_bytes();
        if self.ranges { owed } else { owed.min(STREAM_PIECES * piece_bytes) }
    }

    /// Rule 2: whether one more request fits into its window.
    pub(super) fn has_room(&self, piece_bytes: u64) -> bool {
        if !self.proven {
            return self.requests.is_empty() && self.unchecked == 0;
        }
        if !self.ranges {
            return self.requests.is_empty();
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an estimate, clamped")]
        let window_bytes = (self.bytes_per_s * WINDOW.as_secs_f64()) as u64;
        self.requests.len() < MAX_REQUESTS
            && self.owed_bytes() + piece_bytes <= window_bytes.max(2 * piece_bytes)
    }

    /// How long until `request` is done, going by how fast the source was, or how long nothing has come.
    pub(super) fn expected_wait(&self, request: RequestId, now: Instant) -> Duration {
        let ahead: u64 = self.requests.iter().take_while(|(id, _)| *id != request).map(|(_, b)| b).sum();
        let own = self.requests.iter().find(|(id, _)| *id == request).map_or(0, |(_, bytes)| *bytes);
        let silent = now.saturating_duration_since(self.last_arrival);
        self.time_for(ahead + own).map_or(silent, |time| time.max(silent))
    }

    /// How long it takes to deliver so many bytes, when that is known.
    pub(super) fn time_for(&self, bytes: u64) -> Option<Duration> {
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let seconds = bytes as f64 / self.bytes_per_s;
        (self.proven && self.bytes_per_s > 0.0).then(|| Duration::from_secs_f64(seconds.min(3600.0)))
    }

    pub(super) fn asked(&mut self, request: RequestId, bytes: u64, now: Instant) {
        if self.requests.is_empty() {
            self.last_progress = now;
            self.last_arrival = now;
        }
        self.requests.push_back((request, bytes));
    }

    /// Returns whether it had stalled until now.
    pub(super) fn on_progress(&mut self, now: Instant) -> bool {
        self.last_progress = now;
        std::mem::take(&mut self.stalled)
    }

    pub(super) fn on_arrived(&mut self, request: RequestId, bytes: u64, issued: Instant, now: Instant) {
        self.on_progress(now);
        self.failures_in_a_row = 0;
        self.paused_until = None;
        let since = self.last_arrival.max(issued);
        let seconds = now.saturating_duration_since(since).as_secs_f64().max(1e-6);
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let measured = bytes as f64 / seconds;
        self.bytes_per_s = if self.bytes_per_s > 0.0 {
            self.bytes_per_s + SMOOTHING * (measured - self.bytes_per_s)
        } else {
            measured
        };
        self.last_arrival = now;
        if let Some((_, owed)) = self.requests.iter_mut().find(|(id, _)| *id == request) {
            *owed = owed.saturating_sub(bytes);
        }
    }

    /// A piece of it is being checked.
    pub(super) fn checking(&mut self) {
        self.unchecked += 1;
    }

    /// A piece of it was checked.
    pub(super) fn checked(&mut self, good: bool) {
        self.unchecked = self.unchecked.saturating_sub(1);
        self.proven = good;
    }

    pub(super) fn on_failure(&mut self, shard: u32, failure: Failure, ttl: Duration, now: Instant) {
        match failure {
            Failure::Refused => {
                self.refusals += 1;
                self.refused.insert(shard, now + ttl);
            }
            Failure::Busy(pause) => {
                self.refusals += 1;
                self.paused_until = Some(now + pause.clamp(Duration::from_millis(10), ttl));
            }
            Failure::Misbehaved => self.bad_pieces += 1,
            Failure::Lost => {
                self.proven = false;
                self.failures_in_a_row = (self.failures_in_a_row + 1).min(6);
                self.paused_until =
                    Some(now + Duration::from_millis(50) * 2_u32.saturating_pow(self.failures_in_a_row));
            }
        }
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

    pub(super) fn next_wakeup(&self, config: &PlanConfig, now: Instant) -> Option<Instant> {
        let refusals = self.refused.values().copied();
        refusals.chain(self.paused_until).filter(|at| *at > now).chain(self.stalls_at(config)).min()
    }
}
