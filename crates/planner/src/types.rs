//! What goes into the planner and what comes out of it.

use std::ops::Range;
use std::time::Duration;

use manifest::{PieceId, PieceSet};
/// Id of a source, assigned by the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceKey(pub u32);

/// Id of a request, assigned by the planner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Limits and timeouts of the planner.
#[derive(Debug, Clone)]
pub struct PlanConfig {
    /// Bytes in flight or not written yet, over all sources, at most.
    pub max_in_flight_bytes: u64,
    /// The same while the way to the sources takes no more: bandwidth × delay decides how much of the most is used.
    pub usual_in_flight_bytes: u64,
    /// A source with requests in flight that sends no bytes for this long is late: parity may stand in for what only late
    /// sources hold. That costs little, should they go on.
    pub late_after: Duration,
    /// A source with requests in flight that sends no bytes for this long has stalled.
    pub stall_after: Duration,
    /// Piece timeout: a source that completes no piece for twice as long as its pieces took so far, but at least this long
    /// and at most [`Self::max_patience`], loses its memory to a waiting source: trickling does not hold piece buffers.
    pub min_patience: Duration,
    /// See [`Self::min_patience`].
    pub max_patience: Duration,
    /// How long a source is not asked again for a shard that it refused.
    pub refusal_ttl: Duration,
    /// How long parity waits for sources that are still being dialed, since they may hold the data.
    pub grace: Duration,
    /// Shuffles equally rare pieces: fetchers that start together need different ones.
    pub seed: u64,
}

impl Default for PlanConfig {
    fn default() -> Self {
        Self {
            max_in_flight_bytes: 128 << 20,
            usual_in_flight_bytes: 48 << 20,
            late_after: Duration::from_millis(500),
            stall_after: Duration::from_secs(2),
            min_patience: Duration::from_secs(3),
            max_patience: Duration::from_secs(10),
            refusal_ttl: Duration::from_secs(10),
            grace: Duration::from_secs(1),
            seed: 0,
        }
    }
}

impl PlanConfig {
    /// What may be in flight while the way to the sources takes no more.
    pub(super) fn usual_in_flight_bytes(&self) -> u64 {
        self.usual_in_flight_bytes.min(self.max_in_flight_bytes)
    }
}

/// Why a request ended without its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The source does not hold the shard, or not that part of it.
    Refused,
    /// The source has no free upload slot for this long.
    Busy(Duration),
    /// The source broke the protocol.
    Misbehaved,
    /// The stream or the connection ended, or timed out.
    Lost,
}

/// The outcome of a piece's check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checked {
    /// Right, and written in place.
    Good,
    /// Written in place; its shard is checked as a whole when all its pieces are there.
    Stored,
    /// Wrong. Equal wrong bytes have equal fingerprints.
    Bad {
        /// First bytes of a digest of what arrived.
        fingerprint: u64,
    },
}

/// What happened.
#[derive(Debug, Clone)]
pub enum PlanEvent {
    /// A source is connected. `ranges`: it serves single pieces; else only whole blobs.
    Up {
        /// The source.
        source: SourceKey,
        /// Whether it serves ranges.
        ranges: bool,
    },
    /// A source has sent the manifest, as asked: before it has sent a piece it is asked for as much as one piece can have, in
    /// several where they are small.
    SentManifest {
        /// The source.
        source: SourceKey,
    },
    /// A source announced what it holds (HAVE): one piece set per shard.
    Holds {
        /// The source.
        source: SourceKey,
        /// By shard index.
        shards: Vec<PieceSet>,
    },
    /// A source that announced what it holds has more.
    Gained {
        /// The source.
        source: SourceKey,
        /// What is new.
        pieces: Vec<PieceId>,
    },
    /// A source that was banned in an earlier run: it is not asked for anything.
    Banned {
        /// The source.
        source: SourceKey,
    },
    /// A source disconnected; its requests are void.
    Down {
        /// The source.
        source: SourceKey,
    },
    /// Some bytes arrived from a source.
    Progress {
        /// The source.
        source: SourceKey,
    },
    /// A piece that arrived or was rebuilt was checked. `source` is `None` for a rebuilt one.
    Checked {
        /// The piece.
        piece: PieceId,
        /// Where it came from.
        source: Option<SourceKey>,
        /// What it turned out to be.
        outcome: Checked,
    },
    /// A claimed piece was hashed: see [`Planner::claim`](super::Planner::claim) and [`PlanAction::Recheck`].
    Rechecked {
        /// The piece.
        piece: PieceId,
        /// Whether it is right.
        good: bool,
    },
    /// The check of a whole shard that [`PlanAction::CheckShard`] asked for has ended.
    ShardChecked {
        /// The shard.
        shard: u32,
        /// Whether its digest is right.
        good: bool,
        /// Whether the index agrees with all of its pieces.
        index_agrees: bool,
    },
    /// A request ended: all its pieces arrived, or it failed.
    Ended {
        /// The request.
        request: RequestId,
        /// Why it failed, if it did.
        failure: Option<Failure>,
    },
    /// Whether sources are being dialed.
    Connecting {
        /// True while connections are being made.
        pending: bool,
    },
}

/// Why a piece is requested; of several pieces, why the first missing one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Why {
    /// It is missing, and has no other request.
    Missing,
    /// Parity, in place of data that is late, or that no source can be asked for.
    Parity,
    /// Its source has stalled.
    Stalled,
    /// Reassigned: its source had not begun to send it, or was overdue, and this one will be much sooner.
    Moved,
    /// A duplicate request: its source is late, and this one has no other needed piece.
    Late,
    /// The same, and no source has anything else that is needed.
    EndGame,
    /// All possible holders sent wrong bytes of its shard: equal ones mean that the index is wrong.
    SecondOpinion,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlanAction {
    /// Ask `source` for these pieces of a shard: one piece where it serves ranges, else all of them.
    Request {
        /// Name of the request.
        request: RequestId,
        /// Whom to ask.
        source: SourceKey,
        /// Which shard.
        shard: u32,
        /// Which of its pieces.
        pieces: Range<u32>,
        /// Why it is asked.
        why: Why,
    },
    /// Drop a source: it will not be asked for anything again. Others may take its slot.
    Dismiss {
        /// Which.
        source: SourceKey,
    },
    /// Cancel a request. Bytes that still come are dropped.
    Cancel {
        /// Name of the request.
        request: RequestId,
    },
    /// Rebuild these pieces; in every stripe they touch, enough other cells are good.
    Rebuild {
        /// Pieces of data shards.
        pieces: Vec<PieceId>,
    },
    /// Hash a good piece again: a piece rebuilt from it is wrong. It is claimed until that is reported.
    Recheck {
        /// The piece.
        piece: PieceId,
    },
    /// Drop a parity piece: no rebuild needs it any more, and it counts as missing.
    DropParity {
        /// The piece.
        piece: PieceId,
    },
    /// Hash a whole shard.
    CheckShard {
        /// The shard.
        shard: u32,
    },
}
