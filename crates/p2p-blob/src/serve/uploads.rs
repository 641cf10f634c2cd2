//! Who may be sent an answer now: so many at a time, in turn among peers.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use libp2p::PeerId;
use manifest::Digest;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::pace::Pace;
use crate::admit::{Asker, Door};
use crate::config::Limits;
use crate::limit::{Bucket, FairQueue, Party as _, RateLimit, Share};
use crate::wire::MAX_RANGE_BYTES;

/// How long a request waits for its turn before its peer is told "busy". Less than what fetchers take for a stall.
const MAX_WAIT: Duration = Duration::from_secs(1);
/// Requests that wait at one time; of further ones, those of whoever was sent most are told "busy" at once.
const MAX_WAITING: usize = 256;
/// For addresses to which nothing is being sent there are so many places more, as a part of the others.
const NEWCOMERS_SHARE: usize = 4;
/// Answers this short need no turn, up to so much in a second: manifests are small, and nobody should wait behind pieces for
/// one. Whoever cuts pieces into short answers waits like the others.
const FREE_BYTES: u64 = 64 << 10;
const FREE_BYTES_PER_S: NonZeroU64 = NonZeroU64::new(4 << 20).unwrap();
/// By how much a peer may be ahead of the others when the piece it asks for was sent less often than theirs.
const SLACK_BYTES: u64 = 1 << 20;
/// At a limited rate there are only so many places that each has this much in a second, or two: pieces that are passed
/// on soon are better than many that are under way.
const BYTES_PER_PLACE: u64 = 512 << 10;
const MIN_PLACES: usize = 2;
/// An answer that takes longer does not keep its place from others: its reader is slow, or gone.
const PATIENCE: Duration = Duration::from_secs(10);
/// When to ask again, at least and at most.
const MIN_RETRY: Duration = Duration::from_millis(50);
const MAX_RETRY: Duration = Duration::from_secs(2);
/// Pieces of which it is counted how often they were sent.
const MAX_COUNTED: usize = 1 << 16;

/// The places for answers, and the rate that they share. Clones are the same one.
#[derive(Debug, Clone)]
pub(crate) struct Uploads(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    door: Arc<Door>,
    rate: Option<RateLimit<Asker>>,
    bytes_per_s: Option<u64>,
    /// How long an answer keeps its place.
    patience: Duration,
    hashes: RandomState,
    sent_bytes: AtomicU64,
    /// Buffers that are not in use now; no more than there are places.
    buffers: Mutex<Vec<Vec<u8>>>,
}

#[derive(Debug)]
struct State {
    places: usize,
    places_while_fetching: usize,
    fetches: usize,
    /// Of what the node receives, while it fetches.
    share: Option<Share>,
    /// What short answers may take.
    free: Bucket,
    /// Answers being sent, the oldest first.
    sending: Vec<Sending>,
    next_id: u64,
    queue: FairQueue<Asker, Waiting>,
    counts: HashMap<u64, u32>,
    /// How long answers have taken lately.
    took: Duration,
}

#[derive(Debug)]
struct Sending {
    id: u64,
    to: Asker,
    began: Instant,
    pace: Arc<Pace>,
}

#[derive(Debug)]
struct Waiting {
    piece: u64,
    bytes: u64,
    reply: oneshot::Sender<Place>,
}

/// The right to send one answer. Given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    uploads: Uploads,
    /// None for an answer that needs none.
    id: Option<u64>,
    to: Asker,
    piece: u64,
    bytes: u64,
    pace: Arc<Pace>,
}

/// Not now: the peer may ask again after this time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Busy(pub(super) Duration);

impl Uploads {
    pub(crate) fn new(limits: &Limits, door: Arc<Door>) -> Self {
        let bytes_per_s = limits.upload_bytes_per_s;
        let fits = |places: usize| match bytes_per_s {
            Some(rate) => {
                let places_at_rate = usize::try_from(rate.get() / BYTES_PER_PLACE).unwrap_or(usize::MAX);
                places.min(places_at_rate.max(MIN_PLACES))
            }
            None => places,
        };
        let places = fits(limits.uploads.max(1));
        let patience = bytes_per_s.map_or(PATIENCE, |rate| {
            let all_at_once = places as u64 * u64::from(MAX_RANGE_BYTES);
            PATIENCE.max(Duration::from_secs(2 * all_at_once / rate.get()))
        });
        let state = State {
            places,
            places_while_fetching: fits(limits.uploads_while_fetching.max(1)).min(places),
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
            door,
            rate: bytes_per_s.map(RateLimit::start),
            bytes_per_s: bytes_per_s.map(NonZeroU64::get),
            patience,
            hashes: RandomState::new(),
            sent_bytes: AtomicU64::new(0),
            buffers: Mutex::default(),
        }))
    }

    /// Waits for the turn of somebody who asks for `bytes` of a blob from `offset` on, a second at most.
    pub(super) async fn place(
        &self,
        from: Asker,
        blob: &Digest,
        offset: u64,
        bytes: u64,
    ) -> Result<Place, Busy> {
        let piece = self.0.hashes.hash_one((blob, offset));
        let is_short = usize::try_from(bytes).ok().filter(|_| bytes <= FREE_BYTES);
        if is_short.is_some_and(|bytes| self.state().free.take(bytes, Instant::now()).is_ok()) {
            return Ok(Place {
                uploads: self.clone(),
                id: None,
                to: from,
                piece,
                bytes,
                pace: Arc::default(),
            });
        }
        let (reply, mut granted) = oneshot::channel();
        {
            let mut state = self.state();
            state.queue.push(from, Waiting { piece, bytes, reply });
            if state.queue.len() > MAX_WAITING {
                // Dropping its reply tells it.
                drop(state.queue.pop_last());
            }
            self.grant(&mut state);
        }
        match tokio::time::timeout(MAX_WAIT, &mut granted).await {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(_)) => Err(self.busy()),
            Err(_) => {
                granted.close();
                // It may have come in the meantime.
                granted.try_recv().map_err(|_| self.busy())
            }
        }
    }

    /// A fetch begins, or ends. Meanwhile fewer answers are sent at one time, and less than is received ([`Share`]).
    pub(crate) fn set_fetching(&self, is_fetching: bool) {
        let mut state = self.state();
        state.fetches = if is_fetching { state.fetches + 1 } else { state.fetches.saturating_sub(1) };
        match state.fetches {
            0 => state.share = None,
            _ => drop(state.share.get_or_insert_with(|| Share::new(Instant::now()))),
        }
        self.grant(&mut state);
    }

    /// Bytes of blobs have come from a peer.
    pub(crate) fn received(&self, peer: &PeerId, bytes: u64) {
        self.0.door.was_of_use(peer);
        let mut state = self.state();
        if let Some(share) = &mut state.share {
            share.received(bytes, Instant::now());
            self.grant(&mut state);
        }
    }

    /// A peer that is fetched from is busy.
    pub(crate) fn told_busy(&self) {
        let mut state = self.state();
        if let Some(share) = &mut state.share {
            share.told_busy(Instant::now());
            self.grant(&mut state);
        }
    }

    /// How many bytes of blobs were sent, and are on their way.
    pub(crate) fn sent_bytes(&self) -> u64 {
        self.0.sent_bytes.load(Ordering::Relaxed)
    }

    /// Waits until somebody may be sent some bytes: how many, of `most`.
    pub(super) async fn allow(&self, to: Asker, most: usize) -> usize {
        match &self.0.rate {
            Some(rate) => rate.take(to).await.min(most),
            None => most,
        }
    }

    /// Counts what a peer was sent.
    pub(super) fn sent(&self, peer: &PeerId, bytes: usize) {
        self.0.door.was_of_use(peer);
        self.0.sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// A buffer for one answer, perhaps used before.
    pub(super) fn take_buffer(&self) -> Vec<u8> {
        self.buffers().pop().unwrap_or_default()
    }

    /// Gives a buffer back, for the next answer.
    pub(super) fn give_buffer(&self, buffer: Vec<u8>) {
        let places = self.state().places;
        let mut buffers = self.buffers();
        if buffer.capacity() > 0 && buffers.len() < places {
            buffers.push(buffer);
        }
    }

    fn buffers(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.0.buffers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When it is worth while to ask again, going by what waits and how fast it goes.
    fn busy(&self) -> Busy {
        let mut state = self.state();
        state.forget_gone();
        let wait = match self.0.bytes_per_s {
            Some(rate) => {
                let waiting_bytes: u64 = state.queue.iter().map(|one| one.bytes).sum();
                Duration::from_millis((1000 * waiting_bytes).checked_div(rate).unwrap_or(0))
            }
            None => {
                let turns = state.queue.len() / state.places.max(1) + 1;
                state.took * u32::try_from(turns).unwrap_or(u32::MAX)
            }
        };
        Busy(wait.clamp(MIN_RETRY, MAX_RETRY))
    }

    /// Gives free places to those whose turn it is. While others wait, who is too slow loses the answer.
    fn grant(&self, state: &mut State) {
        let now = Instant::now();
        state.forget_gone();
        let overdue = state.sending.iter().take_while(|one| now - one.began > self.0.patience).count();
        let places = if state.fetches > 0 { state.places_while_fetching } else { state.places };
        while state.sending.len() < places + overdue && self.grant_one(state, now, false) {}
        let newcomers = places / NEWCOMERS_SHARE;
        while state.sending.len() < places + overdue + newcomers && self.grant_one(state, now, true) {}
        if !state.queue.is_empty() {
            state.sending.iter().filter(|one| one.pace.is_too_slow(now)).for_each(|one| one.pace.lose());
        }
    }

    /// Gives a place to one; says whether there may be another one to give one to.
    fn grant_one(&self, state: &mut State, now: Instant, is_for_newcomers: bool) -> bool {
        if state.share.as_ref().is_some_and(|share| !share.allows(now)) {
            return false;
        }
        let (counts, sending) = (&state.counts, &state.sending);
        let may =
            |asker: &Asker| !is_for_newcomers || !sending.iter().any(|one| one.to.group() == asker.group());
        let next = state.queue.pop(SLACK_BYTES, may, |one| counts.get(&one.piece).copied().unwrap_or(0));
        let Some((to, Waiting { piece, bytes, reply })) = next else { return false };
        let (id, pace) = (state.next_id, Arc::<Pace>::default());
        let place = Place { uploads: self.clone(), id: Some(id), to, piece, bytes, pace: Arc::clone(&pace) };
        match reply.send(place) {
            Ok(()) => {
                state.next_id += 1;
                state.sending.push(Sending { id, to, began: now, pace });
                state.queue.charge(to, bytes);
                state.count(piece);
                if let Some(share) = &mut state.share {
                    share.spend(bytes);
                }
            }
            // It was just given up; dropping the place as such would take the lock again.
            Err(mut place) => place.id = None,
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

impl Place {
    /// How fast the answer is taken.
    pub(super) fn pace(&self) -> &Pace {
        &self.pace
    }

    /// Nothing is sent after all: this counts for nothing.
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

impl Drop for Place {
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
