//! The planner: which bytes to ask of whom, and when to rebuild instead.
//!
//! It does no I/O, reads no clock and draws no random number it was not given: events and the time go in, actions
//! come out, so that a simulation runs in virtual time and a failure replays. `fetch` drives it with real sources.
//!
//! Every piece of a data shard is in exactly one [`pieces::PieceState`]. A piece is asked of one source at a time,
//! but of a second one when the first is late; a source that makes no progress loses everything it was asked for but
//! its oldest request, which stays as a probe.

mod pick;
mod pieces;
mod rebuild;
mod sources;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Range;
use std::time::{Duration, Instant};

use manifest::{Geometry, PieceId};

use pieces::Pieces;
pub use pieces::ShardState;
use sources::Source;
pub use sources::{Holding, SourceState};

/// Names a source to the planner; its driver gives the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceKey(pub u32);

/// Names a request between the planner and its driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Limits and patience of the planner.
#[derive(Debug, Clone)]
pub struct PlanConfig {
    /// Bytes that may be asked for and not yet written, over all sources.
    pub max_in_flight_bytes: u64,
    /// A source that owes bytes and sends none for this long has stalled.
    pub stall_after: Duration,
    /// How long a source is not asked again for a shard it refused.
    pub refusal_ttl: Duration,
    /// How long parity waits for sources that are still being connected to, since they may hold the data.
    pub grace: Duration,
}

impl Default for PlanConfig {
    fn default() -> Self {
        Self {
            max_in_flight_bytes: 48 << 20,
            stall_after: Duration::from_secs(2),
            refusal_ttl: Duration::from_secs(10),
            grace: Duration::from_secs(1),
        }
    }
}

/// Why a request ended without its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The source does not hold the shard, or not that part of it.
    Refused,
    /// The source has no capacity for this long.
    Busy(Duration),
    /// The source broke the protocol.
    Misbehaved,
    /// The stream or the connection ended, or timed out.
    Lost,
}

/// What became of a piece that was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checked {
    /// Right, and written in place.
    Good,
    /// Written in place; its shard is checked as a whole when all its pieces are there.
    Stored,
    /// Wrong. Equal wrong bytes have equal fingerprints.
    Bad {
        /// First bytes of a digest of what arrived.
        fingerprint: u64,
    },
}

/// What happened.
#[derive(Debug, Clone)]
pub enum PlanEvent {
    /// A source can be asked. `ranges`: for single pieces; else only for whole blobs.
    Up {
        /// The source.
        source: SourceKey,
        /// Whether it serves ranges.
        ranges: bool,
    },
    /// A source said what it holds: one entry per shard.
    Holds {
        /// The source.
        source: SourceKey,
        /// By shard index.
        shards: Vec<Holding>,
    },
    /// A source is gone; its requests are void.
    Down {
        /// The source.
        source: SourceKey,
    },
    /// Some bytes arrived from a source.
    Progress {
        /// The source.
        source: SourceKey,
    },
    /// A piece that arrived or was rebuilt was checked. `source` is `None` for a rebuilt one.
    Checked {
        /// The piece.
        piece: PieceId,
        /// Where it came from.
        source: Option<SourceKey>,
        /// What it turned out to be.
        outcome: Checked,
    },
    /// The check of a whole shard that [`PlanAction::CheckShard`] asked for has ended.
    ShardChecked {
        /// The shard.
        shard: u32,
        /// Whether its digest is right.
        good: bool,
    },
    /// A request ended: all its pieces arrived, or it failed.
    Ended {
        /// The request.
        request: RequestId,
        /// Why it failed, if it did.
        failure: Option<Failure>,
    },
    /// Whether more sources may come up at any moment.
    Connecting {
        /// True while connections are being made.
        pending: bool,
    },
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlanAction {
    /// Ask `source` for these pieces of a shard: one piece where it serves ranges, else all of them.
    Request {
        /// Name of the request.
        request: RequestId,
        /// Whom to ask.
        source: SourceKey,
        /// Which shard.
        shard: u32,
        /// Which of its pieces.
        pieces: Range<u32>,
    },
    /// Give a request up. Nothing is heard of it again.
    Cancel {
        /// Name of the request.
        request: RequestId,
    },
    /// Rebuild these pieces; in every stripe they touch, enough other cells are good.
    Rebuild {
        /// Pieces of data shards.
        pieces: Vec<PieceId>,
    },
    /// Hash a whole shard.
    CheckShard {
        /// The shard.
        shard: u32,
    },
}

#[derive(Debug)]
struct Request {
    source: SourceKey,
    shard: u32,
    pieces: Range<u32>,
    issued: Instant,
    /// Its source stalled: it no longer keeps others from being asked for its pieces.
    stalled: bool,
}

/// Decides; see the module's documentation.
#[derive(Debug)]
pub struct Planner {
    config: PlanConfig,
    pieces: Pieces,
    sources: BTreeMap<SourceKey, Source>,
    requests: BTreeMap<RequestId, Request>,
    /// By flat piece number, the requests that are under way for it and not stalled.
    asked: HashMap<usize, Vec<RequestId>>,
    next_request: u64,
    /// Source that is offered work first, so that all get their turn.
    turn: u32,
    actions: VecDeque<PlanAction>,
    rebuilding: usize,
    connecting: bool,
    started: Instant,
    /// Columns before this one need no parity, unless something was lost since.
    parity_cursor: u32,
}

/// Rebuilds under way at once: each holds the output of one column in memory.
const MAX_REBUILDS: usize = 2;

impl Planner {
    /// A planner for the model of `geometry`. Without `indexed`, shards are checked as a whole.
    pub fn new(geometry: Geometry, indexed: bool, config: PlanConfig, now: Instant) -> Self {
        Self {
            config,
            pieces: Pieces::new(geometry, indexed),
            sources: BTreeMap::new(),
            requests: BTreeMap::new(),
            asked: HashMap::new(),
            next_request: 0,
            turn: 0,
            actions: VecDeque::new(),
            rebuilding: 0,
            connecting: false,
            started: now,
            parity_cursor: 0,
        }
    }

    /// The geometry it plans for.
    pub fn geometry(&self) -> &Geometry {
        &self.pieces.geometry
    }

    /// Takes pieces that an earlier run left verified. Only before the first event.
    pub fn resume(&mut self, pieces: impl IntoIterator<Item = PieceId>) {
        for piece in pieces {
            self.pieces.set_good(piece);
        }
    }

    /// Whether pieces of this shard are checked one by one.
    pub fn is_indexed(&self, shard: u32) -> bool {
        self.pieces.is_indexed(shard)
    }

    /// Whether all weights are there and verified.
    pub fn is_done(&self) -> bool {
        self.pieces.is_done()
    }

    /// Whether nothing is under way that could bring a missing piece: only a new source, or time, can help.
    ///
    /// Meaningful after [`Planner::poll_action`] returned `None`.
    pub fn is_stuck(&self) -> bool {
        !self.is_done()
            && self.requests.values().all(|request| request.stalled)
            && self.pieces.is_quiet()
            && self.rebuilding == 0
    }

    /// State of each shard that the weights still need, for a report.
    pub fn missing_shards(&self) -> Vec<ShardState> {
        self.pieces.missing_shards()
    }

    /// Whether a piece is written and right.
    pub fn is_good(&self, piece: PieceId) -> bool {
        self.pieces.is_good(piece)
    }

    /// Whom a request was made to, while it is under way.
    pub fn source_of(&self, request: RequestId) -> Option<SourceKey> {
        self.requests.get(&request).map(|request| request.source)
    }

    /// What the planner thinks of a source.
    pub fn source_state(&self, source: SourceKey) -> Option<SourceState> {
        self.sources.get(&source).map(Source::state)
    }

    /// Takes in what happened.
    pub fn on_event(&mut self, event: PlanEvent, now: Instant) {
        // Nearly every event can change what is lost; what only adds progress must not cost a search.
        if !matches!(event, PlanEvent::Progress { .. } | PlanEvent::Checked { outcome: Checked::Good, .. }) {
            self.parity_cursor = 0;
        }
        match event {
            PlanEvent::Up { source, ranges } => {
                self.sources.entry(source).or_insert_with(|| Source::new(now)).come_up(ranges, now);
            }
            PlanEvent::Holds { source, shards } => {
                if let Some(source) = self.sources.get_mut(&source) {
                    source.holdings = shards;
                }
            }
            PlanEvent::Down { source } => self.on_down(source),
            PlanEvent::Progress { source } => self.on_progress(source, now),
            PlanEvent::Checked { piece, source, outcome } => self.on_checked(piece, source, outcome),
            PlanEvent::ShardChecked { shard, good } => self.on_shard_checked(shard, good),
            PlanEvent::Ended { request, failure } => self.on_ended(request, failure, now),
            PlanEvent::Connecting { pending } => self.connecting = pending,
        }
    }

    /// The next thing to do, if any; asked again until `None`.
    pub fn poll_action(&mut self, now: Instant) -> Option<PlanAction> {
        self.find_stalls(now);
        if let Some(action) = self.actions.pop_front() {
            return Some(action);
        }
        if self.is_done() {
            return self.requests.pop_first().map(|(request, _)| PlanAction::Cancel { request });
        }
        self.next_shard_check().or_else(|| self.next_rebuild()).or_else(|| self.next_request(now))
    }

    /// When to poll again though nothing happened: a stall, a pause or a wait may end then.
    pub fn next_wakeup(&self, now: Instant) -> Option<Instant> {
        let grace = (self.connecting && now < self.started + self.config.grace)
            .then(|| self.started + self.config.grace);
        let sources = self.sources.values().filter_map(|source| source.next_wakeup(&self.config, now));
        // Hedging depends on how late a piece is, which only time tells.
        let hedge = (!self.requests.is_empty()).then(|| now + Duration::from_millis(50));
        sources.chain(grace).chain(hedge).min()
    }

    fn on_down(&mut self, source: SourceKey) {
        let gone: Vec<RequestId> =
            self.requests.iter().filter(|(_, r)| r.source == source).map(|(id, _)| *id).collect();
        for request in gone {
            self.drop_request(request);
        }
        if let Some(source) = self.sources.get_mut(&source) {
            source.go_down();
        }
    }

    /// All bytes of a piece arrived. Returns whether they are of use: then the driver has them checked and reports
    /// [`PlanEvent::Checked`]; else it drops them.
    pub fn arrived(&mut self, id: RequestId, piece: PieceId, now: Instant) -> bool {
        let source = self.source_of(id);
        if let Some(request) = self.requests.get_mut(&id) {
            request.stalled = false;
            let (issued, is_last) = (request.issued, request.pieces.len() <= 1);
            let bytes = self.pieces.geometry.piece_bytes(piece);
            if let Some(source) = self.sources.get_mut(&request.source) {
                source.on_arrived(id, bytes, issued, now);
            }
            self.forget_asked(id, piece);
            if is_last {
                self.drop_request(id);
            }
        }
        let wanted = self.pieces.is_missing(piece);
        if wanted && let Some(source) = source.and_then(|source| self.sources.get_mut(&source)) {
            source.checking();
        }
        self.pieces.arrived(piece);
        wanted
    }

    fn on_progress(&mut self, key: SourceKey, now: Instant) {
        let Some(source) = self.sources.get_mut(&key) else { return };
        if source.on_progress(now) {
            for request in self.requests.values_mut().filter(|request| request.source == key) {
                request.stalled = false;
            }
        }
    }

    fn on_ended(&mut self, id: RequestId, failure: Option<Failure>, now: Instant) {
        let Some(request) = self.drop_request(id) else { return };
        let Some(failure) = failure else { return };
        let ttl = self.config.refusal_ttl;
        if let Some(source) = self.sources.get_mut(&request.source) {
            source.on_failure(request.shard, failure, ttl, now);
        }
        if failure == Failure::Misbehaved {
            self.ban(request.source);
        }
    }

    fn on_checked(&mut self, piece: PieceId, source: Option<SourceKey>, outcome: Checked) {
        if source.is_none() {
            self.rebuilding = self.rebuilding.saturating_sub(self.pieces.rebuilt(piece));
        }
        if let Some(source) = source.and_then(|source| self.sources.get_mut(&source)) {
            source.checked(!matches!(outcome, Checked::Bad { .. }));
        }
        match outcome {
            Checked::Good => {
                for liar in self.pieces.proven(piece, source) {
                    self.ban(liar);
                }
                self.cancel_useless(piece);
            }
            Checked::Stored => self.pieces.stored(piece, source),
            Checked::Bad { fingerprint } => {
                let index_is_suspect = self.pieces.bad(piece, source, fingerprint);
                match source {
                    _ if index_is_suspect => self.lift_suspensions(piece.shard),
                    Some(source) => self.suspend(source, piece.shard),
                    None => {}
                }
            }
        }
    }

    fn on_shard_checked(&mut self, shard: u32, good: bool) {
        let verdict = self.pieces.shard_checked(shard, good);
        for source in verdict.suspended {
            self.suspend(source, shard);
        }
        for liar in verdict.liars {
            self.ban(liar);
        }
    }

    fn suspend(&mut self, source: SourceKey, shard: u32) {
        if let Some(source) = self.sources.get_mut(&source) {
            source.suspended.insert(shard);
            source.bad_pieces += 1;
        }
        let of_shard = |request: &Request| request.source == source && request.shard == shard;
        self.cancel_where(of_shard);
    }

    fn lift_suspensions(&mut self, shard: u32) {
        for source in self.sources.values_mut() {
            source.suspended.remove(&shard);
        }
        self.cancel_where(|request| request.shard == shard);
    }

    fn ban(&mut self, source: SourceKey) {
        if let Some(source) = self.sources.get_mut(&source) {
            source.banned = true;
        }
        self.parity_cursor = 0;
        self.cancel_where(|request| request.source == source);
    }

    fn cancel_where(&mut self, which: impl Fn(&Request) -> bool) {
        let ids: Vec<RequestId> = self.requests.iter().filter(|(_, r)| which(r)).map(|(id, _)| *id).collect();
        for request in ids {
            self.drop_request(request);
            self.actions.push_back(PlanAction::Cancel { request });
        }
    }

    /// Cancels requests for whole shards that have nothing left to bring, now that `piece` is good.
    fn cancel_useless(&mut self, piece: PieceId) {
        let Some(ids) = self.asked.get(&self.pieces.geometry.flat(piece)) else { return };
        let useless = |id: &RequestId| {
            self.requests.get(id).is_some_and(|request| {
                request.pieces.len() > 1
                    && request
                        .pieces
                        .clone()
                        .all(|piece| !self.pieces.is_missing(PieceId { shard: request.shard, piece }))
            })
        };
        let ids: Vec<RequestId> = ids.iter().copied().filter(useless).collect();
        for request in ids {
            self.drop_request(request);
            self.actions.push_back(PlanAction::Cancel { request });
        }
    }

    fn drop_request(&mut self, id: RequestId) -> Option<Request> {
        let request = self.requests.remove(&id)?;
        for piece in request.pieces.clone() {
            self.forget_asked(id, PieceId { shard: request.shard, piece });
        }
        if let Some(source) = self.sources.get_mut(&request.source) {
            source.forget(id);
        }
        Some(request)
    }

    fn forget_asked(&mut self, id: RequestId, piece: PieceId) {
        let flat = self.pieces.geometry.flat(piece);
        if let Some(requests) = self.asked.get_mut(&flat) {
            requests.retain(|request| *request != id);
            if requests.is_empty() {
                self.asked.remove(&flat);
                self.pieces.reopen(piece);
            }
        }
    }

    /// Rule 3: a source that owes bytes and sends none loses all it was asked for but its oldest request.
    fn find_stalls(&mut self, now: Instant) {
        for source in self.sources.values_mut() {
            if source.expire(now) {
                self.parity_cursor = 0;
            }
        }
        let stalled: Vec<SourceKey> = self
            .sources
            .iter()
            .filter(|(_, source)| source.stalls_at(&self.config).is_some_and(|at| now >= at))
            .map(|(key, _)| *key)
            .collect();
        for key in stalled {
            self.parity_cursor = 0;
            let Some(source) = self.sources.get_mut(&key) else { continue };
            let requests = source.stall();
            for (position, id) in requests.into_iter().enumerate() {
                if position > 0 {
                    self.drop_request(id);
                    self.actions.push_back(PlanAction::Cancel { request: id });
                } else if let Some(request) = self.requests.get_mut(&id) {
                    request.stalled = true;
                    let (shard, pieces) = (request.shard, request.pieces.clone());
                    for piece in pieces {
                        self.forget_asked(id, PieceId { shard, piece });
                    }
                }
            }
        }
    }

    fn next_shard_check(&mut self) -> Option<PlanAction> {
        self.pieces.next_full_shard().map(|shard| PlanAction::CheckShard { shard })
    }
}
