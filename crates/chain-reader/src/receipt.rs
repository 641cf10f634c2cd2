//! Waiting for a transaction to be in a block.

use std::time::Duration;

use alloy::primitives::{B256, U64};
use serde::Deserialize;
use tokio::time::{Instant, sleep, timeout_at};

use crate::endpoint::Endpoint;
use crate::error::EndpointError;

/// The first and the longest pause between two looks.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LAST_PAUSE: Duration = Duration::from_secs(2);

/// A transaction that is in a block and succeeded there. A reorganisation may still undo it.
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

    pub(crate) fn into_receipt(self, tx_hash: B256) -> Receipt {
        Receipt {
            tx_hash,
            block_number: self.block_number(),
            block_hash: self.block_hash,
            gas_used: self.gas_used.to(),
        }
    }
}

/// Looks for the transaction until it is in a block or `limit` has passed. A failing endpoint is asked again: what
/// was sent stays sent.
///
/// # Errors
/// The endpoint's last error, if it failed at all.
pub(crate) async fn wait(
    endpoint: &Endpoint,
    tx_hash: B256,
    limit: Duration,
) -> Result<Mined, Option<EndpointError>> {
    let mut last = None;
    let mut pause = FIRST_PAUSE;
    let looking = async {
        loop {
            match endpoint.request("eth_getTransactionReceipt", (tx_hash,)).await {
                Ok(Some(mined)) => return mined,
                Ok(None) => last = None,
                Err(error) => last = Some(error),
            }
            sleep(pause).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
    };
    timeout_at(Instant::now() + limit, looking).await.map_err(|_| last)
}
