//! Who has the places of one kind, and who goes for a newcomer. No I/O, and no clock but what is given.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

use libp2p::PeerId;

use super::Origin;

/// Whoever comes through relays gets one of so many places at most.
const RELAYED_SHARE: usize = 4;

/// Places, and who has them.
///
/// While some are free, everybody gets one. After that a newcomer gets the place of another one if its prefix has fewer by
/// two or more than the one that has most, or its address, or its peer; or if somebody has been idle for long. So
/// nobody loses anything to whoever has as much, and with `n` prefixes and `most >= 2 * n` a newcomer from one more
/// always finds room.
#[derive(Debug)]
pub(crate) struct Quota<K> {
    most: usize,
    /// After so long somebody idle goes for any newcomer.
    patience: Duration,
    guests: HashMap<K, Guest>,
}

/// Who has a place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Guest {
    pub(crate) origin: Origin,
    /// `None` while it is not known.
    pub(crate) peer: Option<PeerId>,
    /// When it last did something.
    pub(crate) active: Instant,
    /// Whether it does something now.
    pub(crate) is_busy: bool,
    /// Whether it was served, or gave something.
    pub(crate) was_of_use: bool,
}

/// What a newcomer is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer<K> {
    /// There is room.
    Enter,
    /// There is, once this one is gone.
    InPlaceOf(K),
    Refused,
}

/// By what places are shared, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Prefix,
    Address,
    Peer,
}

const LEVELS: [Level; 3] = [Level::Prefix, Level::Address, Level::Peer];

impl Guest {
    /// Somebody who comes now, and did nothing yet.
    pub(crate) fn new(origin: Origin, peer: Option<PeerId>, now: Instant) -> Self {
        Self { origin, peer, active: now, is_busy: false, was_of_use: false }
    }

    fn party(&self, level: Level) -> (Option<Origin>, Option<PeerId>) {
        match level {
            Level::Prefix => (Some(self.origin.prefix()), None),
            Level::Address => (Some(self.origin), None),
            Level::Peer => (None, self.peer),
        }
    }
}

impl<K: Copy + Eq + Hash + Ord> Quota<K> {
    pub(crate) fn new(most: usize, patience: Duration) -> Self {
        Self { most: most.max(1), patience, guests: HashMap::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.guests.len()
    }

    /// Whether there is a place for a newcomer. Nothing changes before [`Quota::enter`] and [`Quota::leave`].
    pub(crate) fn ask(&self, newcomer: &Guest, now: Instant) -> Answer<K> {
        let is_relayed = newcomer.origin == Origin::Relayed;
        let relayed = self.guests.values().filter(|guest| guest.origin == Origin::Relayed).count();
        let is_pool_full = is_relayed && relayed >= (self.most / RELAYED_SHARE).max(1);
        if self.guests.len() < self.most && !is_pool_full {
            return Answer::Enter;
        }
        let among = self.guests.iter().filter(|(_, guest)| !is_pool_full || guest.origin == Origin::Relayed);
        self.victim(among.collect(), newcomer, now).map_or(Answer::Refused, Answer::InPlaceOf)
    }

    pub(crate) fn enter(&mut self, key: K, guest: Guest) {
        self.guests.insert(key, guest);
    }

    pub(crate) fn leave(&mut self, key: &K) {
        self.guests.remove(key);
    }

    /// What this one does now.
    pub(crate) fn change(&mut self, key: &K, change: impl FnOnce(&mut Guest)) {
        if let Some(guest) = self.guests.get_mut(key) {
            change(guest);
        }
    }

    /// The same for all places of a peer.
    pub(crate) fn change_all_of(&mut self, peer: &PeerId, change: impl Fn(&mut Guest)) {
        self.guests.values_mut().filter(|guest| guest.peer == Some(*peer)).for_each(change);
    }

    fn victim(&self, all: Vec<(&K, &Guest)>, newcomer: &Guest, now: Instant) -> Option<K> {
        let mut among = all.clone();
        for (index, level) in LEVELS.into_iter().enumerate() {
            let own = newcomer.party(level);
            let own_count = among.iter().filter(|(_, guest)| guest.party(level) == own).count();
            let most = largest(&among, level)?;
            if most.len() > own_count + 1 {
                return LEVELS[index + 1..]
                    .iter()
                    .try_fold(most, |among, level| largest(&among, *level))
                    .and_then(least_useful);
            }
            among.retain(|(_, guest)| guest.party(level) == own);
            if among.is_empty() {
                break;
            }
        }
        let is_overdue =
            |guest: &Guest| !guest.is_busy && now.saturating_duration_since(guest.active) >= self.patience;
        least_useful(all.into_iter().filter(|(_, guest)| is_overdue(guest)).collect())
    }
}

/// Those of the party that has most.
fn largest<'a, K: Ord>(among: &[(&'a K, &'a Guest)], level: Level) -> Option<Vec<(&'a K, &'a Guest)>> {
    let mut parties: HashMap<_, Vec<_>> = HashMap::new();
    for (key, guest) in among {
        parties.entry(guest.party(level)).or_default().push((*key, *guest));
    }
    parties.into_values().max_by_key(|party| (party.len(), Reverse(party.iter().map(|(key, _)| *key).min())))
}

/// The one whose place is missed least.
fn least_useful<K: Copy + Ord>(among: Vec<(&K, &Guest)>) -> Option<K> {
    let rank = |(key, guest): &(&K, &Guest)| (guest.is_busy, guest.was_of_use, guest.active, **key);
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

    /// What a newcomer from there is told; who gets in, and who goes for it, is remembered.
    fn come(
        crowd: &mut Quota<u32>,
        key: u32,
        origin: Origin,
        peer: Option<PeerId>,
        now: Instant,
    ) -> Answer<u32> {
        let guest = Guest::new(origin, peer, now);
        let answer = crowd.ask(&guest, now);
        if let Answer::InPlaceOf(other) = answer {
            crowd.leave(&other);
        }
        if answer != Answer::Refused {
            crowd.enter(key, guest);
        }
        answer
    }

    fn count(crowd: &Quota<u32>, origin: Origin) -> usize {
        crowd.guests.values().filter(|guest| guest.origin == origin).count()
    }

    #[test]
    fn one_address_may_have_all_places_until_somebody_else_comes() {
        let (mut crowd, now) = (Quota::new(8, PATIENCE), Instant::now());
        for key in 0..8 {
            assert_eq!(come(&mut crowd, key, at(0, 1), None, now), Answer::Enter);
        }
        assert_eq!(come(&mut crowd, 8, at(0, 1), None, now), Answer::Refused);
        for key in 10..14 {
            assert!(matches!(come(&mut crowd, key, at(0, 2), None, now), Answer::InPlaceOf(0..8)));
        }
        assert_eq!(come(&mut crowd, 14, at(0, 2), None, now), Answer::Refused, "both have the same");
        assert_eq!(come(&mut crowd, 15, at(0, 1), None, now), Answer::Refused, "nothing is won back");
    }

    #[test]
    fn a_prefix_counts_as_one_when_it_is_global() {
        let global = |a, b| Origin::Ip(Ipv4Addr::new(8, 8, a, b).into());
        for (origin, is_one) in [(global as fn(u8, u8) -> Origin, true), (at, false)] {
            let (mut crowd, now) = (Quota::new(8, PATIENCE), Instant::now());
            for key in 0..8 {
                come(&mut crowd, u32::from(key), origin(1, key), None, now);
            }
            let answer = come(&mut crowd, 8, origin(2, 1), None, now);
            assert_eq!(answer != Answer::Refused, is_one, "{answer:?}");
        }
    }

    #[test]
    fn what_is_of_no_use_goes_first_and_what_is_busy_last() {
        let (mut crowd, now) = (Quota::new(4, PATIENCE), Instant::now());
        for key in 0..4 {
            come(&mut crowd, key, at(0, 1), None, now);
        }
        crowd.change(&0, |guest| guest.is_busy = true);
        crowd.change(&1, |guest| guest.was_of_use = true);
        crowd.change(&2, |guest| guest.active = now + PATIENCE);
        assert_eq!(come(&mut crowd, 5, at(0, 2), None, now), Answer::InPlaceOf(3));
        assert_eq!(come(&mut crowd, 6, at(0, 2), None, now), Answer::InPlaceOf(2));
        assert_eq!(come(&mut crowd, 7, at(0, 3), None, now), Answer::InPlaceOf(1), "the other one is busy");
        assert_eq!(come(&mut crowd, 8, at(0, 4), None, now), Answer::InPlaceOf(5), "two, one, one and none");
        assert_eq!(come(&mut crowd, 9, at(0, 5), None, now), Answer::Refused, "all have one");
        let later = now + PATIENCE;
        assert_eq!(come(&mut crowd, 9, at(0, 5), None, later), Answer::InPlaceOf(6), "idle for long");
    }

    #[test]
    fn peers_of_one_address_share_it_and_relays_have_a_pool_of_their_own() {
        let (mut crowd, now) = (Quota::new(16, PATIENCE), Instant::now());
        let [greedy, modest] = [PeerId::random(), PeerId::random()];
        for key in 0..4 {
            assert_eq!(come(&mut crowd, key, Origin::Relayed, Some(greedy), now), Answer::Enter);
        }
        assert_eq!(come(&mut crowd, 4, Origin::Relayed, Some(greedy), now), Answer::Refused);
        assert_eq!(come(&mut crowd, 5, Origin::Relayed, Some(modest), now), Answer::InPlaceOf(0));
        assert_eq!(come(&mut crowd, 6, at(0, 1), None, now), Answer::Enter, "there are others");
    }

    proptest! {
        /// Whoever takes whatever places from few addresses, a newcomer from another one gets in, and honest ones that
        /// have no more than their share lose nothing.
        #[test]
        fn nobody_is_kept_out_by_few_addresses(
            attackers in proptest::collection::vec((0u8..7, 0u8..5), 0..200),
            most in 16usize..40,
        ) {
            let (mut crowd, now) = (Quota::new(most, PATIENCE), Instant::now());
            let peers: Vec<_> = (0..5).map(|_| PeerId::random()).collect();
            prop_assert_eq!(come(&mut crowd, 1000, at(9, 9), Some(peers[0]), now), Answer::Enter);
            for (key, (address, peer)) in (0..).zip(attackers) {
                come(&mut crowd, key, at(1, address), Some(peers[usize::from(peer)]), now);
                prop_assert!(crowd.len() <= most);
                prop_assert_eq!(count(&crowd, at(9, 9)), 1, "the honest one lost its place");
            }
            prop_assert!(come(&mut crowd, 1001, at(9, 8), None, now) != Answer::Refused);
        }
    }
}
