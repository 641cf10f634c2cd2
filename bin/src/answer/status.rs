//! What a node holds and does, and what its cache holds.

use std::fmt::Write as _;
use std::time::Duration;

use chain_reader::{ChainStatus, Disagreement};
use node::Status;
use node::status::Loading;
use serde::Serialize;

use crate::units::{show_count, show_duration, show_rate, show_size};

/// A running node, and its cache.
#[derive(Debug, Serialize)]
pub(crate) struct StatusAnswer {
    #[serde(flatten)]
    pub(crate) node: Status,
    pub(crate) cache: CacheState,
}

/// What is in a cache.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct CacheState {
    pub(crate) disk_bytes: u64,
    pub(crate) free_bytes: Option<u64>,
    pub(crate) models: Vec<Held>,
}

/// A model in it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Held {
    pub(crate) manifest: String,
    pub(crate) disk_bytes: u64,
    pub(crate) finished: bool,
    pub(crate) kept_by: Vec<Keeper>,
}

/// What keeps it from being removed to make room.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Keeper {
    /// `pin`, `link` or `contract`.
    pub(crate) by: &'static str,
    /// The path of the link, the address of the contract.
    pub(crate) name: Option<String>,
}

impl StatusAnswer {
    /// For people: a line for each thing the node and its cache have or do.
    pub(super) fn plain(&self) -> String {
        plain_node(&self.node) + &self.cache.plain()
    }
}

impl CacheState {
    fn plain(&self) -> String {
        let Self { disk_bytes, free_bytes, models } = self;
        let free = free_bytes.map_or(String::new(), |bytes| format!(", {} are free", show_size(bytes)));
        let mut text = format!(
            "\n  cache      {} in {}{free}",
            show_size(*disk_bytes),
            show_count(models.len(), "model")
        );
        for Held { manifest, disk_bytes, finished, kept_by } in models {
            let part = if *finished { "" } else { " of it" };
            let keepers: Vec<_> = kept_by.iter().map(Keeper::plain).collect();
            let kept = if keepers.is_empty() {
                "kept by nothing".to_owned()
            } else {
                format!("kept by {}", keepers.join(", "))
            };
            // Writing to a string cannot fail.
            let _ = write!(text, "\n  holds      {manifest}: {}{part}, {kept}", show_size(*disk_bytes));
        }
        text
    }
}

impl Keeper {
    fn plain(&self) -> String {
        match &self.name {
            Some(name) => format!("{} {name}", self.by),
            None => format!("a {}", self.by),
        }
    }
}

fn plain_node(status: &Status) -> String {
    let Status { pid, version, peer_id, uptime_s, listen, models, loading, .. } = status;
    let uptime = show_duration(Duration::from_secs(*uptime_s));
    let mut text = format!("process {pid}, loader {version}, up {uptime}\n  peer id    {peer_id}");
    // Writing to a string cannot fail.
    for address in listen {
        let _ = write!(text, "\n  listens    {address}");
    }
    for (what, bytes, bytes_per_s) in [
        ("has sent", status.uploaded_bytes, status.sent_bytes_per_s),
        ("has got ", status.received_bytes, status.received_bytes_per_s),
    ] {
        let rate = show_rate(bytes_per_s, Duration::from_secs(1));
        let _ = write!(text, "\n  {what}   {}, lately {rate}", show_size(bytes));
    }
    let connected = status.peers_sources + status.peers_others;
    let _ =
        write!(text, "\n  peers      {connected} connected, {} give what is loaded", status.peers_sources);
    for model in models {
        let _ = write!(text, "\n  serves     {model}");
    }
    for Loading { manifest, total_size_bytes, done_bytes, sources } in loading {
        let of = total_size_bytes.map_or("the manifest is not here yet".to_owned(), |total_bytes| {
            format!("{} of {}", show_size(*done_bytes), show_size(total_bytes))
        });
        let _ = write!(text, "\n  loads      {manifest}: {of}, {}", show_count(*sources, "peer"));
    }
    for chain in status.chain.iter().chain(&status.more_chains) {
        text.push_str(&plain_chain(chain));
    }
    text
}

fn plain_chain(chain: &ChainStatus) -> String {
    let ChainStatus { contract, block_tag, quorum, endpoints, disagreements, memory, .. } = chain;
    let count = endpoints.len();
    let mut text =
        format!("\n  contract   {contract} at {block_tag}, {quorum} of {count} endpoints must agree");
    if let Some(block) = chain.block {
        let age = show_duration(Duration::from_secs(block.age_s));
        let _ = write!(text, "\n  block      {}, {age} old", block.number);
    }
    if let Some(named) = memory.last_good {
        let _ =
            write!(text, "\n  names      {} since block {} or before", named.manifest, named.block.number);
    }
    if let Some(trouble) = &chain.trouble {
        let _ = write!(text, "\n  trouble    {trouble}");
    }
    for endpoint in endpoints {
        let height = endpoint.height.map_or("no height".to_owned(), |height| format!("height {height}"));
        let _ = write!(
            text,
            "\n  endpoint   {}{}: {height}, {}; {} errors, {} disagreements",
            endpoint.endpoint,
            if endpoint.is_trusted { " (has a veto)" } else { "" },
            endpoint.last.as_deref().unwrap_or("not asked yet"),
            endpoint.errors,
            endpoint.disagreements,
        );
    }
    if *disagreements > 0 {
        let _ = write!(text, "\n  disagreed  {disagreements} times");
    }
    for Disagreement { at, said } in &chain.recent_disagreements {
        let _ = write!(text, "\n    at {at} (seconds since 1970): {}", said.join("; "));
    }
    text
}
