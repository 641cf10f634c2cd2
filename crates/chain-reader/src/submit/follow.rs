//! Looking after a transaction that was sent, until it is settled.

use std::time::Duration;

use alloy::primitives::{B256, Bytes, U64};
use tokio::time::{Instant, sleep, timeout_at};

use super::prepare::{Call, nonce};
use super::{Settled, Step, is_known};
use crate::endpoint::{Block, Endpoint};
use crate::error::{EndpointError, SubmitError};
use crate::receipt::{Mined, Receipt};

/// The first and the longest pause between two looks.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LAST_PAUSE: Duration = Duration::from_secs(2);
/// How often its nonce must be seen taken while it is nowhere: behind one URL there may be nodes that lag.
const REPLACED_LOOKS: u32 = 3;

/// One transaction on its way.
pub(super) struct Follower<'a> {
    endpoint: &'a Endpoint,
    call: &'a Call,
    raw: Bytes,
    tx_hash: B256,
    settled: Settled,
    on_step: &'a (dyn Fn(Step) + Sync),
    /// Where it was seen last.
    seen: Option<Mined>,
    /// Blocks from its own to the newest, both included.
    confirmations: u64,
    reorganisations: u32,
    /// Looks in a row that found its nonce taken and itself nowhere.
    missing_looks: u32,
    last_error: Option<EndpointError>,
}

impl<'a> Follower<'a> {
    pub(super) fn new(
        endpoint: &'a Endpoint,
        call: &'a Call,
        raw: Bytes,
        tx_hash: B256,
        settled: Settled,
        on_step: &'a (dyn Fn(Step) + Sync),
    ) -> Self {
        Self {
            endpoint,
            call,
            raw,
            tx_hash,
            settled,
            on_step,
            seen: None,
            confirmations: 0,
            reorganisations: 0,
            missing_looks: 0,
            last_error: None,
        }
    }

    /// Until it is settled, has failed in its block, or never comes; or `limit` has passed. A failing endpoint is asked
    /// again: what was sent stays sent.
    pub(super) async fn follow(mut self, limit: Duration) -> Result<(Mined, Receipt), SubmitError> {
        let deadline = Instant::now() + limit;
        match timeout_at(deadline, self.look_until_settled()).await {
            Ok(settled) => settled,
            Err(_) => Err(match self.seen {
                Some(mined) => SubmitError::NotSettled {
                    tx_hash: self.tx_hash,
                    block_number: mined.block_number(),
                    confirmations: self.confirmations,
                    after: limit,
                },
                None => {
                    SubmitError::NotMined { tx_hash: self.tx_hash, after: limit, source: self.last_error }
                }
            }),
        }
    }

    async fn look_until_settled(&mut self) -> Result<(Mined, Receipt), SubmitError> {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.look().await {
                Ok(Some(mined)) => {
                    let receipt = mined.to_receipt(self.tx_hash, self.confirmations, self.reorganisations);
                    return Ok((mined, receipt));
                }
                Ok(None) => self.last_error = None,
                Err(error) => {
                    tracing::debug!(tx_hash = %self.tx_hash, %error, "looking again for the transaction");
                    self.last_error = Some(error);
                }
            }
            if self.missing_looks >= REPLACED_LOOKS {
                let Call { sender, nonce, .. } = *self.call;
                return Err(SubmitError::Replaced { tx_hash: self.tx_hash, sender, nonce });
            }
            sleep(pause).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    /// The transaction, once it is settled or has failed in a block.
    async fn look(&mut self) -> Result<Option<Mined>, EndpointError> {
        let found: Option<Mined> =
            self.endpoint.request("eth_getTransactionReceipt", (self.tx_hash,)).await?;
        let Some(mined) = found else {
            self.look_for_reorganisation().await?;
            self.look_for_itself().await?;
            return Ok(None);
        };
        self.missing_looks = 0;
        // Asked before its block is checked, so that it is this chain in which that many blocks stand on it.
        let is_settled = self.is_settled(&mined).await?;
        if self.block_at(mined.block_number()).await?.map(|block| block.hash) != Some(mined.block_hash()) {
            // A receipt of a block that is not, or not yet, in the chain.
            self.look_for_reorganisation().await?;
            return Ok(None);
        }
        match &self.seen {
            Some(before) if before.block_hash() == mined.block_hash() => {}
            before => {
                if let Some(before) = before {
                    self.reorganisations += 1;
                    (self.on_step)(before.reorganised());
                }
                let (block_number, block_hash) = (mined.block_number(), mined.block_hash());
                (self.on_step)(Step::InBlock { block_number, block_hash });
            }
        }
        self.seen = Some(mined.clone());
        Ok((is_settled || !mined.succeeded()).then_some(mined))
    }

    async fn is_settled(&mut self, mined: &Mined) -> Result<bool, EndpointError> {
        let newest: U64 = self.endpoint.request("eth_blockNumber", ()).await?;
        self.confirmations = newest.to::<u64>().saturating_add(1).saturating_sub(mined.block_number());
        match self.settled {
            Settled::Confirmations(wanted) => Ok(self.confirmations >= wanted.max(1)),
            Settled::Tag(tag) => {
                let block = self.endpoint.block(tag).await?;
                Ok(block.is_some_and(|block| block.number() >= mined.block_number()))
            }
        }
    }

    /// Forgets where it was seen when another block stands there now. When none does, the node behind the URL lags.
    async fn look_for_reorganisation(&mut self) -> Result<(), EndpointError> {
        let Some(seen) = &self.seen else { return Ok(()) };
        let now = self.block_at(seen.block_number()).await?;
        if now.is_some_and(|block| block.hash != seen.block_hash()) {
            self.reorganisations += 1;
            self.confirmations = 0;
            (self.on_step)(seen.reorganised());
            self.seen = None;
        }
        Ok(())
    }

    /// Sends it again when the endpoint has forgotten it, unless another one has taken its place.
    async fn look_for_itself(&mut self) -> Result<(), EndpointError> {
        if self.seen.is_some() || is_known(self.endpoint, self.tx_hash).await? {
            self.missing_looks = 0;
            return Ok(());
        }
        if nonce(self.endpoint, self.call.sender, "latest").await? > self.call.nonce {
            self.missing_looks += 1;
            return Ok(());
        }
        self.missing_looks = 0;
        let _: B256 = self.endpoint.request("eth_sendRawTransaction", (&self.raw,)).await?;
        (self.on_step)(Step::SentAgain { tx_hash: self.tx_hash });
        Ok(())
    }

    async fn block_at(&self, number: u64) -> Result<Option<Block>, EndpointError> {
        self.endpoint.request("eth_getBlockByNumber", (U64::from(number), false)).await
    }
}

impl Mined {
    fn reorganised(&self) -> Step {
        Step::Reorganised { block_number: self.block_number(), block_hash: self.block_hash() }
    }
}
