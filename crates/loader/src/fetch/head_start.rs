//! The planner, its requests and what the sources hold; if need be before the piece index has come.
//!
//! Pieces can be asked for as soon as the manifest is known, and be checked when the index is here, too: that saves two round
//! trips. Only whoever sent the manifest is asked so early.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::Arc;
use std::time::Instant;

use manifest::{Digest, Geometry, Manifest, PieceSet};
use planner::{PlanAction, PlanConfig, PlanEvent, Planner, SourceKey};
use tokio::sync::mpsc;

use super::buffers::{Buffers, buffer_count};
use super::have_poll::HavePoll;
use super::options::USUAL_MEMORY_BYTES;
use super::source_table::SourceTable;
use super::transfers::{TransferEvent, Transfers};
use crate::source::Source;

/// Queued results for the driver.
const QUEUE: usize = 256;

/// See the module's documentation.
pub(super) struct Plan {
    pub(super) planner: Planner,
    pub(super) requests: Transfers,
    pub(super) moved: mpsc::Receiver<TransferEvent>,
    pub(super) have_poll: HavePoll,
    /// The source that is asked for pieces before it has told what it holds.
    pub(super) assumed: Option<(SourceKey, Arc<dyn Source>)>,
}

impl Plan {
    /// Nothing is asked for yet. Without `indexed`, shards are checked as a whole.
    pub(super) fn new(digest: Digest, geometry: &Geometry, indexed: bool, memory_bytes: u64) -> Self {
        let piece_bytes = geometry.manifest().piece_size_bytes();
        let config = PlanConfig {
            // A quarter is for parity that waits for its column, and one for what is rebuilt.
            max_in_flight_bytes: (memory_bytes / 2).max(2 * u64::from(piece_bytes)),
            usual_in_flight_bytes: (USUAL_MEMORY_BYTES / 2).max(2 * u64::from(piece_bytes)),
            // The keys of a hasher are random.
            seed: RandomState::new().build_hasher().finish(),
            ..PlanConfig::default()
        };
        let planner = Planner::new(geometry.clone(), indexed, config, Instant::now());
        let (moved_sender, moved) = mpsc::channel(QUEUE);
        let buffers = Buffers::new(buffer_count(memory_bytes, piece_bytes));
        let requests = Transfers::new(digest, geometry.clone(), buffers, moved_sender);
        Self { planner, requests, moved, have_poll: HavePoll::default(), assumed: None }
    }

    /// Asks `giver`, which sent the manifest, for its first pieces, and what it holds.
    pub(super) fn begin(&mut self, giver: SourceKey, sources: &SourceTable) {
        let Some(source) = sources.get(giver).filter(|source| source.serves_ranges()) else { return };
        let now = Instant::now();
        self.have_poll.add(giver, now);
        if let Some(ask) = self.have_poll.next(now) {
            self.requests.ask_have(ask, Arc::clone(source));
        }
        let shards = anything(self.planner.geometry().manifest());
        for event in [
            PlanEvent::Up { source: giver, ranges: true },
            PlanEvent::SentManifest { source: giver },
            PlanEvent::Holds { source: giver, shards },
        ] {
            self.planner.on_event(event, now);
        }
        while let Some(action) = self.planner.poll_action(Instant::now()) {
            if let PlanAction::Request { request, shard, pieces, .. } = action {
                self.requests.start(request, Arc::clone(source), shard, pieces);
            }
        }
        self.assumed = Some((giver, Arc::clone(source)));
    }

    /// Whether its source is still connected as it was.
    pub(super) fn is_valid(&self, sources: &SourceTable) -> bool {
        let is_same = |(key, source): &(SourceKey, Arc<dyn Source>)| {
            sources.get(*key).is_some_and(|now| Arc::ptr_eq(now, source))
        };
        self.assumed.as_ref().is_none_or(is_same)
    }
}

/// The assumed piece sets of a source that has not announced any.
pub(super) fn anything(manifest: &Manifest) -> Vec<PieceSet> {
    (0..).zip(manifest.shards()).map(|(shard, _)| PieceSet::all(manifest.piece_count(shard))).collect()
}
