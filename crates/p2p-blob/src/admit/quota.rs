//! Slots of one kind, and which one is evicted for a newcomer. No I/O, and no clock but what is given.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

use libp2p::PeerId;

use super::Origin;

/// Relayed peers get one of so many slots at most.
const RELAYED_SHARE: usize = 4;

/// The slots that are taken.
///
/// While some are free, everyone gets one. After that a newcomer evicts another if its prefix has at least two fewer than
/// the one with the most, or its address, or its peer; or if one has been idle for long. So no slot is lost to a peer
/// that has as many, and with `n` prefixes and `most >= 2 * n` a newcomer from a further one is always admitted.
#[derive(Debug)]
pub(crate) struct Quota<K> {
    most: usize,
    /// After so long an idle slot is evicted for any newcomer.
    patience: Duration,
    slots: HashMap<K, Slot>,
}

/// A slot that is taken.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slot {
    pub(crate) origin: Origin,
    /// `None` during the handshake.
    pub(crate) peer: Option<PeerId>,
    /// When it was last active.
    pub(crate) active: Instant,
    /// Whether it is being served.
    pub(crate) is_busy: bool,
    /// Whether it was served, or served this node.
    pub(crate) was_useful: bool,
}

/// Whether a newcomer is admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision<K> {
    /// A slot is free.
    Admit,
    /// Once this one is evicted.
    Evict(K),
    Refuse,
}

/// What slots are shared by, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Prefix,
    Address,
    Peer,
}

const LEVELS: [Level; 3] = [Level::Prefix, Level::Address, Level::Peer];

impl Slot {
    /// A new slot.
    pub(crate) fn new(origin: Origin, peer: Option<PeerId>, now: Instant) -> Self {
        Self { origin, peer, active: now, is_busy: false, was_useful: false }
    }

    fn group(&self, level: Level) -> (Option<Origin>, Option<PeerId>) {
        match level {
            Level::Prefix => (Some(self.origin.prefix()), None),
            Level::Address => (Some(self.origin), None),
            Level::Peer => (None, self.peer),
        }
    }
}

impl<K: Copy + Eq + Hash + Ord> Quota<K> {
    pub(crate) fn new(most: usize, patience: Duration) -> Self {
        Self { most: most.max(1), patience, slots: HashMap::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether a newcomer is admitted. Nothing changes before [`Quota::insert`] and [`Quota::remove`].
    pub(crate) fn ask(&self, newcomer: &Slot, now: Instant) -> Decision<K> {
        let is_relayed = newcomer.origin == Origin::Relayed;
        let relayed = self.slots.values().filter(|slot| slot.origin == Origin::Relayed).count();
        let is_pool_full = is_relayed && relayed >= (self.most / RELAYED_SHARE).max(1);
        if self.slots.len() < self.most && !is_pool_full {
            return Decision::Admit;
        }
        let among = self.slots.iter().filter(|(_, slot)| !is_pool_full || slot.origin == Origin::Relayed);
        self.victim(among.collect(), newcomer, now).map_or(Decision::Refuse, Decision::Evict)
    }

    pub(crate) fn insert(&mut self, key: K, slot: Slot) {
        self.slots.insert(key, slot);
    }

    pub(crate) fn remove(&mut self, key: &K) {
        self.slots.remove(key);
    }

    /// Updates a slot.
    pub(crate) fn change(&mut self, key: &K, change: impl FnOnce(&mut Slot)) {
        if let Some(slot) = self.slots.get_mut(key) {
            change(slot);
        }
    }

    /// Updates all slots of a peer.
    pub(crate) fn change_all_of(&mut self, peer: &PeerId, change: impl Fn(&mut Slot)) {
        self.slots.values_mut().filter(|slot| slot.peer == Some(*peer)).for_each(change);
    }

    fn victim(&self, all: Vec<(&K, &Slot)>, newcomer: &Slot, now: Instant) -> Option<K> {
        let mut among = all.clone();
        for (index, level) in LEVELS.into_iter().enumerate() {
            let own = newcomer.group(level);
            let own_count = among.iter().filter(|(_, slot)| slot.group(level) == own).count();
            let most = largest(&among, level)?;
            if most.len() > own_count + 1 {
                return LEVELS[index + 1..]
                    .iter()
                    .try_fold(most, |among, level| largest(&among, *level))
                    .and_then(least_useful);
            }
            among.retain(|(_, slot)| slot.group(level) == own);
            if among.is_empty() {
                break;
            }
        }
        let is_overdue =
            |slot: &Slot| !slot.is_busy && now.saturating_duration_since(slot.active) >= self.patience;
        least_useful(all.into_iter().filter(|(_, slot)| is_overdue(slot)).collect())
    }
}

/// The slots of the group with the most.
fn largest<'a, K: Ord>(among: &[(&'a K, &'a Slot)], level: Level) -> Option<Vec<(&'a K, &'a Slot)>> {
    let mut groups: HashMap<_, Vec<_>> = HashMap::new();
    for (key, slot) in among {
        groups.entry(slot.group(level)).or_default().push((*key, *slot));
    }
    groups.into_values().max_by_key(|group| (group.len(), Reverse(group.iter().map(|(key, _)| *key).min())))
}

/// The slot to evict.
fn least_useful<K: Copy + Ord>(among: Vec<(&K, &Slot)>) -> Option<K> {
    let rank = |(key, slot): &(&K, &Slot)| (slot.is_busy, slot.was_useful, slot.active, **key);
    among.into_iter().min_by_key(rank).map(|(key, _)| *key)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn at(a: u8, b: u8) -> Origin {
        Origin::Ip(Ipv4Addr::new(127, 0, a, b).into())
    }

    /// Asks for a newcomer from there, and does as decided.
    fn come(
        quota: &mut Quota<u32>,
        key: u32,
        origin: Origin,
        peer: Option<PeerId>,
        now: Instant,
    ) -> Decision<u32> {
        let slot = Slot::new(origin, peer, now);
        let answer = quota.ask(&slot, now);
        if let Decision::Evict(other) = answer {
            quota.remove(&other);
        }
        if answer != Decision::Refuse {
            quota.insert(key, slot);
        }
        answer
    }

    fn count(quota: &Quota<u32>, origin: Origin) -> usize {
        quota.slots.values().filter(|slot| slot.origin == origin).count()
    }

    #[test]
    fn one_address_may_have_all_places_until_somebody_else_comes() {
        let (mut quota, now) = (Quota::new(8, PATIENCE), Instant::now());
        for key in 0..8 {
            assert_eq!(come(&mut quota, key, at(0, 1), None, now), Decision::Admit);
        }
        assert_eq!(come(&mut quota, 8, at(0, 1), None, now), Decision::Refuse);
        for key in 10..14 {
            assert!(matches!(come(&mut quota, key, at(0, 2), None, now), Decision::Evict(0..8)));
        }
        assert_eq!(come(&mut quota, 14, at(0, 2), None, now), Decision::Refuse, "both have the same");
        assert_eq!(come(&mut quota, 15, at(0, 1), None, now), Decision::Refuse, "nothing is won back");
    }

    #[test]
    fn a_prefix_counts_as_one_when_it_is_global() {
        let global = |a, b| Origin::Ip(Ipv4Addr::new(8, 8, a, b).into());
        for (origin, is_one) in [(global as fn(u8, u8) -> Origin, true), (at, false)] {
            let (mut quota, now) = (Quota::new(8, PATIENCE), Instant::now());
            for key in 0..8 {
                come(&mut quota, u32::from(key), origin(1, key), None, now);
            }
            let answer = come(&mut quota, 8, origin(2, 1), None, now);
            assert_eq!(answer != Decision::Refuse, is_one, "{answer:?}");
        }
    }

    #[test]
    fn what_is_of_no_use_goes_first_and_what_is_busy_last() {
        let (mut quota, now) = (Quota::new(4, PATIENCE), Instant::now());
        for key in 0..4 {
            come(&mut quota, key, at(0, 1), None, now);
        }
        quota.change(&0, |slot| slot.is_busy = true);
        quota.change(&1, |slot| slot.was_useful = true);
        quota.change(&2, |slot| slot.active = now + PATIENCE);
        assert_eq!(come(&mut quota, 5, at(0, 2), None, now), Decision::Evict(3));
        assert_eq!(come(&mut quota, 6, at(0, 2), None, now), Decision::Evict(2));
        assert_eq!(come(&mut quota, 7, at(0, 3), None, now), Decision::Evict(1), "the other one is busy");
        assert_eq!(come(&mut quota, 8, at(0, 4), None, now), Decision::Evict(5), "two, one, one and none");
        assert_eq!(come(&mut quota, 9, at(0, 5), None, now), Decision::Refuse, "all have one");
        let later = now + PATIENCE;
        assert_eq!(come(&mut quota, 9, at(0, 5), None, later), Decision::Evict(6), "idle for long");
    }

    #[test]
    fn peers_of_one_address_share_it_and_relays_have_a_pool_of_their_own() {
        let (mut quota, now) = (Quota::new(16, PATIENCE), Instant::now());
        let [greedy, modest] = [PeerId::random(), PeerId::random()];
        for key in 0..4 {
            assert_eq!(come(&mut quota, key, Origin::Relayed, Some(greedy), now), Decision::Admit);
        }
        assert_eq!(come(&mut quota, 4, Origin::Relayed, Some(greedy), now), Decision::Refuse);
        assert_eq!(come(&mut quota, 5, Origin::Relayed, Some(modest), now), Decision::Evict(0));
        assert_eq!(come(&mut quota, 6, at(0, 1), None, now), Decision::Admit, "there are others");
    }

    proptest! {
        /// Whatever slots few addresses take, a newcomer from another one is admitted, and honest peers with no more than
        /// their share lose none.
        #[test]
        fn nobody_is_kept_out_by_few_addresses(
            attackers in proptest::collection::vec((0u8..7, 0u8..5), 0..200),
            most in 16usize..40,
        ) {
            let (mut quota, now) = (Quota::new(most, PATIENCE), Instant::now());
            let peers: Vec<_> = (0..5).map(|_| PeerId::random()).collect();
            prop_assert_eq!(come(&mut quota, 1000, at(9, 9), Some(peers[0]), now), Decision::Admit);
            for (key, (address, peer)) in (0..).zip(attackers) {
                come(&mut quota, key, at(1, address), Some(peers[usize::from(peer)]), now);
                prop_assert!(quota.len() <= most);
                prop_assert_eq!(count(&quota, at(9, 9)), 1, "the honest one lost its place");
            }
            prop_assert!(come(&mut quota, 1001, at(9, 8), None, now) != Decision::Refuse);
        }
    }
}
