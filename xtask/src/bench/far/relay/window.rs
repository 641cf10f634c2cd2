//! How many bytes are on their way: sent, and not acknowledged yet. It knows no clock: whoever asks says what time it is.

use std::collections::VecDeque;
use std::time::Instant;

/// At most so many bytes are on their way at a time.
#[derive(Debug)]
pub(super) struct Window {
    limit_bytes: u64,
    travelling_bytes: u64,
    /// When how many of them will be acknowledged, soonest first; of some it is not known yet.
    acknowledged: VecDeque<(Instant, u64)>,
}

/// When there is room for more.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Room {
    Now,
    At(Instant),
    /// Not before something arrives that has not yet.
    AfterAnArrival,
}

impl Window {
    pub(super) fn new(limit_bytes: u64) -> Self {
        Self { limit_bytes, travelling_bytes: 0, acknowledged: VecDeque::new() }
    }

    /// When so many may be sent. Even more than fit are, when nothing else is on its way.
    pub(super) fn room(&mut self, bytes: u64, now: Instant) -> Room {
        while let Some((at, acknowledged_bytes)) = self.acknowledged.front().copied()
            && at <= now
        {
            self.acknowledged.pop_front();
            self.travelling_bytes -= acknowledged_bytes;
        }
        let fits = |travelling_bytes: u64| {
            travelling_bytes == 0 || travelling_bytes.saturating_add(bytes) <= self.limit_bytes
        };
        let mut travelling_bytes = self.travelling_bytes;
        if fits(travelling_bytes) {
            return Room::Now;
        }
        for (at, acknowledged_bytes) in &self.acknowledged {
            travelling_bytes -= acknowledged_bytes;
            if fits(travelling_bytes) {
                return Room::At(*at);
            }
        }
        Room::AfterAnArrival
    }

    pub(super) fn send(&mut self, bytes: u64) {
        self.travelling_bytes += bytes;
    }

    /// So many of those that were sent will be acknowledged at that time, which is no sooner than those before.
    pub(super) fn acknowledge_at(&mut self, at: Instant, bytes: u64) {
        self.acknowledged.push_back((at, bytes));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn there_is_room_again_when_enough_is_acknowledged() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut window = Window::new(100);
        for (sent_at, bytes) in [(0, 40), (5, 60)] {
            assert_eq!(window.room(bytes, at(sent_at)), Room::Now);
            window.send(bytes);
        }
        assert_eq!(window.room(1, at(6)), Room::AfterAnArrival);
        window.acknowledge_at(at(20), 40);
        assert_eq!(window.room(40, at(6)), Room::At(at(20)));
        assert_eq!(window.room(41, at(6)), Room::AfterAnArrival);
        window.acknowledge_at(at(25), 60);
        assert_eq!(window.room(41, at(6)), Room::At(at(25)));
        assert_eq!(window.room(40, at(20)), Room::Now);
        assert_eq!(window.room(1000, at(24)), Room::At(at(25)), "more than ever fits, alone");
        assert_eq!(window.room(1000, at(25)), Room::Now);
    }
}
