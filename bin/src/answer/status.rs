//! What a node holds and does, in words.

use std::fmt::Write as _;
use std::time::Duration;

use chain_reader::{ChainStatus, Disagreement};
use node::Status;
use node::status::Loading;

use crate::units::{show_duration, show_size};

/// For people: a line for each thing the node has or does.
pub(super) fn plain(status: &Status) -> String {
    let Status { pid, version, peer_id, uptime_s, listen, models, uploaded_bytes, loading, .. } = status;
    let uptime = show_duration(Duration::from_secs(*uptime_s));
    let mut text = format!("process {pid}, loader {version}, up {uptime}\n  peer id    {peer_id}");
    // Writing to a string cannot fail.
    for address in listen {
        let _ = write!(text, "\n  listens    {address}");
    }
    let _ = write!(text, "\n  has sent   {}", show_size(*uploaded_bytes));
    for model in models {
        let _ = write!(text, "\n  serves     {model}");
    }
    for Loading { manifest, total_size_bytes, done_bytes, sources } in loading {
        let of = total_size_bytes.map_or("the manifest is not here yet".to_owned(), |total_bytes| {
            format!("{} of {}", show_size(*done_bytes), show_size(total_bytes))
        });
        let _ = write!(text, "\n  loads      {manifest}: {of}, {sources} peers");
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
