//! What the contract names.

use alloy::primitives::{B256, U256};
use manifest::Digest;

/// The current model, and the block in which the contract said so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatureModel {
    /// The digest of its manifest.
    pub manifest: Digest,
    /// Its price, in the contract's own unit.
    pub price: U256,
    /// The chain it was read from.
    pub chain_id: u64,
    /// The height it was read at.
    pub block_number: u64,
    /// The block it was read at.
    pub block_hash: B256,
    /// When that block was made, in seconds since 1970.
    pub block_timestamp: u64,
}
