//! Drives the planner: turns its actions into requests and jobs, and their results into events.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use manifest::{Digest, Have, PieceId};
use planner::{Checked, PlanAction, PlanEvent, Planner, RequestId, SourceKey, Supply};
use tokio::sync::mpsc;

use super::buffers::PieceBuf;
use super::have_poll::{Ask, Change, HavePoll, HaveUpdate};
use super::head_start::anything;
use super::source_table::{Arrivals, SourceTable};
use super::transfers::{TransferEvent, Transfers};
use super::workers::{CheckJob, Done, Workers};
use crate::error::LoadError;
use crate::observer::{Event, Observer, Report};
use crate::reconstruct::RebuildJob;
use crate::source::{SourceError, SourceEvent};
use crate::stream::Ahead;

/// How long nothing can be asked for before others are looked for: answers to the first questions take a moment.
const STARVED: Duration = Duration::from_millis(200);
/// How often the sources' progress is polled.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(50);
/// How often observers are told of what is looked up for them.
const TELL_INTERVAL: Duration = Duration::from_millis(500);
/// Between two looks at the supply, which are at every piece, so many times as long as one takes passes.
const SUPPLY_REST: u32 = 100;

pub(super) struct Driver<'a> {
    pub(super) digest: Digest,
    pub(super) planner: Planner,
    pub(super) requests: Transfers,
    pub(super) moved: mpsc::Receiver<TransferEvent>,
    /// The source that is asked for pieces before it has told what it holds.
    pub(super) assumed: Option<SourceKey>,
    pub(super) done: mpsc::Receiver<Done>,
    pub(super) workers: Workers,
    pub(super) sources: &'a mut SourceTable,
    pub(super) have_poll: HavePoll,
    pub(super) observer: &'a dyn Observer,
    pub(super) report: &'a mut Report,
    /// Bytes of shards on trial, not verified yet, by shard and source.
    pub(super) on_trial: HashMap<(u32, SourceKey), u64>,
    /// What observers were last told of the supply.
    pub(super) supply: Option<Supply>,
    /// When it is looked up again.
    pub(super) next_supply: Instant,
    /// How long to go on when no source can be asked for anything.
    pub(super) wait: Duration,
    /// What is wanted first, and the version of it that the planner knows.
    pub(super) ahead: (u64, Ahead),
}

impl Driver<'_> {
    /// Runs until all weights are there and verified. Afterwards nothing keeps the partial files open, also on failure;
    /// requests in flight are cancelled.
    pub(super) async fn run(mut self, events: &mut Arrivals) -> Result<(), LoadError> {
        let result = self.drive(events).await;
        // Workers and requests must not block on a full channel when they are to end.
        let Self { moved, done, requests, workers, .. } = self;
        drop((moved, done, requests));
        workers.end().await;
        result
    }

    async fn drive(&mut self, events: &mut Arrivals) -> Result<(), LoadError> {
        let assumed = self.assumed;
        let up: Vec<SourceKey> = self.sources.up().map(|(key, _)| key).collect();
        for key in up.into_iter().filter(|key| assumed != Some(*key)) {
            self.on_up(key);
        }
        self.notify_connecting();
        let mut stuck_since: Option<Instant> = None;
        let (mut idle_since, mut is_starved): (Option<Instant>, _) = (None, false);
        let mut next_progress = Instant::now();
        let mut next_telling = next_progress;
        loop {
            let now = Instant::now();
            if now >= next_progress {
                next_progress = now + PROGRESS_INTERVAL;
                for event in self.sources.progress() {
                    self.planner.on_event(event, now);
                }
            }
            if now >= next_telling {
                next_telling = now + TELL_INTERVAL;
                self.tell();
            }
            self.ask_have(now);
            self.look_ahead();
            while let Some(action) = self.planner.poll_action(Instant::now()) {
                self.act(action);
            }
            if self.planner.is_done() {
                let left: Vec<_> = self.on_trial.drain().collect();
                left.into_iter().for_each(|((_, source), bytes)| self.note_left_of_trial(source, bytes));
                self.tell();
                self.note_bans();
                return Ok(());
            }
            let is_stuck = self.planner.is_stuck();
            idle_since = is_stuck.then(|| idle_since.unwrap_or(now));
            let starved_at = idle_since.map(|since| since + STARVED);
            if starved_at.is_some_and(|at| at <= now) != is_starved {
                is_starved = !is_starved;
                self.observer.on_event(&Event::Starved { is_starved });
            }
            stuck_since = match stuck_since {
                _ if !is_stuck || self.sources.connecting => None,
                Some(since) if now >= since + self.wait => return Err(self.unavailable()),
                since => since.or(Some(now)),
            };
            let give_up = stuck_since.map(|since| since + self.wait);
            let starves = starved_at.filter(|_| !is_starved);
            let wakeups = [self.planner.next_wakeup(now), self.have_poll.next_wakeup(), give_up, starves];
            let wakeup = wakeups.into_iter().flatten().chain([now + Duration::from_secs(1)]).min();
            let wakeup = wakeup.unwrap_or(now).max(now + Duration::from_millis(1));
            // Progress matters only while requests are in flight; then the planner wakes up soon as well.
            tokio::select! {
                event = events.next() => self.on_source(event),
                Some(moved) = self.moved.recv() => self.on_moved(moved),
                Some(done) = self.done.recv() => self.on_done(done)?,
                () = tokio::time::sleep_until(wakeup.into()) => {}
            }
        }
    }

    /// Tells the planner what is wanted first, if that has changed.
    fn look_ahead(&mut self) {
        let (known, ahead) = &mut self.ahead;
        if let Some(ranges) = ahead.since(known) {
            let geometry = self.planner.geometry();
            let pieces = ranges.into_iter().flat_map(|range| geometry.pieces_of(range));
            let pieces: Vec<PieceId> = pieces.map(|slice| slice.piece).collect();
            self.planner.want_soon(pieces);
        }
    }

    /// Tells observers what nothing else does: bans, the supply, and the time that threads took.
    fn tell(&mut self) {
        for source in self.sources.newly_banned(|key| self.planner.source_state(key)) {
            self.observer.on_event(&Event::Banned { source: &source });
        }
        let now = Instant::now();
        if now >= self.next_supply || self.planner.is_done() {
            let supply = self.planner.supply();
            self.next_supply = now + now.elapsed() * SUPPLY_REST;
            if self.supply.replace(supply) != Some(supply) {
                let Supply { rarest, needed } = supply;
                self.observer.on_event(&Event::Supply { rarest, needed });
            }
        }
        let (verifying, rebuilding) = self.workers.take_times();
        self.observer.on_event(&Event::Worked { verifying, rebuilding });
    }

    fn notify_planner(&mut self, event: PlanEvent) {
        self.planner.on_event(event, Instant::now());
    }

    /// Reports whether sources may connect at any moment, those included that have not announced their pieces yet.
    fn notify_connecting(&mut self) {
        self.notify_planner(PlanEvent::Connecting {
            pending: self.sources.connecting || self.have_poll.is_expecting(),
        });
    }

    fn act(&mut self, action: PlanAction) {
        match action {
            PlanAction::Request { request, source, shard, pieces, .. } => match self.sources.get(source) {
                Some(source) => self.requests.start(request, Arc::clone(source), shard, pieces),
                None => self.notify_planner(PlanEvent::Down { source }),
            },
            // A source without the blob in this claimed size may have it in the next one.
            PlanAction::Dismiss { .. } if self.planner.geometry().manifest().single_blob().is_some() => {}
            PlanAction::Dismiss { source } => self.sources.dismiss(source),
            PlanAction::Cancel { request } => self.requests.cancel(request),
            PlanAction::Rebuild { pieces } => {
                self.workers.rebuild(RebuildJob::new(&self.planner, pieces));
            }
            PlanAction::DropParity { piece } => self.workers.drop_parity(piece),
            PlanAction::Recheck { piece } => self.workers.recheck(piece),
            PlanAction::CheckShard { shard } => self.workers.check_shard(shard),
        }
    }

    fn on_up(&mut self, key: SourceKey) {
        if self.sources.is_banned(key, unix_time_s()) {
            self.notify_planner(PlanEvent::Banned { source: key });
        }
        let Some(source) = self.sources.get(key) else { return };
        if source.serves_ranges() {
            // It is asked for pieces once it has announced them.
            self.have_poll.add(key, Instant::now());
        } else {
            self.notify_planner(PlanEvent::Up { source: key, ranges: false });
        }
    }

    fn on_source(&mut self, event: SourceEvent) {
        let is_up = matches!(event, SourceEvent::Up(_));
        match self.sources.on_event(event, self.observer) {
            Some(key) if is_up => self.on_up(key),
            Some(key) => {
                self.assumed.take_if(|assumed| *assumed == key);
                self.have_poll.remove(key);
                self.notify_planner(PlanEvent::Down { source: key });
                self.notify_connecting();
            }
            None => self.notify_connecting(),
        }
    }

    /// Sends the HAVE requests that are due.
    fn ask_have(&mut self, now: Instant) {
        while let Some(ask) = self.have_poll.next(now) {
            match self.sources.get(ask.source) {
                Some(source) => self.requests.ask_have(ask, Arc::clone(source)),
                None => self.have_poll.remove(ask.source),
            }
        }
    }

    fn on_have(&mut self, ask: Ask, result: Result<Option<Have>, SourceError>) {
        let source = ask.source;
        let update = match result {
            Ok(have) => self.have_poll.answered(ask, Ok(have), Instant::now(), rand::random()),
            Err(error) => {
                self.note_error(source, &error);
                self.have_poll.answered(ask, Err(&error), Instant::now(), rand::random())
            }
        };
        if let Some(HaveUpdate { is_first, change }) = update {
            if is_first && self.assumed.take_if(|assumed| *assumed == source).is_none() {
                self.notify_planner(PlanEvent::Up { source, ranges: true });
            }
            self.notify_planner(match change {
                Change::Unknown => {
                    PlanEvent::Holds { source, shards: anything(self.planner.geometry().manifest()) }
                }
                Change::Holds(shards) => PlanEvent::Holds { source, shards },
                Change::Gained(pieces) => PlanEvent::Gained { source, pieces },
            });
        }
        self.notify_connecting();
    }

    fn on_moved(&mut self, moved: TransferEvent) {
        match moved {
            TransferEvent::Arrived { request, piece, buf } => self.on_arrived(request, piece, buf),
            TransferEvent::Ended { request, result } => {
                self.requests.ended(request);
                let failure = result.as_ref().err().map(SourceError::failure);
                if let Err(error) = result {
                    self.note_failure(request, &error);
                }
                self.notify_planner(PlanEvent::Ended { request, failure });
            }
            TransferEvent::Have { ask, result } => self.on_have(ask, result),
        }
    }

    fn on_arrived(&mut self, request: RequestId, piece: PieceId, buf: PieceBuf) {
        let source = self.planner.source_of(request);
        let bytes = buf.bytes.len() as u64;
        if self.planner.arrived(request, piece, Instant::now()) {
            let indexed = self.planner.is_indexed(piece.shard);
            self.workers.check(CheckJob { piece, source, buf, indexed });
            return;
        }
        self.report.wasted_bytes += bytes;
        if let Some(report) = source.and_then(|source| self.sources.report_mut(source)) {
            report.duplicate_bytes += bytes;
            self.observer.on_event(&Event::Duplicate { source: &report.source, bytes });
        }
    }

    fn on_done(&mut self, done: Done) -> Result<(), LoadError> {
        match done {
            Done::Checked { piece, source, outcome } => {
                self.count(piece, source, outcome);
                self.notify_planner(PlanEvent::Checked { piece, source, outcome });
            }
            Done::Rechecked { piece, good, resumed } => {
                if resumed {
                    let bytes = self.planner.geometry().piece_bytes(piece);
                    self.report.resumed_bytes += bytes;
                    self.observer.on_event(&Event::Resumed { bytes });
                }
                self.notify_planner(PlanEvent::Rechecked { piece, good });
            }
            Done::ShardChecked { shard, good, index_agrees } => {
                if !good {
                    self.observer.on_event(&Event::ShardWrong { shard });
                }
                if self.planner.is_on_trial(shard) {
                    self.credit_trial(shard, good);
                } else if !good {
                    self.report.wasted_bytes +=
                        self.planner.geometry().manifest().shards()[shard as usize].size_bytes;
                }
                self.notify_planner(PlanEvent::ShardChecked { shard, good, index_agrees });
            }
            Done::DirtyPadding { shard } => {
                return Err(LoadError::DirtyPadding { digest: self.digest, shard });
            }
            Done::Failed(error) => return Err(error.into()),
            Done::Panicked => {
                return Err(LoadError::Worker(std::io::Error::other("a verification thread panicked")));
            }
        }
        Ok(())
    }

    fn count(&mut self, piece: PieceId, source: Option<SourceKey>, outcome: Checked) {
        let bytes = self.planner.geometry().piece_bytes(piece);
        let bad = matches!(outcome, Checked::Bad { .. });
        let Some(key) = source else {
            if bad {
                tracing::warn!(shard = piece.shard, piece = piece.piece, "rebuilt bytes are wrong");
            } else {
                self.report.rebuilt_bytes += bytes;
                let PieceId { shard, piece } = piece;
                self.observer.on_event(&Event::PieceRebuilt { shard, piece, bytes });
            }
            return;
        };
        if outcome == Checked::Stored && self.planner.is_left_of_trial(piece, source) {
            self.note_left_of_trial(key, bytes);
            return;
        }
        if !bad && self.planner.is_on_trial(piece.shard) {
            *self.on_trial.entry((piece.shard, key)).or_default() += bytes;
            return;
        }
        let Some(report) = self.sources.report_mut(key) else { return };
        if bad {
            self.report.wasted_bytes += bytes;
            report.bad_bytes += bytes;
            report.last_error = Some(format!("sent wrong bytes for shard {}", piece.shard));
            let shard = Some(piece.shard);
            self.observer.on_event(&Event::WrongBytes { shard, source: &report.source, bytes });
        } else {
            self.report.fetched_bytes += bytes;
            report.good_bytes += bytes;
            let (shard, piece) = (piece.shard, Some(piece.piece));
            self.observer.on_event(&Event::PieceFetched { shard, piece, bytes, source: &report.source });
            self.sources.note_useful(key);
        }
    }

    /// Credits the bytes of a shard on trial to its source, or blames it.
    fn credit_trial(&mut self, shard: u32, good: bool) {
        let of_shard: Vec<_> = self.on_trial.extract_if(|(of, _), _| *of == shard).collect();
        for ((_, source), bytes) in of_shard {
            // From an earlier trial of the shard with another source.
            if self.planner.is_left_of_trial(PieceId { shard, piece: 0 }, Some(source)) {
                self.note_left_of_trial(source, bytes);
                continue;
            }
            if good {
                self.report.fetched_bytes += bytes;
            } else {
                self.report.wasted_bytes += bytes;
            }
            let Some(report) = self.sources.report_mut(source) else { continue };
            if good {
                report.good_bytes += bytes;
                let (piece, source_id) = (None, &report.source);
                self.observer.on_event(&Event::PieceFetched { shard, piece, bytes, source: source_id });
                self.sources.note_useful(source);
            } else {
                report.bad_bytes += bytes;
                report.last_error = Some(format!("sent a wrong shard {shard}"));
            }
        }
    }

    /// These bytes were never verified, as their trial has ended before.
    fn note_left_of_trial(&mut self, source: SourceKey, bytes: u64) {
        self.report.wasted_bytes += bytes;
        if let Some(report) = self.sources.report_mut(source) {
            report.duplicate_bytes += bytes;
            self.observer.on_event(&Event::Duplicate { source: &report.source, bytes });
        }
    }

    fn note_failure(&mut self, request: RequestId, error: &SourceError) {
        if let Some(source) = self.planner.source_of(request) {
            self.note_error(source, error);
        }
    }

    fn note_error(&mut self, source: SourceKey, error: &SourceError) {
        let text = error.with_causes();
        tracing::debug!(?source, error = text, "a source failed");
        if let Some(report) = self.sources.report_mut(source) {
            report.last_error = Some(text);
        }
    }

    /// Updates bans in the report: often another source's bytes convict one.
    fn note_bans(&mut self) {
        self.sources.note_bans(|key| self.planner.source_state(key));
    }

    fn unavailable(&mut self) -> LoadError {
        self.note_bans();
        let mut asked = self.sources.reports();
        for report in &mut asked {
            let state = self.sources.find(&report.source).and_then(|key| self.planner.source_state(key));
            if state.is_some_and(|state| state.stalled) && report.last_error.is_none() {
                report.last_error = Some("stopped sending".into());
            }
        }
        LoadError::Unavailable { digest: self.digest, missing: self.planner.missing_shards(), asked }
    }
}

/// Seconds since 1970, going by this machine's clock.
pub(super) fn unix_time_s() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs())
}
