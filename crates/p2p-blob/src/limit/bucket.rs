//! A token bucket of bytes.

use std::num::NonZeroU64;
use std::time::Duration;

use tokio::time::Instant;

/// The burst: what the rate gives in this time, but no less than this.
const BURST: Duration = Duration::from_millis(50);
const MIN_BURST_BYTES: f64 = 16_384.0;

/// In any time *t* it gives at most `burst + rate * t` bytes.
#[derive(Debug)]
pub(crate) struct Bucket {
    bytes_per_s: f64,
    burst_bytes: f64,
    /// Tokens at `filled`.
    saved_bytes: f64,
    filled: Instant,
}

impl Bucket {
    /// A full one.
    #[expect(clippy::cast_precision_loss, reason = "nobody sends 2^53 bytes a second")]
    pub(crate) fn new(bytes_per_s: NonZeroU64, now: Instant) -> Self {
        let bytes_per_s = bytes_per_s.get() as f64;
        let burst_bytes = (bytes_per_s * BURST.as_secs_f64()).max(MIN_BURST_BYTES);
        Self { bytes_per_s, burst_bytes, saved_bytes: burst_bytes, filled: now }
    }

    /// Takes `bytes`, at most a burst (16 KiB, or 50 ms of the rate); or returns when they will be available.
    pub(crate) fn take(&mut self, bytes: usize, now: Instant) -> Result<(), Instant> {
        let since = now.saturating_duration_since(self.filled).as_secs_f64();
        self.saved_bytes = (self.saved_bytes + since * self.bytes_per_s).min(self.burst_bytes);
        self.filled = now;
        #[expect(clippy::cast_precision_loss, reason = "grants are small")]
        let missing_bytes = bytes as f64 - self.saved_bytes;
        if missing_bytes > 0.0 {
            // Rounded up, so that the next try succeeds.
            let wait = Duration::from_secs_f64(missing_bytes / self.bytes_per_s) + Duration::from_micros(1);
            return Err(now + wait);
        }
        self.saved_bytes = -missing_bytes;
        Ok(())
    }

    /// Gives back unused tokens.
    #[expect(clippy::cast_precision_loss, reason = "grants are small")]
    pub(super) fn give_back(&mut self, bytes: usize) {
        self.saved_bytes = (self.saved_bytes + bytes as f64).min(self.burst_bytes);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn never_more_than_the_rate_and_no_less_for_the_patient(
            bytes_per_s in 1_000u64..100_000_000,
            takes in proptest::collection::vec((1usize..16_384, 0u64..200_000), 1..200),
        ) {
            let start = Instant::now();
            let mut bucket = Bucket::new(NonZeroU64::new(bytes_per_s).unwrap(), start);
            let (mut now, mut taken) = (start, 0.0);
            for (bytes, idle_us) in takes {
                now += Duration::from_micros(idle_us);
                if let Err(ready) = bucket.take(bytes, now) {
                    prop_assert!(ready > now);
                    let earlier = ready - Duration::from_micros(3);
                    prop_assert!(earlier <= now || bucket.take(bytes, earlier).is_err(), "it waited for nothing");
                    now = ready;
                    prop_assert!(bucket.take(bytes, now).is_ok(), "it said that they would be there");
                }
                taken += bytes as f64;
                let allowed = bucket.burst_bytes + (now - start).as_secs_f64() * bytes_per_s as f64;
                prop_assert!(taken <= allowed + 1.0, "{} of {}", taken, allowed);
            }
        }
    }
}
