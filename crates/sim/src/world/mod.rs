//! The nodes, and what happens to them.

mod crowd;
mod lines;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use manifest::{PieceId, PieceSet};
use planner::{Checked, Failure, PlanAction, PlanEvent, Planner, RequestId, SourceKey, SourceLimit, Why};

use crate::clock::{Agenda, MS, Time, duration};
use crate::scenario::Scenario;
use crate::server::{Chunk, Server, TransferId};
use crate::tally::Outcome;

/// To check a piece and write it.
const CHECK: Time = 3 * MS;
/// All who lie send the same wrong bytes, the worst that they can do.
const THE_LIE: u64 = 1;
/// The first seeder.
const SEEDER: u32 = 0;
/// A swarm that takes so many times the lower bound, and so many times the longest latency, does not end.
const PATIENCE: f64 = 30.0;
const PATIENCE_LATENCIES: u64 = 100;

#[derive(Debug, Clone, Copy)]
struct Transfer {
    fetcher: u32,
    server: u32,
    /// The fetcher's name of the server.
    key: SourceKey,
    request: RequestId,
    piece: PieceId,
    is_wanted: bool,
}

#[derive(Debug)]
enum Event {
    Start(u32),
    Leave(u32),
    Gone {
        node: u32,
        key: SourceKey,
    },
    /// The planner wants to be asked again.
    Wake(u32),
    /// A node asks its sources what they hold.
    Poll(u32),
    /// A request is at its server.
    Asked(TransferId),
    /// A request may have waited long enough at its server.
    Waited(TransferId),
    /// "Busy" is at the fetcher.
    Refused {
        transfer: TransferId,
        retry_after: Time,
    },
    /// A request that is not wanted any more is at its server.
    Cancelled(TransferId),
    /// A server has put a chunk on its line.
    Sent(u32),
    Arrived(Chunk),
    /// The server knows that a chunk has arrived.
    Acknowledged {
        server: u32,
        fetcher: u32,
        bytes: u64,
    },
    Checked {
        node: u32,
        piece: PieceId,
        source: Option<SourceKey>,
        is_right: bool,
    },
    ShardChecked {
        node: u32,
        shard: u32,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Conduct {
    Honest,
    Lies,
    Stalls,
}

#[derive(Debug)]
struct Neighbour {
    node: u32,
    /// How much of its log is known here.
    known: usize,
}

#[derive(Debug)]
struct Node {
    conduct: Conduct,
    is_up: bool,
    started: bool,
    planner: Planner,
    /// The first ones are connected.
    neighbours: Vec<Neighbour>,
    connected: usize,
    limit: SourceLimit,
    /// Who has this node as a source, under which name.
    known_by: Vec<(u32, SourceKey)>,
    under_way: HashMap<RequestId, TransferId>,
    wakes_at: Option<Time>,
    /// How many pieces were read, in the order of the weights, where they are read while they arrive; when the first of them
    /// were, as many as are read ahead.
    read: u32,
    is_reading: bool,
    began_reading_at: Option<Time>,
    /// Pieces in the order in which they became good.
    log: Vec<(Time, PieceId)>,
    /// Pieces of a shard that is checked as a whole, and whether each is right.
    stored: HashMap<PieceId, bool>,
    server: Server,
    /// When its line in is free again.
    receives_from: Time,
    sent_bytes: u64,
    done_at: Option<Time>,
}

impl Node {
    fn good_bytes(&self) -> u64 {
        let geometry = self.planner.geometry();
        self.log.iter().map(|(_, piece)| geometry.piece_bytes(*piece)).sum()
    }
}

/// A swarm in virtual time.
pub(crate) struct World {
    scenario: Scenario,
    epoch: Instant,
    now: Time,
    agenda: Agenda<Event>,
    nodes: Vec<Node>,
    transfers: Vec<Transfer>,
    free: Vec<TransferId>,
    random: fastrand::Rng,
    /// Honest nodes that stay and are not done.
    left: u32,
    events: u64,
    received_bytes: u64,
    busy: u64,
    asked: BTreeMap<Why, u64>,
}

impl World {
    /// Runs until all honest nodes that stay are done, or it seems that they never will.
    pub(crate) fn run(mut self) -> Outcome {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some hours")]
        let patience = (self.scenario.bound_s() * PATIENCE * 1e9) as Time;
        let patience = patience + PATIENCE_LATENCIES * self.scenario.latency_ms.1 * MS;
        while self.left > 0
            && let Some((at, event)) = self.agenda.next()
            && at < patience
        {
            self.now = at;
            self.events += 1;
            self.happen(event);
        }
        self.outcome()
    }

    fn outcome(self) -> Outcome {
        let seconds = |mut times: Vec<Time>| {
            times.sort_unstable();
            times.into_iter().map(|at| duration(at).as_secs_f64()).collect()
        };
        let done = self.nodes.iter().filter_map(|node| node.done_at).collect();
        let began_reading = self.nodes.iter().filter_map(|node| node.began_reading_at).collect();
        let good = self.nodes.iter().map(Node::good_bytes).sum();
        let connected: usize = self.nodes.iter().map(|node| node.connected).sum();
        Outcome {
            bound_s: self.scenario.bound_s(),
            done_s: seconds(done),
            began_reading_s: seconds(began_reading),
            unfinished: self.left,
            model_bytes: self.scenario.model_bytes(),
            seeder_sent_bytes: self.nodes[SEEDER as usize].sent_bytes,
            received_bytes: self.received_bytes,
            good_bytes: good,
            busy_answers: self.busy,
            sources: connected as f64 / f64::from(self.scenario.nodes),
            asked: self.asked,
            events: self.events,
            scenario: self.scenario,
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Start(node) => self.start(node),
            Event::Leave(node) => self.leave(node),
            Event::Gone { node, key } => self.tell(node, PlanEvent::Down { source: key }),
            Event::Wake(node) => {
                if self.nodes[node as usize].wakes_at == Some(self.now) {
                    self.nodes[node as usize].wakes_at = None;
                    self.drive(node);
                }
            }
            Event::Poll(node) => self.poll(node),
            Event::Asked(transfer) => self.asked(transfer),
            Event::Waited(id) => {
                let Transfer { server, fetcher, .. } = self.transfers[id.0 as usize];
                if self.nodes[server as usize].server.is_waiting(fetcher, id) {
                    self.refuse(id);
                    self.send(server);
                }
            }
            Event::Refused { transfer, retry_after } => {
                let Transfer { fetcher, request, .. } = self.transfers[transfer.0 as usize];
                self.free.push(transfer);
                self.nodes[fetcher as usize].server.told_busy(self.now);
                self.end(fetcher, request, Some(Failure::Busy(duration(retry_after))));
            }
            Event::Cancelled(id) => {
                self.end_service(id);
                self.send(self.transfers[id.0 as usize].server);
            }
            Event::Sent(node) => {
                self.nodes[node as usize].server.line_is_busy = false;
                self.send(node);
            }
            Event::Arrived(chunk) => self.arrived(chunk),
            Event::Acknowledged { server, fetcher, bytes } => {
                self.nodes[server as usize].server.acknowledge(fetcher, bytes);
                self.send(server);
            }
            Event::Checked { node, piece, source, is_right } => self.checked(node, piece, source, is_right),
            Event::ShardChecked { node, shard } => self.shard_checked(node, shard),
        }
    }

    fn instant(&self) -> Instant {
        self.epoch + duration(self.now)
    }

    fn start(&mut self, node: u32) {
        let at = self.instant();
        let this = &mut self.nodes[node as usize];
        if !this.is_up {
            return;
        }
        this.started = true;
        this.limit = SourceLimit::new(this.neighbours.len(), at);
        self.connect(node);
        let phase = self.random.u64(0..self.scenario.have_interval_ms * MS);
        self.agenda.add(self.now + phase, Event::Poll(node));
        self.drive(node);
    }

    /// Connects to as many as there may be now.
    fn connect(&mut self, node: u32) {
        let at = self.instant();
        let this = &mut self.nodes[node as usize];
        let here_bytes = this.good_bytes();
        let left_bytes = self.scenario.model_bytes().saturating_sub(here_bytes);
        let limit = this.limit.at(here_bytes, left_bytes, at);
        for index in this.connected..limit {
            let other = self.nodes[node as usize].neighbours[index].node;
            if !self.nodes[other as usize].is_up {
                continue;
            }
            let planner = &mut self.nodes[node as usize].planner;
            let manifest = Arc::clone(planner.geometry().manifest());
            let held = if other == SEEDER { PieceSet::all } else { PieceSet::none };
            let shards =
                (0..).zip(manifest.shards()).map(|(shard, _)| held(manifest.piece_count(shard))).collect();
            #[expect(clippy::cast_possible_truncation, reason = "some dozens")]
            let source = SourceKey(index as u32);
            planner.on_event(PlanEvent::Up { source, ranges: true }, at);
            planner.on_event(PlanEvent::Holds { source, shards }, at);
        }
        let this = &mut self.nodes[node as usize];
        this.connected = this.connected.max(limit);
    }

    fn leave(&mut self, node: u32) {
        let this = &mut self.nodes[node as usize];
        if this.conduct == Conduct::Honest && this.done_at.is_none() {
            self.left -= 1;
        }
        this.is_up = false;
        this.server.close();
        let (known_by, under_way) = (this.known_by.clone(), std::mem::take(&mut this.under_way));
        for (other, key) in known_by {
            let at = self.now + self.latency(node, other);
            self.agenda.add(at, Event::Gone { node: other, key });
        }
        let mut transfers: Vec<TransferId> = under_way.into_values().collect();
        transfers.sort_unstable_by_key(|transfer| transfer.0);
        for transfer in transfers {
            self.cancel(transfer);
        }
    }

    fn poll(&mut self, node: u32) {
        let interval = self.scenario.have_interval_ms * MS;
        if !self.nodes[node as usize].is_up || self.nodes[node as usize].done_at.is_some() {
            return;
        }
        self.connect(node);
        let at = self.instant();
        let mut gains = Vec::new();
        let this = &self.nodes[node as usize];
        for (key, neighbour) in (0..).map(SourceKey).zip(&this.neighbours).take(this.connected) {
            // What it says was so when it sent its answer.
            let until = self.now.saturating_sub(self.latency(node, neighbour.node));
            let log = self.nodes[neighbour.node as usize].log.iter().skip(neighbour.known);
            let pieces: Vec<PieceId> =
                log.take_while(|(time, _)| *time <= until).map(|(_, piece)| *piece).collect();
            if !pieces.is_empty() {
                gains.push((key, pieces));
            }
        }
        let this = &mut self.nodes[node as usize];
        for (source, pieces) in gains {
            this.neighbours[source.0 as usize].known += pieces.len();
            this.planner.on_event(PlanEvent::Gained { source, pieces }, at);
        }
        self.agenda.add(self.now + interval, Event::Poll(node));
        self.drive(node);
    }

    fn tell(&mut self, node: u32, event: PlanEvent) {
        let at = self.instant();
        self.nodes[node as usize].planner.on_event(event, at);
        self.drive(node);
    }

    fn end(&mut self, node: u32, request: RequestId, failure: Option<Failure>) {
        if self.nodes[node as usize].under_way.remove(&request).is_some() {
            self.tell(node, PlanEvent::Ended { request, failure });
        }
    }

    /// Does what a planner wants.
    fn drive(&mut self, node: u32) {
        if !self.nodes[node as usize].is_up || !self.nodes[node as usize].started {
            return;
        }
        self.read(node);
        let at = self.instant();
        while let Some(action) = self.nodes[node as usize].planner.poll_action(at) {
            self.act(node, action);
        }
        let this = &mut self.nodes[node as usize];
        if this.planner.is_done() {
            if this.done_at.is_none() {
                this.done_at = Some(self.now);
                self.left -= u32::from(this.conduct == Conduct::Honest);
            }
            return;
        }
        let Some(wakeup) = this.planner.next_wakeup(at) else { return };
        #[expect(clippy::cast_possible_truncation, reason = "centuries")]
        let wakeup = ((wakeup - self.epoch).as_nanos() as Time).max(self.now + MS);
        if this.wakes_at.is_none_or(|before| wakeup < before) {
            this.wakes_at = Some(wakeup);
            self.agenda.add(wakeup, Event::Wake(node));
        }
    }

    /// Reads what has come, and wants what comes next first.
    fn read(&mut self, node: u32) {
        let (ahead, this) = (self.scenario.read_ahead, &mut self.nodes[node as usize]);
        if ahead == 0 {
            return;
        }
        let manifest = Arc::clone(this.planner.geometry().manifest());
        let per_shard = manifest.piece_count(0);
        let at = |number: u32| PieceId { shard: number / per_shard, piece: number % per_shard };
        let (before, end) = (this.read, manifest.data_shard_count() * per_shard);
        while this.read < end && this.planner.is_good(at(this.read)) {
            this.read += 1;
        }
        if this.read >= ahead.min(end) && this.began_reading_at.is_none() {
            this.began_reading_at = Some(self.now);
        }
        if this.read > before || !this.is_reading {
            this.is_reading = true;
            this.planner.want_soon((this.read..end.min(this.read + ahead)).map(at));
        }
    }

    fn act(&mut self, node: u32, action: PlanAction) {
        match action {
            PlanAction::Request { request, source, shard, pieces, why } => {
                *self.asked.entry(why).or_default() += 1;
                let server = self.nodes[node as usize].neighbours[source.0 as usize].node;
                let piece = PieceId { shard, piece: pieces.start };
                let transfer =
                    Transfer { fetcher: node, server, key: source, request, piece, is_wanted: true };
                let id = self.new_transfer(transfer);
                self.nodes[node as usize].under_way.insert(request, id);
                self.agenda.add(self.now + self.latency(node, server), Event::Asked(id));
            }
            PlanAction::Cancel { request } => {
                if let Some(transfer) = self.nodes[node as usize].under_way.remove(&request) {
                    self.cancel(transfer);
                }
            }
            PlanAction::Rebuild { pieces } => {
                for piece in pieces {
                    let event = Event::Checked { node, piece, source: None, is_right: true };
                    self.agenda.add(self.now + CHECK, event);
                }
            }
            // What is rebuilt is right here.
            PlanAction::DropParity { .. } | PlanAction::Recheck { .. } | PlanAction::Dismiss { .. } => {}
            PlanAction::CheckShard { shard } => {
                self.agenda.add(self.now + CHECK, Event::ShardChecked { node, shard });
            }
        }
    }

    fn checked(&mut self, node: u32, piece: PieceId, source: Option<SourceKey>, is_right: bool) {
        let this = &mut self.nodes[node as usize];
        let outcome = match () {
            () if !this.planner.is_indexed(piece.shard) => {
                this.stored.insert(piece, is_right);
                Checked::Stored
            }
            () if is_right => {
                this.log.push((self.now, piece));
                Checked::Good
            }
            () => Checked::Bad { fingerprint: THE_LIE },
        };
        self.tell(node, PlanEvent::Checked { piece, source, outcome });
    }

    fn shard_checked(&mut self, node: u32, shard: u32) {
        let this = &mut self.nodes[node as usize];
        let mut stored: Vec<(PieceId, bool)> =
            this.stored.extract_if(|piece, _| piece.shard == shard).collect();
        stored.sort_unstable();
        let good = stored.iter().all(|(_, is_right)| *is_right);
        if good {
            this.log.extend(stored.into_iter().map(|(piece, _)| (self.now, piece)));
        }
        self.tell(node, PlanEvent::ShardChecked { shard, good, index_agrees: true });
    }
}
