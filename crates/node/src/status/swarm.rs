//! The swarm as a person wants to see it: what the page of a node shows.

use serde::Serialize;

use super::numbers::Scarcity;

/// A snapshot: [`crate::Node::swarm`].
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Swarm {
    /// The version of this library.
    pub version: &'static str,
    /// Its peer id.
    pub peer_id: String,
    /// For how long it has been running.
    pub uptime_s: u64,
    /// The time by its clock, in seconds since 1970.
    pub now: u64,
    /// Bytes of blobs sent so far.
    pub sent_bytes: u64,
    /// Requests of peers that wait.
    pub queued_requests: usize,
    /// Connected peers that are no sources.
    pub other_peers: usize,
    /// Manifests of the models that it serves; a hundred at most.
    pub models: Vec<String>,
    /// The loads in progress, or else the last one; the first is the newest.
    pub loads: Vec<LoadView>,
    /// The last loads that have ended, newest first.
    pub past: Vec<PastLoad>,
    /// The states of the chain readers, one for each contract.
    #[cfg(feature = "chain")]
    pub chains: Vec<chain_reader::ChainStatus>,
}

/// A load. Times are in seconds since 1970.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct LoadView {
    /// Which of the node's loads, from 1 on.
    pub number: u64,
    /// The manifest.
    pub manifest: String,
    /// Size of what is wanted, once the manifest is known.
    pub total_size_bytes: Option<u64>,
    /// How much of it is here.
    pub done_bytes: u64,
    /// Came from sources, parity too.
    pub fetched_bytes: u64,
    /// Was rebuilt.
    pub rebuilt_bytes: u64,
    /// Was taken from other models in the cache.
    pub reused_bytes: u64,
    /// An earlier run has left it.
    pub resumed_bytes: u64,
    /// Came, and was wrong.
    pub wrong_bytes: u64,
    /// Nobody can be asked for anything that is missing.
    pub is_starved: bool,
    /// Another process fills the same model.
    pub waits_for_another: bool,
    /// What the manifest says.
    pub model: Option<ModelView>,
    /// What was done when.
    pub steps: Steps,
    /// What somebody has of the rarest column.
    pub scarcity: Option<Scarcity>,
    /// Those that give, and gave.
    pub sources: Vec<SourceView>,
    /// What came from which model in the cache; told when it has ended.
    pub reused_from: Vec<Reused>,
    /// Why there is no model.
    pub error: Option<String>,
}

/// What a manifest says.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct ModelView {
    /// What kind of model.
    pub kind: String,
    /// Size of the weights.
    pub size_bytes: u64,
    /// Rows.
    pub data: u32,
    /// Parity shards.
    pub parity: u32,
    /// Data shards: those after them are parity.
    pub data_shards: u32,
    /// How parity is computed.
    pub codec: &'static str,
    /// Bytes of a piece; `None` without a piece index.
    pub piece_size_bytes: Option<u32>,
    /// Files that the manifest names.
    pub files: usize,
}

/// What was done when, in seconds since 1970.
#[derive(Debug, Clone, Default, Serialize)]
#[non_exhaustive]
pub struct Steps {
    /// The load began.
    pub began_at: Option<u64>,
    /// The manifest had its digest.
    pub manifest_at: Option<u64>,
    /// The first piece could be written.
    pub filling_at: Option<u64>,
    /// The newest piece was verified.
    pub last_piece_at: Option<u64>,
    /// All pieces were there.
    pub complete_at: Option<u64>,
    /// The weights were mapped.
    pub mapped_at: Option<u64>,
}

/// What a source is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceState {
    /// It is connected.
    Connected,
    /// It is not, or never was.
    Gone,
    /// It lied.
    Banned,
}

/// One source of a load.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct SourceView {
    /// Its peer id, or its address when it was never reached.
    pub name: String,
    /// What its pieces are in the grid.
    pub cell: u8,
    /// Its state.
    pub state: SourceState,
    /// What it was last connected by.
    pub transport: Option<&'static str>,
    /// The shortest time to an answer.
    pub round_trip_ms: Option<f64>,
    /// All that has come from it on this connection: a rate is the difference of two.
    pub received_bytes: Option<u64>,
    /// Bytes of it that are right.
    pub good_bytes: u64,
    /// Bytes of it that were wrong.
    pub wrong_bytes: u64,
    /// Bytes of it that were there already.
    pub duplicate_bytes: u64,
    /// Pieces of it.
    pub pieces: u64,
    /// Why it is gone.
    pub reason: Option<String>,
}

/// What was taken from a model in the cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reused {
    /// The model.
    pub manifest: String,
    /// How much.
    pub bytes: u64,
}

/// A load that has ended.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct PastLoad {
    /// The manifest.
    pub manifest: String,
    /// When it ended, in seconds since 1970.
    pub ended_at: u64,
    /// How long it took.
    pub took_ms: u64,
    /// Came from sources.
    pub fetched_bytes: u64,
    /// Was rebuilt.
    pub rebuilt_bytes: u64,
    /// An earlier run had left it.
    pub resumed_bytes: u64,
    /// What was taken from which model in the cache.
    pub reused_from: Vec<Reused>,
    /// Why there is no model.
    pub error: Option<String>,
}
