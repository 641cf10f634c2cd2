//! How a node serves, as `p2p-blob` does: the requests of a peer one after the other, so many answers at a time, in turn
//! among peers, and of those whose turn it is the piece first that was sent least. Who waits for long is told "busy".
//! While it fetches, it sends less than it receives, unless it is others who hold that up.

use std::collections::{HashMap, VecDeque};

use crate::clock::{MS, Time};
use crate::scenario::CHUNK_BYTES;

/// A peer whose line in is busy for longer is sent less at a time.
const MAX_DELAY: Time = 100 * MS;
/// How long a request waits for its turn.
pub(crate) const MAX_WAIT: Time = 1000 * MS;
/// Requests that wait for their turn.
const MAX_WAITING: usize = 256;
/// By how much a peer may be ahead of the others when the piece it asks for was sent less often than theirs.
const SLACK_BYTES: u64 = 1 << 20;
/// For so many bytes received, a node that fetches sends so many, and this many more, which it may save up.
const RECEIVED: u64 = 4;
const SENT: u64 = 3;
const MAX_SAVED_BYTES: i64 = 16 << 20;
/// A fetch that received nothing for so long, or was told "busy" within that time, waits for others, and holds nothing back.
const IDLE: Time = 1000 * MS;
/// When to ask again, at least and at most.
const RETRY: (Time, Time) = (50 * MS, 2000 * MS);

/// Names a request between a fetcher and a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TransferId(pub(crate) u32);

/// A request, as its server sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    pub(crate) transfer: TransferId,
    /// The number of the piece.
    pub(crate) piece: usize,
    pub(crate) bytes: u64,
}

/// What a peer wants, and gets.
#[derive(Debug)]
struct Flow {
    peer: u32,
    /// Its requests in order. The first waits for its turn, or is being answered.
    queue: VecDeque<Asked>,
    is_sending: bool,
    left_bytes: u64,
    /// Of what it was sent, what has not arrived.
    travelling_bytes: u64,
    window_bytes: u64,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Server {
    /// Sent to a peer and not arrived there yet, at least and at most: congestion control keeps it between these.
    window_bytes: (u64, u64),
    flows: Vec<Flow>,
    /// The flow that sends next.
    turn: usize,
    sending: usize,
    /// What each peer was sent, counted from the level at which it came.
    used_bytes: HashMap<u32, u64>,
    level_bytes: u64,
    /// By piece, how often it was sent.
    counts: Vec<u32>,
    pub(crate) line_is_busy: bool,
    /// What it may send while it fetches.
    saved_bytes: i64,
    received_at: Time,
    waits_until: Time,
}

/// A part of a piece, on its way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chunk {
    pub(crate) transfer: TransferId,
    pub(crate) bytes: u64,
    pub(crate) is_last: bool,
}

impl Server {
    pub(crate) fn new(window_bytes: (u64, u64)) -> Self {
        Self {
            window_bytes,
            flows: Vec::new(),
            turn: 0,
            sending: 0,
            used_bytes: HashMap::new(),
            level_bytes: 0,
            counts: Vec::new(),
            line_is_busy: false,
            saved_bytes: MAX_SAVED_BYTES,
            received_at: 0,
            waits_until: 0,
        }
    }

    /// Takes a request on. Returns the request that begins to wait, if one does, and one that is told "busy", if there
    /// are too many.
    pub(crate) fn ask(&mut self, peer: u32, asked: Asked) -> (Option<TransferId>, Option<TransferId>) {
        let at = self.flows.iter().position(|flow| flow.peer == peer).unwrap_or_else(|| {
            self.flows.push(Flow {
                peer,
                queue: VecDeque::new(),
                is_sending: false,
                left_bytes: 0,
                travelling_bytes: 0,
                window_bytes: self.window_bytes.0,
            });
            self.flows.len() - 1
        });
        let flow = &mut self.flows[at];
        flow.queue.push_back(asked);
        let begins = flow.queue.len() == 1;
        let used_bytes = self.used_bytes.entry(peer).or_insert(self.level_bytes);
        if begins {
            *used_bytes = (*used_bytes).max(self.level_bytes);
        }
        let waiting = self.flows.iter().filter(|flow| flow.waiting().is_some());
        if waiting.clone().count() <= MAX_WAITING {
            return (begins.then_some(asked.transfer), None);
        }
        let last = waiting.max_by_key(|flow| self.used_bytes[&flow.peer]);
        let refused = last.and_then(Flow::waiting).map(|asked| asked.transfer);
        (begins.then_some(asked.transfer).filter(|begins| Some(*begins) != refused), refused)
    }

    /// The node has received so much of what it fetches.
    pub(crate) fn received(&mut self, bytes: u64, now: Time) {
        self.saved_bytes =
            self.saved_bytes.saturating_add_unsigned(bytes * SENT / RECEIVED).min(MAX_SAVED_BYTES);
        self.received_at = now;
    }

    /// A peer was busy.
    pub(crate) fn told_busy(&mut self, now: Time) {
        self.waits_until = now + IDLE;
    }

    /// Whether a node that fetches may send something now.
    fn may_share(&self, now: Time) -> bool {
        self.saved_bytes > 0 || now >= self.received_at + IDLE || now < self.waits_until
    }

    /// Gives free places to those whose turn it is.
    pub(crate) fn grant(&mut self, places: usize, is_fetching: bool, now: Time) {
        while self.sending < places && (!is_fetching || self.may_share(now)) {
            let used_bytes = |flow: &Flow| self.used_bytes[&flow.peer];
            let waiting = || self.flows.iter().filter(|flow| flow.waiting().is_some());
            let Some(least_bytes) = waiting().map(used_bytes).min() else { return };
            let count = |flow: &Flow| {
                flow.waiting().map_or(0, |asked| self.counts.get(asked.piece).copied().unwrap_or(0))
            };
            let in_turn = waiting().filter(|flow| used_bytes(flow) <= least_bytes + SLACK_BYTES);
            let next = in_turn.min_by_key(|flow| (count(flow), used_bytes(flow))).map(|flow| flow.peer);
            self.level_bytes = self.level_bytes.max(least_bytes);
            let Some(flow) = self.flows.iter_mut().find(|flow| Some(flow.peer) == next) else { return };
            let Some(asked) = flow.queue.front() else { return };
            flow.is_sending = true;
            flow.left_bytes = asked.bytes;
            *self.used_bytes.entry(flow.peer).or_default() += asked.bytes;
            if self.counts.len() <= asked.piece {
                self.counts.resize(asked.piece + 1, 0);
            }
            self.counts[asked.piece] += 1;
            self.sending += 1;
            self.saved_bytes = self.saved_bytes.saturating_sub_unsigned(asked.bytes).max(-MAX_SAVED_BYTES);
        }
    }

    /// The next chunk to send.
    pub(crate) fn next(&mut self) -> Option<Chunk> {
        let count = self.flows.len();
        for at in (0..count).map(|step| (self.turn + step) % count) {
            let flow = &mut self.flows[at];
            if !flow.is_sending || flow.travelling_bytes + CHUNK_BYTES > flow.window_bytes {
                continue;
            }
            let Some(asked) = flow.queue.front() else { continue };
            let bytes = CHUNK_BYTES.min(flow.left_bytes);
            flow.left_bytes -= bytes;
            flow.travelling_bytes += bytes;
            self.turn = at + 1;
            return Some(Chunk { transfer: asked.transfer, bytes, is_last: flow.left_bytes == 0 });
        }
        None
    }

    /// A request is done with: answered, told "busy", or not wanted any more. Returns whether it was there, and the
    /// request that begins to wait then, if one does.
    pub(crate) fn end(&mut self, peer: u32, transfer: TransferId) -> (bool, Option<TransferId>) {
        let Some(flow) = self.flows.iter_mut().find(|flow| flow.peer == peer) else { return (false, None) };
        let Some(at) = flow.queue.iter().position(|asked| asked.transfer == transfer) else {
            return (false, None);
        };
        flow.queue.remove(at);
        if at > 0 {
            return (true, None);
        }
        if std::mem::take(&mut flow.is_sending) {
            self.sending -= 1;
        }
        let next = flow.waiting().map(|asked| asked.transfer);
        self.tidy();
        (true, next)
    }

    /// Whether a request still waits for its turn.
    pub(crate) fn is_waiting(&self, peer: u32, transfer: TransferId) -> bool {
        let flow = self.flows.iter().find(|flow| flow.peer == peer);
        flow.and_then(Flow::waiting).is_some_and(|asked| asked.transfer == transfer)
    }

    /// When it is worth while to ask again.
    pub(crate) fn retry_after(&self, bytes_per_s: u64) -> Time {
        let waiting_bytes: u64 = self.flows.iter().filter_map(Flow::waiting).map(|asked| asked.bytes).sum();
        crate::clock::time_for(waiting_bytes, bytes_per_s).clamp(RETRY.0, RETRY.1)
    }

    /// A chunk will wait for so long before the line in of a peer. Much less at a time is sent to one that is slow.
    pub(crate) fn delayed(&mut self, peer: u32, delay: Time) {
        if let Some(flow) = self.flows.iter_mut().find(|flow| flow.peer == peer) {
            let window_bytes =
                if delay > MAX_DELAY { flow.window_bytes / 2 } else { flow.window_bytes + CHUNK_BYTES };
            flow.window_bytes = window_bytes.clamp(self.window_bytes.0, self.window_bytes.1);
        }
    }

    /// So much has arrived at a peer.
    pub(crate) fn acknowledge(&mut self, peer: u32, bytes: u64) {
        if let Some(flow) = self.flows.iter_mut().find(|flow| flow.peer == peer) {
            flow.travelling_bytes = flow.travelling_bytes.saturating_sub(bytes);
        }
        self.tidy();
    }

    /// Nobody is served any more.
    pub(crate) fn close(&mut self) {
        *self = Self { line_is_busy: self.line_is_busy, ..Self::new(self.window_bytes) };
    }

    fn tidy(&mut self) {
        let gone = |flow: &Flow| flow.queue.is_empty() && flow.travelling_bytes == 0;
        let before = self.flows.iter().take(self.turn).filter(|flow| gone(flow)).count();
        self.flows.retain(|flow| !gone(flow));
        self.turn -= before;
    }
}

impl Flow {
    /// What waits for its turn.
    fn waiting(&self) -> Option<&Asked> {
        self.queue.front().filter(|_| !self.is_sending)
    }
}
