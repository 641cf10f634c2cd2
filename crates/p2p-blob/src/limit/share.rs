//! The upload budget of a node that fetches: less than it receives, so that serving cannot crowd out the fetch, unless
//! the fetch waits for other peers.

use std::time::Duration;

use tokio::time::Instant;

/// Bytes that may be sent per bytes received.
const RECEIVED: i64 = 4;
const SENT: i64 = 3;
/// The burst: may be sent before anything was received.
const MAX_SAVED_BYTES: i64 = 16 << 20;
/// A fetch that received nothing, or was answered "busy", within this time waits for other peers: then uploads are not
/// limited. Otherwise leechers that serve nothing would starve the swarm.
const IDLE: Duration = Duration::from_secs(1);

/// While no peer is busy it allows `16 MiB + 3/4 * received` bytes in any time, and one answer more. Source of the
/// numbers: `docs/simulation.md`, "Serving while fetching".
#[derive(Debug)]
pub(crate) struct Share {
    saved_bytes: i64,
    received: Instant,
    busy_at: Option<Instant>,
}

impl Share {
    /// A fetch begins.
    pub(crate) fn new(now: Instant) -> Self {
        Self { saved_bytes: MAX_SAVED_BYTES, received: now, busy_at: None }
    }

    /// Bytes of the fetch were received.
    pub(crate) fn received(&mut self, bytes: u64, now: Instant) {
        let earned = signed(bytes).saturating_mul(SENT) / RECEIVED;
        self.give_back(earned);
        self.received = now;
    }

    /// A peer answered "busy" to the fetch.
    pub(crate) fn on_busy(&mut self, now: Instant) {
        self.busy_at = Some(now);
    }

    /// Whether something may be sent now.
    pub(crate) fn allows(&self, now: Instant) -> bool {
        let waits = self.busy_at.is_some_and(|at| now - at < IDLE);
        self.saved_bytes > 0 || waits || now - self.received >= IDLE
    }

    /// Bytes are sent.
    pub(crate) fn spend(&mut self, bytes: u64) {
        // While the fetch waits, its debt is bounded like its burst.
        self.saved_bytes = self.saved_bytes.saturating_sub(signed(bytes)).max(-MAX_SAVED_BYTES);
    }

    /// Bytes were not sent after all.
    pub(crate) fn refund(&mut self, bytes: u64) {
        self.give_back(signed(bytes));
    }

    fn give_back(&mut self, bytes: i64) {
        self.saved_bytes = self.saved_bytes.saturating_add(bytes).min(MAX_SAVED_BYTES);
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    /// What can be sent now, in answers of 1 MiB.
    fn sendable_bytes(share: &mut Share, now: Instant) -> u64 {
        let answers = (0..1000).take_while(|_| {
            let is_allowed = share.allows(now);
            if is_allowed {
                share.spend(MIB);
            }
            is_allowed
        });
        answers.count() as u64 * MIB
    }

    #[test]
    fn a_fetch_that_gets_nothing_holds_nothing_back() {
        let start = Instant::now();
        let mut share = Share::new(start);
        assert_eq!(sendable_bytes(&mut share, start), 16 * MIB);
        assert_eq!(sendable_bytes(&mut share, start + IDLE), 1000 * MIB);
        let later = start + 2 * IDLE;
        share.received(24 * MIB, later);
        assert_eq!(sendable_bytes(&mut share, later), 2 * MIB, "little is held against it");
    }

    #[test]
    fn a_fetch_that_others_hold_up_holds_nothing_back() {
        let start = Instant::now();
        let mut share = Share::new(start);
        sendable_bytes(&mut share, start);
        share.received(0, start);
        share.on_busy(start);
        assert_eq!(sendable_bytes(&mut share, start), 1000 * MIB);
        share.received(0, start + IDLE);
        assert_eq!(sendable_bytes(&mut share, start + IDLE), 0);
    }

    proptest! {
        #[test]
        fn less_goes_out_than_came_in(
            steps in proptest::collection::vec((0..8 * MIB, 0_u64..900), 1..100)
        ) {
            let mut now = Instant::now();
            let mut share = Share::new(now);
            let (mut received_bytes, mut sent_bytes) = (0, 0);
            for (bytes, pause_ms) in steps {
                now += Duration::from_millis(pause_ms);
                share.received(bytes, now);
                received_bytes += bytes;
                sent_bytes += sendable_bytes(&mut share, now);
                prop_assert!(sent_bytes <= 17 * MIB + received_bytes * 3 / 4);
                // And what came in may go out again.
                share.refund(MIB);
                sent_bytes -= MIB.min(sent_bytes);
            }
        }
    }
}
