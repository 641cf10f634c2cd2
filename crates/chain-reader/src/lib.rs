//! What the RPB contract says the current model is, and the one transaction that changes it.
//!
//! [`ChainReader::mature_model`] reads `getMatureModel()` from one RPC endpoint, pinned to the hash of the block that
//! stands under a [`BlockTag`]. [`set_mature_model`] is the crate's only write. An RPC endpoint is trusted for what
//! it answers, but never for how it answers: sizes, times and encodings are bounded and checked.
//!
//! URLs of RPC endpoints often hold a key. Only the host and port of one are ever shown or logged.
#![forbid(unsafe_code)]

mod config;
mod contract;
#[cfg(feature = "devnet")]
mod devnet;
mod endpoint;
mod error;
mod reader;
mod receipt;
mod signer;
mod submit;
mod transport;

pub use alloy::primitives::{B256, U256};
pub use config::{Address, BlockTag, Config, Policy, RpcUrl};
pub use contract::set_mature_model_calldata;
#[cfg(feature = "devnet")]
pub use devnet::Devnet;
#[cfg(feature = "devnet")]
pub use error::DevnetError;
pub use error::{
    Availability, ChainError, EndpointError, NotFinal, ParseAddressError, ParseBlockTagError,
    ParseRpcUrlError, SignerError, SubmitError,
};
pub use reader::{ChainReader, MatureModel};
pub use receipt::Receipt;
pub use signer::Signer;
pub use submit::{SubmitConfig, set_mature_model};
