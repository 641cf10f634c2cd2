//! Collects what a node does.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use loader::{Event, LoadError, Observer, Report};
use manifest::{Digest, SourceId};
use p2p_blob::{Client, PeerId, Transport};
use store::{Blobs, Cache, EntryState};
use tokio::time::MissedTickBehavior;

use super::grid::Change;
use super::load::{Load, now_s};
use super::numbers::{CachedModel, Counts, LastLoad, Numbers};
use super::rates::{Bytes, NOTE_EVERY, Rates};
use super::swarm::{PastLoad, Reused, Swarm};
use super::{Loading, Status};
use crate::contract::Contracts;
use crate::crowd::Crowd;

/// Loads that have ended and are remembered.
const MAX_PAST: usize = 16;
/// Models that are named to a page.
const MAX_MODELS: usize = 100;
/// How old what is told of the cache may be: it takes a look at each model.
const CACHE_AGE: Duration = Duration::from_secs(5);

/// Whether the model that is wanted can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Readiness {
    /// Whether a model that was wanted is mapped, or none is wanted: a node that only seeds what it has.
    pub is_ready: bool,
    /// The newest model that was asked for.
    pub wanted: Option<Digest>,
    /// The newest one that was mapped: it stays so while the next is loaded.
    pub mapped: Option<Digest>,
}

/// The pieces of a load.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pieces {
    /// Which load.
    pub load: u64,
    /// What to ask with next time.
    pub next: u64,
    /// What is new.
    pub change: Change,
}

/// Collects the status.
pub(crate) struct Board {
    client: Client,
    started: Instant,
    blobs: Arc<Blobs>,
    cache: Cache,
    crowd: Crowd,
    contracts: Contracts,
    state: Mutex<State>,
    cached: Mutex<Option<(Instant, Vec<CachedModel>)>>,
    rates: Mutex<Rates>,
}

#[derive(Debug, Default)]
struct State {
    loads: BTreeMap<Digest, Load>,
    /// The one that ended last.
    last: Option<(Digest, Load)>,
    past: VecDeque<PastLoad>,
    counts: Counts,
    last_load: Option<LastLoad>,
    /// How many there were.
    loads_begun: u64,
    wanted: Option<Digest>,
    mapped: Option<Digest>,
}

impl State {
    /// The loads in progress, the newest first; else the last one.
    fn shown(&mut self) -> Vec<(&Digest, &mut Load)> {
        let mut loads: Vec<_> = self.loads.iter_mut().collect();
        loads.sort_by_key(|(_, load)| std::cmp::Reverse(load.number));
        if loads.is_empty() {
            loads.extend(self.last.as_mut().map(|(manifest, load)| (&*manifest, load)));
        }
        loads
    }
}

impl Board {
    pub(crate) fn new(
        client: &Client,
        cache: &Cache,
        blobs: Arc<Blobs>,
        crowd: Crowd,
        contracts: Contracts,
    ) -> Self {
        Self {
            client: client.clone(),
            started: Instant::now(),
            blobs,
            cache: cache.clone(),
            crowd,
            contracts,
            state: Mutex::default(),
            cached: Mutex::default(),
            rates: Mutex::new(Rates::new(Instant::now())),
        }
    }

    pub(crate) fn status(&self) -> Status {
        let loading = |(manifest, load): (&Digest, &Load)| Loading {
            manifest: manifest.to_string(),
            total_size_bytes: load.total_size_bytes,
            done_bytes: load.done_bytes.min(load.total_size_bytes.unwrap_or(u64::MAX)),
            sources: load.up().count(),
        };
        let bytes = self.bytes();
        let per_s = self.rates().per_s(Instant::now(), bytes);
        let (peers_sources, peers_others) = self.peers();
        #[cfg(feature = "chain")]
        let mut chains = self.contracts.status().into_iter();
        Status {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            peer_id: self.client.peer_id().to_string(),
            uptime_s: self.started.elapsed().as_secs(),
            listen: self.client.listen_addrs().borrow().iter().map(ToString::to_string).collect(),
            models: self.models(),
            uploaded_bytes: bytes.sent,
            received_bytes: bytes.received,
            sent_bytes_per_s: per_s.sent,
            received_bytes_per_s: per_s.received,
            peers_sources,
            peers_others,
            loading: self.state().loads.iter().map(loading).collect(),
            #[cfg(feature = "chain")]
            chain: chains.next(),
            #[cfg(feature = "chain")]
            more_chains: chains.collect(),
        }
    }

    /// What has gone over the network.
    fn bytes(&self) -> Bytes {
        Bytes { received: self.state().counts.all_received_bytes(), sent: self.client.sent_bytes() }
    }

    fn rates(&self) -> MutexGuard<'_, Rates> {
        self.rates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn models(&self) -> Vec<String> {
        let mut models: Vec<String> = self.blobs.models().iter().map(Digest::to_string).collect();
        models.sort_unstable();
        models
    }

    /// What the page shows.
    pub(crate) fn swarm(&self) -> Swarm {
        let seen = |id: &SourceId| {
            let seen = self.crowd.seen(&id.as_str().parse::<PeerId>().ok()?)?;
            Some((seen.round_trip.map(|time| time.as_secs_f64() * 1000.0), seen.received_bytes))
        };
        let mut models = self.models();
        models.truncate(MAX_MODELS);
        let (_, other_peers) = self.peers();
        let traffic = self.client.traffic();
        let mut state = self.state();
        let loads = state.shown();
        let loads = loads.into_iter().map(|(manifest, load)| load.view(manifest.to_string(), seen)).collect();
        Swarm {
            version: env!("CARGO_PKG_VERSION"),
            peer_id: self.client.peer_id().to_string(),
            uptime_s: self.started.elapsed().as_secs(),
            now: now_s(),
            sent_bytes: self.client.sent_bytes(),
            queued_requests: traffic.queued_requests,
            other_peers,
            models,
            loads,
            past: state.past.iter().rev().cloned().collect(),
            #[cfg(feature = "chain")]
            chains: self.contracts.status(),
        }
    }

    /// The pieces of a load that [`Swarm`] shows: what has changed since `since`, or all. `None` for one that it does not show.
    pub(crate) fn pieces(&self, load: u64, since: Option<u64>) -> Option<Pieces> {
        let mut state = self.state();
        let (_, shown) = state.shown().into_iter().find(|(_, shown)| shown.number == load)?;
        let (change, next) = shown.grid.as_mut()?.since(since);
        Some(Pieces { load, next, change })
    }

    /// Everything that is counted. Blocks: looks at the cache.
    pub(crate) fn numbers(&self) -> Numbers {
        let cached = self.cached_models();
        let (peers_sources, peers_others) = self.peers();
        let is_ready = self.readiness().is_ready;
        let mut state = self.state();
        let shown = state.shown();
        let peers_banned = shown.iter().map(|(_, load)| load.banned()).sum();
        let scarcity = shown.iter().filter_map(|(_, load)| load.scarcity).min_by_key(|found| found.rarest);
        Numbers {
            counts: state.counts,
            traffic: self.client.traffic(),
            peers_sources,
            peers_others,
            peers_banned,
            cached,
            disk_free_bytes: self.cache.free().map(|free| free.bytes),
            last_load: state.last_load,
            scarcity,
            is_ready,
            #[cfg(feature = "chain")]
            chains: self.contracts.status(),
        }
    }

    /// Connected peers that are sources, and others.
    fn peers(&self) -> (usize, usize) {
        let connected = self.client.connected();
        let state = self.state();
        let sources: HashSet<&str> = state.loads.values().flat_map(Load::up).map(SourceId::as_str).collect();
        let is_source = |peer: &PeerId| sources.contains(p2p_blob::source_id(peer).as_str());
        let count = connected.iter().filter(|one| is_source(&one.peer)).count();
        (count, connected.len() - count)
    }

    fn cached_models(&self) -> Vec<CachedModel> {
        // Whoever asks meanwhile waits, and gets the same.
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, models)) = &*cached
            && at.elapsed() < CACHE_AGE
        {
            return models.clone();
        }
        let listed = self.cache.list().inspect_err(|error| tracing::debug!(%error, "cannot list the cache"));
        let models: Vec<CachedModel> = listed.map_or_else(
            |_| Vec::new(),
            |entries| {
                let model = |entry: store::Entry| CachedModel {
                    manifest: entry.digest.to_string(),
                    disk_bytes: entry.disk_bytes,
                    is_finished: entry.state == EntryState::Finished,
                };
                entries.into_iter().map(model).collect()
            },
        );
        *cached = Some((Instant::now(), models.clone()));
        models
    }

    /// Whether the wanted model is mapped.
    pub(crate) fn readiness(&self) -> Readiness {
        let state = self.state();
        let (wanted, mapped) = (state.wanted, state.mapped);
        let only_seeds = wanted.is_none() && !self.contracts.is_configured();
        Readiness { is_ready: mapped.is_some() || only_seeds, wanted, mapped }
    }

    /// This model is asked for.
    pub(crate) fn wants(&self, manifest: Digest) {
        self.state().wanted = Some(manifest);
    }

    /// This model is mapped.
    pub(crate) fn has_mapped(&self, manifest: Digest) {
        self.state().mapped = Some(manifest);
    }

    /// Counts the events of a load of `manifest`, and forwards them to `observer`.
    pub(crate) fn watch<'a>(&'a self, manifest: Digest, observer: &'a dyn Observer) -> Observed<'a> {
        let mut state = self.state();
        let state = &mut *state;
        let load = state.loads.entry(manifest).or_insert_with(|| {
            state.loads_begun += 1;
            Load::new(state.loads_begun)
        });
        load.callers += 1;
        Observed { board: self, manifest, observer, began: Instant::now() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn transport(&self, source: &SourceId) -> Option<Transport> {
        self.client.transport(&source.as_str().parse().ok()?)
    }
}

/// Notes now and then how much has gone over the network, for as long as the board is there.
pub(crate) async fn note_rates(board: Weak<Board>) {
    let mut ticks = tokio::time::interval(NOTE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(board) = board.upgrade() else { return };
        let bytes = board.bytes();
        board.rates().note(Instant::now(), bytes);
    }
}

/// A load that is on the board until this is dropped.
pub(crate) struct Observed<'a> {
    board: &'a Board,
    manifest: Digest,
    observer: &'a dyn Observer,
    began: Instant,
}

impl Observed<'_> {
    /// What came of it.
    pub(crate) fn ended<T>(&self, result: &Result<(T, Report), LoadError>) {
        let mut state = self.board.state();
        let state = &mut *state;
        let took = self.began.elapsed();
        let report = result.as_ref().map(|(_, report)| report).map_err(ToString::to_string);
        if let Some(load) = state.loads.get_mut(&self.manifest) {
            load.ended(report.as_ref().map(|report| *report).map_err(Clone::clone));
        }
        let default = Report::default();
        let told = report.as_ref().copied().unwrap_or(&default);
        let reused =
            |(manifest, bytes): &(Digest, u64)| Reused { manifest: manifest.to_string(), bytes: *bytes };
        if state.past.len() == MAX_PAST {
            state.past.pop_front();
        }
        state.past.push_back(PastLoad {
            manifest: self.manifest.to_string(),
            ended_at: now_s(),
            took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            fetched_bytes: told.fetched_bytes,
            rebuilt_bytes: told.rebuilt_bytes,
            resumed_bytes: told.resumed_bytes,
            reused_from: told.reused_from.iter().map(reused).collect(),
            error: report.as_ref().err().cloned(),
        });
        match report {
            Ok(_) => {
                state.counts.loads_done += 1;
                state.last_load = Some(LastLoad { ended_at: now_s(), took });
            }
            Err(_) => state.counts.loads_failed += 1,
        }
    }
}

impl Observer for Observed<'_> {
    fn on_event(&self, event: &Event<'_>) {
        {
            let mut state = self.board.state();
            let State { loads, counts, .. } = &mut *state;
            if let Some(load) = loads.get_mut(&self.manifest) {
                load.on_event(event, counts, |source| self.board.transport(source));
            }
        }
        self.observer.on_event(event);
    }
}

impl Drop for Observed<'_> {
    fn drop(&mut self) {
        let mut state = self.board.state();
        let Some(load) = state.loads.get_mut(&self.manifest) else { return };
        load.callers -= 1;
        if load.callers > 0 {
            return;
        }
        if let Some(mut load) = state.loads.remove(&self.manifest) {
            // A load that was given up has not ended otherwise.
            if !load.is_over() {
                load.ended(Err("it was given up".to_owned()));
            }
            state.last = Some((self.manifest, load));
        }
    }
}
