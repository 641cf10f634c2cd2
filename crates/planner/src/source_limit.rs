//! How many sources to connect to.

use std::time::{Duration, Instant};

/// How long a fetch has one source, and how many it has then.
const ALONE: Duration = Duration::from_millis(500);
const FEW: usize = 4;
/// How long some are tried before there may be twice as many.
const STEP: Duration = Duration::from_secs(1);
/// The same, after some that brought nothing, at most.
const LAST_STEP: Duration = Duration::from_secs(8);
/// Twice as many have brought something when this much more arrives.
const WORTH: f64 = 1.1;
/// Nobody is looked for when those who are known need no longer than this for the rest.
const NEARLY_DONE_S: f64 = 5.0;

/// How many sources to connect to: a connection costs both ends a handshake and room, so there is one at first, and a few after
/// half a second. There may be twice as many after each second while that brings more; later when it does not, as when
/// those known fill the line; and not at all while the rest will be here soon.
#[derive(Debug)]
pub struct SourceLimit {
    limit: usize,
    most: usize,
    /// When, and with how many bytes, this step began.
    since: Instant,
    before_bytes: u64,
    step: Duration,
    /// What arrived in the step before.
    bytes_per_s: f64,
}

impl SourceLimit {
    /// That of a fetch that begins now and never wants more than `most`.
    pub fn new(most: usize, now: Instant) -> Self {
        Self { limit: most.min(1), most, since: now, before_bytes: 0, step: ALONE, bytes_per_s: 0.0 }
    }

    /// How many there may be now, with so many bytes that came from sources, and so many that are to come.
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    pub fn at(&mut self, fetched_bytes: u64, left_bytes: u64, now: Instant) -> usize {
        let elapsed = now.saturating_duration_since(self.since);
        if self.limit == self.most || elapsed < self.step {
            return self.limit;
        }
        let bytes = fetched_bytes.saturating_sub(self.before_bytes) as f64;
        let bytes_per_s = bytes / elapsed.as_secs_f64();
        let is_worth = bytes > 0.0 && bytes_per_s >= WORTH * self.bytes_per_s;
        (self.since, self.before_bytes, self.bytes_per_s) = (now, fetched_bytes, bytes_per_s);
        if bytes > 0.0 && left_bytes as f64 <= NEARLY_DONE_S * bytes_per_s {
            return self.limit;
        }
        if self.limit < FEW {
            (self.limit, self.step) = (FEW.min(self.most), STEP);
        } else {
            self.step = if is_worth { STEP } else { (2 * self.step).min(LAST_STEP) };
            self.limit = (2 * self.limit).min(self.most);
        }
        self.limit
    }

    /// When there may be more; `None` when there never will.
    pub fn grows_at(&self) -> Option<Instant> {
        (self.limit < self.most).then(|| self.since + self.step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1_000_000;

    /// The limit after each second with a few, when so many MB arrive in each, and so many are to come.
    fn limits(mb: &[u64], left_mb: u64) -> Vec<usize> {
        let mut limit = SourceLimit::new(50, Instant::now());
        assert_eq!(limit.at(0, left_mb * MB, limit.since), 1);
        let start = limit.grows_at().unwrap();
        assert_eq!(limit.at(0, left_mb * MB, start), FEW);
        let (mut fetched, mut left) = (0, left_mb * MB);
        let after = |(second, mb): (u32, &u64)| {
            (fetched, left) = (fetched + mb * MB, left - mb * MB);
            limit.at(fetched, left, start + STEP * second)
        };
        (1..).zip(mb).map(after).collect()
    }

    #[test]
    fn it_doubles_each_second_while_more_arrives() {
        assert_eq!(limits(&[1, 2, 3, 4, 5], 1000), [8, 16, 32, 50, 50]);
    }

    #[test]
    fn it_grows_where_nothing_arrives_but_in_a_crowd_all_do_that() {
        assert_eq!(limits(&[0, 0, 0, 0, 1, 2, 3], 100), [8, 8, 16, 16, 16, 16, 32]);
    }

    #[test]
    fn a_line_that_is_full_is_left_alone_for_longer_and_longer() {
        let expected = [[8; 1].as_slice(), &[16; 2], &[32; 4], &[50; 3]].concat();
        assert_eq!(limits(&[10; 10], 1000), expected);
    }

    #[test]
    fn nobody_is_looked_for_when_the_rest_will_be_here_soon() {
        assert_eq!(limits(&[10, 10, 10, 1, 1], 60), [4, 4, 4, 8, 8]);
        let start = Instant::now();
        assert_eq!(SourceLimit::new(50, start).at(MB, 9 * MB, start + ALONE), 1, "not even a few");
    }

    #[test]
    fn between_steps_nothing_changes_and_there_are_never_more_than_asked_for() {
        let start = Instant::now();
        let mut limit = SourceLimit::new(6, start);
        assert_eq!(limit.at(0, 100 * MB, start + ALONE), FEW);
        assert_eq!(limit.at(MB, 100 * MB, start + STEP), FEW);
        assert_eq!(limit.grows_at(), Some(start + ALONE + STEP));
        assert_eq!(limit.at(MB, 100 * MB, start + ALONE + STEP), 6);
        assert_eq!(limit.grows_at(), None);
        assert_eq!(SourceLimit::new(2, start).at(0, MB, start + ALONE), 2);
        assert_eq!(SourceLimit::new(0, start).at(0, MB, start + ALONE), 0);
    }
}
