//! How many bytes a node has received and sent a second, lately.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How often the bytes are noted.
pub(crate) const NOTE_EVERY: Duration = Duration::from_secs(1);
/// Rates are of so much time.
const WINDOW: Duration = Duration::from_secs(5);

/// Bytes since the start, or a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Bytes {
    pub(super) received: u64,
    pub(super) sent: u64,
}

/// The bytes of the last seconds.
#[derive(Debug)]
pub(super) struct Rates {
    /// The oldest first; never empty.
    noted: VecDeque<(Instant, Bytes)>,
}

impl Rates {
    /// Nothing was received or sent before `now`.
    pub(super) fn new(now: Instant) -> Self {
        Self { noted: VecDeque::from([(now, Bytes::default())]) }
    }

    /// So many there were up to `now`.
    pub(super) fn note(&mut self, now: Instant, bytes: Bytes) {
        // One as old as the window stays, or older.
        while self.noted.get(1).is_some_and(|(at, _)| now.saturating_duration_since(*at) >= WINDOW) {
            self.noted.pop_front();
        }
        self.noted.push_back((now, bytes));
    }

    /// So many there were a second, since what was noted first, when there are so many up to `now`.
    pub(super) fn per_s(&self, now: Instant, bytes: Bytes) -> Bytes {
        let Some((at, before)) = self.noted.front() else { return Bytes::default() };
        let ms = now.saturating_duration_since(*at).as_millis().max(1);
        let rate = |now: u64, before: u64| {
            u64::try_from(u128::from(now.saturating_sub(before)) * 1000 / ms).unwrap_or(u64::MAX)
        };
        Bytes { received: rate(bytes.received, before.received), sent: rate(bytes.sent, before.sent) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_the_last_seconds() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let mut rates = Rates::new(start);
        assert_eq!(rates.per_s(start, Bytes::default()), Bytes::default());
        assert_eq!(rates.per_s(at(2), Bytes { received: 20, sent: 4 }), Bytes { received: 10, sent: 2 });
        for s in 1..=10 {
            rates.note(at(s), Bytes { received: 100 * s, sent: 0 });
        }
        assert_eq!(
            rates.per_s(at(10), Bytes { received: 1000, sent: 50 }),
            Bytes { received: 100, sent: 10 }
        );
        // Nothing more comes.
        for s in 11..=16 {
            rates.note(at(s), Bytes { received: 1000, sent: 0 });
        }
        assert_eq!(rates.per_s(at(16), Bytes { received: 1000, sent: 0 }), Bytes::default());
        assert!(rates.noted.len() <= 8, "what is noted is bounded");
    }
}
