//! Which model the contract names: where it is read, and how much is believed of what endpoints say.

use std::time::Duration;

use chain_reader::{Address, BlockTag, RpcUrl, U256};
use clap::{Args, Subcommand};

use super::choices;
use crate::config::secret::{RPC_HEADER, RPC_URL, TRUSTED_RPC};
use crate::units::{parse_duration, parse_size};

/// How a model is found that the contract names.
#[derive(Debug, Args, Clone)]
pub(crate) struct Named {
    #[command(flatten)]
    pub(crate) legacy: Legacy,
    #[command(flatten)]
    pub(crate) chain: Chain,
    #[command(flatten)]
    pub(crate) reading: Reading,
}

/// Digests of weights themselves, as contracts named them before there were manifests.
#[derive(Debug, Args, Clone)]
pub(crate) struct Legacy {
    /// Take a digest that is not that of a manifest for that of the weights, one blob: they are loaded as one shard, so
    /// nothing can be rebuilt, and all of them is hashed before any of it is used.
    #[arg(long, env = "LOADER_SINGLE_BLOB", hide_env_values = true)]
    pub(crate) single_blob: bool,
    /// The most that a single blob may have: how large it is, only peers say [default: 64GiB].
    #[arg(long, value_name = "SIZE", value_parser = parse_size, env = "LOADER_MAX_SIZE", hide_env_values = true)]
    pub(crate) max_size: Option<u64>,
}

/// Where the chain is read.
#[derive(Debug, Args, Clone)]
#[command(next_help_heading = "Chain")]
pub(crate) struct Chain {
    /// The RPB contract: 0x and 40 hexadecimal characters.
    #[arg(long, value_name = "ADDRESS", env = "LOADER_CONTRACT", hide_env_values = true)]
    pub(crate) contract: Option<Address>,
    /// HTTP endpoint of an EVM node. Repeat it, each time with another provider: what most of them say of the same block
    /// counts. It may hold a key: only its host and port are ever shown.
    #[arg(long, value_name = "URL", env = RPC_URL, hide_env_values = true, value_delimiter = ',')]
    pub(crate) rpc_url: Vec<RpcUrl>,
    /// An HTTP header for an endpoint, also for that of --trusted-rpc or --ws-url: "HOST NAME: VALUE", HOST as messages show
    /// it (with its port, if the URL has one), such as "rpc.example.org Authorization: Bearer …". May be repeated. Never shown.
    #[arg(long, value_name = "HEADER", value_delimiter = '\n')]
    #[arg(env = RPC_HEADER, hide_env_values = true)]
    pub(crate) rpc_header: Vec<String>,
    /// How settled a block must be [default: finalized].
    #[arg(long, value_name = "TAG", value_parser = choices::block_tag(), env = "LOADER_BLOCK_TAG", hide_env_values = true)]
    pub(crate) block_tag: Option<BlockTag>,
    /// Refuse an endpoint that is on another chain than this one.
    #[arg(long, value_name = "ID", env = "LOADER_CHAIN_ID", hide_env_values = true)]
    pub(crate) chain_id: Option<u64>,
}

/// How the chain is read.
#[derive(Debug, Args, Clone)]
#[command(next_help_heading = "Chain")]
pub(crate) struct Reading {
    /// How many endpoints must say the same [default: more than half of them].
    #[arg(long, value_name = "K", env = "LOADER_QUORUM", hide_env_values = true)]
    pub(crate) quorum: Option<usize>,
    /// An endpoint with a veto: nothing counts that it does not say, too. It is asked like the others.
    #[arg(long, value_name = "URL", env = TRUSTED_RPC, hide_env_values = true)]
    pub(crate) trusted_rpc: Option<RpcUrl>,
    /// Check what the endpoints say against a proof of the contract's storage (eth_getProof) in the agreed block. A proof
    /// of something else is an alarm; that no endpoint can show one, having pruned that state, is only told.
    #[arg(long)]
    pub(crate) verify_proof: bool,
    /// The storage slot of the string, for --verify-proof: decimal or 0x…, as `solc --storage-layout` tells it.
    #[arg(long, value_name = "SLOT", env = "LOADER_STRING_SLOT", hide_env_values = true)]
    pub(crate) string_slot: Option<U256>,
    /// How old the newest block may be, by this machine's clock, such as 30m: an older one shows that the chain stands
    /// still, or that the endpoints do not follow it [default: 6h; any age on chain id 31337].
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, env = "LOADER_MAX_BLOCK_AGE", hide_env_values = true)]
    pub(crate) max_block_age: Option<Duration>,
    /// When the chain cannot be read, use the model that was last loaded, if the newest block that is known to name it is
    /// no older than this, such as 12h.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, env = "LOADER_ALLOW_STALE", hide_env_values = true)]
    pub(crate) allow_stale: Option<Duration>,
    /// Do not ask the chain: use the model that was last loaded, however old.
    #[arg(long, conflicts_with = "allow_stale")]
    pub(crate) offline: bool,
}

/// Commands about what is remembered of the chain.
#[derive(Debug, Subcommand)]
pub(crate) enum ChainCommand {
    /// Print, for each chain, contract and block tag, the block below which none is read any more, the model that the
    /// contract last named, and the one that was last loaded.
    Show(Which),
    /// Forget it, so that a lower block, or another one at the same height, is read once more.
    ///
    /// Only when you know why the chain goes back: the endpoints are then trusted as on a first start.
    Forget(Which),
}

/// Some of what is remembered.
#[derive(Debug, Args)]
pub(crate) struct Which {
    /// Of this contract only [default for forget: the one in the settings].
    #[arg(long, value_name = "ADDRESS", env = "LOADER_CONTRACT", hide_env_values = true)]
    pub(crate) contract: Option<Address>,
    /// Of this chain only.
    #[arg(long, value_name = "ID")]
    pub(crate) chain_id: Option<u64>,
    /// Read at this block tag only.
    #[arg(long, value_name = "TAG", value_parser = choices::block_tag())]
    pub(crate) block_tag: Option<BlockTag>,
}
