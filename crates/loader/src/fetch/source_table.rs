//! The sources of one fetch: their connections, ids, contributions and errors.

use std::collections::HashMap;
use std::sync::Arc;

use manifest::SourceId;
use planner::{PlanEvent, SourceKey, SourceState};
use store::BanList;
use tokio::sync::mpsc;

use crate::observer::{Event, Observer, SourceReport};
use crate::source::{Source, SourceEvent};

/// Sources remembered in one fetch: further ids are not told apart in the report.
const MAX_REMEMBERED: usize = 4096;

/// The events of sources that connect and disconnect.
pub(super) struct Arrivals {
    events: mpsc::Receiver<SourceEvent>,
    is_closed: bool,
}

impl Arrivals {
    pub(super) fn new(events: mpsc::Receiver<SourceEvent>) -> Self {
        Self { events, is_closed: false }
    }

    /// The next event. After the last one, that no source is being dialed any more; and then nothing, ever.
    ///
    /// **Cancel safety.** Nothing is lost.
    pub(super) async fn next(&mut self) -> SourceEvent {
        if self.is_closed {
            return std::future::pending().await;
        }
        self.events.recv().await.unwrap_or_else(|| {
            self.is_closed = true;
            SourceEvent::Connecting(false)
        })
    }
}

struct Known {
    /// `None` while it is disconnected.
    source: Option<Arc<dyn Source>>,
    report: SourceReport,
    received_bytes: u64,
    /// Its disconnect is then no error.
    is_dismissed: bool,
}

/// See the module's documentation.
#[derive(Default)]
pub(super) struct SourceTable {
    keys: HashMap<SourceId, SourceKey>,
    known: Vec<Known>,
    pub(super) connecting: bool,
    /// The source that sent the last blob: the manifest, before the index.
    pub(super) has_given: Option<SourceKey>,
    /// Liars caught in earlier runs.
    pub(super) bans: BanList,
    /// Liars caught in this one.
    pub(super) liars: Vec<SourceId>,
}

impl SourceTable {
    /// Applies an event; returns the source that connected or disconnected, if one did.
    pub(super) fn on_event(&mut self, event: SourceEvent, observer: &dyn Observer) -> Option<SourceKey> {
        match event {
            SourceEvent::Up(source) => {
                let key = self.key(source.id())?;
                observer.on_event(&Event::SourceUp { source: source.id() });
                let known = &mut self.known[key.0 as usize];
                known.received_bytes = source.received_bytes();
                known.source = Some(source);
                Some(key)
            }
            SourceEvent::Down { source, reason } => {
                observer.on_event(&Event::SourceDown { source: &source, reason: &reason });
                let key = self.key(&source)?;
                let known = &mut self.known[key.0 as usize];
                known.source = None;
                if !known.is_dismissed {
                    known.report.last_error = Some(reason);
                }
                Some(key)
            }
            SourceEvent::Unreachable { address, reason } => {
                let id = SourceId::new(address);
                observer.on_event(&Event::SourceDown { source: &id, reason: &reason });
                let key = self.key(&id)?;
                self.known[key.0 as usize].report.last_error = Some(reason);
                None
            }
            SourceEvent::Connecting(pending) => {
                self.connecting = pending;
                None
            }
        }
    }

    fn key(&mut self, id: &SourceId) -> Option<SourceKey> {
        if let Some(key) = self.keys.get(id) {
            return Some(*key);
        }
        if self.known.len() >= MAX_REMEMBERED {
            return None;
        }
        let key = SourceKey(u32::try_from(self.known.len()).ok()?);
        let report = SourceReport {
            source: id.clone(),
            good_bytes: 0,
            bad_bytes: 0,
            duplicate_bytes: 0,
            banned: false,
            last_error: None,
        };
        self.known.push(Known { source: None, report, received_bytes: 0, is_dismissed: false });
        self.keys.insert(id.clone(), key);
        Some(key)
    }

    pub(super) fn get(&self, key: SourceKey) -> Option<&Arc<dyn Source>> {
        self.known.get(key.0 as usize)?.source.as_ref()
    }

    /// It is not asked for anything any more.
    pub(super) fn dismiss(&mut self, key: SourceKey) {
        let Some(known) = self.known.get_mut(key.0 as usize) else { return };
        known.is_dismissed = true;
        known.source.iter().for_each(|source| source.dismiss());
    }

    /// Bytes of it were right.
    pub(super) fn note_useful(&self, key: SourceKey) {
        self.get(key).into_iter().for_each(|source| source.note_useful());
    }

    pub(super) fn find(&self, id: &SourceId) -> Option<SourceKey> {
        self.keys.get(id).copied()
    }

    pub(super) fn up(&self) -> impl Iterator<Item = (SourceKey, &Arc<dyn Source>)> {
        (0..).zip(&self.known).filter_map(|(key, known)| Some((SourceKey(key), known.source.as_ref()?)))
    }

    pub(super) fn report_mut(&mut self, key: SourceKey) -> Option<&mut SourceReport> {
        self.known.get_mut(key.0 as usize).map(|known| &mut known.report)
    }

    /// Updates bans in the report from the planner's state of each source.
    pub(super) fn note_bans(&mut self, state: impl Fn(SourceKey) -> Option<SourceState>) {
        for (key, known) in (0..).map(SourceKey).zip(&mut self.known) {
            let Some(state) = state(key) else { continue };
            known.report.banned = state.banned;
            if state.lied {
                self.liars.push(known.report.source.clone());
            }
        }
    }

    /// Those that the planner has banned since this was last asked.
    pub(super) fn newly_banned(&mut self, state: impl Fn(SourceKey) -> Option<SourceState>) -> Vec<SourceId> {
        let mut banned = Vec::new();
        for (key, known) in (0..).map(SourceKey).zip(&mut self.known) {
            if !known.report.banned && state(key).is_some_and(|state| state.banned) {
                known.report.banned = true;
                banned.push(known.report.source.clone());
            }
        }
        banned
    }

    /// Whether a source was caught lying not long ago.
    pub(super) fn is_banned(&mut self, key: SourceKey, now_s: u64) -> bool {
        let Some(known) = self.known.get_mut(key.0 as usize) else { return false };
        let is_banned = self.bans.is_banned(&known.report.source, now_s);
        if is_banned {
            known.report.last_error = Some("sent wrong bytes in an earlier run".into());
        }
        is_banned
    }

    pub(super) fn reports(&self) -> Vec<SourceReport> {
        self.known.iter().map(|known| known.report.clone()).collect()
    }

    /// The sources that sent something since this was last asked.
    pub(super) fn progress(&mut self) -> Vec<PlanEvent> {
        let mut moved = Vec::new();
        for (key, known) in (0..).zip(&mut self.known) {
            let Some(source) = &known.source else { continue };
            let received_bytes = source.received_bytes();
            if received_bytes != known.received_bytes {
                known.received_bytes = received_bytes;
                moved.push(PlanEvent::Progress { source: SourceKey(key) });
            }
        }
        moved
    }
}
