//! Reads the current model from the RPB contract, and sends the one transaction that changes it.
//!
//! [`ChainReader::mature_model`] reads `getMatureModel()` from several RPC endpoints, each pinned to the hash of its own
//! block, and believes what a quorum of them says of the same block. [`set_mature_model`] is the crate's only write, and
//! [`prepare`] all of it but sending. No endpoint is trusted for how it answers: sizes, times and encodings are bounded and checked.
//!
//! URLs of RPC endpoints often hold a key. Only the host and port of one are ever shown or logged.
#![forbid(unsafe_code)]

mod address;
mod answer;
mod ballot;
mod block;
mod config;
mod contract;
#[cfg(feature = "devnet")]
mod devnet;
mod endpoint;
mod error;
mod excerpt;
mod follow;
mod hints;
mod keystore;
mod model;
mod non_vote;
mod pin;
mod probe;
mod proof;
mod proposal;
mod reader;
mod receipt;
mod retry_after;
mod revert;
mod round;
mod rpc_url;
mod signer;
mod state;
mod status;
mod submit;
mod testimony;
mod transport;

pub use address::Address;
pub use alloy::primitives::{B256, U256};
pub use block::{BlockRef, BlockTag};
pub use config::{Config, Policy, Staleness};
pub use contract::set_mature_model_calldata;
#[cfg(feature = "devnet")]
pub use devnet::Devnet;
#[cfg(feature = "devnet")]
pub use error::DevnetError;
pub use error::{
    Availability, ChainError, EndpointError, NotFinal, ParseAddressError, ParseBlockTagError,
    ParseGasPriceError, ParseHeaderError, ParseRpcUrlError, ProofError, SignerError, StateError, SubmitError,
};
pub use excerpt::Excerpt;
pub use follow::{FollowEvent, Follower, Trouble};
pub use model::{BlockHash, MatureModel, Price};
pub use probe::{Probe, ProbedBlock, probe};
pub use proof::StringSlot;
pub use proposal::Proposal;
pub use reader::ChainReader;
pub use receipt::Receipt;
pub use rpc_url::{HintUrl, RpcUrl};
pub use signer::Signer;
pub use state::{ChainMemory, Replaced, Seen, StoredChain, stored_chains};
pub use status::{BlockStatus, ChainStatus, Disagreement, EndpointStatus, ProofStatus};
pub use submit::{
    AlreadySet, Call, Done, Fees, GasPrice, Plan, Settled, Step, SubmitConfig, Wei, prepare, send,
    set_mature_model, wait_until_settled,
};
