//! How sources behave.

use std::ops::Range;
use std::time::Duration;

use super::model::Model;
use crate::Failure;

/// How a source behaves.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) ranges: bool,
    pub(super) bytes_per_s: f64,
    pub(super) latency: Duration,
    /// What it holds, by shard.
    pub(super) holds: Vec<bool>,
    /// Whether it says what it holds.
    pub(super) tells: bool,
    /// The shards it sends wrong bytes of, and what these are: equal numbers are equal bytes.
    pub(super) lies: Vec<u32>,
    pub(super) lie: u64,
    /// From this time on hardly anything comes.
    pub(super) trickles_from: Duration,
    /// It sends nothing between these times.
    pub(super) silent: Range<Duration>,
    /// It is up between these times.
    pub(super) up: Vec<Range<Duration>>,
    /// It fails so between these times.
    pub(super) fails: (Range<Duration>, Failure),
    /// It has nothing at first, and gets the next piece of what it holds after each such time, in its own order.
    pub(super) grows: Option<Duration>,
}

pub(super) const BUSY: Failure = Failure::Busy(Duration::from_millis(100));
pub(super) const NEVER: Range<Duration> = Duration::ZERO..Duration::ZERO;

/// A source with everything, at so many MB/s.
pub(super) fn peer(model: &Model, mb_per_s: u32) -> Peer {
    let shards = model.geometry().manifest().shards().len();
    Peer {
        ranges: true,
        bytes_per_s: f64::from(mb_per_s) * 1e6,
        latency: Duration::from_millis(10),
        holds: vec![true; shards],
        tells: true,
        lies: Vec::new(),
        lie: 0,
        trickles_from: Duration::MAX,
        silent: NEVER,
        up: vec![Duration::ZERO..Duration::MAX],
        fails: (NEVER, Failure::Lost),
        grows: None,
    }
}

impl Peer {
    pub(super) fn holding(mut self, shards: impl IntoIterator<Item = u32>) -> Self {
        self.holds.fill(false);
        shards.into_iter().for_each(|shard| self.holds[shard as usize] = true);
        self
    }

    pub(super) fn lying(mut self, shards: impl IntoIterator<Item = u32>, lie: u64) -> Self {
        self.lies = shards.into_iter().collect();
        self.lie = lie;
        self
    }

    pub(super) fn v1(self) -> Self {
        Self { ranges: false, tells: false, ..self }
    }

    pub(super) fn trickling(self, from_ms: u64) -> Self {
        Self { trickles_from: ms(from_ms), ..self }
    }

    /// How fast it sends at a time.
    pub(super) fn rate(&self, at: Duration) -> f64 {
        if at < self.trickles_from { self.bytes_per_s } else { 2_000.0 }
    }

    pub(super) fn silent(self, from_ms: u64, until_ms: u64) -> Self {
        Self { silent: ms(from_ms)..ms(until_ms), ..self }
    }

    pub(super) fn up(self, times_ms: &[(u64, u64)]) -> Self {
        Self { up: times_ms.iter().map(|(from, until)| ms(*from)..ms(*until)).collect(), ..self }
    }

    pub(super) fn failing(self, from_ms: u64, until_ms: u64, how: Failure) -> Self {
        Self { fails: (ms(from_ms)..ms(until_ms), how), ..self }
    }

    pub(super) fn growing(self, every_ms: u64) -> Self {
        Self { grows: Some(ms(every_ms)), ..self }
    }

    pub(super) fn is_up(&self, at: Duration) -> bool {
        self.up.iter().any(|time| time.contains(&at))
    }
}

pub(super) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}
