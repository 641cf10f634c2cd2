//! Discovered peers: which candidates are dialed, and when a useless source is replaced.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use loader::{Source as _, SourceEvent};
use p2p_blob::{Contact, PeerId};
use planner::SourceLimit;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::candidates::Candidates;
use super::link::Link;
use super::shared::{DISMISSED, MAX_SOURCES, Shared, with_causes};
use crate::peer::Peer;

/// Dials in progress.
const MAX_DIALING: usize = 8;
/// Dials a second.
const MAX_ATTEMPTS: u32 = 32;
/// How often inbound peers are added, and useless sources replaced.
const TICK: Duration = Duration::from_secs(1);
/// How long a source that never sent right bytes keeps a slot that candidates wait for.
const TRIAL: Duration = Duration::from_secs(30);
/// How long one that did, since it last did.
const REST: Duration = Duration::from_secs(120);
/// How long the manifest may take before others are looked for.
const DARK: Duration = Duration::from_secs(1);
/// How long a fetch without named peers searches for its first ones before it reports that there are none.
const SEARCH_TIME: Duration = Duration::from_secs(5);

/// How long peers in the local network may take to answer.
const LAN_TIME: Duration = Duration::from_secs(2);

/// Where first sources may come from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected {
    /// Named peers: only those are waited for.
    pub(super) has_named: bool,
    /// mDNS: peers in the local network take a moment to answer.
    pub(super) has_lan: bool,
}

/// How an attempt ended.
enum End {
    Failed,
    /// It is a source already, as a named one.
    Taken,
    Down {
        was_useful: bool,
    },
    Replaced,
    /// It sent wrong bytes.
    Dismissed,
}

/// A discovered peer that is a source.
struct Up {
    peer: Arc<Peer>,
    since: Instant,
    replace: CancellationToken,
}

impl Up {
    /// Whether it has sent nothing right for so long that its slot may go to another. Unverified bytes do not count.
    fn is_useless(&self, now: Instant) -> bool {
        match self.peer.last_useful() {
            Some(last) => now >= last + REST,
            None => now >= self.since + TRIAL,
        }
    }
}

/// See the module's documentation.
pub(super) struct Discovered {
    shared: Shared,
    candidates: Candidates,
    found: mpsc::Receiver<Contact>,
    tasks: JoinSet<(PeerId, End)>,
    up: HashMap<PeerId, Up>,
    came_up: mpsc::Receiver<(PeerId, Up)>,
    up_sender: mpsc::Sender<(PeerId, Up)>,
    dialing: Arc<Semaphore>,
    limit: SourceLimit,
    /// What that says now.
    allowed: usize,
    attempts_left: u32,
    started: Instant,
    expected: Expected,
    is_connecting: bool,
}

impl Discovered {
    pub(super) fn new(
        shared: Shared,
        candidates: Candidates,
        found: mpsc::Receiver<Contact>,
        expected: Expected,
    ) -> Self {
        let (up_sender, came_up) = mpsc::channel(MAX_DIALING);
        Self {
            shared,
            candidates,
            found,
            tasks: JoinSet::new(),
            up: HashMap::new(),
            came_up,
            up_sender,
            dialing: Arc::new(Semaphore::new(MAX_DIALING)),
            limit: SourceLimit::new(MAX_SOURCES, Instant::now()),
            allowed: 0,
            attempts_left: MAX_ATTEMPTS,
            started: Instant::now(),
            expected,
            is_connecting: true,
        }
    }

    /// Runs until the fetch ends.
    pub(super) async fn run(mut self) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.allowed = self.allow();
            self.dial();
            if self.is_connecting && !self.is_searching() {
                self.is_connecting = false;
                if self.shared.events.send(SourceEvent::Connecting(false)).await.is_err() {
                    return;
                }
            }
            let ready = self.candidates.next_ready().filter(|_| self.has_free_slot());
            let wakeup = [ready, self.limit.grows_at()].into_iter().flatten().min();
            let wakeup = wakeup.unwrap_or_else(|| Instant::now() + TICK);
            tokio::select! {
                // In this order: a peer connects before its attempt ends.
                biased;
                () = self.shared.events.closed() => return,
                Some((peer, up)) = self.came_up.recv() => drop(self.up.insert(peer, up)),
                Some(ended) = self.tasks.join_next() => {
                    if let Ok((peer, end)) = ended {
                        self.on_end(&peer, &end);
                    }
                }
                _ = ticks.tick() => self.on_tick(),
                () = self.shared.untried.changed() => {}
                () = self.shared.searching.changed() => {}
                Some(contact) = self.found.recv() => self.candidates.add(contact, Instant::now()),
                () = tokio::time::sleep_until(wakeup.into()), if self.attempts_left > 0 => {}
            }
        }
    }

    /// How many sources there may be now: all that there are when those known have nothing more to give, not even the manifest,
    /// or one has lied.
    fn allow(&mut self) -> usize {
        let numbers = self.shared.progress.numbers();
        let is_in_the_dark = numbers.total_bytes == 0 && self.started.elapsed() >= DARK;
        if numbers.is_starved || numbers.wrong_bytes > 0 || is_in_the_dark {
            return MAX_SOURCES;
        }
        let here =
            [numbers.fetched_bytes, numbers.rebuilt_bytes, numbers.reused_bytes, numbers.resumed_bytes];
        let left_bytes = here.into_iter().fold(numbers.total_bytes, u64::saturating_sub);
        self.limit.at(numbers.fetched_bytes, left_bytes, Instant::now())
    }

    /// Whether one more may be dialed now.
    fn has_free_slot(&self) -> bool {
        self.is_below(self.allowed)
    }

    fn is_below(&self, limit: usize) -> bool {
        let dialing = MAX_DIALING - self.dialing.available_permits();
        dialing < MAX_DIALING && self.shared.claims.count() + dialing < limit
    }

    /// Dials candidates while there are free slots.
    fn dial(&mut self) {
        while self.has_free_slot() && self.attempts_left > 0 {
            let Some(contact) = self.candidates.next(Instant::now()) else { return };
            let Ok(permit) = Arc::clone(&self.dialing).try_acquire_owned() else { return };
            self.attempts_left -= 1;
            let attempt = Attempt { shared: self.shared.clone(), up_sender: self.up_sender.clone() };
            self.tasks.spawn(async move { (contact.peer, attempt.run(contact, permit).await) });
        }
    }

    fn on_end(&mut self, peer: &PeerId, end: &End) {
        let now = Instant::now();
        self.up.remove(peer);
        match end {
            End::Failed => {
                self.shared.book.failed(peer);
                self.candidates.on_failed(peer, now);
            }
            End::Down { was_useful } => self.candidates.on_down(peer, *was_useful, now),
            End::Dismissed => self.candidates.on_dismissed(peer),
            End::Taken | End::Replaced => self.candidates.on_useless(peer, now),
        }
    }

    fn on_tick(&mut self) {
        self.attempts_left = MAX_ATTEMPTS;
        // Inbound peers that fetch the same model are sources, too, and need no dial.
        for peer in self.shared.client.holders(&self.shared.manifest) {
            if !self.shared.claims.has(&peer) {
                self.candidates.add(Contact { peer, addrs: Vec::new() }, Instant::now());
            }
        }
        self.replace_one();
    }

    /// Evicts a useless source if a candidate waits for its slot.
    fn replace_one(&self) {
        let now = Instant::now();
        if self.shared.claims.count() < MAX_SOURCES || !self.candidates.has_ready(now) {
            return;
        }
        let is_useless = |(peer, up): &(&PeerId, &Up)| {
            up.is_useless(now) && !up.replace.is_cancelled() && !self.shared.claims.is_named(peer)
        };
        if let Some((_, up)) = self.up.iter().find(is_useless) {
            up.replace.cancel();
        }
    }

    /// Whether first sources may connect at any moment.
    fn is_searching(&self) -> bool {
        if !self.shared.untried.is_none() {
            return true;
        }
        let elapsed = self.started.elapsed();
        if self.expected.has_named || elapsed >= SEARCH_TIME {
            return false;
        }
        if self.expected.has_lan && elapsed < LAN_TIME {
            return true;
        }
        let is_dialing = self.dialing.available_permits() < MAX_DIALING;
        let has_more = self.is_below(MAX_SOURCES) && self.candidates.has_untried();
        !self.shared.searching.is_none() || is_dialing || has_more || !self.found.is_empty()
    }
}

/// One attempt to dial a candidate, and its time as a source.
struct Attempt {
    shared: Shared,
    up_sender: mpsc::Sender<(PeerId, Up)>,
}

impl Attempt {
    async fn run(self, contact: Contact, permit: OwnedSemaphorePermit) -> End {
        let (client, id) = (&self.shared.client, contact.peer);
        let gone = client.peer_events();
        let session = match client.connect_to(&contact).await {
            Ok(_) if self.shared.claims.has(&id) => return End::Taken,
            Ok(_) => client.open(id).await.map_err(|error| with_causes(&error)),
            Err(error) => Err(with_causes(&error)),
        };
        let session = match session {
            Ok(session) => session,
            Err(error) => {
                tracing::debug!(peer = %id, error, "a peer that was found cannot be reached");
                return End::Failed;
            }
        };
        let peer = Arc::new(Peer::new(client.clone(), session, false));
        let Some(_claim) = self.shared.claims.claim(id, false) else { return End::Taken };
        let first_answer = self.shared.searching.one();
        let replace = CancellationToken::new();
        let up = Up { peer: Arc::clone(&peer), since: Instant::now(), replace: replace.clone() };
        if self.up_sender.send((id, up)).await.is_err() {
            return End::Failed;
        }
        drop(permit);
        let source = peer.id().clone();
        if self.shared.events.send(SourceEvent::Up(Arc::<Peer>::clone(&peer))).await.is_err() {
            return End::Failed;
        }
        let link = Link {
            shared: self.shared.clone(),
            peer: Arc::clone(&peer),
            id,
            addr: contact.addrs.into_iter().next(),
        };
        let (reason, end) = tokio::select! {
            reason = link.run(gone, first_answer) => {
                (reason, End::Down { was_useful: peer.last_useful().is_some() })
            }
            () = peer.dismissed() => {
                client.disconnect(id).await;
                (DISMISSED.to_owned(), End::Dismissed)
            }
            () = replace.cancelled() => ("gave nothing, and others wait for its place".to_owned(), End::Replaced),
        };
        // The fetch may have ended.
        let _ = self.shared.events.send(SourceEvent::Down { source, reason }).await;
        end
    }
}
