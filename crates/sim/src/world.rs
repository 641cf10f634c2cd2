//! The nodes, and what passes between them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use loader::plan::{
    Checked, Failure, Holding, PlanAction, PlanConfig, PlanEvent, Planner, RequestId, SourceKey, Why,
};
use manifest::{Geometry, PieceId};

use crate::clock::{Agenda, MS, Time, duration, time_for};
use crate::model;
use crate::scenario::Scenario;
use crate::server::{Asked, Chunk, MAX_WAIT, Server};
use crate::tally::Outcome;

/// Names a request between a fetcher and a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TransferId(u32);

/// To check a piece and write it.
const CHECK: Time = 3 * MS;
/// All nodes begin within this time.
const START: Time = 1000 * MS;
/// The first seeder.
const SEEDER: u32 = 0;
/// A swarm that takes so many times the lower bound does not end.
const PATIENCE: f64 = 30.0;

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
    neighbours: Vec<Neighbour>,
    /// Who has this node as a source, under which name.
    known_by: Vec<(u32, SourceKey)>,
    under_way: HashMap<RequestId, TransferId>,
    wakes_at: Option<Time>,
    /// Pieces in the order in which they became good.
    log: Vec<(Time, PieceId)>,
    server: Server,
    /// When its line in is free again.
    receives_from: Time,
    sent_bytes: u64,
    done_at: Option<Time>,
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
    pub(crate) fn new(scenario: Scenario) -> Self {
        let mut random = fastrand::Rng::with_seed(scenario.seed);
        let manifest = Arc::new(model::manifest(scenario.pieces));
        let geometry = Geometry::new(Arc::clone(&manifest));
        let epoch = Instant::now();
        let count = scenario.nodes + 1;
        let mut world = Self {
            epoch,
            now: 0,
            agenda: Agenda::new(),
            nodes: Vec::new(),
            transfers: Vec::new(),
            free: Vec::new(),
            left: 0,
            events: 0,
            received_bytes: 0,
            busy: 0,
            asked: BTreeMap::new(),
            random: random.fork(),
            scenario,
        };
        for node in 0..count {
            let conduct = world.conduct(node);
            world.left += u32::from(node != SEEDER && conduct == Conduct::Honest);
            world.nodes.push(Node {
                conduct,
                is_up: true,
                started: node == SEEDER,
                planner: Planner::new(
                    geometry.clone(),
                    true,
                    PlanConfig { seed: random.u64(..), ..PlanConfig::default() },
                    epoch,
                ),
                neighbours: Vec::new(),
                known_by: Vec::new(),
                under_way: HashMap::new(),
                wakes_at: None,
                log: Vec::new(),
                server: Server::default(),
                receives_from: 0,
                sent_bytes: 0,
                done_at: None,
            });
        }
        for node in 1..count {
            world.acquaint(node);
            let at = world.random.u64(0..START);
            world.agenda.add(at, Event::Start(node));
        }
        world.plan_leaving();
        world
    }

    fn conduct(&mut self, node: u32) -> Conduct {
        let lot = self.random.u32(0..100);
        let (lying, stalled) = (self.scenario.lying_percent, self.scenario.stalled_percent);
        match lot {
            _ if node == SEEDER => Conduct::Honest,
            lot if lot < lying => Conduct::Lies,
            lot if lot < lying + stalled => Conduct::Stalls,
            _ => Conduct::Honest,
        }
    }

    /// A node knows the first seeder and some others.
    fn acquaint(&mut self, node: u32) {
        let count = self.scenario.nodes + 1;
        let wanted = self.scenario.neighbours.min(self.scenario.nodes) as usize;
        let mut known = vec![SEEDER];
        while known.len() < wanted {
            let other = self.random.u32(1..count);
            if other != node && !known.contains(&other) {
                known.push(other);
            }
        }
        for (key, other) in (0..).map(SourceKey).zip(known) {
            self.nodes[node as usize].neighbours.push(Neighbour { node: other, known: 0 });
            self.nodes[other as usize].known_by.push((node, key));
        }
    }

    fn plan_leaving(&mut self) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some minutes")]
        let bound = (self.scenario.bound_s() * 1e9) as Time;
        for node in 1..=self.scenario.nodes {
            let leaves = self.random.u32(0..100) < self.scenario.leaving_percent;
            let at = self.random.u64(START..bound.max(START + 1));
            if leaves {
                self.agenda.add(at, Event::Leave(node));
            }
        }
    }

    /// Runs until all honest nodes that stay are done, or it seems that they never will.
    pub(crate) fn run(mut self) -> Outcome {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some hours")]
        let patience = (self.scenario.bound_s() * PATIENCE * 1e9) as Time;
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
        let mut times: Vec<Time> = self.nodes.iter().filter_map(|node| node.done_at).collect();
        times.sort_unstable();
        let bytes_of = |node: &Node| -> u64 {
            let geometry = node.planner.geometry();
            node.log.iter().map(|(_, piece)| geometry.piece_bytes(*piece)).sum()
        };
        let good = self.nodes.iter().map(bytes_of).sum();
        Outcome {
            bound_s: self.scenario.bound_s(),
            done_s: times.into_iter().map(|at| duration(at).as_secs_f64()).collect(),
            unfinished: self.left,
            model_bytes: self.scenario.model_bytes(),
            seeder_sent_bytes: self.nodes[SEEDER as usize].sent_bytes,
            received_bytes: self.received_bytes,
            good_bytes: good,
            busy_answers: self.busy,
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
            Event::ShardChecked { node, shard } => {
                self.tell(node, PlanEvent::ShardChecked { shard, good: true });
            }
        }
    }

    fn instant(&self) -> Instant {
        self.epoch + duration(self.now)
    }

    /// Between two nodes, always the same.
    fn latency(&self, one: u32, other: u32) -> Time {
        let pair = (u64::from(one.min(other)) << 32) | u64::from(one.max(other));
        self.scenario.latency(&mut fastrand::Rng::with_seed(pair ^ self.scenario.seed.rotate_left(48)))
    }

    fn start(&mut self, node: u32) {
        let at = self.instant();
        let this = &mut self.nodes[node as usize];
        if !this.is_up {
            return;
        }
        this.started = true;
        let shards = this.planner.geometry().manifest().shards().len();
        for (key, neighbour) in (0..).map(SourceKey).zip(&this.neighbours) {
            this.planner.on_event(PlanEvent::Up { source: key, ranges: true }, at);
            let holding = if neighbour.node == SEEDER { Holding::All } else { Holding::None };
            this.planner.on_event(PlanEvent::Holds { source: key, shards: vec![holding; shards] }, at);
        }
        let phase = self.random.u64(0..self.scenario.have_interval_ms * MS);
        self.agenda.add(self.now + phase, Event::Poll(node));
        self.drive(node);
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
        let at = self.instant();
        let mut gains = Vec::new();
        for (key, neighbour) in (0..).map(SourceKey).zip(&self.nodes[node as usize].neighbours) {
            // What it says was so when it sent its answer.
            let until = self.now.saturating_sub(self.latency(node, neighbour.node));
            let log = self.nodes[neighbour.node as usize].log.iter().skip(neighbour.known);
            gains.extend(log.take_while(|(time, _)| *time <= until).map(|(_, piece)| (key, *piece)));
        }
        let this = &mut self.nodes[node as usize];
        for (source, piece) in gains {
            this.neighbours[source.0 as usize].known += 1;
            this.planner.on_event(PlanEvent::Gained { source, piece }, at);
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
            PlanAction::DropParity { .. } => {}
            PlanAction::CheckShard { shard } => {
                self.agenda.add(self.now + CHECK, Event::ShardChecked { node, shard });
            }
        }
    }

    fn new_transfer(&mut self, transfer: Transfer) -> TransferId {
        if let Some(id) = self.free.pop() {
            self.transfers[id.0 as usize] = transfer;
            return id;
        }
        #[expect(clippy::cast_possible_truncation, reason = "some millions")]
        let id = TransferId(self.transfers.len() as u32);
        self.transfers.push(transfer);
        id
    }

    fn cancel(&mut self, id: TransferId) {
        let transfer = &mut self.transfers[id.0 as usize];
        transfer.is_wanted = false;
        let (fetcher, server) = (transfer.fetcher, transfer.server);
        self.agenda.add(self.now + self.latency(fetcher, server), Event::Cancelled(id));
    }

    /// A request is at its server.
    fn asked(&mut self, id: TransferId) {
        let Transfer { fetcher, server, piece, is_wanted, .. } = self.transfers[id.0 as usize];
        let this = &mut self.nodes[server as usize];
        if !is_wanted || !this.is_up || this.conduct == Conduct::Stalls {
            return;
        }
        let geometry = this.planner.geometry();
        let asked = Asked { transfer: id, piece: geometry.flat(piece), bytes: geometry.piece_bytes(piece) };
        let (waits, refused) = this.server.ask(fetcher, asked);
        if let Some(waits) = waits {
            self.agenda.add(self.now + MAX_WAIT, Event::Waited(waits));
        }
        if let Some(refused) = refused {
            self.refuse(refused);
        }
        self.send(server);
    }

    /// A server says "busy".
    fn refuse(&mut self, id: TransferId) {
        let Transfer { fetcher, server, .. } = self.transfers[id.0 as usize];
        self.end_service(id);
        self.busy += 1;
        let retry_after = self.nodes[server as usize].server.retry_after(self.bytes_per_s(server));
        let at = self.now + self.latency(fetcher, server);
        self.agenda.add(at, Event::Refused { transfer: id, retry_after });
    }

    /// A server is done with a request: the next one of the same peer waits for its turn.
    fn end_service(&mut self, id: TransferId) {
        let Transfer { fetcher, server, .. } = self.transfers[id.0 as usize];
        let (_, next) = self.nodes[server as usize].server.end(fetcher, id);
        if let Some(next) = next {
            self.agenda.add(self.now + MAX_WAIT, Event::Waited(next));
        }
    }

    fn bytes_per_s(&self, server: u32) -> u64 {
        match server {
            SEEDER => self.scenario.seeder_bytes_per_s,
            _ => self.scenario.upload_bytes_per_s,
        }
    }

    /// Puts the next chunk on the line of a server, if that is free.
    fn send(&mut self, node: u32) {
        let bytes_per_s = self.bytes_per_s(node);
        let this = &mut self.nodes[node as usize];
        let is_fetching = node != SEEDER && this.done_at.is_none();
        this.server.grant(self.scenario.places(bytes_per_s, is_fetching), is_fetching, self.now);
        if this.server.line_is_busy {
            return;
        }
        let Some(chunk) = this.server.next() else { return };
        this.server.line_is_busy = true;
        this.sent_bytes += chunk.bytes;
        if chunk.is_last {
            self.end_service(chunk.transfer);
        }
        let sent = self.now + time_for(chunk.bytes, bytes_per_s);
        self.agenda.add(sent, Event::Sent(node));
        let fetcher = self.transfers[chunk.transfer.0 as usize].fetcher;
        let enters = sent + self.latency(node, fetcher);
        let delay = self.nodes[fetcher as usize].receives_from.saturating_sub(enters);
        self.nodes[node as usize].server.delayed(fetcher, delay);
        let this = &mut self.nodes[fetcher as usize];
        this.receives_from =
            this.receives_from.max(enters) + time_for(chunk.bytes, self.scenario.download_bytes_per_s);
        self.agenda.add(this.receives_from, Event::Arrived(chunk));
    }

    fn arrived(&mut self, chunk: Chunk) {
        let Transfer { fetcher, server, key, request, piece, is_wanted } =
            self.transfers[chunk.transfer.0 as usize];
        self.received_bytes += chunk.bytes;
        self.nodes[fetcher as usize].server.received(chunk.bytes, self.now);
        self.send(fetcher);
        let back = self.now + self.latency(fetcher, server);
        self.agenda.add(back, Event::Acknowledged { server, fetcher, bytes: chunk.bytes });
        if !is_wanted || !self.nodes[fetcher as usize].is_up || !self.nodes[server as usize].is_up {
            return;
        }
        if !chunk.is_last {
            self.tell(fetcher, PlanEvent::Progress { source: key });
            return;
        }
        let at = self.instant();
        if self.nodes[fetcher as usize].planner.arrived(request, piece, at) {
            let is_right = self.nodes[server as usize].conduct != Conduct::Lies;
            let event = Event::Checked { node: fetcher, piece, source: Some(key), is_right };
            self.agenda.add(self.now + CHECK, event);
        }
        self.end(fetcher, request, None);
    }

    fn checked(&mut self, node: u32, piece: PieceId, source: Option<SourceKey>, is_right: bool) {
        let this = &mut self.nodes[node as usize];
        let fingerprint = source.map_or(0, |source| u64::from(this.neighbours[source.0 as usize].node));
        let outcome = match () {
            () if !this.planner.is_indexed(piece.shard) => Checked::Stored,
            () if is_right => Checked::Good,
            () => Checked::Bad { fingerprint },
        };
        if is_right {
            this.log.push((self.now, piece));
        }
        self.tell(node, PlanEvent::Checked { piece, source, outcome });
    }
}
