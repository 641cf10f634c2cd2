//! What has come out of the line, over time.

use std::time::{Duration, Instant};

/// Bytes that were delivered in each step of time since the start.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    started: Instant,
    /// From the start to the first connection.
    pub(crate) connected_after: Option<Duration>,
    /// One number for each [`Record::STEP`].
    pub(crate) delivered_bytes: Vec<u64>,
}

impl Record {
    pub(crate) const STEP: Duration = Duration::from_millis(50);

    pub(super) fn new(started: Instant) -> Self {
        Self { started, connected_after: None, delivered_bytes: Vec::new() }
    }

    pub(super) fn connected(&mut self, now: Instant) {
        self.connected_after.get_or_insert(now.saturating_duration_since(self.started));
    }

    pub(super) fn delivered(&mut self, bytes: u64, now: Instant) {
        let step = now.saturating_duration_since(self.started).as_millis() / Self::STEP.as_millis();
        let step = usize::try_from(step).unwrap_or(usize::MAX);
        if self.delivered_bytes.len() <= step {
            self.delivered_bytes.resize(step + 1, 0);
        }
        self.delivered_bytes[step] += bytes;
    }

    pub(crate) fn total_bytes(&self) -> u64 {
        self.delivered_bytes.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_count_in_their_step() {
        let start = Instant::now();
        let mut record = Record::new(start);
        for (after_ms, bytes) in [(0, 1), (49, 2), (50, 4), (210, 8)] {
            record.delivered(bytes, start + Duration::from_millis(after_ms));
        }
        assert_eq!(record.delivered_bytes, [3, 4, 0, 0, 8]);
        assert_eq!(record.total_bytes(), 15);
        for after_ms in [30, 70] {
            record.connected(start + Duration::from_millis(after_ms));
        }
        assert_eq!(record.connected_after, Some(Duration::from_millis(30)));
    }
}
