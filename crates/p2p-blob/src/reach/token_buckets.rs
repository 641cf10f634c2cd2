//! Token buckets by key: a burst, then so many a minute. No clock but what is given.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Keys remembered; while there are more, new ones are refused.
const MAX_KEYS: usize = 4096;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct TokenBuckets<K> {
    burst: u32,
    /// Time per token.
    every: Duration,
    /// When each bucket will be full again.
    full_at: HashMap<K, Instant>,
}

impl<K: Eq + Hash> TokenBuckets<K> {
    pub(super) fn new((burst, per_minute): (u32, u32)) -> Self {
        Self { burst, every: Duration::from_secs(60) / per_minute.max(1), full_at: HashMap::new() }
    }

    /// Takes a token, if there is one.
    pub(super) fn take(&mut self, key: K, now: Instant) -> bool {
        if self.full_at.len() >= MAX_KEYS {
            self.full_at.retain(|_, full| *full > now);
        }
        if self.full_at.len() >= MAX_KEYS && !self.full_at.contains_key(&key) {
            return false;
        }
        let full = self.full_at.entry(key).or_insert(now);
        let after = (*full).max(now) + self.every;
        let may = after <= now + self.every * self.burst;
        if may {
            *full = after;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_allowed_and_comes_back_with_time() {
        let (mut buckets, now) = (TokenBuckets::new((3, 6)), Instant::now());
        let mut count = |key, at| (0..10).filter(|_| buckets.take(key, at)).count();
        assert_eq!((count(1, now), count(2, now)), (3, 3));
        assert_eq!(count(1, now + Duration::from_secs(9)), 0);
        assert_eq!(count(1, now + Duration::from_secs(20)), 2);
        assert_eq!(count(1, now + Duration::from_secs(600)), 3);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut buckets, now) = (TokenBuckets::new((1, 60)), Instant::now());
        let allowed = (0..2 * MAX_KEYS).filter(|key| buckets.take(*key, now)).count();
        assert_eq!((allowed, buckets.full_at.len()), (MAX_KEYS, MAX_KEYS));
        assert!(buckets.take(usize::MAX, now + Duration::from_secs(2)));
    }
}
