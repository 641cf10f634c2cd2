//! One direction of a line: its speed, its length, and how much waits before it. A schedule: it knows no clock.

use std::time::{Duration, Instant};

use super::window::{Room, Window};

/// What lies between a fetcher and everybody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Distance {
    pub(crate) round_trip: Duration,
    /// In each direction, all connections together.
    pub(crate) bytes_per_s: u64,
    /// Of one connection, in each direction, at most so many bytes are on their way; `None` is no limit.
    pub(crate) window_bytes: Option<u64>,
}

/// Beyond what is on its way, so much of the line's time may wait before it.
const QUEUE: Duration = Duration::from_millis(50);

impl Distance {
    /// How long the line takes for so many bytes, without their way.
    pub(crate) fn time_for(&self, bytes: u64) -> Duration {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_s);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    pub(super) fn one_way(&self) -> Duration {
        self.round_trip / 2
    }

    /// What a sender can have on its way in all, what waits before the line included.
    pub(crate) fn travelling_bytes(&self) -> u64 {
        let bytes = u128::from(self.bytes_per_s) * (self.round_trip + QUEUE).as_nanos() / 1_000_000_000;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    /// The same for one connection.
    pub(crate) fn connection_bytes(&self) -> u64 {
        self.window_bytes.unwrap_or(u64::MAX).min(self.travelling_bytes())
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Line {
    distance: Distance,
    free_at: Instant,
    window: Window,
}

impl Line {
    pub(super) fn new(distance: Distance, now: Instant) -> Self {
        Self { distance, free_at: now, window: Window::new(distance.travelling_bytes()) }
    }

    /// Puts bytes on the line, behind all that were put there before, and says when the last of them arrives. As an error,
    /// when to try again: too much is on its way.
    pub(super) fn admit(&mut self, bytes: u64, now: Instant) -> Result<Instant, Instant> {
        match self.window.room(bytes, now) {
            Room::Now => {}
            Room::At(at) => return Err(at),
            // Of all that was admitted it is known when it is acknowledged.
            Room::AfterAnArrival => return Err(now),
        }
        let left_at = self.free_at.max(now) + self.distance.time_for(bytes);
        self.free_at = left_at;
        self.window.send(bytes);
        self.window.acknowledge_at(left_at + self.distance.round_trip, bytes);
        Ok(left_at + self.distance.one_way())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// 1 MB/s: 1,000 bytes take 1 ms.
    fn distance(round_trip_ms: u32, window_bytes: Option<u64>) -> Distance {
        Distance { round_trip: MS * round_trip_ms, bytes_per_s: 1_000_000, window_bytes }
    }

    #[test]
    fn bytes_arrive_one_after_the_other_and_one_way_later() {
        let start = Instant::now();
        let mut line = Line::new(distance(60, None), start);
        assert_eq!(line.admit(1000, start), Ok(start + MS * 31));
        assert_eq!(line.admit(500, start), Ok(start + MS * 31 + MS / 2));
        let later = start + MS * 100;
        assert_eq!(line.admit(2000, later), Ok(later + MS * 32), "an idle line saves nothing up");
    }

    #[test]
    fn a_line_takes_what_is_on_its_way_and_a_queue_at_once_and_then_its_speed() {
        let start = Instant::now();
        let mut line = Line::new(distance(60, None), start);
        let mut taken = 0;
        let again = loop {
            match line.admit(1000, start) {
                Ok(_) => taken += 1,
                Err(again) => break again,
            }
        };
        assert_eq!(taken, 110, "60 ms of round trip, and 50 ms of queue");
        assert_eq!(again, start + MS * 61, "when the first is acknowledged");
        for step in 0..100 {
            let now = again + MS * step;
            assert_eq!(line.admit(1000, now), Ok(start + MS * (141 + step)), "step {step}");
            assert_eq!(line.admit(1000, now), Err(now + MS), "one for each that is acknowledged");
        }
    }

    #[test]
    fn a_connection_has_its_window_or_that_of_the_line() {
        assert_eq!(distance(60, None).connection_bytes(), 110_000);
        assert_eq!(distance(60, Some(4 << 10)).connection_bytes(), 4096);
        assert_eq!(distance(60, Some(4 << 20)).connection_bytes(), 110_000);
        assert_eq!(distance(0, None).time_for(2_500_000), MS * 2500);
    }
}
