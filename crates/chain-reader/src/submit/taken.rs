//! Which transaction has used a nonce: the evidence that another one was replaced.

use alloy::eips::BlockId;
use alloy::primitives::{Address, B256, U64};
use serde::Deserialize;

use super::prepare::Call;
use crate::block::BlockRef;
use crate::endpoint::Endpoint;
use crate::error::EndpointError;
use crate::receipt::if_readable;

/// The deepest reorg that is searched.
const DEPTH_BLOCKS: u64 = 64;
/// How many blocks are read at a time where no node tells which of them it is.
const WALK_BLOCKS: u64 = 32;

/// A transaction that is in a block, by its sender and nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) by: B256,
    pub(super) block: BlockRef,
}

/// Looks for the transaction that has used a nonce.
#[derive(Debug)]
pub(super) struct Search {
    sender: Address,
    nonce: u64,
    /// At this height it was not used.
    floor: u64,
    /// The highest block that was read one by one.
    walked: u64,
}

/// The fields we need of a block with its transactions.
#[derive(Debug, Deserialize)]
struct Full {
    hash: B256,
    number: U64,
    transactions: Vec<Sent>,
}

/// Those of a transaction; some chains have kinds of their own, without the one or the other.
#[derive(Debug, Deserialize)]
struct Sent {
    hash: B256,
    #[serde(default, deserialize_with = "if_readable")]
    from: Option<Address>,
    #[serde(default, deserialize_with = "if_readable")]
    nonce: Option<U64>,
}

impl Search {
    pub(super) fn new(call: &Call) -> Self {
        let floor = call.block_number.saturating_sub(DEPTH_BLOCKS);
        Self { sender: call.sender.0, nonce: call.nonce, floor, walked: floor }
    }

    /// `None` while no block that was read holds it.
    pub(super) async fn look(&mut self, endpoint: &Endpoint) -> Result<Option<Taken>, EndpointError> {
        let newest: U64 = endpoint.request("eth_blockNumber", ()).await?;
        let newest = newest.to();
        match self.bisect(endpoint, newest).await {
            Ok(Some(height)) => {
                if let Some(taken) = self.read(endpoint, height).await? {
                    return Ok(Some(taken));
                }
            }
            Ok(None) => {}
            // Not every node has the states of earlier blocks; all have the blocks.
            Err(error) => tracing::debug!(%error, "reading blocks one by one"),
        }
        self.walk(endpoint, newest).await
    }

    /// The height at which the sender's count of transactions got beyond the nonce.
    async fn bisect(&self, endpoint: &Endpoint, newest: u64) -> Result<Option<u64>, EndpointError> {
        let is_used = async |height| {
            let count = endpoint.nonce(crate::address::Address(self.sender), BlockId::number(height)).await?;
            Ok::<_, EndpointError>(count > self.nonce)
        };
        let (mut unused, mut used) = (self.floor, newest);
        if used <= unused || !is_used(used).await? {
            return Ok(None);
        }
        while used - unused > 1 {
            let middle = unused + (used - unused) / 2;
            if is_used(middle).await? { used = middle } else { unused = middle }
        }
        Ok(Some(used))
    }

    /// Reads the next few blocks, and from the first again after the last.
    async fn walk(&mut self, endpoint: &Endpoint, newest: u64) -> Result<Option<Taken>, EndpointError> {
        if self.walked >= newest {
            self.walked = self.floor;
        }
        for height in self.walked + 1..=newest.min(self.walked + WALK_BLOCKS) {
            if let Some(taken) = self.read(endpoint, height).await? {
                return Ok(Some(taken));
            }
            self.walked = height;
        }
        Ok(None)
    }

    async fn read(&self, endpoint: &Endpoint, height: u64) -> Result<Option<Taken>, EndpointError> {
        let full: Option<Full> = endpoint.request("eth_getBlockByNumber", (U64::from(height), true)).await?;
        let Some(Full { hash, number, transactions }) = full else { return Ok(None) };
        let (sender, nonce) = (Some(self.sender), Some(U64::from(self.nonce)));
        let ours = transactions.iter().find(|sent| sent.from == sender && sent.nonce == nonce);
        Ok(ours.map(|sent| Taken { by: sent.hash, block: BlockRef { number: number.to(), hash } }))
    }
}
