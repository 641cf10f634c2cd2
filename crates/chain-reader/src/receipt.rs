//! What a node says of a transaction that is in a block.

use alloy::primitives::{B256, U64};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

use crate::block::BlockRef;

/// A transaction that is in a block and succeeded there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The transaction.
    pub tx_hash: B256,
    /// Its block's height.
    pub block_number: u64,
    /// Its block.
    pub block_hash: B256,
    /// What it used, if the endpoint says it.
    pub gas_used: Option<u64>,
    /// Blocks from its own to the newest when that was last looked at, both included.
    pub confirmations: u64,
    /// How often it was in a block that then left the chain.
    pub reorganisations: u32,
}

/// The fields we need of a node's receipt, as far as it has them: those before Byzantium have no status, and not every
/// node has the rest.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Mined {
    #[serde(default, deserialize_with = "if_readable")]
    status: Option<U64>,
    #[serde(default, deserialize_with = "if_readable")]
    gas_used: Option<U64>,
    #[serde(flatten)]
    place: Place,
    #[cfg(feature = "devnet")]
    pub(crate) contract_address: Option<alloy::primitives::Address>,
}

impl Mined {
    /// Whether it did what it was to do, if the receipt says it.
    pub(crate) fn succeeded(&self) -> Option<bool> {
        match self.status? {
            U64::ZERO => Some(false),
            U64::ONE => Some(true),
            _ => None,
        }
    }

    /// Its block, if the receipt names it.
    pub(crate) fn block(&self) -> Option<BlockRef> {
        self.place.block()
    }

    pub(crate) fn gas_used(&self) -> Option<u64> {
        self.gas_used.map(|gas| gas.to())
    }
}

/// In which block a node says that something is, if in any.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Place {
    #[serde(default, deserialize_with = "if_readable")]
    block_number: Option<U64>,
    #[serde(default, deserialize_with = "if_readable")]
    block_hash: Option<B256>,
}

impl Place {
    pub(crate) fn block(&self) -> Option<BlockRef> {
        Some(BlockRef { number: self.block_number?.to(), hash: self.block_hash? })
    }
}

/// A field of the wrong type is as good as none: what there is besides still counts.
pub(crate) fn if_readable<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    field: D,
) -> Result<Option<T>, D::Error> {
    Ok(serde_json::from_value(serde_json::Value::deserialize(field)?).ok())
}
