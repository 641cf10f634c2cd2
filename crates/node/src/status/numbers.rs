//! What a node has counted since it started.

use std::time::Duration;

use p2p_blob::{Traffic, Transport};

/// What came of bytes that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// They are right.
    Good,
    /// They are not what their digest says.
    Wrong,
    /// They were there already.
    Duplicate,
}

impl Arrival {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Good, Self::Wrong, Self::Duplicate];

    /// Its name in numbers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Wrong => "wrong",
            Self::Duplicate => "duplicate",
        }
    }
}

/// What was counted of all loads of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Counts {
    received_bytes: [[u64; 3]; 2],
    /// Pieces that came, and are right.
    pub pieces_fetched: u64,
    /// Pieces that were rebuilt.
    pub pieces_rebuilt: u64,
    /// Pieces that another model in the cache had.
    pub pieces_reused: u64,
    /// Pieces that an earlier run has left, and that are right.
    pub pieces_resumed: u64,
    /// Pieces that came, and were wrong; a manifest or a piece index counts as one.
    pub pieces_wrong: u64,
    /// Bytes that were rebuilt.
    pub rebuilt_bytes: u64,
    /// Bytes that another model in the cache had.
    pub reused_bytes: u64,
    /// Bytes that an earlier run has left.
    pub resumed_bytes: u64,
    /// What threads spent on hashing, and writing.
    pub verifying: Duration,
    /// What they spent on rebuilding.
    pub rebuilding: Duration,
    /// Sources that were banned.
    pub bans: u64,
    /// Loads that gave a model.
    pub loads_done: u64,
    /// Loads that did not.
    pub loads_failed: u64,
}

impl Counts {
    /// Bytes of pieces that arrived over this transport.
    pub fn received_bytes(&self, transport: Transport, arrival: Arrival) -> u64 {
        self.received_bytes[transport as usize][arrival as usize]
    }

    /// Bytes of pieces that arrived, whatever came of them.
    pub(super) fn all_received_bytes(&self) -> u64 {
        self.received_bytes.iter().flatten().sum()
    }

    pub(super) fn received(&mut self, transport: Transport, arrival: Arrival, bytes: u64) {
        self.received_bytes[transport as usize][arrival as usize] += bytes;
    }
}

/// A model in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CachedModel {
    /// Its manifest.
    pub manifest: String,
    /// What it takes of the disk.
    pub disk_bytes: u64,
    /// Whether all of it is there.
    pub is_finished: bool,
}

/// The last load that gave a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LastLoad {
    /// When it was done, in seconds since 1970.
    pub ended_at: u64,
    /// How long it took.
    pub took: Duration,
}

/// How much of the rarest column of the model that is being loaded somebody has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Scarcity {
    /// How many of its shards' parts are here, or with a connected source.
    pub rarest: u32,
    /// How many are needed.
    pub needed: u32,
}

/// Everything that is counted: [`crate::Node::numbers`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Numbers {
    /// Of all loads.
    pub counts: Counts,
    /// Of serving.
    pub traffic: Traffic,
    /// Connected peers that are sources of a load.
    pub peers_sources: usize,
    /// Other connected peers.
    pub peers_others: usize,
    /// Sources of the loads in progress, and of the last one, that are banned.
    pub peers_banned: usize,
    /// Models in the cache; up to some seconds old.
    pub cached: Vec<CachedModel>,
    /// What is free on the cache's disk.
    pub disk_free_bytes: Option<u64>,
    /// The last load.
    pub last_load: Option<LastLoad>,
    /// The scarcest of what is being loaded; of the last load when nothing is.
    pub scarcity: Option<Scarcity>,
    /// Whether the node is ready: [`crate::Node::readiness`].
    pub is_ready: bool,
    /// The states of the chain readers, one for each contract.
    #[cfg(feature = "chain")]
    pub chains: Vec<chain_reader::ChainStatus>,
}
