//! The candidates, and which one to dial next. No I/O, no clock, no randomness but what is given.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use fastrand::Rng;
use p2p_blob::{Contact, Multiaddr, PeerId};

/// Peers remembered in one fetch.
const MAX_CANDIDATES: usize = 1024;
/// Addresses remembered of one peer.
const MAX_ADDRS: usize = 16;
/// Exponential backoff between dials of a peer.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(60);
/// Backoff of a source that was evicted as useless.
const USELESS_PAUSE: Duration = Duration::from_secs(60);

/// A peer that may be a source.
struct Candidate {
    addrs: Vec<Multiaddr>,
    /// It is being dialed, or connected.
    is_busy: bool,
    /// It has sent bytes before.
    is_proven: bool,
    was_tried: bool,
    /// It is not dialed again.
    is_dismissed: bool,
    /// Failed attempts in a row.
    failures: u32,
    not_before: Instant,
}

impl Candidate {
    /// Whether it may be dialed now.
    fn is_ready(&self, now: Instant) -> bool {
        !self.is_busy && !self.is_dismissed && self.not_before <= now
    }
}

/// See the module's documentation.
pub(super) struct Candidates {
    own: PeerId,
    known: HashMap<PeerId, Candidate>,
    rng: Rng,
}

impl Candidates {
    /// None yet. `own` is never one.
    pub(super) fn new(own: PeerId, rng: Rng) -> Self {
        Self { own, known: HashMap::new(), rng }
    }

    /// A peer was discovered; one without addresses is connected already.
    pub(super) fn add(&mut self, contact: Contact, now: Instant) {
        let Contact { peer, addrs } = contact;
        if peer == self.own {
            return;
        }
        if !self.known.contains_key(&peer) && !self.make_room() {
            return;
        }
        let candidate = self.known.entry(peer).or_insert_with(|| Candidate {
            addrs: Vec::new(),
            is_busy: false,
            is_proven: false,
            was_tried: false,
            is_dismissed: false,
            failures: 0,
            not_before: now,
        });
        for addr in addrs {
            if candidate.addrs.len() < MAX_ADDRS && !candidate.addrs.contains(&addr) {
                candidate.addrs.push(addr);
            }
        }
    }

    /// Makes room for one more, if need be by evicting a dismissed one, or else the one that failed most.
    fn make_room(&mut self) -> bool {
        if self.known.len() < MAX_CANDIDATES {
            return true;
        }
        let idle = self.known.iter().filter(|(_, one)| !one.is_busy && one.failures > 0);
        let worst = idle.max_by_key(|(_, one)| (one.is_dismissed, one.failures)).map(|(peer, _)| *peer);
        worst.is_some_and(|peer| self.known.remove(&peer).is_some())
    }

    /// The next one to dial: proven ones first, then those that never failed, at random among equals. It counts as busy
    /// until [`Candidates::on_down`] or [`Candidates::on_failed`].
    pub(super) fn next(&mut self, now: Instant) -> Option<Contact> {
        let ready = self.known.iter().filter(|(_, one)| one.is_ready(now));
        let rank = |one: &Candidate| (!one.is_proven, one.failures > 0);
        let best = ready.clone().map(|(_, one)| rank(one)).min()?;
        let best: Vec<_> = ready.filter(|(_, one)| rank(one) == best).map(|(peer, _)| *peer).collect();
        let peer = self.rng.choice(best)?;
        let candidate = self.known.get_mut(&peer)?;
        candidate.is_busy = true;
        candidate.was_tried = true;
        Some(Contact { peer, addrs: candidate.addrs.clone() })
    }

    /// Whether any was never dialed.
    pub(super) fn has_untried(&self) -> bool {
        self.known.values().any(|one| !one.was_tried)
    }

    /// Whether any could be dialed now.
    pub(super) fn has_ready(&self, now: Instant) -> bool {
        self.known.values().any(|one| one.is_ready(now))
    }

    /// When the next one can be dialed.
    pub(super) fn next_ready(&self) -> Option<Instant> {
        self.known.values().filter(|one| !one.is_busy && !one.is_dismissed).map(|one| one.not_before).min()
    }

    /// A peer could not be reached, or has no free slot for us.
    pub(super) fn on_failed(&mut self, peer: &PeerId, now: Instant) {
        let jitter = self.rng.f64().mul_add(0.5, 0.75);
        if let Some(candidate) = self.known.get_mut(peer) {
            let pause = FIRST_PAUSE.saturating_mul(1 << candidate.failures.min(10)).min(LAST_PAUSE);
            candidate.is_busy = false;
            candidate.failures = candidate.failures.saturating_add(1);
            candidate.not_before = now + pause.mul_f64(jitter);
        }
    }

    /// A connected peer has disconnected. `was_useful`: it sent bytes.
    pub(super) fn on_down(&mut self, peer: &PeerId, was_useful: bool, now: Instant) {
        if was_useful && let Some(candidate) = self.known.get_mut(peer) {
            candidate.is_proven = true;
            candidate.failures = 0;
        }
        self.on_failed(peer, now);
    }

    /// A peer sent wrong bytes: it is not dialed again, unless it is evicted and found anew.
    pub(super) fn on_dismissed(&mut self, peer: &PeerId) {
        if let Some(candidate) = self.known.get_mut(peer) {
            candidate.is_busy = false;
            candidate.is_dismissed = true;
            candidate.failures = candidate.failures.saturating_add(1);
        }
    }

    /// A useless source was replaced by another.
    pub(super) fn on_useless(&mut self, peer: &PeerId, now: Instant) {
        self.on_failed(peer, now);
        if let Some(candidate) = self.known.get_mut(peer) {
            candidate.not_before = now + USELESS_PAUSE;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn contact(port: usize) -> Contact {
        let addr = format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap();
        Contact { peer: PeerId::random(), addrs: vec![addr] }
    }

    fn candidates() -> (Candidates, Instant) {
        (Candidates::new(PeerId::random(), Rng::with_seed(7)), Instant::now())
    }

    #[test]
    fn each_is_tried_once_and_again_after_a_pause_that_doubles() {
        let (mut candidates, now) = candidates();
        let all: Vec<_> = (1..=5).map(contact).collect();
        all.iter().for_each(|one| candidates.add(one.clone(), now));
        assert!(candidates.has_untried());
        let tried: HashSet<_> = std::iter::from_fn(|| candidates.next(now)).map(|one| one.peer).collect();
        assert_eq!(tried, all.iter().map(|one| one.peer).collect());
        assert!(!candidates.has_untried() && !candidates.has_ready(now) && candidates.next_ready().is_none());

        let peer = all[0].peer;
        let mut at = now;
        for failures in 0..12 {
            candidates.on_failed(&peer, at);
            assert!(candidates.next(at).is_none(), "{failures}");
            let pause = candidates.next_ready().unwrap() - at;
            let expected = FIRST_PAUSE.saturating_mul(1 << failures).min(LAST_PAUSE);
            assert!(
                pause >= expected.mul_f64(0.7) && pause <= expected.mul_f64(1.3),
                "{failures}: {pause:?}"
            );
            at += pause;
            assert_eq!(candidates.next(at).unwrap(), all[0]);
        }
    }

    #[test]
    fn proven_ones_come_first_and_failed_ones_last() {
        let (mut candidates, now) = candidates();
        let (proven, failed) = (contact(1), contact(2));
        for one in [&proven, &failed] {
            candidates.add(one.clone(), now);
            candidates.next(now).unwrap();
        }
        candidates.on_down(&proven.peer, true, now);
        candidates.on_failed(&failed.peer, now);
        let fresh = contact(3);
        candidates.add(fresh.clone(), now);
        let later = now + LAST_PAUSE * 2;
        let order: Vec<_> = std::iter::from_fn(|| candidates.next(later)).map(|one| one.peer).collect();
        assert_eq!(order, [proven.peer, fresh.peer, failed.peer]);
        candidates.on_useless(&fresh.peer, later);
        assert_eq!(candidates.next_ready(), Some(later + USELESS_PAUSE));
    }

    #[test]
    fn who_was_dismissed_is_tried_no_more_and_forgotten_first() {
        let (mut candidates, now) = candidates();
        let (liar, failed) = (contact(1), contact(2));
        for one in [&liar, &failed] {
            candidates.add(one.clone(), now);
            candidates.next(now).unwrap();
            candidates.on_failed(&one.peer, now);
            candidates.on_failed(&one.peer, now);
        }
        candidates.on_dismissed(&liar.peer);
        candidates.add(liar.clone(), now);
        let later = now + LAST_PAUSE * 2;
        assert_eq!(candidates.next(later), Some(failed.clone()));
        candidates.on_failed(&failed.peer, later);
        assert!(candidates.next_ready().is_some_and(|at| at > later) && !candidates.has_ready(later));
        (0..MAX_CANDIDATES).for_each(|port| candidates.add(contact(port), now));
        assert!(!candidates.known.contains_key(&liar.peer));
    }

    #[test]
    fn the_first_one_differs_from_node_to_node() {
        let all: Vec<_> = (1..=20).map(contact).collect();
        let now = Instant::now();
        let first = |seed| {
            let mut candidates = Candidates::new(PeerId::random(), Rng::with_seed(seed));
            all.iter().for_each(|one| candidates.add(one.clone(), now));
            candidates.next(now).unwrap().peer
        };
        assert!((0..40).map(first).collect::<HashSet<_>>().len() > 10);
    }

    #[test]
    fn floods_are_bounded_and_this_node_is_none() {
        let (mut candidates, now) = candidates();
        candidates.add(Contact { peer: candidates.own, ..contact(1) }, now);
        assert!(candidates.next(now).is_none());
        (0..MAX_CANDIDATES + 10).for_each(|_| candidates.add(contact(1), now));
        assert_eq!(candidates.known.len(), MAX_CANDIDATES);
        let one = candidates.next(now).unwrap();
        (0..100).for_each(|port| candidates.add(Contact { peer: one.peer, ..contact(port) }, now));
        assert_eq!(candidates.known[&one.peer].addrs.len(), MAX_ADDRS);
        // Only one that has failed makes room.
        let fresh = contact(1);
        candidates.add(fresh.clone(), now);
        assert!(!candidates.known.contains_key(&fresh.peer));
        candidates.on_failed(&one.peer, now);
        candidates.add(fresh.clone(), now);
        assert!(candidates.known.contains_key(&fresh.peer) && !candidates.known.contains_key(&one.peer));
    }
}
