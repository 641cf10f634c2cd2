//! The status of a node: [`crate::Node::status`], and `loader status` through a socket; what it counts, and the swarm that
//! its page shows.

mod board;
pub mod grid;
mod load;
mod numbers;
mod rates;
mod socket;
mod swarm;

use serde::{Deserialize, Serialize};

pub(crate) use board::{Board, note_rates};
pub use board::{Pieces, Readiness};
pub use grid::Change;
pub use numbers::{Arrival, CachedModel, Counts, LastLoad, Numbers, Scarcity};
pub(crate) use socket::Socket;
pub use socket::{QueryError, Running, running};
pub use swarm::{LoadView, ModelView, PastLoad, Reused, SourceState, SourceView, Steps, Swarm};

/// A snapshot of a node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// Its process.
    pub pid: u32,
    /// The version of this library.
    pub version: String,
    /// Its peer id.
    pub peer_id: String,
    /// For how long it has been running.
    pub uptime_s: u64,
    /// Its listen addresses.
    pub listen: Vec<String>,
    /// The manifests of the models that it serves.
    pub models: Vec<String>,
    /// Bytes of blobs sent to peers so far.
    pub uploaded_bytes: u64,
    /// Bytes of pieces that came from peers so far.
    #[serde(default)]
    pub received_bytes: u64,
    /// Bytes of blobs sent a second, over the last seconds.
    #[serde(default)]
    pub sent_bytes_per_s: u64,
    /// Bytes of pieces that came a second, over the last seconds.
    #[serde(default)]
    pub received_bytes_per_s: u64,
    /// Connected peers that are sources of a load.
    #[serde(default)]
    pub peers_sources: usize,
    /// Other connected peers.
    #[serde(default)]
    pub peers_others: usize,
    /// What is being loaded.
    pub loading: Vec<Loading>,
    /// The state of the chain reader; `None` without a contract.
    #[cfg(feature = "chain")]
    pub chain: Option<chain_reader::ChainStatus>,
    /// Those of further contracts.
    #[cfg(feature = "chain")]
    #[serde(default)]
    pub more_chains: Vec<chain_reader::ChainStatus>,
}

/// A model that is being loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loading {
    /// Its manifest.
    pub manifest: String,
    /// How long its weights are, once the manifest is known.
    pub total_size_bytes: Option<u64>,
    /// How much of them is here.
    pub done_bytes: u64,
    /// How many sources are connected.
    pub sources: usize,
}
