//! What passes between nodes: requests, answers in chunks, and the lines on which they travel.

use planner::PlanEvent;

use super::{CHECK, Conduct, Event, SEEDER, Transfer, World};
use crate::clock::{Time, time_for};
use crate::server::TransferId;
use crate::server::{Asked, Chunk, MAX_WAIT};

impl World {
    /// Between two nodes, always the same.
    pub(super) fn latency(&self, one: u32, other: u32) -> Time {
        let pair = (u64::from(one.min(other)) << 32) | u64::from(one.max(other));
        self.scenario.latency(&mut fastrand::Rng::with_seed(pair ^ self.scenario.seed.rotate_left(48)))
    }

    pub(super) fn new_transfer(&mut self, transfer: Transfer) -> TransferId {
        if let Some(id) = self.free.pop() {
            self.transfers[id.0 as usize] = transfer;
            return id;
        }
        #[expect(clippy::cast_possible_truncation, reason = "some millions")]
        let id = TransferId(self.transfers.len() as u32);
        self.transfers.push(transfer);
        id
    }

    pub(super) fn cancel(&mut self, id: TransferId) {
        let transfer = &mut self.transfers[id.0 as usize];
        transfer.is_wanted = false;
        let (fetcher, server) = (transfer.fetcher, transfer.server);
        self.agenda.add(self.now + self.latency(fetcher, server), Event::Cancelled(id));
    }

    /// A request is at its server.
    pub(super) fn asked(&mut self, id: TransferId) {
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
    pub(super) fn refuse(&mut self, id: TransferId) {
        let Transfer { fetcher, server, .. } = self.transfers[id.0 as usize];
        self.end_service(id);
        self.busy += 1;
        let retry_after = self.nodes[server as usize].server.retry_after(self.bytes_per_s(server));
        let at = self.now + self.latency(fetcher, server);
        self.agenda.add(at, Event::Refused { transfer: id, retry_after });
    }

    /// A server is done with a request: the next one of the same peer waits for its turn.
    pub(super) fn end_service(&mut self, id: TransferId) {
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
    pub(super) fn send(&mut self, node: u32) {
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

    pub(super) fn arrived(&mut self, chunk: Chunk) {
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
}
