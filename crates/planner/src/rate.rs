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

/// Measures turnaround and throughput, in bytes per second of the time in which requests are in flight.
#[derive(Debug)]
pub(super) struct Meter {
    bytes_per_s: Option<f64>,
    /// Shortest time from a request to its last byte.
    turnaround: Duration,
    sample_start: Instant,
    sample_bytes: u64,
}

impl Meter {
    pub(super) fn new(now: Instant) -> Self {
        Self { bytes_per_s: None, turnaround: LONGEST, sample_start: now, sample_bytes: 0 }
    }

    /// The first request is in flight.
    pub(super) fn start(&mut self, now: Instant) {
        self.sample_start = now;
        self.sample_bytes = 0;
    }

    /// So many bytes are complete that were asked for at `issued`.
    pub(super) fn add(&mut self, bytes: u64, issued: Instant, now: Instant) {
        self.turnaround = self.turnaround.min(now.saturating_duration_since(issued));
        self.sample_bytes += bytes;
        let elapsed = now.saturating_duration_since(self.sample_start);
        if self.bytes_per_s.is_some() && elapsed < SAMPLE {
            return;
        }
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let sample = self.sample_bytes as f64 / elapsed.as_secs_f64().max(0.001);
        let old = self.bytes_per_s.unwrap_or(sample);
        self.bytes_per_s = Some(old + SMOOTHING * (sample - old));
        self.start(now);
    }

    /// How many bytes keep the source busy.
    pub(super) fn window_bytes(&self) -> u64 {
        let seconds = (2 * self.turnaround + AHEAD).as_secs_f64();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an estimate, positive")]
        self.bytes_per_s.map_or(0, |rate| (rate * seconds) as u64)
    }

    /// How long it takes to deliver so many bytes, when that is known.
    pub(super) fn time_for(&self, bytes: u64) -> Option<Duration> {
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let seconds = bytes as f64 / self.bytes_per_s?.max(1.0);
        Some(Duration::from_secs_f64(seconds.min(LONGEST.as_secs_f64())))
    }
}
