//! What a node says of a transaction that is in a block.

use alloy::primitives::{B256, U64};
use serde::Deserialize;

/// A transaction that is in a block and succeeded there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The transaction.
    pub tx_hash: B256,
    /// Its block's height.
    pub block_number: u64,
    /// Its block.
    pub block_hash: B256,
    /// What it used.
    pub gas_used: u64,
    /// Blocks from its own to the newest when that was last looked at, both included.
    pub confirmations: u64,
    /// How often it was in a block that then left the chain.
    pub reorganisations: u32,
}

/// The fields we need of a node's answer.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Mined {
    status: U64,
    block_number: U64,
    block_hash: B256,
    gas_used: U64,
    #[cfg(feature = "devnet")]
    pub(crate) contract_address: Option<alloy::primitives::Address>,
}

impl Mined {
    pub(crate) fn succeeded(&self) -> bool {
        self.status == U64::ONE
    }

    pub(crate) fn block_number(&self) -> u64 {
        self.block_number.to()
    }

    pub(crate) fn block_hash(&self) -> B256 {
        self.block_hash
    }

    pub(crate) fn to_receipt(&self, tx_hash: B256, confirmations: u64, reorganisations: u32) -> Receipt {
        Receipt {
            tx_hash,
            block_number: self.block_number(),
            block_hash: self.block_hash,
            gas_used: self.gas_used.to(),
            confirmations,
            reorganisations,
        }
    }
}
