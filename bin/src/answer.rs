//! What the commands answer: the objects of `docs/cli.md`, and the same as plain text.

mod checked;
mod status;

use std::fmt::{self, Display, Write as _};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chain_reader::{ChainMemory, Seen};
use serde::{Serialize, Serializer};

pub(crate) use self::checked::{Checked, Setting, State};
pub(crate) use self::status::{CacheState, Held, Keeper, StatusAnswer};
use crate::units::{show_duration, show_size};

/// One object on stdout.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub(crate) enum Answer {
    Fetched(Fetched),
    Listening(Listening),
    Published(Box<Published>),
    Verified(Verified),
    Manifest(ManifestSummary),
    Assembled(Assembled),
    CacheEntry(CacheEntry),
    Path(PathAnswer),
    Removed(Removed),
    Pinned(Pinned),
    Key(KeyAnswer),
    Id(Id),
    ChainRemembered(Box<ChainRemembered>),
    ChainForgotten(ChainForgotten),
    Status(Box<StatusAnswer>),
    Setting(Setting),
    Checked(Checked),
    Error(Failure),
}

/// A model is in the cache.
#[derive(Debug, Serialize)]
pub(crate) struct Fetched {
    pub(crate) manifest: Text,
    pub(crate) path: PathBuf,
    pub(crate) weights: Option<PathBuf>,
    pub(crate) executable: Vec<String>,
    pub(crate) complete: bool,
    pub(crate) total_size_bytes: u64,
    pub(crate) from_cache: bool,
    pub(crate) fetched_bytes: u64,
    pub(crate) resumed_bytes: u64,
    pub(crate) reused_bytes: u64,
    pub(crate) reused_from: Vec<ReusedFrom>,
    pub(crate) rebuilt_bytes: u64,
    pub(crate) wasted_bytes: u64,
    pub(crate) elapsed_ms: u64,
    pub(crate) sources: Vec<FetchSource>,
    pub(crate) chain: Option<OnChain>,
    /// Which contract it is of, where several are followed.
    #[serde(skip)]
    pub(crate) of: Option<String>,
}

/// What was taken from one model in the cache.
#[derive(Debug, Serialize)]
pub(crate) struct ReusedFrom {
    pub(crate) manifest: Text,
    pub(crate) bytes: u64,
}

/// What one source contributed.
#[derive(Debug, Serialize)]
pub(crate) struct FetchSource {
    pub(crate) source: Text,
    pub(crate) good_bytes: u64,
    pub(crate) bad_bytes: u64,
    pub(crate) duplicate_bytes: u64,
    pub(crate) banned: bool,
    pub(crate) last_error: Option<String>,
}

/// Where a digest was read.
#[derive(Debug, Serialize)]
pub(crate) struct OnChain {
    pub(crate) contract: Text,
    pub(crate) chain_id: u64,
    pub(crate) block_number: u64,
    pub(crate) block_hash: Text,
    pub(crate) block_timestamp: u64,
    pub(crate) price: Text,
}

/// An address that others can connect to.
#[derive(Debug, Serialize)]
pub(crate) struct Listening {
    pub(crate) address: Text,
}

/// A model was encoded into the cache, and perhaps set on chain.
#[derive(Debug, Serialize)]
pub(crate) struct Published {
    pub(crate) manifest: Text,
    pub(crate) path: PathBuf,
    pub(crate) weights: Option<PathBuf>,
    pub(crate) total_size_bytes: u64,
    pub(crate) shards: usize,
    pub(crate) warnings: Vec<String>,
    pub(crate) base: Option<Overlap>,
    #[serde(flatten)]
    pub(crate) on_chain: SetOnChain,
}

/// What has become of a model's digest, as far as there is such.
#[derive(Debug, Default, Serialize)]
pub(crate) struct SetOnChain {
    pub(crate) calldata: Option<String>,
    pub(crate) proposal: Option<ProposalSummary>,
    pub(crate) call: Option<CallSummary>,
    pub(crate) transaction: Option<Transaction>,
    pub(crate) already_set: Option<AlreadySet>,
}

/// The arguments of a Governor's `propose`, and the input of that call.
#[derive(Debug, Serialize)]
pub(crate) struct ProposalSummary {
    pub(crate) targets: [Text; 1],
    pub(crate) values: [Text; 1],
    pub(crate) calldatas: [String; 1],
    pub(crate) description: String,
    pub(crate) propose: String,
}

/// The contract had named the model before: nothing was sent.
#[derive(Debug, Serialize)]
pub(crate) struct AlreadySet {
    pub(crate) contract: Text,
    pub(crate) chain_id: u64,
    pub(crate) block_number: u64,
}

/// What a node would do that has another model already.
#[derive(Debug, Serialize)]
pub(crate) struct Overlap {
    pub(crate) manifest: Text,
    pub(crate) reused_bytes: u64,
    pub(crate) fetched_bytes: u64,
    pub(crate) index_bytes: u64,
}

/// A transaction that is in a block.
#[derive(Debug, Serialize)]
pub(crate) struct Transaction {
    pub(crate) contract: Text,
    pub(crate) hash: Text,
    pub(crate) block_number: u64,
    pub(crate) gas_used: Option<u64>,
    pub(crate) confirmations: u64,
    pub(crate) reorganisations: u32,
}

/// A call as it is, or would be, signed.
#[derive(Debug, Serialize)]
pub(crate) struct CallSummary {
    pub(crate) contract: Text,
    pub(crate) chain_id: u64,
    pub(crate) sender: Text,
    pub(crate) calldata: String,
    pub(crate) nonce: u64,
    pub(crate) gas_limit: u64,
    pub(crate) max_fee_per_gas_wei: Text,
    pub(crate) max_cost_wei: Text,
    pub(crate) balance_wei: Text,
}

/// A key, without its secret.
#[derive(Debug, Serialize)]
pub(crate) struct KeyAnswer {
    pub(crate) address: Text,
    pub(crate) path: PathBuf,
}

/// A model was hashed again.
#[derive(Debug, Serialize)]
pub(crate) struct Verified {
    pub(crate) manifest: Text,
    pub(crate) good: bool,
    pub(crate) checked_bytes: u64,
    pub(crate) checked_shards: usize,
    pub(crate) bad: Vec<BadShard>,
    pub(crate) index: &'static str,
    /// Why it could not be hashed.
    pub(crate) error: Option<String>,
    #[serde(skip)]
    pub(crate) summary: String,
}

/// A shard that does not have its digest.
#[derive(Debug, Serialize)]
pub(crate) struct BadShard {
    pub(crate) shard: u32,
    pub(crate) is_parity: bool,
    pub(crate) pieces: Vec<u32>,
}

/// What a manifest says.
#[derive(Debug, Serialize)]
pub(crate) struct ManifestSummary {
    pub(crate) manifest: Text,
    pub(crate) model_kind: String,
    pub(crate) total_size_bytes: u64,
    pub(crate) layout: &'static str,
    pub(crate) codec: Text,
    pub(crate) data: u32,
    pub(crate) parity: u32,
    pub(crate) row_size_bytes: u64,
    pub(crate) piece_size_bytes: Option<u32>,
    pub(crate) merkle_root: Text,
    pub(crate) shards: Vec<ShardSummary>,
    pub(crate) files: Vec<FileSummary>,
}

/// One file of a manifest.
#[derive(Debug, Serialize)]
pub(crate) struct FileSummary {
    pub(crate) path: String,
    pub(crate) size_bytes: u64,
    pub(crate) sha256: Text,
    pub(crate) is_proven: bool,
}

/// A manifest was made of shards that were there.
#[derive(Debug, Serialize)]
pub(crate) struct Assembled {
    pub(crate) manifest: Text,
    pub(crate) total_size_bytes: u64,
    pub(crate) shards: usize,
    pub(crate) files: usize,
    pub(crate) corrections: Vec<String>,
    pub(crate) warnings: Vec<String>,
}

/// One shard of a manifest.
#[derive(Debug, Serialize)]
pub(crate) struct ShardSummary {
    pub(crate) index: usize,
    pub(crate) digest: Text,
    pub(crate) size_bytes: u64,
    pub(crate) is_parity: bool,
}

/// A model in the cache.
#[derive(Debug, Serialize)]
pub(crate) struct CacheEntry {
    pub(crate) manifest: Text,
    pub(crate) model_kind: Option<String>,
    pub(crate) total_size_bytes: Option<u64>,
    pub(crate) finished: bool,
    pub(crate) verified_bytes: Option<u64>,
    pub(crate) disk_bytes: u64,
    pub(crate) path: PathBuf,
    pub(crate) files: Option<usize>,
    pub(crate) name: Option<String>,
    pub(crate) changed_at: Option<u64>,
    pub(crate) contracts: Vec<String>,
    pub(crate) used_at: Option<u64>,
    pub(crate) pinned: bool,
}

/// Where something is.
#[derive(Debug, Serialize)]
pub(crate) struct PathAnswer {
    pub(crate) path: PathBuf,
}

/// Who a node is.
#[derive(Debug, Serialize)]
pub(crate) struct Id {
    pub(crate) peer_id: Text,
}

/// A model is gone from the cache.
#[derive(Debug, Serialize)]
pub(crate) struct Removed {
    pub(crate) manifest: Text,
    pub(crate) freed_bytes: u64,
    pub(crate) dry_run: bool,
}

/// Whether a model is pinned now.
#[derive(Debug, Serialize)]
pub(crate) struct Pinned {
    pub(crate) manifest: Text,
    pub(crate) pinned: bool,
}

/// What is remembered of a chain, a contract and a block tag.
#[derive(Debug, Serialize)]
pub(crate) struct ChainRemembered {
    pub(crate) contract: Text,
    pub(crate) chain_id: u64,
    pub(crate) genesis: Option<Text>,
    pub(crate) block_tag: Text,
    #[serde(flatten)]
    pub(crate) memory: ChainMemory,
    pub(crate) corrupt: Option<String>,
}

/// That is forgotten.
#[derive(Debug, Serialize)]
pub(crate) struct ChainForgotten {
    pub(crate) contract: Text,
    pub(crate) chain_id: u64,
    pub(crate) genesis: Option<Text>,
    pub(crate) block_tag: Text,
}

/// The command failed.
#[derive(Debug, Serialize)]
pub(crate) struct Failure {
    pub(crate) status: u8,
    pub(crate) message: String,
    pub(crate) causes: Vec<String>,
}

/// What is written without `--json`.
#[derive(Debug)]
pub(crate) enum Plain {
    /// For people, in lines.
    Text(String),
    /// A path, to the byte.
    Path(PathBuf),
}

/// Something in its text form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Text(String);

impl Text {
    pub(crate) fn of(value: impl Display) -> Self {
        Self(value.to_string())
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Answer {
    /// What is written without `--json`: one line, but for a manifest and a call; nothing for an error.
    pub(crate) fn plain(&self) -> Option<Plain> {
        Some(Plain::Text(match self {
            Self::Fetched(Fetched { of: Some(contract), path, .. }) => {
                format!("{contract}  {}", path.display())
            }
            Self::Fetched(Fetched { path, .. }) | Self::Path(PathAnswer { path }) => {
                return Some(Plain::Path(path.clone()));
            }
            Self::Listening(listening) => listening.address.to_string(),
            Self::Published(published) => published.plain(),
            Self::Verified(verified) => format!("{}  {}", verified.manifest, verified.summary),
            Self::Manifest(summary) => summary.plain(),
            Self::Assembled(assembled) => assembled.manifest.to_string(),
            Self::CacheEntry(entry) => entry.plain(),
            Self::Key(key) => key.address.to_string(),
            Self::Id(answer) => answer.peer_id.to_string(),
            Self::Removed(removed) => {
                let what = if removed.dry_run { "would go" } else { "removed" };
                format!("{}  {what}, {} freed", removed.manifest, show_size(removed.freed_bytes))
            }
            Self::Pinned(Pinned { manifest, pinned }) => {
                format!("{manifest}  {}", if *pinned { "pinned" } else { "not pinned" })
            }
            Self::Status(status) => status.plain(),
            Self::ChainRemembered(remembered) => remembered.plain(),
            Self::ChainForgotten(ChainForgotten { contract, chain_id, block_tag, .. }) => {
                format!("{contract}  chain {chain_id}  {block_tag}  forgotten")
            }
            Self::Setting(setting) => setting.plain(),
            Self::Checked(checked) => checked.plain(),
            Self::Error(_) => return None,
        }))
    }
}

impl Published {
    fn plain(&self) -> String {
        let Self { manifest, on_chain, .. } = self;
        match (&on_chain.proposal, &on_chain.calldata) {
            (Some(proposal), _) => format!("{manifest}\n{}", proposal.plain()),
            (None, Some(calldata)) => format!("{manifest}\n{calldata}"),
            (None, None) => manifest.to_string(),
        }
    }
}

impl ProposalSummary {
    /// Each argument as forms and scripts take it: in JSON.
    fn plain(&self) -> String {
        let Self { targets: [target], values: [value], calldatas: [calldata], description, propose } = self;
        format!(
            "targets      [\"{target}\"]\n\
             values       [{value}]\n\
             calldatas    [\"{calldata}\"]\n\
             description  \"{description}\"\n\
             propose      {propose}"
        )
    }
}

impl ManifestSummary {
    fn plain(&self) -> String {
        let Self { manifest, model_kind, codec, data, parity, layout, merkle_root, .. } = self;
        let pieces = self.piece_size_bytes.map_or("none".to_owned(), |size| show_size(u64::from(size)));
        let mut text = format!(
            "manifest     {manifest}\n\
             model kind   {}\n\
             weights      {} ({} bytes)\n\
             layout       {layout}\n\
             erasure      {codec}, {data} data + {parity} parity, rows of {} bytes\n\
             pieces       {pieces}\n\
             merkle root  {merkle_root}\n\
             shards       {}",
            model_kind.escape_debug(),
            show_size(self.total_size_bytes),
            self.total_size_bytes,
            self.row_size_bytes,
            self.shards.len(),
        );
        for ShardSummary { index, digest, size_bytes, is_parity } in &self.shards {
            let role = if *is_parity { "parity" } else { "data" };
            // Writing to a string cannot fail.
            let _ = write!(text, "\n{index:>7}  {role:<6}  {digest}  {size_bytes}");
        }
        if !self.files.is_empty() {
            let _ = write!(text, "\nfiles        {}", self.files.len());
        }
        for FileSummary { path, size_bytes, sha256, is_proven } in &self.files {
            let word = if *is_proven { "proven" } else { "stated" };
            let _ = write!(text, "\n         {word}  {sha256}  {size_bytes}  {path}");
        }
        text
    }
}

impl ChainRemembered {
    fn plain(&self) -> String {
        let Self { contract, chain_id, block_tag, .. } = self;
        let state = match (&self.corrupt, &self.memory) {
            (Some(reason), _) => reason.clone(),
            (None, ChainMemory { alarm: Some(alarm), .. }) => format!(
                "alarm: final block {} was {}, then {}",
                alarm.before.number, alarm.before.hash, alarm.now
            ),
            (None, ChainMemory { floor, last_good, loaded, .. }) => {
                let floor = floor.map_or("none".to_owned(), |block| block.number.to_string());
                let model =
                    |seen: &Option<Seen>| seen.map_or("none".to_owned(), |seen| seen.manifest.to_string());
                format!("floor {floor}  named {}  loaded {}", model(last_good), model(loaded))
            }
        };
        format!("{contract}  chain {chain_id}  {block_tag}  {state}")
    }
}

impl CacheEntry {
    fn plain(&self) -> String {
        let size = self.total_size_bytes.map_or("unknown".to_owned(), show_size);
        let kind = self.model_kind.as_deref().unwrap_or("unknown").escape_debug().to_string();
        let state = match self.verified_bytes {
            Some(verified) => format!("partial, {} verified", show_size(verified)),
            None => "finished".to_owned(),
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        let age = self.changed_at.map(|at| Duration::from_secs(now.saturating_sub(at)));
        let age = age.map_or("unknown".to_owned(), |age| format!("{} old", show_duration(age)));
        let files = match (&self.name, self.files) {
            (Some(name), _) => name.clone(),
            (None, Some(1)) => "1 file".to_owned(),
            (None, files) => files.map_or("unknown".to_owned(), |files| format!("{files} files")),
        };
        let mut line = format!("{}  {kind:<12}  {size:>8}  {state}  {age}  {files}", self.manifest);
        for contract in &self.contracts {
            line += "  ";
            line += contract;
        }
        line
    }
}
