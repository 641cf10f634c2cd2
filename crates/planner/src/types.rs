//! What goes into the planner and what comes out of it.

use std::ops::Range;
use std::time::Duration;

use manifest::{PieceId, PieceSet};
/// Names a source to the planner; its driver gives the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceKey(pub u32);

/// Names a request between the planner and its driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Limits and patience of the planner.
#[derive(Debug, Clone)]
pub struct PlanConfig {
    /// Bytes that may be asked for and not yet written, over all sources.
    pub max_in_flight_bytes: u64,
    /// Of a source that owes bytes and sends none for this long nothing more is hoped for now: parity may stand in for
    /// what only such sources hold. That costs little, should they go on.
    pub late_after: Duration,
    /// A source that owes bytes and sends none for this long has stalled.
    pub stall_after: Duration,
    /// A source of which no piece was complete for twice as long as its pieces took so far, but at least this long and at most
    /// [`Self::max_patience`], loses its place to somebody who waits for one: memory for pieces is not kept by trickling.
    pub min_patience: Duration,
    /// See [`Self::min_patience`].
    pub max_patience: Duration,
    /// How long a source is not asked again for a shard it refused.
    pub refusal_ttl: Duration,
    /// How long parity waits for sources that are still being connected to, since they may hold the data.
    pub grace: Duration,
    /// Decides in which order equally rare pieces are fetched: those who begin at the same moment need different ones.
    pub seed: u64,
}

impl Default for PlanConfig {
    fn default() -> Self {
        Self {
            max_in_flight_bytes: 48 << 20,
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

/// Why a request ended without its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The source does not hold the shard, or not that part of it.
    Refused,
    /// The source has no capacity for this long.
    Busy(Duration),
    /// The source broke the protocol.
    Misbehaved,
    /// The stream or the connection ended, or timed out.
    Lost,
}

/// What became of a piece that was checked.
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
    /// A source can be asked. `ranges`: for single pieces; else only for whole blobs.
    Up {
        /// The source.
        source: SourceKey,
        /// Whether it serves ranges.
        ranges: bool,
    },
    /// A source said what it holds: one entry per shard.
    Holds {
        /// The source.
        source: SourceKey,
        /// By shard index.
        shards: Vec<PieceSet>,
    },
    /// A source that said what it holds has got more.
    Gained {
        /// The source.
        source: SourceKey,
        /// What is new.
        pieces: Vec<PieceId>,
    },
    /// A source that was caught lying in an earlier run: it is not asked for anything.
    Banned {
        /// The source.
        source: SourceKey,
    },
    /// A source is gone; its requests are void.
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
    /// A piece that was here already was hashed: see [`Planner::claim`](super::Planner::claim) and
    /// [`PlanAction::Recheck`].
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
        /// Whether the index says of each of its pieces what was found.
        index_agrees: bool,
    },
    /// A request ended: all its pieces arrived, or it failed.
    Ended {
        /// The request.
        request: RequestId,
        /// Why it failed, if it did.
        failure: Option<Failure>,
    },
    /// Whether more sources may come up at any moment.
    Connecting {
        /// True while connections are being made.
        pending: bool,
    },
}

/// Why a piece is asked for. Where that is of several pieces, why the first of them is that is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Why {
    /// It is missing, and nobody else is asked for it.
    Missing,
    /// Parity, in place of data that nobody can be asked for, or that is late.
    Parity,
    /// Whoever is asked for it has stalled.
    Stalled,
    /// Whoever was asked for it has not begun to send it, or is overdue, and is not asked any more: this source will be much
    /// sooner.
    Moved,
    /// Whoever is asked for it is late, and this source has nothing else that is needed.
    Late,
    /// The same, and no source has anything else that is needed.
    EndGame,
    /// All who may have it sent wrong bytes of its shard: equal ones mean that the index is wrong.
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
    /// Have nothing more to do with a source: it will not be asked for anything again. Others may take its place.
    Dismiss {
        /// Which.
        source: SourceKey,
    },
    /// Give a request up. What still comes of it is not wanted.
    Cancel {
        /// Name of the request.
        request: RequestId,
    },
    /// Rebuild these pieces; in every stripe they touch, enough other cells are good.
    Rebuild {
        /// Pieces of data shards.
        pieces: Vec<PieceId>,
    },
    /// Hash a good piece once more: what was rebuilt from it is wrong. It counts as good again when that is reported.
    Recheck {
        /// The piece.
        piece: PieceId,
    },
    /// Forget a parity piece: nothing is rebuilt from it any more, and it counts as missing.
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
