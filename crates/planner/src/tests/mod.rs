//! A network in virtual time, with sources that are slow, full of lies, stalled, busy or gone.
//!
//! [`Net`] does what a driver and real sources do. After each step it checks what must always hold ([`audit`]).
#![expect(clippy::cast_possible_truncation, reason = "the networks and models are small")]

mod audit;
mod crowd;
mod model;
mod peer;
mod random;
mod rules;
mod subsets;
mod whole_shards;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::ops::Range;
use std::time::{Duration, Instant};

use manifest::{Cell, Geometry, PieceId, PieceSet};
use model::{Model, PIECE};
use peer::{BUSY, NEVER, Peer, ms, peer};

use super::{Checked, Failure, PlanAction, PlanConfig, PlanEvent, Planner, RequestId, SourceKey, Why};

/// How often a driver looks at what has arrived.
const TICK: Duration = Duration::from_millis(50);
/// Time to check a piece, to rebuild a column, or to hash a shard.
const WORK: Duration = Duration::from_millis(2);
/// More cannot be useful at one moment.
const MAX_ACTIONS: usize = 10_000;
/// Nothing may take longer, in virtual time.
const DEADLINE: Duration = Duration::from_secs(3600);

/// A request as the network sees it.
#[derive(Debug, Clone)]
struct Asked {
    source: usize,
    shard: u32,
    /// Those that have not arrived.
    pieces: Range<u32>,
    issued: Duration,
}

/// What happens later.
#[derive(Debug, Clone)]
enum Later {
    /// What came from this source, or was rebuilt, and whether the index was asked.
    Checked(PieceId, Option<usize>, u64, bool),
    ShardChecked(u32),
    Rechecked(PieceId, bool),
    PeerChanges,
    /// A source gets the next of its pieces.
    Gains(usize),
}

/// What came of a run.
#[derive(Debug, Default)]
struct Tally {
    elapsed: Duration,
    /// Bytes sent by each source, also of pieces that never were complete.
    sent: Vec<u64>,
    /// Of these, wrong ones.
    bad: Vec<u64>,
    /// By piece, how often it arrived.
    arrived: BTreeMap<PieceId, u32>,
    requests: usize,
    /// The first piece of each, in order.
    requested: Vec<PieceId>,
    /// How many requests were made for each reason.
    asked: HashMap<Why, usize>,
    /// How often a wrong piece came, and which these were.
    wrong: u32,
    lied: BTreeSet<PieceId>,
    polls: usize,
    checked_shards: usize,
    dismissed: BTreeSet<SourceKey>,
    rebuilt: BTreeSet<PieceId>,
    /// Pieces that were to be hashed again.
    rechecked: BTreeSet<PieceId>,
    /// Parity pieces that were good and not dropped, at most at one time.
    held_parity: usize,
    dropped_parity: usize,
}

struct Net {
    planner: Planner,
    geometry: Geometry,
    limit_bytes: u64,
    start: Instant,
    now: Duration,
    peers: Vec<Peer>,
    was_up: Vec<bool>,
    /// By source that grows, what it will get, in reverse, and what it has.
    to_get: Vec<Vec<PieceId>>,
    has_got: Vec<HashSet<PieceId>>,
    /// By source, its requests in order, and how many bytes of the first piece of the first were sent.
    queues: Vec<VecDeque<RequestId>>,
    partial_bytes: Vec<f64>,
    moved: Vec<bool>,
    asked: HashMap<RequestId, Asked>,
    later: BTreeMap<(Duration, u64), Later>,
    sequence: u64,
    /// What is stored of shards that are checked as a whole: 0 is right.
    stored: HashMap<PieceId, u64>,
    /// Shards whose index is wrong.
    wrong_index: HashSet<u32>,
    /// Whether parity is not what it should be.
    wrong_parity: bool,
    /// Pieces that are not on the disk any more what they were when they were verified.
    rotten: HashSet<PieceId>,
    audits: bool,
    /// A run ends here, done or not.
    stop_at: Option<Duration>,
    tally: Tally,
}

impl Net {
    fn new(model: &Model, indexed: bool, peers: Vec<Peer>) -> Self {
        Self::with(PlanConfig::default(), model, indexed, peers)
    }

    fn with(config: PlanConfig, model: &Model, indexed: bool, peers: Vec<Peer>) -> Self {
        let start = Instant::now();
        let geometry = model.geometry();
        let limit_bytes = config.max_in_flight_bytes;
        let count = peers.len();
        let mut net = Self {
            planner: Planner::new(geometry.clone(), indexed, config, start),
            geometry,
            limit_bytes,
            start,
            now: Duration::ZERO,
            was_up: vec![false; count],
            to_get: vec![Vec::new(); count],
            has_got: vec![HashSet::new(); count],
            queues: vec![VecDeque::new(); count],
            partial_bytes: vec![0.0; count],
            moved: vec![false; count],
            asked: HashMap::new(),
            later: BTreeMap::new(),
            sequence: 0,
            stored: HashMap::new(),
            wrong_index: HashSet::new(),
            wrong_parity: false,
            rotten: HashSet::new(),
            audits: true,
            stop_at: None,
            tally: Tally { sent: vec![0; count], bad: vec![0; count], ..Tally::default() },
            peers,
        };
        let peers = net.peers.clone();
        let changes = peers.iter().flat_map(|peer| &peer.up).flat_map(|time| [time.start, time.end]);
        changes.for_each(|at| net.later(at, Later::PeerChanges));
        for (source, peer) in peers.iter().enumerate() {
            if let Some(every) = peer.grows {
                net.to_get[source] = net.pieces_of(source);
                net.later(every, Later::Gains(source));
            }
        }
        net
    }

    /// The pieces that a source holds or will hold, in an order of its own.
    fn pieces_of(&self, source: usize) -> Vec<PieceId> {
        let manifest = self.geometry.manifest();
        let shards = (0..).zip(&self.peers[source].holds).filter(|(_, held)| **held).map(|(shard, _)| shard);
        let pieces = shards.flat_map(|shard: u32| {
            (0..manifest.piece_count(shard)).map(move |piece| PieceId { shard, piece })
        });
        let mut pieces: Vec<PieceId> = pieces.collect();
        pieces.sort_by_key(|piece| {
            let mixed = (self.geometry.flat(*piece) + 1) * (2 * source + 7919);
            (mixed * 2_654_435_761) % 65_537
        });
        pieces
    }

    fn later(&mut self, at: Duration, what: Later) {
        self.sequence += 1;
        self.later.insert((at, self.sequence), what);
    }

    fn tell(&mut self, event: PlanEvent) {
        self.planner.on_event(event, self.start + self.now);
        self.check();
    }

    /// An earlier run has left these, some of them wrong.
    fn claim(&mut self, pieces: impl Iterator<Item = PieceId>, is_wrong: impl Fn(PieceId) -> bool) {
        let pieces: Vec<PieceId> = pieces.collect();
        self.planner.claim(pieces.iter().copied());
        for (piece, number) in pieces.into_iter().zip(1..) {
            self.later(WORK * 1000 * number, Later::Rechecked(piece, !is_wrong(piece)));
        }
    }

    /// What is rebuilt with the help of this piece is wrong until it is hashed again.
    fn rot(&mut self, piece: PieceId) {
        self.rotten.insert(piece);
    }

    fn is_made_of_rot(&self, piece: PieceId) -> bool {
        let is_rotten = |cell| matches!(cell, Cell::Piece { piece, .. } if self.rotten.contains(&piece) && self.planner.is_good(piece));
        let mut stripes = self.geometry.stripes_of(piece).into_iter();
        stripes.any(|(stripe, _)| self.geometry.cells(stripe).any(is_rotten))
    }

    fn check(&self) {
        if self.audits {
            audit::audit(&self.planner);
        }
    }

    /// Runs until the model is complete. Panics with what is missing when it cannot be.
    fn finish(mut self) -> Self {
        assert!(self.run(), "stuck at {:?}: {:?}", self.now, self.planner.missing_shards());
        self
    }

    /// Runs until the time to stop.
    fn stopped(mut self) -> Self {
        self.run();
        self
    }

    /// Runs until nothing can be done for half a minute; returns the shards that are missing.
    fn stick(mut self) -> (Self, Vec<u32>) {
        assert!(!self.run());
        let missing = self.planner.missing_shards().into_iter().map(|state| state.shard).collect();
        (self, missing)
    }

    /// Returns whether all weights are there, or else nothing has been possible for half a minute.
    fn run(&mut self) -> bool {
        let mut next_tick = Duration::ZERO;
        let mut stuck_since = None;
        loop {
            if self.stop_at.is_some_and(|at| self.now >= at) {
                return false;
            }
            while let Some((key, _)) = self.later.range(..=(self.now, u64::MAX)).next() {
                let key = *key;
                if let Some(what) = self.later.remove(&key) {
                    self.happen(what);
                }
            }
            if self.now >= next_tick {
                next_tick = self.now + TICK;
                for source in 0..self.peers.len() {
                    if std::mem::take(&mut self.moved[source]) {
                        self.tell(PlanEvent::Progress { source: SourceKey(source as u32) });
                    }
                }
            }
            let polls = self.tally.polls;
            while let Some(action) = self.planner.poll_action(self.start + self.now) {
                self.tally.polls += 1;
                assert!(self.tally.polls < polls + MAX_ACTIONS, "no end of actions, such as {action:?}");
                self.act(action);
            }
            self.tally.polls += 1;
            self.check();
            if self.planner.is_done() {
                assert!(self.asked.is_empty(), "requests are left: {:?}", self.asked);
                audit::duplicates(self);
                self.tally.elapsed = self.now;
                return true;
            }
            let more_comes = self.later.keys().any(|(at, _)| *at < Duration::MAX);
            stuck_since = (self.planner.is_stuck() && !more_comes).then(|| stuck_since.unwrap_or(self.now));
            if stuck_since.is_some_and(|since| self.now > since + ms(30_000)) {
                return false;
            }
            let wakeup = self.planner.next_wakeup(self.start + self.now);
            let wakeup = wakeup.map(|at| {
                assert!(at > self.start + self.now, "it would wake up at once, for ever");
                at - self.start
            });
            let busy = self.queues.iter().any(|queue| !queue.is_empty()).then_some(next_tick);
            let stuck = stuck_since.map(|since| since + ms(30_001));
            let next_later = self.later.keys().next().map(|(at, _)| *at);
            let sends = (0..self.peers.len()).filter_map(|source| self.next_send(source));
            let times = [wakeup, busy, stuck, next_later].into_iter().flatten().chain(sends);
            let next = times.min().unwrap().max(self.now + Duration::from_nanos(1));
            assert!(next < DEADLINE, "no end: {:?}", self.planner.missing_shards());
            self.advance(next);
        }
    }

    /// When a source will have sent the piece it is at, or begin to.
    fn next_send(&self, source: usize) -> Option<Duration> {
        let peer = &self.peers[source];
        let asked = &self.asked[self.queues[source].front()?];
        let begins = asked.issued + peer.latency;
        if self.now < begins {
            return Some(begins);
        }
        if peer.silent.contains(&self.now) {
            return Some(peer.silent.end);
        }
        let piece = PieceId { shard: asked.shard, piece: asked.pieces.start };
        let left = self.geometry.piece_bytes(piece) as f64 - self.partial_bytes[source];
        Some(self.now + Duration::from_secs_f64((left / peer.rate(self.now)).max(1e-9)))
    }

    /// Lets the sources send until `next`.
    fn advance(&mut self, next: Duration) {
        let from = std::mem::replace(&mut self.now, next);
        for source in 0..self.peers.len() {
            let Some(id) = self.queues[source].front().copied() else { continue };
            let peer = self.peers[source].clone();
            let asked = self.asked[&id].clone();
            if next < asked.issued + peer.latency || peer.silent.contains(&from) {
                continue;
            }
            let failure = match () {
                () if peer.fails.0.contains(&next) => Some(peer.fails.1),
                () if !self.really_holds(source, &asked) => Some(Failure::Refused),
                () => None,
            };
            if failure.is_some() {
                self.end(id, failure);
                continue;
            }
            let since = from.max(asked.issued + peer.latency);
            self.partial_bytes[source] += (next - since).as_secs_f64() * peer.rate(from);
            self.moved[source] |= next > since;
            let piece = PieceId { shard: asked.shard, piece: asked.pieces.start };
            if self.partial_bytes[source] + 1.0 >= self.geometry.piece_bytes(piece) as f64 {
                self.partial_bytes[source] = 0.0;
                self.deliver(id, piece);
            }
        }
    }

    fn really_holds(&self, source: usize, asked: &Asked) -> bool {
        let has = |shard: u32, piece| self.has_got[source].contains(&PieceId { shard, piece });
        let mut same = self.geometry.same(asked.shard);
        match self.peers[source].grows {
            Some(_) => same.any(|shard| asked.pieces.clone().all(|piece| has(shard, piece))),
            None => same.any(|shard| self.peers[source].holds[shard as usize]),
        }
    }

    fn deliver(&mut self, id: RequestId, piece: PieceId) {
        let Some(asked) = self.asked.get_mut(&id) else { return };
        asked.pieces.start += 1;
        let (source, is_last) = (asked.source, asked.pieces.is_empty());
        let bytes = self.geometry.piece_bytes(piece);
        self.tally.sent[source] += bytes;
        *self.tally.arrived.entry(piece).or_default() += 1;
        let is_lie = self.peers[source].lies.contains(&piece.shard);
        let content = if is_lie { self.peers[source].lie } else { 0 };
        if is_lie {
            self.tally.bad[source] += bytes;
            self.tally.wrong += 1;
            self.tally.lied.insert(piece);
        }
        let is_wanted = self.planner.arrived(id, piece, self.start + self.now);
        self.check();
        if is_wanted {
            let indexed = self.planner.is_indexed(piece.shard);
            self.later(self.now + WORK, Later::Checked(piece, Some(source), content, indexed));
        }
        if is_last {
            self.end(id, None);
        }
    }

    fn end(&mut self, id: RequestId, failure: Option<Failure>) {
        self.forget(id);
        self.tell(PlanEvent::Ended { request: id, failure });
    }

    fn forget(&mut self, id: RequestId) {
        let Some(asked) = self.asked.remove(&id) else { return };
        if self.queues[asked.source].front() == Some(&id) {
            let lost = std::mem::take(&mut self.partial_bytes[asked.source]);
            self.tally.sent[asked.source] += lost as u64;
        }
        self.queues[asked.source].retain(|other| *other != id);
    }

    fn happen(&mut self, what: Later) {
        match what {
            Later::Checked(piece, source, content, indexed) => {
                let key = source.map(|source| SourceKey(source as u32));
                let is_right = content == 0 && !self.wrong_index.contains(&piece.shard);
                let outcome = match () {
                    () if !indexed => {
                        self.stored.insert(piece, content);
                        Checked::Stored
                    }
                    () if is_right => Checked::Good,
                    () => Checked::Bad { fingerprint: content },
                };
                self.tell(PlanEvent::Checked { piece, source: key, outcome });
            }
            Later::ShardChecked(shard) => {
                self.tally.checked_shards += 1;
                let pieces = 0..self.geometry.manifest().piece_count(shard);
                // What was verified before its shard came in doubt is right.
                let content = |piece| self.stored.get(&PieceId { shard, piece }).copied().unwrap_or(0);
                let good = { pieces }.all(|piece| content(piece) == 0);
                let index_agrees = !self.wrong_index.contains(&shard);
                self.tell(PlanEvent::ShardChecked { shard, good, index_agrees });
            }
            Later::Rechecked(piece, good) => self.tell(PlanEvent::Rechecked { piece, good }),
            Later::Gains(source) => {
                let Some(piece) = self.to_get[source].pop() else { return };
                self.has_got[source].insert(piece);
                if self.was_up[source] {
                    self.tell(PlanEvent::Gained { source: SourceKey(source as u32), pieces: vec![piece] });
                }
                let every = self.peers[source].grows.unwrap_or_default();
                self.later(self.now + every, Later::Gains(source));
            }
            Later::PeerChanges => {
                for source in 0..self.peers.len() {
                    let (key, is_up) = (SourceKey(source as u32), self.peers[source].is_up(self.now));
                    if is_up && !self.was_up[source] {
                        self.come_up(source, key);
                    } else if !is_up && self.was_up[source] {
                        let gone = self.queues[source].clone();
                        gone.into_iter().for_each(|id| self.forget(id));
                        self.tell(PlanEvent::Down { source: key });
                    }
                    self.was_up[source] = is_up;
                }
            }
        }
    }

    fn come_up(&mut self, source: usize, key: SourceKey) {
        let peer = self.peers[source].clone();
        self.tell(PlanEvent::Up { source: key, ranges: peer.ranges });
        if peer.tells {
            let say = |shard: usize| match (peer.holds[shard], peer.grows) {
                (false, _) => PieceSet::none(self.geometry.manifest().piece_count(shard as u32)),
                (true, None) => PieceSet::all(self.geometry.manifest().piece_count(shard as u32)),
                (true, Some(_)) => self.bitmap(source, shard as u32),
            };
            let shards = (0..peer.holds.len()).map(say).collect();
            self.tell(PlanEvent::Holds { source: key, shards });
        }
    }

    /// What a source that grows has of a shard.
    fn bitmap(&self, source: usize, shard: u32) -> PieceSet {
        let mut held = PieceSet::none(self.geometry.manifest().piece_count(shard));
        for piece in self.has_got[source].iter().filter(|piece| piece.shard == shard) {
            held.insert(piece.piece);
        }
        held
    }

    fn act(&mut self, action: PlanAction) {
        match action {
            PlanAction::Dismiss { source } => {
                self.tally.dismissed.insert(source);
            }
            PlanAction::Request { request, source, shard, pieces, why } => {
                assert!(!self.tally.dismissed.contains(&source), "{source:?} is asked again");
                let asked = Asked { source: source.0 as usize, shard, pieces, issued: self.now };
                audit::request(self, &asked, why);
                *self.tally.asked.entry(why).or_default() += 1;
                self.tally.requests += 1;
                self.tally.requested.push(PieceId { shard, piece: asked.pieces.start });
                self.queues[asked.source].push_back(request);
                self.asked.insert(request, asked);
                audit::memory(self);
            }
            PlanAction::Cancel { request } => self.forget(request),
            PlanAction::Rebuild { pieces } => {
                for piece in pieces {
                    audit::rebuild(self, piece);
                    self.tally.rebuilt.insert(piece);
                    let is_wrong = self.wrong_parity || self.is_made_of_rot(piece);
                    let content = u64::from(is_wrong) * u64::MAX;
                    let indexed = self.planner.is_indexed(piece.shard);
                    self.later(self.now + WORK, Later::Checked(piece, None, content, indexed));
                }
            }
            PlanAction::DropParity { piece } => {
                audit::drop_parity(self, piece);
                self.tally.dropped_parity += 1;
            }
            PlanAction::Recheck { piece } => {
                self.tally.rechecked.insert(piece);
                let good = !self.rotten.remove(&piece);
                self.later(self.now + WORK, Later::Rechecked(piece, good));
            }
            PlanAction::CheckShard { shard } => self.later(self.now + WORK, Later::ShardChecked(shard)),
        }
        self.tally.held_parity = self.tally.held_parity.max(self.held_parity());
    }

    /// How many parity pieces are good and not dropped.
    fn held_parity(&self) -> usize {
        let manifest = self.geometry.manifest();
        let shards = manifest.data_shard_count()..manifest.shards().len() as u32;
        let pieces = shards
            .flat_map(|shard| (0..manifest.piece_count(shard)).map(move |piece| PieceId { shard, piece }));
        pieces.filter(|piece| self.planner.is_good(*piece)).count()
    }

    fn is_banned(&self, source: u32) -> bool {
        self.planner.source_state(SourceKey(source)).unwrap().banned
    }

    fn sent_bytes(&self) -> u64 {
        self.tally.sent.iter().sum()
    }

    /// Bytes that arrived beyond those of the weights.
    fn excess_bytes(&self) -> u64 {
        self.sent_bytes().saturating_sub(self.geometry.manifest().total_size_bytes())
    }
}
