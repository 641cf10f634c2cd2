//! Upload slots: a bounded number of answers at a time, fairly queued among peers.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use libp2p::PeerId;
use manifest::Digest;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::receive_rate::ReceiveRate;
use crate::admit::{Asker, ConnectionSlots};
use crate::config::Limits;
use crate::limit::{Bucket, FairQueue, Flow as _, RateLimit, Share};
use crate::traffic::{Counters, Traffic, Transport};
use crate::wire::MAX_RANGE_BYTES;

/// How long a request waits for a slot before it is answered "busy". Less than the stall timeout of fetchers.
const MAX_WAIT: Duration = Duration::from_secs(1);
/// Queued requests; beyond that, those of the peer that was sent most are answered "busy" at once.
const MAX_WAITING: usize = 256;
/// Addresses without a slot have so many extra slots, as a part of the others.
const NEW_ADDRESS_SHARE: usize = 4;
/// Answers this short need no slot, up to so much in a second: manifests are small, and should not wait behind pieces. A
/// peer that cuts pieces into short answers exhausts that, and waits like the others.
const FREE_BYTES: u64 = 64 << 10;
const FREE_BYTES_PER_S: NonZeroU64 = NonZeroU64::new(4 << 20).unwrap();
/// By how much a peer may be ahead of the others when it asks for a piece that was sent less often.
const SLACK_BYTES: u64 = 1 << 20;
/// At a limited rate there are only so many slots that each has this much in a second, or two slots: a few pieces that
/// complete soon can be passed on sooner than many partial ones.
const BYTES_PER_SLOT: u64 = 512 << 10;
const MIN_SLOTS: usize = 2;
/// An answer that takes longer does not count against the slots: its reader is slow, or gone.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bounds of the retry time in a "busy" answer.
const MIN_RETRY: Duration = Duration::from_millis(50);
const MAX_RETRY: Duration = Duration::from_secs(2);
/// Pieces whose uploads are counted.
const MAX_COUNTED: usize = 1 << 16;

/// The upload slots, and the rate limit that they share. Clones are the same one.
#[derive(Debug, Clone)]
pub(crate) struct Uploads(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    connections: Arc<ConnectionSlots>,
    rate: Option<RateLimit<Asker>>,
    bytes_per_s: Option<u64>,
    /// How long an answer counts against the slots.
    patience: Duration,
    hashes: RandomState,
    counters: Counters,
    /// Free buffers; no more than there are slots.
    buffers: Mutex<Vec<Vec<u8>>>,
}

#[derive(Debug)]
struct State {
    slots: usize,
    slots_while_fetching: usize,
    fetches: usize,
    /// The upload budget while the node fetches.
    share: Option<Share>,
    /// The budget of short answers.
    free: Bucket,
    /// Slots in use, the oldest first.
    sending: Vec<Sending>,
    next_id: u64,
    queue: FairQueue<Asker, Waiting>,
    counts: HashMap<u64, u32>,
    /// Moving average of the time an answer takes.
    took: Duration,
}

#[derive(Debug)]
struct Sending {
    id: u64,
    to: Asker,
    began: Instant,
    receive_rate: Arc<ReceiveRate>,
}

#[derive(Debug)]
struct Waiting {
    piece: u64,
    bytes: u64,
    reply: oneshot::Sender<UploadSlot>,
}

/// The right to send one answer. Freed on drop.
#[derive(Debug)]
pub(super) struct UploadSlot {
    uploads: Uploads,
    /// `None` for a short answer.
    id: Option<u64>,
    to: Asker,
    piece: u64,
    bytes: u64,
    receive_rate: Arc<ReceiveRate>,
}

/// No slot is free: the peer may ask again after this time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Busy(pub(super) Duration);

impl Uploads {
    pub(crate) fn new(limits: &Limits, connections: Arc<ConnectionSlots>) -> Self {
        let bytes_per_s = limits.upload_bytes_per_s;
        let fits = |slots: usize| match bytes_per_s {
            Some(rate) => {
                let slots_at_rate = usize::try_from(rate.get() / BYTES_PER_SLOT).unwrap_or(usize::MAX);
                slots.min(slots_at_rate.max(MIN_SLOTS))
            }
            None => slots,
        };
        let slots = fits(limits.uploads.max(1));
        let patience = bytes_per_s.map_or(PATIENCE, |rate| {
            let all_at_once = slots as u64 * u64::from(MAX_RANGE_BYTES);
            PATIENCE.max(Duration::from_secs(2 * all_at_once / rate.get()))
        });
        let state = State {
            slots,
            slots_while_fetching: fits(limits.uploads_while_fetching.max(1)).min(slots),
            fetches: 0,
            share: None,
            free: Bucket::new(FREE_BYTES_PER_S, Instant::now()),
            sending: Vec::new(),
            next_id: 0,
            queue: FairQueue::new(),
            counts: HashMap::new(),
            took: Duration::ZERO,
        };
        Self(Arc::new(Inner {
            state: Mutex::new(state),
            connections,
            rate: bytes_per_s.map(RateLimit::start),
            bytes_per_s: bytes_per_s.map(NonZeroU64::get),
            patience,
            hashes: RandomState::new(),
            counters: Counters::default(),
            buffers: Mutex::default(),
        }))
    }

    /// Waits for a slot for `bytes` of a blob from `offset` on, a second at most.
    pub(super) async fn acquire(
        &self,
        from: Asker,
        blob: &Digest,
        offset: u64,
        bytes: u64,
    ) -> Result<UploadSlot, Busy> {
        let piece = self.0.hashes.hash_one((blob, offset));
        let is_short = usize::try_from(bytes).ok().filter(|_| bytes <= FREE_BYTES);
        if is_short.is_some_and(|bytes| self.state().free.take(bytes, Instant::now()).is_ok()) {
            return Ok(UploadSlot {
                uploads: self.clone(),
                id: None,
                to: from,
                piece,
                bytes,
                receive_rate: Arc::default(),
            });
        }
        let (reply, mut granted) = oneshot::channel();
        {
            let mut state = self.state();
            state.queue.push(from, Waiting { piece, bytes, reply });
            if state.queue.len() > MAX_WAITING {
                // Dropping its reply answers "busy".
                drop(state.queue.pop_last());
            }
            self.grant(&mut state);
        }
        match tokio::time::timeout(MAX_WAIT, &mut granted).await {
            Ok(Ok(slot)) => Ok(slot),
            Ok(Err(_)) => Err(self.busy()),
            Err(_) => {
                granted.close();
                // It may have been granted in the meantime.
                granted.try_recv().map_err(|_| self.busy())
            }
        }
    }

    /// A fetch begins, or ends. Meanwhile there are fewer slots, and less is sent than received ([`Share`]).
    pub(crate) fn set_fetching(&self, is_fetching: bool) {
        let mut state = self.state();
        state.fetches = if is_fetching { state.fetches + 1 } else { state.fetches.saturating_sub(1) };
        match state.fetches {
            0 => state.share = None,
            _ => drop(state.share.get_or_insert_with(|| Share::new(Instant::now()))),
        }
        self.grant(&mut state);
    }

    /// Bytes of blobs were received from a peer.
    pub(crate) fn received(&self, peer: &PeerId, bytes: u64) {
        self.0.connections.mark_useful(peer);
        let mut state = self.state();
        if let Some(share) = &mut state.share {
            share.received(bytes, Instant::now());
            self.grant(&mut state);
        }
    }

    /// A peer answered "busy" to this node.
    pub(crate) fn on_busy(&self) {
        self.0.counters.busy_got();
        let mut state = self.state();
        if let Some(share) = &mut state.share {
            share.on_busy(Instant::now());
            self.grant(&mut state);
        }
    }

    /// How many bytes of blobs were sent.
    pub(crate) fn sent_bytes(&self) -> u64 {
        self.0.counters.sent_bytes()
    }

    /// What was served so far, and is being served.
    pub(crate) fn traffic(&self) -> Traffic {
        let mut state = self.state();
        state.forget_gone();
        self.0.counters.traffic(state.queue.len(), state.sending.len())
    }

    /// A peer is answered "busy".
    pub(super) fn answered_busy(&self) {
        self.0.counters.busy_given();
    }

    /// Waits for the rate limit: how many bytes may be sent, of `most`.
    pub(super) async fn allow(&self, to: Asker, most: usize) -> usize {
        match &self.0.rate {
            Some(rate) => rate.take(to).await.min(most),
            None => most,
        }
    }

    /// Counts what a peer was sent.
    pub(super) fn sent(&self, peer: &PeerId, transport: Transport, bytes: usize) {
        self.0.connections.mark_useful(peer);
        self.0.counters.sent(transport, bytes as u64);
    }

    /// A buffer for one answer, perhaps used before.
    pub(super) fn take_buffer(&self) -> Vec<u8> {
        self.buffers().pop().unwrap_or_default()
    }

    /// Gives a buffer back, for the next answer.
    pub(super) fn give_buffer(&self, buffer: Vec<u8>) {
        let slots = self.state().slots;
        let mut buffers = self.buffers();
        if buffer.capacity() > 0 && buffers.len() < slots {
            buffers.push(buffer);
        }
    }

    fn buffers(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.0.buffers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The retry time, from the length of the queue and the rate.
    fn busy(&self) -> Busy {
        let mut state = self.state();
        state.forget_gone();
        let wait = match self.0.bytes_per_s {
            Some(rate) => {
                let waiting_bytes: u64 = state.queue.iter().map(|one| one.bytes).sum();
                Duration::from_millis((1000 * waiting_bytes).checked_div(rate).unwrap_or(0))
            }
            None => {
                let turns = state.queue.len() / state.slots.max(1) + 1;
                state.took * u32::try_from(turns).unwrap_or(u32::MAX)
            }
        };
        Busy(wait.clamp(MIN_RETRY, MAX_RETRY))
    }

    /// Grants free slots in fair order. While requests wait, slow readers lose theirs.
    fn grant(&self, state: &mut State) {
        let now = Instant::now();
        state.forget_gone();
        let overdue = state.sending.iter().take_while(|one| now - one.began > self.0.patience).count();
        let slots = if state.fetches > 0 { state.slots_while_fetching } else { state.slots };
        while state.sending.len() < slots + overdue && self.grant_one(state, now, false) {}
        let extra = slots / NEW_ADDRESS_SHARE;
        while state.sending.len() < slots + overdue + extra && self.grant_one(state, now, true) {}
        if !state.queue.is_empty() {
            state
                .sending
                .iter()
                .filter(|one| one.receive_rate.is_too_slow(now))
                .for_each(|one| one.receive_rate.revoke());
        }
    }

    /// Grants one slot; returns whether another grant may be possible.
    fn grant_one(&self, state: &mut State, now: Instant, is_for_new_address: bool) -> bool {
        if state.share.as_ref().is_some_and(|share| !share.allows(now)) {
            return false;
        }
        let (counts, sending) = (&state.counts, &state.sending);
        let may =
            |asker: &Asker| !is_for_new_address || !sending.iter().any(|one| one.to.group() == asker.group());
        let next = state.queue.pop(SLACK_BYTES, may, |one| counts.get(&one.piece).copied().unwrap_or(0));
        let Some((to, Waiting { piece, bytes, reply })) = next else { return false };
        let (id, receive_rate) = (state.next_id, Arc::<ReceiveRate>::default());
        let slot = UploadSlot {
            uploads: self.clone(),
            id: Some(id),
            to,
            piece,
            bytes,
            receive_rate: Arc::clone(&receive_rate),
        };
        match reply.send(slot) {
            Ok(()) => {
                state.next_id += 1;
                state.sending.push(Sending { id, to, began: now, receive_rate });
                state.queue.charge(to, bytes);
                state.count(piece);
                if let Some(share) = &mut state.share {
                    share.spend(bytes);
                }
            }
            // The request was just dropped; dropping the slot with its id would take the lock again.
            Err(mut slot) => slot.id = None,
        }
        true
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn forget_gone(&mut self) {
        self.queue.retain(|one| !one.reply.is_closed());
    }

    fn count(&mut self, piece: u64) {
        if self.counts.len() >= MAX_COUNTED && !self.counts.contains_key(&piece) {
            self.counts.clear();
        }
        let count = self.counts.entry(piece).or_insert(0);
        *count = count.saturating_add(1);
    }
}

impl UploadSlot {
    /// The rate at which the peer receives the answer.
    pub(super) fn receive_rate(&self) -> &ReceiveRate {
        &self.receive_rate
    }

    /// Nothing was sent: undoes the charge.
    pub(super) fn cancel(self) {
        if self.id.is_some() {
            let mut state = self.uploads.state();
            state.queue.refund(self.to, self.bytes);
            if let Some(share) = &mut state.share {
                share.refund(self.bytes);
            }
            if let Some(count) = state.counts.get_mut(&self.piece) {
                *count = count.saturating_sub(1);
            }
        }
    }
}

impl Drop for UploadSlot {
    fn drop(&mut self) {
        let Some(id) = self.id else { return };
        let mut state = self.uploads.state();
        if let Some(position) = state.sending.iter().position(|other| other.id == id) {
            let sent = state.sending.remove(position);
            state.took = (state.took * 7 + sent.began.elapsed()) / 8;
        }
        self.uploads.grant(&mut state);
    }
}

#[cfg(test)]
mod tests;
