//! How fast a source is.

use std::time::{Duration, Instant};

/// Throughput is sampled over at least this long: pieces that arrive in one burst say nothing.
const SAMPLE: Duration = Duration::from_millis(100);
/// Weight of one sample in the estimate.
const SMOOTHING: f64 = 0.5;
/// A source's window is what it delivers in twice its turnaround, so that it can grow, plus this, for scheduling delays.
const AHEAD: Duration = Duration::from_millis(300);
/// Estimates are not longer than this.
const LONGEST: Duration = Duration::from_secs(3600);

/// Larger windows bring more when they bring so much more.
const GROWTH: f64 = 1.25;
/// Delivery rates older than one to two of these, or of a few turnarounds, are forgotten.
const MEMORY: Duration = Duration::from_secs(1);

/// Measures turnaround and throughput, in bytes per second of the time in which requests are in flight.
#[derive(Debug)]
pub(super) struct Meter {
    bytes_per_s: Option<f64>,
    /// Shortest time from a request to its last byte.
    turnaround: Duration,
    sample_start: Instant,
    sample_bytes: u64,
    delivered_bytes: u64,
    /// The best delivery rates of this period and the one before.
    best_bytes_per_s: [f64; 2],
    period_start: Instant,
    /// The rate that was last much better than those before, and when it was seen first.
    grown_bytes_per_s: f64,
    grown_at: Instant,
    /// Until larger windows bring no more.
    is_growing: bool,
}

/// A request was made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Issued {
    at: Instant,
    /// What the source had delivered by then.
    delivered_bytes: u64,
}

impl Meter {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            bytes_per_s: None,
            turnaround: LONGEST,
            sample_start: now,
            sample_bytes: 0,
            delivered_bytes: 0,
            best_bytes_per_s: [0.0; 2],
            period_start: now,
            grown_bytes_per_s: 0.0,
            grown_at: now,
            is_growing: true,
        }
    }

    pub(super) fn issue(&self, now: Instant) -> Issued {
        Issued { at: now, delivered_bytes: self.delivered_bytes }
    }

    /// The first request is in flight.
    pub(super) fn start(&mut self, now: Instant) {
        self.sample_start = now;
        self.sample_bytes = 0;
    }

    /// So many bytes of a request are complete.
    pub(super) fn add(&mut self, bytes: u64, issued: Issued, now: Instant) {
        let took = now.saturating_duration_since(issued.at);
        self.turnaround = self.turnaround.min(took);
        self.delivered_bytes += bytes;
        self.note_delivery(self.delivered_bytes - issued.delivered_bytes, took, now);
        self.sample_bytes += bytes;
        let elapsed = now.saturating_duration_since(self.sample_start);
        if self.bytes_per_s.is_some() && elapsed < SAMPLE {
            return;
        }
        let sample = rate(self.sample_bytes, elapsed);
        let old = self.bytes_per_s.unwrap_or(sample);
        self.bytes_per_s = Some(old + SMOOTHING * (sample - old));
        self.start(now);
    }

    /// What was delivered while one request was under way, over that time, is a rate that a window of so much would keep up:
    /// windows made of it double with each round trip, as long as that brings more.
    ///
    /// Source: the delivery rate of BBR, <https://datatracker.ietf.org/doc/draft-cheng-iccrg-delivery-rate-estimation/>.
    fn note_delivery(&mut self, bytes: u64, took: Duration, now: Instant) {
        if now.saturating_duration_since(self.period_start) > MEMORY.max(4 * self.turnaround) {
            self.best_bytes_per_s = [0.0, self.best_bytes_per_s[0]];
            self.period_start = now;
        }
        let rate = rate(bytes, took);
        self.best_bytes_per_s[0] = self.best_bytes_per_s[0].max(rate);
        if rate >= GROWTH * self.grown_bytes_per_s {
            (self.grown_bytes_per_s, self.grown_at) = (rate, now);
        }
        self.is_growing &= now.saturating_duration_since(self.grown_at) < 3 * self.turnaround;
    }

    /// How many bytes keep the source busy.
    pub(super) fn window_bytes(&self) -> u64 {
        self.pipe_bytes() + self.bytes_per_s.map_or(0, |rate| bytes_in(AHEAD, rate))
    }

    /// What is under way between the source and here, and as much again, so that it can grow.
    pub(super) fn pipe_bytes(&self) -> u64 {
        bytes_in(2 * self.turnaround, self.best_bytes_per_s[0].max(self.best_bytes_per_s[1]))
    }

    /// Whether larger windows may bring more.
    pub(super) fn is_growing(&self) -> bool {
        self.is_growing
    }

    /// How long it takes to deliver so many bytes, when that is known.
    pub(super) fn time_for(&self, bytes: u64) -> Option<Duration> {
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let seconds = bytes as f64 / self.bytes_per_s?.max(1.0);
        Some(Duration::from_secs_f64(seconds.min(LONGEST.as_secs_f64())))
    }
}

#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn rate(bytes: u64, time: Duration) -> f64 {
    bytes as f64 / time.as_secs_f64().max(0.001)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an estimate, positive")]
fn bytes_in(time: Duration, bytes_per_s: f64) -> u64 {
    (bytes_per_s * time.min(LONGEST).as_secs_f64()) as u64
}
