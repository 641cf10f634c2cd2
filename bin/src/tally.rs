//! How much of a model is here, and lines that tell of it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use manifest::Manifest;

use crate::units::{show_duration, show_rate, show_size};

/// How often a line is due.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// How much of the weights is here. Parity is none of them: what is rebuilt from it counts.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// By index: the data shards, of several with the same digest only the first.
    shards: BTreeMap<u32, Shard>,
    resumed_bytes: u64,
    /// When only some of it is wanted.
    wanted_bytes: Option<u64>,
}

#[derive(Debug)]
struct Shard {
    size_bytes: u64,
    done_bytes: u64,
}

impl Tally {
    /// Nothing is here.
    pub(crate) fn new(manifest: &Manifest) -> Self {
        let first = (0..manifest.data_shard_count()).filter(|shard| manifest.canonical(*shard) == *shard);
        let sized = first.filter_map(|shard| Some((shard, manifest.weights_range(shard)?.len())));
        let shards = sized.map(|(shard, size_bytes)| (shard, Shard { size_bytes, done_bytes: 0 })).collect();
        Self { shards, resumed_bytes: 0, wanted_bytes: None }
    }

    /// The shards that are fetched, with their sizes in bytes.
    pub(crate) fn shards(&self) -> impl Iterator<Item = (u32, u64)> {
        self.shards.iter().map(|(shard, sizes)| (*shard, sizes.size_bytes))
    }

    /// Only so much of it is wanted.
    pub(crate) fn limit(&mut self, bytes: u64) {
        self.wanted_bytes = Some(bytes);
    }

    /// How much there is to fetch.
    pub(crate) fn total_bytes(&self) -> u64 {
        self.wanted_bytes.unwrap_or_else(|| self.shards.values().map(|shard| shard.size_bytes).sum())
    }

    /// How much of it is here.
    pub(crate) fn done_bytes(&self) -> u64 {
        let done: u64 = self.shards.values().map(|shard| shard.done_bytes).sum();
        (done + self.resumed_bytes).min(self.total_bytes())
    }

    /// How much of a shard has come in this run.
    pub(crate) fn shard_done_bytes(&self, shard: u32) -> u64 {
        self.shards.get(&shard).map_or(0, |shard| shard.done_bytes)
    }

    /// An earlier run has left this much; of which shards is not told.
    pub(crate) fn add_resumed(&mut self, bytes: u64) {
        self.resumed_bytes += bytes;
    }

    /// A piece is here. Its padding does not count.
    pub(crate) fn add(&mut self, shard: u32, bytes: u64) {
        if let Some(shard) = self.shards.get_mut(&shard) {
            shard.done_bytes = (shard.done_bytes + bytes).min(shard.size_bytes);
        }
    }

    /// A shard was wrong.
    pub(crate) fn forget(&mut self, shard: u32) {
        if let Some(shard) = self.shards.get_mut(&shard) {
            shard.done_bytes = 0;
        }
    }
}

/// Lines that tell how far the work is, one every few seconds.
#[derive(Debug)]
pub(crate) struct Lines {
    at: Instant,
    done_bytes: u64,
}

impl Lines {
    /// The first line is due some seconds from `now`.
    pub(crate) fn new(now: Instant) -> Self {
        Self { at: now, done_bytes: 0 }
    }

    /// This much is done, but says nothing about the rate.
    pub(crate) fn skip(&mut self, done_bytes: u64) {
        self.done_bytes = done_bytes;
    }

    /// The line, if one is due: how far, how fast since the last one, and the time left at that rate.
    pub(crate) fn next(&mut self, now: Instant, done_bytes: u64, total_bytes: u64) -> Option<String> {
        let elapsed = now.saturating_duration_since(self.at);
        if elapsed < LINE_EVERY {
            return None;
        }
        let new_bytes = done_bytes.saturating_sub(self.done_bytes);
        *self = Self { at: now, done_bytes };
        if total_bytes == 0 {
            return Some("nothing yet".to_owned());
        }
        let percent = u128::from(done_bytes) * 100 / u128::from(total_bytes);
        let left = match new_bytes {
            0 => "stalled".to_owned(),
            _ => {
                let left_s =
                    elapsed.as_secs_f64() * total_bytes.saturating_sub(done_bytes) as f64 / new_bytes as f64;
                let left = Duration::try_from_secs_f64(left_s).unwrap_or(Duration::MAX);
                format!("{} left", show_duration(left))
            }
        };
        let (done, total) = (show_size(done_bytes), show_size(total_bytes));
        Some(format!("{percent} %, {done} of {total}, {}, {left}", show_rate(new_bytes, elapsed)))
    }
}

#[cfg(test)]
mod tests {
    use manifest::{Codec, Digest, Shard as ManifestShard};

    use super::*;

    /// Three rows of 10 bytes, the last two equal, and one parity shard.
    fn manifest() -> Manifest {
        let shard = |content: &[u8], is_parity| ManifestShard {
            digest: Digest::of(content),
            size_bytes: 10,
            is_parity,
        };
        let shards = vec![shard(b"a", false), shard(b"b", false), shard(b"b", false), shard(b"p", true)];
        Manifest::new("simplenet".to_owned(), 30, shards, 3, 1, Codec::Rs, None).unwrap()
    }

    #[test]
    fn equal_shards_count_once_and_parity_never() {
        let mut tally = Tally::new(&manifest());
        assert_eq!(tally.shards().collect::<Vec<_>>(), [(0, 10), (1, 10)]);
        for (shard, bytes, done_bytes) in [(0, 4, 4), (3, 10, 4), (1, 10, 14), (0, 9, 20)] {
            tally.add(shard, bytes);
            assert_eq!(tally.done_bytes(), done_bytes);
        }
        tally.forget(0);
        assert_eq!((tally.done_bytes(), tally.shard_done_bytes(0), tally.shard_done_bytes(1)), (10, 0, 10));
        tally.add_resumed(1000);
        assert_eq!(tally.done_bytes(), tally.total_bytes());
    }

    #[test]
    fn a_line_is_due_every_few_seconds() {
        const MIB: u64 = 1 << 20;
        let start = Instant::now();
        let mut lines = Lines::new(start);
        let mut next =
            |seconds, done_bytes| lines.next(start + Duration::from_secs(seconds), done_bytes, 100 * MIB);
        assert_eq!(next(4, MIB), None);
        let line = next(10, 50 * MIB).unwrap();
        assert_eq!(line, "50 %, 50.0 MiB of 100 MiB, 5 MB/s, 10 s left");
        assert_eq!(next(14, 60 * MIB), None);
        assert!(next(20, 50 * MIB).unwrap().ends_with("0 MB/s, stalled"));
        assert!(lines.next(start + Duration::from_secs(30), 0, 0).is_some());
    }
}
