//! Drives the planner: turns its actions into requests and jobs, and what comes of them into events.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use manifest::{Digest, Have, PieceId, PieceSet};
use planner::{Checked, PlanAction, PlanEvent, Planner, RequestId, SourceKey};
use tokio::sync::mpsc;

use super::buffers::PieceBuf;
use super::have_poll::{Ask, Change, HavePoll, News};
use super::source_table::{Arrivals, SourceTable};
use super::transfers::{TransferEvent, Transfers};
use super::workers::{CheckJob, Done, Workers};
use crate::error::LoadError;
use crate::observer::{Event, Observer, Report};
use crate::reconstruct::RebuildJob;
use crate::source::{SourceError, SourceEvent};

/// How often the sources' progress is looked at.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(50);

pub(super) struct Driver<'a> {
    pub(super) digest: Digest,
    pub(super) planner: Planner,
    pub(super) requests: Transfers,
    pub(super) moved: mpsc::Receiver<TransferEvent>,
    pub(super) done: mpsc::Receiver<Done>,
    pub(super) workers: Workers,
    pub(super) sources: &'a mut SourceTable,
    pub(super) watch: HavePoll,
    pub(super) observer: &'a dyn Observer,
    pub(super) report: &'a mut Report,
    /// Bytes of shards on trial, by shard and source: nobody knows yet whether they are right.
    pub(super) on_trial: HashMap<(u32, SourceKey), u64>,
    /// How long to go on when nothing can be asked of anybody.
    pub(super) wait: Duration,
}

impl Driver<'_> {
    /// Runs until all weights are there and verified. Nothing of it holds on to the partial files afterwards, whatever comes
    /// of it; what was under way is given up.
    pub(super) async fn run(mut self, events: &mut Arrivals) -> Result<(), LoadError> {
        let result = self.drive(events).await;
        // Nobody must wait to send when they are to end.
        let Self { moved, done, requests, workers, .. } = self;
        drop((moved, done, requests));
        workers.end().await;
        result
    }

    async fn drive(&mut self, events: &mut Arrivals) -> Result<(), LoadError> {
        let up: Vec<SourceKey> = self.sources.up().map(|(key, _)| key).collect();
        for key in up {
            self.on_up(key);
        }
        self.tell_connecting();
        let mut stuck_since: Option<Instant> = None;
        let mut next_progress = Instant::now();
        loop {
            let now = Instant::now();
            if now >= next_progress {
                next_progress = now + PROGRESS_INTERVAL;
                for event in self.sources.progress() {
                    self.planner.on_event(event, now);
                }
            }
            self.ask_have(now);
            while let Some(action) = self.planner.poll_action(Instant::now()) {
                self.act(action);
            }
            if self.planner.is_done() {
                let left: Vec<_> = self.on_trial.drain().collect();
                left.into_iter().for_each(|((_, source), bytes)| self.note_left_of_trial(source, bytes));
                self.note_bans();
                return Ok(());
            }
            stuck_since = match stuck_since {
                _ if !self.planner.is_stuck() || self.sources.connecting => None,
                Some(since) if now >= since + self.wait => return Err(self.unavailable()),
                since => since.or(Some(now)),
            };
            let give_up = stuck_since.map(|since| since + self.wait);
            let wakeups = [self.planner.next_wakeup(now), self.watch.next_wakeup(), give_up];
            let wakeup = wakeups.into_iter().flatten().chain([now + Duration::from_secs(1)]).min();
            let wakeup = wakeup.unwrap_or(now).max(now + Duration::from_millis(1));
            // Progress is only of interest while somebody owes bytes; then the planner wants to wake up soon as well.
            tokio::select! {
                event = events.next() => self.on_source(event),
                Some(moved) = self.moved.recv() => self.on_moved(moved),
                Some(done) = self.done.recv() => self.on_done(done)?,
                () = tokio::time::sleep_until(wakeup.into()) => {}
            }
        }
    }

    fn tell(&mut self, event: PlanEvent) {
        self.planner.on_event(event, Instant::now());
    }

    /// Whether sources may come up at any moment: also those that are connected and about to say what they hold.
    fn tell_connecting(&mut self) {
        self.tell(PlanEvent::Connecting { pending: self.sources.connecting || self.watch.is_expecting() });
    }

    fn act(&mut self, action: PlanAction) {
        match action {
            PlanAction::Request { request, source, shard, pieces, .. } => match self.sources.get(source) {
                Some(source) => self.requests.start(request, Arc::clone(source), shard, pieces),
                None => self.tell(PlanEvent::Down { source }),
            },
            // Whoever does not have a blob in the size that somebody claims may have it in the one that is tried next.
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
            self.tell(PlanEvent::Banned { source: key });
        }
        let Some(source) = self.sources.get(key) else { return };
        if source.serves_ranges() {
            // It is asked for pieces once it has said what it holds.
            self.watch.add(key, Instant::now());
        } else {
            self.tell(PlanEvent::Up { source: key, ranges: false });
        }
    }

    fn on_source(&mut self, event: SourceEvent) {
        let is_up = matches!(event, SourceEvent::Up(_));
        match self.sources.on_event(event, self.observer) {
            Some(key) if is_up => self.on_up(key),
            Some(key) => {
                self.watch.remove(key);
                self.tell(PlanEvent::Down { source: key });
                self.tell_connecting();
            }
            None => self.tell_connecting(),
        }
    }

    /// Asks the sources whose turn it is what they hold.
    fn ask_have(&mut self, now: Instant) {
        while let Some(ask) = self.watch.next(now) {
            match self.sources.get(ask.source) {
                Some(source) => self.requests.ask_have(ask, Arc::clone(source)),
                None => self.watch.remove(ask.source),
            }
        }
    }

    fn on_have(&mut self, ask: Ask, result: Result<Option<Have>, SourceError>) {
        let source = ask.source;
        let news = match result {
            Ok(have) => self.watch.answered(ask, Ok(have), Instant::now(), rand::random()),
            Err(error) => {
                self.note_error(source, &error);
                self.watch.answered(ask, Err(&error), Instant::now(), rand::random())
            }
        };
        if let Some(News { is_first, change }) = news {
            if is_first {
                self.tell(PlanEvent::Up { source, ranges: true });
            }
            self.tell(match change {
                Change::Unknown => PlanEvent::Holds { source, shards: self.anything() },
                Change::Holds(shards) => PlanEvent::Holds { source, shards },
                Change::Gained(pieces) => PlanEvent::Gained { source, pieces },
            });
        }
        self.tell_connecting();
    }

    /// What a source may hold that does not say.
    fn anything(&self) -> Vec<PieceSet> {
        let manifest = self.planner.geometry().manifest();
        (0..).zip(manifest.shards()).map(|(shard, _)| PieceSet::all(manifest.piece_count(shard))).collect()
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
                self.tell(PlanEvent::Ended { request, failure });
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
        }
    }

    fn on_done(&mut self, done: Done) -> Result<(), LoadError> {
        match done {
            Done::Checked { piece, source, outcome } => {
                self.count(piece, source, outcome);
                self.tell(PlanEvent::Checked { piece, source, outcome });
            }
            Done::Rechecked { piece, good, resumed } => {
                if resumed {
                    let bytes = self.planner.geometry().piece_bytes(piece);
                    self.report.resumed_bytes += bytes;
                    self.observer.on_event(&Event::Resumed { bytes });
                }
                self.tell(PlanEvent::Rechecked { piece, good });
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
                self.tell(PlanEvent::ShardChecked { shard, good, index_agrees });
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
                self.observer.on_event(&Event::PieceRebuilt { shard: piece.shard, bytes });
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
            let shard = piece.shard;
            self.observer.on_event(&Event::PieceFetched { shard, bytes, source: &report.source });
            self.sources.tell_useful(key);
        }
    }

    /// What came of a shard on trial is credited to its source when that is known to be right, or blamed on it.
    fn credit_trial(&mut self, shard: u32, good: bool) {
        let of_shard: Vec<_> = self.on_trial.extract_if(|(of, _), _| *of == shard).collect();
        for ((_, source), bytes) in of_shard {
            // Another source was on trial for it before, and could not go on.
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
                self.observer.on_event(&Event::PieceFetched { shard, bytes, source: &report.source });
                self.sources.tell_useful(source);
            } else {
                report.bad_bytes += bytes;
                report.last_error = Some(format!("sent a wrong shard {shard}"));
            }
        }
    }

    /// Nobody knows whether this was right, as the trial that it came of has ended before.
    fn note_left_of_trial(&mut self, source: SourceKey, bytes: u64) {
        self.report.wasted_bytes += bytes;
        if let Some(report) = self.sources.report_mut(source) {
            report.duplicate_bytes += bytes;
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

    /// Puts into the report who is banned now: often it is another source's bytes that convict one.
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

/// How many buffers for pieces there are in so much memory.
pub(super) fn buffer_count(memory_bytes: u64, piece_bytes: u32) -> usize {
    let count = (memory_bytes / u64::from(piece_bytes)).max(4);
    usize::try_from(count).unwrap_or(usize::MAX >> 4)
}
