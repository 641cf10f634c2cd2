//! The tracker: which connected peers hold or fetch which manifest, and their records. PEERS is answered from it.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use libp2p::{Multiaddr, PeerId, StreamProtocol};
use manifest::Digest;

use crate::discovery::address::{self, Scope};
use crate::discovery::record::SignedRecord;
use crate::traffic::{ConnectedPeer, Introduction, Transport};
use crate::wire::Version;
use crate::wire::peers::MAX_RECORDS;

/// Manifests that are tracked.
const MAX_MANIFESTS: usize = 1024;
/// Peers tracked for one manifest: an answer is a sample of them.
const MAX_PER_MANIFEST: usize = 512;
/// Manifests that one peer is tracked for, so that it cannot crowd out those of others.
const MAX_PER_PEER: usize = 32;
/// Own addresses that peers have tried to reach and that are remembered.
#[cfg(feature = "nat")]
const MAX_TRIED: usize = 32;
/// A peer that did not ask for or announce a manifest for so long is no holder of it any more.
const STALE_AFTER: Duration = Duration::from_secs(15 * 60);

/// The connected peers and their manifests. A peer is forgotten when its last connection is gone.
#[derive(Debug, Default)]
pub(crate) struct Tracker(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    peers: HashMap<PeerId, Connected>,
    /// When each peer last asked for or announced the manifest.
    manifests: HashMap<Digest, HashMap<PeerId, Instant>>,
    /// Addresses of this node that peers have tried, and whether they reached it there.
    tried: HashMap<Multiaddr, bool>,
}

#[derive(Debug)]
struct Connected {
    /// The scope of its address.
    scope: Scope,
    /// What its newest connection runs on.
    transport: Transport,
    /// The address at which it was dialed.
    reached_at: Option<Multiaddr>,
    record: Option<SignedRecord>,
    /// What identify told.
    told: Option<Introduction>,
    round_trip: Option<Duration>,
    manifests: Vec<Digest>,
    /// What it says to have, as a peer of the existing network: bounded by whoever has read it.
    blobs: HashSet<Digest>,
}

impl Tracker {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection with the peer at `remote` is up; `is_dialed`: an outbound one.
    pub(crate) fn connected(&self, peer: PeerId, remote: &Multiaddr, is_dialed: bool) {
        let scope = address::scope(remote).unwrap_or(Scope::World);
        let mut table = self.table();
        let connected = table.peers.entry(peer).or_insert_with(|| Connected {
            scope,
            transport: Transport::of(remote),
            reached_at: None,
            record: None,
            told: None,
            round_trip: None,
            manifests: Vec::new(),
            blobs: HashSet::new(),
        });
        connected.scope = connected.scope.min(scope);
        connected.transport = Transport::of(remote);
        if is_dialed {
            connected.reached_at = address::passable(remote, &peer);
        }
    }

    /// The address at which a connected peer was dialed, without its id; `None` when it has dialed us.
    pub(crate) fn reached_at(&self, peer: &PeerId) -> Option<Multiaddr> {
        self.table().peers.get(peer)?.reached_at.clone()
    }

    /// What the newest connection with a peer runs on.
    pub(crate) fn transport_of(&self, peer: &PeerId) -> Option<Transport> {
        Some(self.table().peers.get(peer)?.transport)
    }

    /// Those that are connected.
    pub(crate) fn all(&self) -> Vec<ConnectedPeer> {
        let table = self.table();
        let all = table.peers.iter();
        all.map(|(peer, one)| ConnectedPeer {
            peer: *peer,
            transport: one.transport,
            is_dialed: one.reached_at.is_some(),
        })
        .collect()
    }

    /// The last connection with the peer is gone.
    pub(crate) fn disconnected(&self, peer: &PeerId) {
        let mut table = self.table();
        if let Some(gone) = table.peers.remove(peer) {
            for manifest in gone.manifests {
                table.forget(&manifest, peer);
            }
        }
    }

    /// Another peer has passed on a record, maybe of a connected peer; one from the peer itself takes precedence.
    pub(crate) fn passed_on(&self, record: SignedRecord) {
        if let Some(connected) = self.table().peers.get_mut(&record.contact().peer) {
            connected.record.get_or_insert(record);
        }
    }

    /// A connected peer has sent its own record.
    pub(crate) fn identified(&self, record: SignedRecord) {
        if let Some(connected) = self.table().peers.get_mut(&record.contact().peer) {
            connected.record = Some(record);
        }
    }

    /// A connected peer has told what it is.
    pub(crate) fn told(&self, peer: &PeerId, agent: String, protocols: &[StreamProtocol]) {
        let protocols: Vec<String> = protocols.iter().map(ToString::to_string).collect();
        let is_blobs =
            |name: &String| [Version::Blobs, Version::Ranges].iter().any(|version| version.name() == name);
        let has_blobs = protocols.iter().any(is_blobs);
        if let Some(one) = self.table().peers.get_mut(peer) {
            let (transport, is_tls, round_trip) = (one.transport, false, None);
            one.told = Some(Introduction { agent, has_blobs, protocols, transport, is_tls, round_trip });
        }
    }

    /// A connected peer has answered a ping.
    pub(crate) fn answered(&self, peer: &PeerId, round_trip: Duration) {
        if let Some(connected) = self.table().peers.get_mut(peer) {
            connected.round_trip = Some(round_trip);
        }
    }

    /// What a connected peer has told.
    pub(crate) fn told_by(&self, peer: &PeerId) -> Option<Introduction> {
        let table = self.table();
        let connected = table.peers.get(peer)?;
        Some(Introduction { round_trip: connected.round_trip, ..connected.told.clone()? })
    }

    /// A peer has tried to reach this node at an address.
    #[cfg(feature = "nat")]
    pub(crate) fn note_tried(&self, addr: Multiaddr, is_reached: bool) {
        let mut table = self.table();
        if table.tried.len() < MAX_TRIED || table.tried.contains_key(&addr) {
            table.tried.insert(addr, is_reached);
        }
    }

    /// The addresses at which peers have tried to reach this node, and whether they could.
    pub(crate) fn tried(&self) -> Vec<(Multiaddr, bool)> {
        self.table().tried.iter().map(|(addr, is_reached)| (addr.clone(), *is_reached)).collect()
    }

    /// A connected peer has told which blobs it has.
    pub(crate) fn heard(&self, peer: &PeerId, blobs: HashSet<Digest>) {
        if let Some(connected) = self.table().peers.get_mut(peer) {
            connected.blobs = blobs;
        }
    }

    /// The scope of a connected peer's address.
    pub(crate) fn scope_of(&self, peer: &PeerId) -> Option<Scope> {
        self.table().peers.get(peer).map(|connected| connected.scope)
    }

    /// The peer holds or wants shards of the manifest.
    pub(crate) fn note(&self, manifest: Digest, peer: PeerId, now: Instant) {
        if manifest == Digest::ZERO {
            return;
        }
        let mut table = self.table();
        let table = &mut *table;
        let Some(connected) = table.peers.get_mut(&peer) else { return };
        if !connected.manifests.contains(&manifest) {
            if connected.manifests.len() >= MAX_PER_PEER {
                let oldest = connected.manifests.remove(0);
                table.forget(&oldest, &peer);
            }
            if !table.make_room(&manifest, now) {
                return;
            }
            if let Some(connected) = table.peers.get_mut(&peer) {
                connected.manifests.push(manifest);
            }
        }
        table.manifests.entry(manifest).or_default().insert(peer, now);
    }

    /// The peers that hold or want shards of the manifest, or have told to have it.
    pub(crate) fn of(&self, manifest: &Digest, now: Instant) -> Vec<PeerId> {
        let table = self.table();
        let told = table.peers.iter().filter(|(_, connected)| connected.blobs.contains(manifest));
        let told: Vec<_> = told.map(|(peer, _)| *peer).collect();
        table.fresh(manifest, now).filter(|peer| !told.contains(peer)).chain(told.iter().copied()).collect()
    }

    /// Records of holders of the manifest that are of use to `asker`: a random choice, without itself.
    pub(crate) fn records_for(&self, asker: &PeerId, manifest: &Digest, now: Instant) -> Vec<Vec<u8>> {
        let table = self.table();
        let Some(scope) = table.peers.get(asker).map(|connected| connected.scope) else { return Vec::new() };
        let others = table.fresh(manifest, now).filter(|peer| peer != asker);
        let records = others.filter_map(|peer| table.peers.get(&peer)?.record.as_ref());
        let of_use = records.filter(|record| record.is_of_use_within(scope));
        let chosen = fastrand::choose_multiple(of_use, MAX_RECORDS);
        chosen.into_iter().map(|record| record.bytes().to_vec()).collect()
    }
}

impl Table {
    fn fresh(&self, manifest: &Digest, now: Instant) -> impl Iterator<Item = PeerId> {
        let all = self.manifests.get(manifest).into_iter().flatten();
        all.filter(move |(_, spoken)| is_fresh(**spoken, now)).map(|(peer, _)| *peer)
    }

    fn forget(&mut self, manifest: &Digest, peer: &PeerId) {
        if let Some(holders) = self.manifests.get_mut(manifest) {
            holders.remove(peer);
            if holders.is_empty() {
                self.manifests.remove(manifest);
            }
        }
    }

    /// Makes room for one more holder of `manifest`: evicts its stale holders, or the manifest with the fewest holders.
    /// Returns whether there is room.
    fn make_room(&mut self, manifest: &Digest, now: Instant) -> bool {
        if let Some(holders) = self.manifests.get(manifest) {
            if holders.len() < MAX_PER_MANIFEST {
                return true;
            }
            let stale: Vec<_> = holders
                .iter()
                .filter(|(_, spoken)| !is_fresh(**spoken, now))
                .map(|(peer, _)| *peer)
                .collect();
            stale.iter().for_each(|peer| self.unlink(manifest, peer));
            return !stale.is_empty();
        }
        if self.manifests.len() >= MAX_MANIFESTS {
            let latest = |holders: &HashMap<PeerId, Instant>| holders.values().max().copied();
            let least = self.manifests.iter().min_by_key(|(_, holders)| (holders.len(), latest(holders)));
            let Some((least, holders)) = least.map(|(least, holders)| (*least, holders.clone())) else {
                return true;
            };
            holders.keys().for_each(|peer| self.unlink(&least, peer));
        }
        true
    }

    fn unlink(&mut self, manifest: &Digest, peer: &PeerId) {
        self.forget(manifest, peer);
        if let Some(connected) = self.peers.get_mut(peer) {
            connected.manifests.retain(|one| one != manifest);
        }
    }
}

fn is_fresh(spoken: Instant, now: Instant) -> bool {
    now.saturating_duration_since(spoken) < STALE_AFTER
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use libp2p::core::PeerRecord;
    use libp2p::identity::Keypair;

    use super::*;

    const NEAR: &str = "/ip4/127.0.0.1/tcp/1";
    const FAR: &str = "/ip4/192.0.2.7/tcp/1";

    fn digest(number: usize) -> Digest {
        Digest::of(&number.to_be_bytes())
    }

    /// A connected peer at `remote` that announces `addr`.
    fn join(holders: &Tracker, remote: &str, addr: &str) -> PeerId {
        let key = Keypair::generate_ed25519();
        let record = PeerRecord::new(&key, vec![addr.parse().unwrap()]).unwrap();
        let peer = key.public().to_peer_id();
        holders.connected(peer, &remote.parse().unwrap(), true);
        holders.identified(SignedRecord::of(record.into_signed_envelope()).unwrap());
        peer
    }

    fn told(holders: &Tracker, asker: &PeerId, manifest: usize, now: Instant) -> HashSet<PeerId> {
        let records = holders.records_for(asker, &digest(manifest), now);
        records.iter().map(|record| SignedRecord::decode(record).unwrap().contact().peer).collect()
    }

    #[test]
    fn holders_are_told_to_others_until_they_leave_or_are_stale() {
        let (holders, now) = (Tracker::default(), Instant::now());
        let [one, two, asker] = [(); 3].map(|()| join(&holders, NEAR, NEAR));
        for peer in [one, two, asker] {
            holders.note(digest(1), peer, now);
        }
        holders.note(Digest::ZERO, one, now);
        assert_eq!(told(&holders, &asker, 1, now), [one, two].into());
        assert_eq!(told(&holders, &one, 1, now), [two, asker].into());
        assert!(told(&holders, &asker, 2, now).is_empty());
        assert!(holders.of(&Digest::ZERO, now).is_empty());
        assert!(told(&holders, &PeerId::random(), 1, now).is_empty(), "a stranger");

        let later = now + STALE_AFTER;
        holders.note(digest(1), two, later);
        assert_eq!(told(&holders, &asker, 1, later), [two].into());
        holders.disconnected(&two);
        assert!(told(&holders, &asker, 1, now).contains(&one));
        assert!(!told(&holders, &asker, 1, now).contains(&two));
        // Noting a peer that is not connected does nothing.
        holders.note(digest(1), two, later);
        assert!(!holders.of(&digest(1), later).contains(&two));
    }

    #[test]
    fn what_a_peer_has_told_last_counts_while_it_is_connected_and_is_told_to_nobody() {
        let (holders, now) = (Tracker::default(), Instant::now());
        let [one, asker] = [(); 2].map(|()| join(&holders, NEAR, NEAR));
        holders.heard(&one, [digest(1), digest(2)].into());
        holders.note(digest(1), one, now);
        assert_eq!(holders.of(&digest(1), now), [one]);
        assert_eq!(holders.of(&digest(2), now), [one]);
        assert!(told(&holders, &asker, 2, now).is_empty());
        holders.heard(&one, [digest(3)].into());
        assert!(holders.of(&digest(2), now).is_empty());
        holders.disconnected(&one);
        holders.heard(&one, [digest(3)].into());
        assert!(holders.of(&digest(3), now).is_empty());
    }

    #[test]
    fn addresses_nearby_are_told_to_those_nearby_only() {
        let (holders, now) = (Tracker::default(), Instant::now());
        let (near, far) = (join(&holders, NEAR, NEAR), join(&holders, FAR, FAR));
        let (beside, remote) = (join(&holders, NEAR, NEAR), join(&holders, FAR, FAR));
        for peer in [near, far] {
            holders.note(digest(1), peer, now);
        }
        assert_eq!(told(&holders, &beside, 1, now), [near, far].into());
        assert_eq!(told(&holders, &remote, 1, now), [far].into());
    }

    #[test]
    fn an_answer_is_a_random_choice_of_32() {
        let (holders, now) = (Tracker::default(), Instant::now());
        let asker = join(&holders, NEAR, NEAR);
        let all: HashSet<_> = (0..100).map(|_| join(&holders, NEAR, NEAR)).collect();
        all.iter().for_each(|peer| holders.note(digest(1), *peer, now));
        let mut seen = HashSet::new();
        for _ in 0..40 {
            let some = told(&holders, &asker, 1, now);
            assert_eq!(some.len(), MAX_RECORDS);
            seen.extend(some);
        }
        // One of 100 is left out of 40 answers with a probability of (68/100)^40.
        assert_eq!(seen, all);
    }

    #[test]
    fn everything_is_bounded() {
        let (holders, now) = (Tracker::default(), Instant::now());
        let flood = join(&holders, NEAR, NEAR);
        (0..2 * MAX_PER_PEER).for_each(|number| holders.note(digest(number), flood, now));
        assert_eq!(holders.table().peers[&flood].manifests.len(), MAX_PER_PEER);
        assert_eq!(holders.table().manifests.len(), MAX_PER_PEER);
        assert!(holders.of(&digest(0), now).is_empty(), "the oldest go first");

        // Many peers with few manifests each, against one that many hold.
        let crowd: Vec<_> = (0..3).map(|_| join(&holders, NEAR, NEAR)).collect();
        crowd.iter().for_each(|peer| holders.note(digest(usize::MAX), *peer, now));
        let peers = MAX_MANIFESTS / MAX_PER_PEER + 3;
        for peer in 0..peers {
            let liar = join(&holders, NEAR, NEAR);
            (0..MAX_PER_PEER).for_each(|number| holders.note(digest((peer + 2) * 1000 + number), liar, now));
        }
        assert_eq!(holders.table().manifests.len(), MAX_MANIFESTS);
        assert_eq!(holders.of(&digest(usize::MAX), now).len(), crowd.len());
        let table = holders.table();
        let linked: usize = table.peers.values().map(|peer| peer.manifests.len()).sum();
        assert_eq!(linked, table.manifests.values().map(HashMap::len).sum::<usize>());
    }

    #[test]
    fn a_full_manifest_takes_new_holders_for_stale_ones_only() {
        let (holders, now) = (Tracker::default(), Instant::now());
        let remote = NEAR.parse().unwrap();
        let add = |at| {
            let peer = PeerId::random();
            holders.connected(peer, &remote, true);
            holders.note(digest(1), peer, at);
        };
        (0..MAX_PER_MANIFEST + 5).for_each(|_| add(now));
        assert_eq!(holders.of(&digest(1), now).len(), MAX_PER_MANIFEST);
        let later = now + STALE_AFTER;
        (0..3).for_each(|_| add(later));
        assert_eq!(holders.of(&digest(1), later).len(), 3);
    }
}
