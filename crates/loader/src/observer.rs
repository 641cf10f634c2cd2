//! The events of a fetch, and the report at its end.

use std::sync::Arc;
use std::time::Duration;

use manifest::{Digest, Manifest, SourceId};
use store::{LockHolders, Offer};

/// An event of a fetch.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The manifest is known and valid.
    Manifest {
        /// Its digest.
        digest: Digest,
        /// What it says.
        manifest: &'a Manifest,
    },
    /// Only some files are wanted.
    Wanted {
        /// Bytes of the pieces that hold them.
        bytes: u64,
    },
    /// The model is being filled: what of it is verified can be served from now on.
    Filling {
        /// What can be read of it.
        offer: &'a Arc<Offer>,
    },
    /// Waiting for another process, or another load of this one, that fills the same model. Sent at once, on change, and
    /// every few seconds.
    Waiting {
        /// Who holds the fill lock.
        holders: &'a LockHolders,
    },
    /// An earlier run recorded so many bytes: they are hashed while the rest is fetched.
    Claimed {
        /// How many, data and parity.
        bytes: u64,
    },
    /// Bytes that an earlier run has left were hashed, and are right.
    Resumed {
        /// How many, data and parity.
        bytes: u64,
    },
    /// Bytes were taken from another model in the cache.
    Reused {
        /// How many.
        bytes: u64,
    },
    /// A source has connected.
    SourceUp {
        /// Which.
        source: &'a SourceId,
    },
    /// A source has disconnected.
    SourceDown {
        /// Which.
        source: &'a SourceId,
        /// Why.
        reason: &'a str,
    },
    /// No connected source can be asked for anything that is missing, or one can again.
    Starved {
        /// Whether none can.
        is_starved: bool,
    },
    /// A piece arrived and is written in place.
    PieceFetched {
        /// Its shard.
        shard: u32,
        /// Which of the shard; none for pieces that were proven together with their whole shard.
        piece: Option<u32>,
        /// Its size.
        bytes: u64,
        /// Who sent it.
        source: &'a SourceId,
    },
    /// A piece of a data shard was rebuilt from other shards.
    PieceRebuilt {
        /// Its shard.
        shard: u32,
        /// Which of the shard.
        piece: u32,
        /// Its size.
        bytes: u64,
    },
    /// Bytes arrived that were there already, or that nothing proves any more, and were dropped.
    Duplicate {
        /// Who sent them.
        source: &'a SourceId,
        /// How many.
        bytes: u64,
    },
    /// A source is not asked for anything any more: it lied.
    Banned {
        /// Which.
        source: &'a SourceId,
    },
    /// How much of the model's rarest column somebody has. Sent when it changes.
    Supply {
        /// How many of its shards' parts are here, or with a connected source.
        rarest: u32,
        /// How many are needed.
        needed: u32,
    },
    /// Time that threads have spent since this was last sent; about twice a second, and at the end.
    Worked {
        /// Hashing, and writing.
        verifying: Duration,
        /// Rebuilding, and hashing what was rebuilt.
        rebuilding: Duration,
    },
    /// Bytes that do not match their digest arrived, and were dropped.
    WrongBytes {
        /// The shard, or none for the manifest and the piece index.
        shard: Option<u32>,
        /// Who sent them.
        source: &'a SourceId,
        /// How many.
        bytes: u64,
    },
    /// A shard that was checked as a whole is wrong: its bytes are fetched again.
    ShardWrong {
        /// Which.
        shard: u32,
    },
    /// All weights are there; the file is being made durable.
    Finishing,
}

/// Receives events; called on the tasks of the fetch, so it must be quick.
pub trait Observer: Send + Sync {
    /// Called for each event.
    fn on_event(&self, event: &Event<'_>);
}

/// Ignores everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {
    fn on_event(&self, _: &Event<'_>) {}
}

/// What one source contributed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SourceReport {
    /// Its name: a peer id, or the address of one that was never reached.
    pub source: SourceId,
    /// Bytes of pieces that were right.
    pub good_bytes: u64,
    /// Bytes that were wrong.
    pub bad_bytes: u64,
    /// Bytes that were there already when they came.
    pub duplicate_bytes: u64,
    /// It lied or broke the protocol, and was not asked again.
    pub banned: bool,
    /// The last thing that went wrong with it.
    pub last_error: Option<String>,
}

/// What a fetch did.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Report {
    /// The model was there already: no source was asked.
    pub from_cache: bool,
    /// Bytes of data and parity that came from sources and were right.
    pub fetched_bytes: u64,
    /// Bytes that an earlier run, or another process, had left.
    pub resumed_bytes: u64,
    /// Bytes that another model in the cache had as well: at the same offsets, or as an equal shard.
    pub reused_bytes: u64,
    /// The models that these were taken from, and how many from each.
    pub reused_from: Vec<(Digest, u64)>,
    /// Bytes rebuilt from parity or replicas.
    pub rebuilt_bytes: u64,
    /// Bytes that came and were wrong, or there already.
    pub wasted_bytes: u64,
    /// What each source contributed.
    pub sources: Vec<SourceReport>,
    /// How long it took.
    pub elapsed: Duration,
}

impl Report {
    /// Of a model that was in the cache already.
    pub fn of_cached() -> Self {
        Self { from_cache: true, ..Self::default() }
    }
}
