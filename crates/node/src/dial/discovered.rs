//! The peers that were found: who of them is connected to, and for how long.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use loader::{Source as _, SourceEvent};
use p2p_blob::{Contact, PeerId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::candidates::Candidates;
use super::link::Link;
use super::shared::{DISMISSED, MAX_SOURCES, Shared, with_causes};
use crate::peer::Peer;

/// Connections in the making at one time.
const MAX_DIALING: usize = 8;
/// Attempts in a second, whatever comes of them.
const MAX_ATTEMPTS: u32 = 32;
/// How often it is looked who has connected by itself, and who is of no use.
const TICK: Duration = Duration::from_secs(1);
/// How long a source that never gave anything right keeps a place that others wait for.
const TRIAL: Duration = Duration::from_secs(30);
/// How long one that did.
const REST: Duration = Duration::from_secs(120);
/// How long a fetch without named peers looks for the first ones before it says that there are none.
const SEARCH_TIME: Duration = Duration::from_secs(5);

/// How long peers in the local network may take to answer.
const LAN_TIME: Duration = Duration::from_secs(2);

/// What may bring up sources.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected {
    /// With named peers only those are waited for.
    pub(super) has_named: bool,
    /// Peers in the local network take a moment to answer.
    pub(super) has_lan: bool,
}

/// What has become of a peer that was tried.
enum End {
    Failed,
    /// It is a source already, as a named one.
    Taken,
    Down {
        was_of_use: bool,
    },
    Replaced,
    /// It sent wrong bytes.
    Dismissed,
}

/// A found peer that is a source.
struct Up {
    peer: Arc<Peer>,
    since: Instant,
    replace: CancellationToken,
}

impl Up {
    /// Whether it has given nothing right for so long that its place is better given to another. What it sent does not
    /// count: anybody can send something.
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
    tell_up: mpsc::Sender<(PeerId, Up)>,
    dialing: Arc<Semaphore>,
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
        let (tell_up, came_up) = mpsc::channel(MAX_DIALING);
        Self {
            shared,
            candidates,
            found,
            tasks: JoinSet::new(),
            up: HashMap::new(),
            came_up,
            tell_up,
            dialing: Arc::new(Semaphore::new(MAX_DIALING)),
            attempts_left: MAX_ATTEMPTS,
            started: Instant::now(),
            expected,
            is_connecting: true,
        }
    }

    /// Until the fetch ends.
    pub(super) async fn run(mut self) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.dial();
            if self.is_connecting && !self.is_searching() {
                self.is_connecting = false;
                if self.shared.events.send(SourceEvent::Connecting(false)).await.is_err() {
                    return;
                }
            }
            let ready = self.candidates.next_ready().filter(|_| self.has_place());
            let wakeup = ready.unwrap_or_else(|| Instant::now() + TICK);
            tokio::select! {
                // In this order: a peer has come up before it has ended.
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

    /// Whether one more may be connected to.
    fn has_place(&self) -> bool {
        let dialing = MAX_DIALING - self.dialing.available_permits();
        dialing < MAX_DIALING && self.shared.claims.count() + dialing < MAX_SOURCES
    }

    /// Connects to candidates while there are places.
    fn dial(&mut self) {
        while self.has_place() && self.attempts_left > 0 {
            let Some(contact) = self.candidates.next(Instant::now()) else { return };
            let Ok(permit) = Arc::clone(&self.dialing).try_acquire_owned() else { return };
            self.attempts_left -= 1;
            let attempt = Attempt { shared: self.shared.clone(), tell_up: self.tell_up.clone() };
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
            End::Down { was_of_use } => self.candidates.on_down(peer, *was_of_use, now),
            End::Dismissed => self.candidates.on_dismissed(peer),
            End::Taken | End::Replaced => self.candidates.on_useless(peer, now),
        }
    }

    fn on_tick(&mut self) {
        self.attempts_left = MAX_ATTEMPTS;
        // Who fetches the same is a source as well. It has connected to this node, and needs no dial.
        for peer in self.shared.client.holders(&self.shared.manifest) {
            if !self.shared.claims.has(&peer) {
                self.candidates.add(Contact { peer, addrs: Vec::new() }, Instant::now());
            }
        }
        self.replace_one();
    }

    /// Gives the place of a source that gave nothing to somebody who waits for one.
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

    /// Whether first sources may come up at any moment.
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
        let has_more = self.has_place() && self.candidates.has_untried();
        !self.shared.searching.is_none() || is_dialing || has_more || !self.found.is_empty()
    }
}

/// One attempt at a found peer, and what it gives as a source.
struct Attempt {
    shared: Shared,
    tell_up: mpsc::Sender<(PeerId, Up)>,
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
        let Some(_claim) = self.shared.claims.claim(id, false) else { return End::Taken };
        let first_answer = self.shared.searching.one();
        let peer = Arc::new(Peer::new(client.clone(), session, false));
        let replace = CancellationToken::new();
        let up = Up { peer: Arc::clone(&peer), since: Instant::now(), replace: replace.clone() };
        if self.tell_up.send((id, up)).await.is_err() {
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
                (reason, End::Down { was_of_use: peer.last_useful().is_some() })
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
