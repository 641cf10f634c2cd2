//! Start-time fair queueing in two levels: among groups, and among the peers of each.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use libp2p::PeerId;

use crate::admit::{Asker, Origin};

/// Peers remembered though they have nothing queued.
const MAX_IDLE: usize = 1024;

/// A flow of the queue: groups share fairly, and so do the flows of each.
pub(crate) trait Flow: Copy + Eq + Hash {
    /// What many peer ids of one owner have in common.
    type Group: Copy + Eq + Hash + Send;

    fn group(&self) -> Self::Group;
}

impl Flow for PeerId {
    type Group = ();

    fn group(&self) {}
}

impl Flow for Asker {
    type Group = Origin;

    fn group(&self) -> Origin {
        self.origin.prefix()
    }
}

/// Queued items by group and peer. The one that has used least is next; a new or returning one starts at the virtual
/// time.
///
/// The use of backlogged groups differs by no more than the slack and one cost, and so does that of the backlogged peers
/// in one.
#[derive(Debug)]
pub(crate) struct FairQueue<P: Flow, T> {
    groups: HashMap<P::Group, Group>,
    shares: HashMap<P, Share<T>>,
    /// The use of the group that was served last, before it was served.
    virtual_time: u64,
    waiting: usize,
    next_number: u64,
}

#[derive(Debug, Default)]
struct Group {
    used: u64,
    /// The same among its peers.
    virtual_time: u64,
    waiting: usize,
}

#[derive(Debug)]
struct Share<T> {
    /// The sum of costs, from the virtual time at which it came.
    used: u64,
    waiting: VecDeque<Entry<T>>,
}

#[derive(Debug)]
struct Entry<T> {
    /// In the order in which they came.
    number: u64,
    item: T,
}

impl<P: Flow, T> FairQueue<P, T> {
    pub(crate) fn new() -> Self {
        Self { groups: HashMap::new(), shares: HashMap::new(), virtual_time: 0, waiting: 0, next_number: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// Appends an item to a peer's queue.
    pub(crate) fn push(&mut self, peer: P, item: T) {
        let number = self.next_number;
        self.next_number += 1;
        self.waiting += 1;
        let (group, share) = self.party(peer);
        group.waiting += 1;
        share.waiting.push_back(Entry { number, item });
    }

    /// Charges a peer for what it was served.
    pub(crate) fn charge(&mut self, peer: P, cost: u64) {
        let (group, share) = self.party(peer);
        group.used = group.used.saturating_add(cost);
        share.used = share.used.saturating_add(cost);
        self.forget_idle();
    }

    /// Refunds a part of what was charged.
    pub(crate) fn refund(&mut self, peer: P, cost: u64) {
        if let Some(group) = self.groups.get_mut(&peer.group()) {
            group.used = group.used.saturating_sub(cost);
        }
        if let Some(share) = self.shares.get_mut(&peer) {
            share.used = share.used.saturating_sub(cost);
        }
    }

    /// Pops the next item, of peers that `may` be served: among the groups within `slack` of the least use, and their peers
    /// within `slack` of theirs, the item with the least `rank`, then of the least use, then the oldest.
    pub(crate) fn pop<R: Ord>(
        &mut self,
        slack: u64,
        may: impl Fn(&P) -> bool,
        rank: impl Fn(&T) -> R,
    ) -> Option<(P, T)> {
        let mut groups: HashMap<P::Group, u64> = HashMap::new();
        for (peer, share) in self.waiting_shares().filter(|(peer, _)| may(peer)) {
            let least = groups.entry(peer.group()).or_insert(share.used);
            *least = share.used.min(*least);
        }
        let used = |group: &P::Group| self.groups.get(group).map_or(0, |group| group.used);
        let least = groups.keys().map(used).min()?;
        groups.retain(|group, _| used(group) <= least.saturating_add(slack));
        let is_turn = |peer: &P, share: &Share<T>| {
            groups.get(&peer.group()).is_some_and(|least| share.used <= least.saturating_add(slack))
        };
        let (peer, number) = self
            .waiting_shares()
            .filter(|(peer, share)| may(peer) && is_turn(peer, share))
            .flat_map(|(peer, share)| share.waiting.iter().map(move |entry| (peer, share.used, entry)))
            .min_by_key(|(peer, share, entry)| (rank(&entry.item), used(&peer.group()), *share, entry.number))
            .map(|(peer, _, entry)| (*peer, entry.number))?;
        self.virtual_time = self.virtual_time.max(least);
        let least_of_group = groups.get(&peer.group()).copied().unwrap_or(0);
        if let Some(group) = self.groups.get_mut(&peer.group()) {
            group.virtual_time = group.virtual_time.max(least_of_group);
        }
        self.take(peer, |entry| entry.number == number).map(|item| (peer, item))
    }

    /// Pops what would be served last: the newest item of the peer with the most use in the group with the most use.
    pub(crate) fn pop_last(&mut self) -> Option<(P, T)> {
        let (peer, _) = self.waiting_shares().max_by_key(|(peer, share)| {
            let group = self.groups.get(&peer.group()).map(|group| (group.used, group.waiting));
            (group, share.used, share.waiting.len(), share.waiting.back().map(|entry| entry.number))
        })?;
        let peer = *peer;
        let newest = self.shares.get(&peer)?.waiting.back()?.number;
        self.take(peer, |entry| entry.number == newest).map(|item| (peer, item))
    }

    /// All queued items, in no particular order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.shares.values().flat_map(|share| share.waiting.iter().map(|entry| &entry.item))
    }

    /// Drops items that are not wanted any more.
    pub(crate) fn retain(&mut self, is_wanted: impl Fn(&T) -> bool) {
        for (peer, share) in &mut self.shares {
            let before = share.waiting.len();
            share.waiting.retain(|entry| is_wanted(&entry.item));
            let gone = before - share.waiting.len();
            self.waiting -= gone;
            if let Some(group) = self.groups.get_mut(&peer.group()) {
                group.waiting -= gone;
            }
        }
    }

    fn take(&mut self, peer: P, which: impl Fn(&Entry<T>) -> bool) -> Option<T> {
        let share = self.shares.get_mut(&peer)?;
        let position = share.waiting.iter().position(which)?;
        let entry = share.waiting.remove(position)?;
        self.waiting -= 1;
        if let Some(group) = self.groups.get_mut(&peer.group()) {
            group.waiting -= 1;
        }
        Some(entry.item)
    }

    fn waiting_shares(&self) -> impl Iterator<Item = (&P, &Share<T>)> {
        self.shares.iter().filter(|(_, share)| !share.waiting.is_empty())
    }

    fn party(&mut self, peer: P) -> (&mut Group, &mut Share<T>) {
        let group = self.groups.entry(peer.group()).or_default();
        if group.waiting == 0 {
            group.used = group.used.max(self.virtual_time);
        }
        let virtual_time = group.virtual_time;
        let share = self.shares.entry(peer).or_insert(Share { used: virtual_time, waiting: VecDeque::new() });
        if share.waiting.is_empty() {
            share.used = share.used.max(virtual_time);
        }
        (group, share)
    }

    fn forget_idle(&mut self) {
        if self.shares.len() > MAX_IDLE {
            let groups = &self.groups;
            let virtual_time = |peer: &P| groups.get(&peer.group()).map_or(0, |group| group.virtual_time);
            self.shares.retain(|peer, share| !share.waiting.is_empty() || share.used > virtual_time(peer));
        }
        if self.shares.len() > 2 * MAX_IDLE {
            self.shares.retain(|_, share| !share.waiting.is_empty());
        }
        if self.groups.len() > MAX_IDLE {
            let virtual_time = self.virtual_time;
            self.groups.retain(|_, group| group.waiting > 0 || group.used > virtual_time);
        }
        if self.groups.len() > 2 * MAX_IDLE {
            self.groups.retain(|_, group| group.waiting > 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SLACK: u64 = 1000;

    impl Flow for u8 {
        type Group = ();

        fn group(&self) {}
    }

    impl Flow for u32 {
        type Group = u32;

        fn group(&self) -> u32 {
            *self
        }
    }

    impl Flow for (u8, u8) {
        type Group = u8;

        fn group(&self) -> u8 {
            self.0
        }
    }

    #[test]
    fn many_names_of_one_group_get_what_one_gets() {
        let mut queue = FairQueue::new();
        let names = (0..20).map(|name| (1, name)).chain([(2, 0)]);
        names.for_each(|name| queue.push(name, ()));
        let mut served = [0; 3];
        for round in 0..100 {
            let (name, ()) = queue.pop(0, |_| true, |()| 0).unwrap();
            queue.charge(name, 1000);
            served[usize::from(name.0)] += 1;
            // A peer id that has been served is replaced by a new one.
            let next = if name.0 == 1 { (1, 20 + round) } else { name };
            queue.push(next, ());
        }
        assert_eq!(served, [0, 50, 50]);
    }

    #[test]
    fn whoever_may_not_is_passed_over_and_keeps_its_turn() {
        let mut queue = FairQueue::new();
        for name in [(1, 1), (2, 1)] {
            queue.push(name, ());
        }
        queue.charge((2, 1), 5000);
        assert_eq!(queue.pop(0, |name| name.0 != 1, |()| 0), Some(((2, 1), ())));
        assert_eq!(queue.pop(0, |name| name.0 != 1, |()| 0), None);
        assert_eq!(queue.pop(0, |_| true, |()| 0), Some(((1, 1), ())));
    }

    fn serve(queue: &mut FairQueue<u8, u64>) -> Option<(u8, u64)> {
        let (peer, cost) = queue.pop(SLACK, |_| true, |_| 0)?;
        queue.charge(peer, cost);
        Some((peer, cost))
    }

    proptest! {
        /// Backlogged peers get equal shares, whatever the number and cost of their items.
        #[test]
        fn backlogged_peers_get_equal_shares(
            waiting in proptest::collection::vec(1usize..20, 2..8),
            costs in proptest::collection::vec(1u64..1000, 50..400),
            ranks in any::<u64>(),
        ) {
            let mut queue = FairQueue::new();
            let mut served = vec![0u64; waiting.len()];
            let mut costs = costs.into_iter().cycle();
            for (peer, count) in (0u8..).zip(&waiting) {
                for _ in 0..*count {
                    queue.push(peer, costs.next().unwrap());
                }
            }
            for _ in 0..500 {
                let (peer, cost) = queue.pop(SLACK, |_| true, |cost| cost ^ (ranks & 7)).unwrap();
                queue.charge(peer, cost);
                served[usize::from(peer)] += cost;
                queue.push(peer, costs.next().unwrap());
            }
            let spread = served.iter().max().unwrap() - served.iter().min().unwrap();
            prop_assert!(spread <= SLACK + 2 * 1000, "{:?}", served);
        }

        /// Nothing is lost, and no peer waits for more than the others' share.
        #[test]
        fn everything_is_served_once(steps in proptest::collection::vec((0u8..6, 1u64..1000, any::<bool>()), 1..300)) {
            let mut queue = FairQueue::new();
            let (mut pushed, mut popped) = (0, 0);
            for (peer, cost, pops) in steps {
                queue.push(peer, cost);
                pushed += 1;
                if pops {
                    popped += usize::from(serve(&mut queue).is_some());
                }
                prop_assert_eq!(queue.len(), pushed - popped);
            }
            while serve(&mut queue).is_some() {
                popped += 1;
            }
            prop_assert!(queue.is_empty() && popped == pushed);
        }
    }

    #[test]
    fn the_least_rank_is_first_among_those_whose_turn_it_is() {
        let mut queue = FairQueue::new();
        for (peer, rank) in [(1u8, 5), (2, 3), (3, 4)] {
            queue.push(peer, rank);
        }
        queue.charge(2, SLACK + 1);
        assert_eq!(queue.pop(SLACK, |_| true, |rank| *rank), Some((3, 4)), "2 has had more than its turn");
        assert_eq!(queue.pop(SLACK, |_| true, |rank| *rank), Some((1, 5)));
        assert_eq!(queue.pop(SLACK, |_| true, |rank| *rank), Some((2, 3)));
    }

    #[test]
    fn a_peer_that_comes_late_does_not_catch_up_and_one_that_rests_does_not_save_up() {
        let mut queue = FairQueue::new();
        for _ in 0..100 {
            queue.push(1, 10_000);
            serve(&mut queue).unwrap();
        }
        queue.push(1, 10_000);
        queue.push(2, 10_000);
        let order: Vec<u8> = std::iter::from_fn(|| {
            let (peer, cost) = serve(&mut queue)?;
            queue.push(peer, cost);
            Some(peer)
        })
        .take(21)
        .collect();
        let second = order.iter().filter(|peer| **peer == 2).count();
        assert!((10..=12).contains(&second), "{order:?}");
    }

    #[test]
    fn the_last_of_the_one_that_used_most_is_put_out() {
        let mut queue = FairQueue::new();
        queue.push(1u8, 1);
        queue.push(2, 2);
        queue.push(2, 3);
        queue.charge(1, 10);
        assert_eq!(queue.pop_last(), Some((1, 1)));
        assert_eq!(queue.pop_last(), Some((2, 3)));
        queue.retain(|_| false);
        assert!(queue.is_empty() && queue.pop_last().is_none());
    }

    #[test]
    fn peers_that_come_once_are_forgotten() {
        let mut queue = FairQueue::new();
        for peer in 0u32..10_000 {
            queue.push(peer, ());
            let (peer, ()) = queue.pop(0, |_| true, |()| 0).unwrap();
            queue.charge(peer, 1 << 20);
        }
        assert!(queue.shares.len() <= 2 * MAX_IDLE + 1);
    }
}
