//! What the contract names. Nothing of it is a type of the Ethereum library: whoever embeds the loader need not have that.

use std::fmt;

use alloy::primitives::{B256, U256};
use manifest::Digest;

/// The current model, and the block in which the contract names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatureModel {
    /// The digest of its manifest.
    pub manifest: Digest,
    /// Its price, in the contract's own unit.
    pub price: Price,
    /// The chain it was read from.
    pub chain_id: u64,
    /// The height it was read at.
    pub block_number: u64,
    /// The block it was read at.
    pub block_hash: BlockHash,
    /// When that block was made, in seconds since 1970.
    pub block_timestamp: u64,
}

/// What a model costs, in the contract's own unit: 256 bits. Shown in decimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Price(pub(crate) U256);

impl Price {
    /// Most significant byte first.
    pub fn to_be_bytes(self) -> [u8; 32] {
        self.0.to_be_bytes()
    }
}

impl From<u64> for Price {
    fn from(price: u64) -> Self {
        Self(U256::from(price))
    }
}

impl fmt::Display for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The hash that names a block. Shown as `0x…`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BlockHash(pub(crate) B256);

impl BlockHash {
    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0.0
    }
}

impl fmt::Display for BlockHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl PartialEq<B256> for BlockHash {
    fn eq(&self, other: &B256) -> bool {
        self.0 == *other
    }
}
