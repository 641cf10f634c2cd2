//! A rate limit that many streams share.

use std::num::NonZeroU64;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::bucket::Bucket;
use super::{FairQueue, Flow};

/// Queued requests for bytes; further streams wait.
const QUEUE: usize = 64;
/// Bytes granted at a time: a fiftieth of a second of the rate, within these bounds. Small, so that a slow rate trickles
/// to all instead of making each wait.
const MIN_GRANT_BYTES: u64 = 1 << 10;
const MAX_GRANT_BYTES: u64 = 64 << 10;
const GRANTS_PER_S: u64 = 50;

/// Grants bytes at a rate, shared equally among the peers that ask. Clones are the same one.
#[derive(Debug, Clone)]
pub(crate) struct RateLimit<P> {
    wants: mpsc::Sender<Want<P>>,
}

#[derive(Debug)]
struct Want<P> {
    peer: P,
    reply: oneshot::Sender<usize>,
}

impl<P: Flow + Send + 'static> RateLimit<P> {
    /// Starts its task on the runtime; it ends with its last clone.
    pub(crate) fn start(bytes_per_s: NonZeroU64) -> Self {
        let (wants, receiver) = mpsc::channel(QUEUE);
        tokio::spawn(run(bytes_per_s, receiver));
        Self { wants }
    }

    /// Waits for a grant of bytes: at least 1, at most 64 KiB. They count whether or not they are used.
    ///
    /// **Cancel safety.** A dropped future uses nothing up.
    pub(crate) async fn take(&self, peer: P) -> usize {
        let (reply, granted) = oneshot::channel();
        // The task ends only with the runtime.
        if self.wants.send(Want { peer, reply }).await.is_err() {
            return std::future::pending().await;
        }
        match granted.await {
            Ok(bytes) => bytes,
            Err(_) => std::future::pending().await,
        }
    }
}

async fn run<P: Flow>(bytes_per_s: NonZeroU64, mut wants: mpsc::Receiver<Want<P>>) {
    let grant = (bytes_per_s.get() / GRANTS_PER_S).clamp(MIN_GRANT_BYTES, MAX_GRANT_BYTES);
    let grant_bytes = usize::try_from(grant).unwrap_or(usize::MAX);
    let mut bucket = Bucket::new(bytes_per_s, Instant::now());
    let mut queue = FairQueue::new();
    loop {
        if queue.is_empty() {
            match wants.recv().await {
                Some(want) => queue.push(want.peer, want.reply),
                None => return,
            }
        }
        // The next peer is chosen when the bytes are available, among all that ask by then.
        if let Err(ready) = bucket.take(grant_bytes, Instant::now()) {
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(ready) => {}
                Some(want) = wants.recv() => queue.push(want.peer, want.reply),
            }
            continue;
        }
        while let Ok(want) = wants.try_recv() {
            queue.push(want.peer, want.reply);
        }
        loop {
            match queue.pop(0, |_| true, |_| 0) {
                Some((peer, reply)) => {
                    // A dropped request uses nothing.
                    let reply: oneshot::Sender<usize> = reply;
                    if reply.send(grant_bytes).is_ok() {
                        queue.charge(peer, grant);
                        break;
                    }
                }
                None => {
                    bucket.give_back(grant_bytes);
                    break;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use libp2p::PeerId;
    use tokio::task::JoinSet;

    use super::*;

    /// What each peer gets in ten seconds, with so many streams each.
    async fn shares(bytes_per_s: u64, streams: &[usize]) -> Vec<usize> {
        let rate = RateLimit::start(NonZeroU64::new(bytes_per_s).unwrap());
        let mut tasks = JoinSet::new();
        let end = Instant::now() + Duration::from_secs(10);
        for (number, count) in streams.iter().enumerate() {
            let peer = PeerId::random();
            for _ in 0..*count {
                let rate = rate.clone();
                tasks.spawn(async move {
                    let mut sum = 0;
                    while let Ok(bytes) = tokio::time::timeout_at(end, rate.take(peer)).await {
                        sum += bytes;
                    }
                    (number, sum)
                });
            }
        }
        let mut shares = HashMap::new();
        while let Some(done) = tasks.join_next().await {
            let (number, sum) = done.unwrap();
            *shares.entry(number).or_insert(0) += sum;
        }
        (0..streams.len()).map(|number| shares[&number]).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn peers_get_equal_shares_of_the_whole_rate_whatever_number_of_streams_they_have() {
        for bytes_per_s in [50_000, 2_000_000, 200_000_000] {
            let shares = shares(bytes_per_s, &[1, 1, 16, 4]).await;
            let sum = shares.iter().sum::<usize>() as f64;
            let expected = bytes_per_s as f64 * 10.0;
            assert!(sum <= expected * 1.01 + 100_000.0, "{shares:?}");
            assert!(sum >= expected * 0.95, "{shares:?}");
            let (least, most) = (*shares.iter().min().unwrap(), *shares.iter().max().unwrap());
            assert!((most - least) as f64 <= expected / 100.0 + 140_000.0, "{shares:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_rate_trickles() {
        let rate = RateLimit::start(NonZeroU64::new(20_000).unwrap());
        let peer = PeerId::random();
        let mut longest = Duration::ZERO;
        for _ in 0..200 {
            let asked = Instant::now();
            assert!(rate.take(peer).await <= 1024);
            longest = longest.max(asked.elapsed());
        }
        assert!(longest < Duration::from_millis(100), "{longest:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_gives_up_uses_nothing() {
        let rate = RateLimit::start(NonZeroU64::new(20_000).unwrap());
        let peer = PeerId::random();
        for _ in 0..100 {
            // Polled once, and dropped.
            let _ = tokio::time::timeout(Duration::ZERO, rate.take(peer)).await;
        }
        let start = Instant::now();
        let mut bytes = 0;
        while start.elapsed() < Duration::from_secs(10) {
            bytes += rate.take(peer).await;
        }
        assert!(bytes >= 190_000, "{bytes}");
    }
}
