//! Tracking a transaction that was sent, until it is settled.

use std::time::Duration;

use alloy::eips::BlockId;
use alloy::primitives::{B256, Bytes, U64};
use tokio::time::{Instant, sleep, timeout_at};

use super::config::Settled;
use super::prepare::Call;
use super::taken::{Search, Taken};
use super::{broadcast, standing};
use crate::block::{Block, BlockRef};
use crate::endpoint::Endpoint;
use crate::error::{EndpointError, SubmitError};
use crate::receipt::{Mined, Place, Receipt};

/// Steps of a transaction after it was signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The endpoint has taken it.
    Sent {
        /// The transaction.
        tx_hash: B256,
    },
    /// The endpoint was given it, and its answer was lost, or does not tell whether it has taken it.
    MaybeSent {
        /// The transaction.
        tx_hash: B256,
    },
    /// Nothing was sent: an earlier transaction of the sender that makes the same call waits for a block.
    Waiting {
        /// That transaction.
        tx_hash: B256,
    },
    /// It is in a block.
    InBlock {
        /// The block's height.
        block_number: u64,
        /// The block.
        block_hash: B256,
    },
    /// The chain was reorganised: the block it was in is no longer part of it.
    Reorganised {
        /// The height of the block it was in.
        block_number: u64,
        /// The block it was in.
        block_hash: B256,
    },
    /// The endpoint had dropped it, and has accepted it again.
    SentAgain {
        /// The transaction.
        tx_hash: B256,
    },
}

/// The first and the longest poll interval.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LAST_PAUSE: Duration = Duration::from_secs(2);
/// For so long a refused one is tracked, and rebroadcast: behind one URL there may be nodes that lag.
const REFUSED_PATIENCE: Duration = Duration::from_secs(5);

/// One pending transaction.
pub(super) struct Confirmation<'a> {
    endpoint: &'a Endpoint,
    call: &'a Call,
    tx_hash: B256,
    resend: Option<Resend>,
    settled: Settled,
    on_step: &'a (dyn Fn(Step) + Sync),
    /// The block it was last seen in.
    seen: Option<BlockRef>,
    /// Confirmations of it, or of the one that displaced it.
    confirmations: u64,
    reorganisations: u32,
    search: Search,
    /// Another transaction with its nonce that is in a block.
    displaced_by: Option<Taken>,
    /// The endpoint's error at the broadcast, while nothing else shows that the endpoint has it.
    refusal: Option<EndpointError>,
    /// The error of the last poll.
    trouble: Option<EndpointError>,
}

/// What a rebroadcast needs.
struct Resend {
    endpoint: Endpoint,
    raw: Bytes,
}

/// Its outcome, in a block of the chain.
pub(super) enum Verdict {
    /// It succeeded, and is settled.
    Settled(Receipt),
    /// It failed, by its receipt (`by_receipt`) or by the contract's state.
    Failed { tx_hash: B256, block_number: u64, by_receipt: bool },
}

/// Where a poll has found it.
enum Found {
    Nowhere,
    Waiting,
    InBlock(BlockRef, Option<Mined>),
}

impl<'a> Confirmation<'a> {
    pub(super) fn new(
        endpoint: &'a Endpoint,
        call: &'a Call,
        settled: Settled,
        on_step: &'a (dyn Fn(Step) + Sync),
    ) -> Self {
        Self {
            endpoint,
            call,
            tx_hash: B256::ZERO,
            resend: None,
            settled,
            on_step,
            seen: None,
            confirmations: 0,
            reorganisations: 0,
            search: Search::new(call),
            displaced_by: None,
            refusal: None,
            trouble: None,
        }
    }

    /// The transaction to track.
    pub(super) fn of(self, tx_hash: B256) -> Self {
        Self { tx_hash, ..self }
    }

    /// For a rebroadcast; and the refusal of the first broadcast, if there was one.
    pub(super) fn again_with(self, endpoint: Endpoint, raw: Bytes, refusal: Option<EndpointError>) -> Self {
        Self { resend: Some(Resend { endpoint, raw }), refusal, ..self }
    }

    /// Tracks it until it is settled, has failed, or was replaced; or `limit` has passed. A failing endpoint is retried: the
    /// transaction stays sent.
    pub(super) async fn wait(mut self, limit: Duration) -> Result<Verdict, SubmitError> {
        let deadline = Instant::now() + limit;
        match timeout_at(deadline, self.look_until_settled()).await {
            Ok(verdict) => verdict,
            Err(_) => Err(self.given_up(limit)),
        }
    }

    async fn look_until_settled(&mut self) -> Result<Verdict, SubmitError> {
        let (begun, mut pause) = (Instant::now(), FIRST_PAUSE);
        loop {
            self.trouble = None;
            match self.look().await {
                Ok(Some(verdict)) => return verdict,
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(tx_hash = %self.tx_hash, %error, "looking again for the transaction");
                    self.trouble = Some(error);
                }
            }
            if begun.elapsed() >= REFUSED_PATIENCE
                && let Some(source) = self.refusal.take()
            {
                return Err(SubmitError::NotTaken { tx_hash: self.tx_hash, source });
            }
            sleep(pause).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    fn given_up(self, after: Duration) -> SubmitError {
        let Self { tx_hash, confirmations, settled, trouble, .. } = self;
        let Call { sender, nonce, .. } = *self.call;
        match (self.seen, self.displaced_by, self.refusal) {
            (Some(BlockRef { number: block_number, .. }), ..) => SubmitError::NotSettled {
                tx_hash,
                block_number,
                confirmations,
                settled,
                after,
                source: trouble,
            },
            (None, Some(Taken { by, block: BlockRef { number: block_number, .. } }), _) => {
                SubmitError::Displaced { tx_hash, sender, nonce, by, block_number, settled, after }
            }
            (None, None, Some(source)) => SubmitError::NotTaken { tx_hash, source },
            (None, None, None) => SubmitError::NotMined { tx_hash, after, source: trouble },
        }
    }

    /// Its outcome, once that is certain.
    async fn look(&mut self) -> Result<Option<Result<Verdict, SubmitError>>, EndpointError> {
        match self.find().await? {
            Found::InBlock(block, mined) => {
                self.refusal = None;
                Ok(self.look_at_block(block, mined).await?.map(Ok))
            }
            found => {
                let is_known = matches!(found, Found::Waiting);
                if is_known {
                    self.refusal = None;
                }
                self.look_for_reorganisation().await?;
                if self.seen.is_some() {
                    return Ok(None);
                }
                Ok(self.look_without_it(is_known).await?.map(Err))
            }
        }
    }

    /// Its receipt may be late, or of a kind that does not tell its block: the transaction itself tells it, too.
    async fn find(&mut self) -> Result<Found, EndpointError> {
        let mined = match self.endpoint.request("eth_getTransactionReceipt", (self.tx_hash,)).await {
            Ok(mined) => mined,
            Err(error) => {
                self.trouble = Some(error);
                None
            }
        };
        let mined: Option<Mined> = mined;
        if let Some(block) = mined.as_ref().and_then(Mined::block) {
            return Ok(Found::InBlock(block, mined));
        }
        let known: Option<Place> = self.endpoint.request("eth_getTransactionByHash", (self.tx_hash,)).await?;
        Ok(match known.map(|place| place.block()) {
            None => Found::Nowhere,
            Some(None) => Found::Waiting,
            Some(Some(block)) => Found::InBlock(block, mined),
        })
    }

    async fn look_at_block(
        &mut self,
        block: BlockRef,
        mined: Option<Mined>,
    ) -> Result<Option<Verdict>, EndpointError> {
        // Asked before its block is checked, so that it is this chain in which that many blocks stand on it.
        let (confirmations, is_settled) = self.is_settled(block.number).await;
        let now = self.endpoint.block_at(block.number).await;
        if let Ok(Some(now)) = &now
            && now.hash != block.hash
        {
            // A receipt of a block that is not, or not yet, in the chain.
            self.look_for_reorganisation().await?;
            return Ok(None);
        }
        self.note(block);
        self.confirmations = self.confirmations.max(confirmations);
        let (Some(_), Some(mined)) = (now?, mined) else { return Ok(None) };
        let failed = |by_receipt| {
            let (tx_hash, block_number) = (self.tx_hash, block.number);
            Ok(Some(Verdict::Failed { tx_hash, block_number, by_receipt }))
        };
        let Call { contract, manifest, price, .. } = *self.call;
        match mined.succeeded() {
            Some(false) => return failed(true),
            Some(true) => {}
            // Receipts from before Byzantium do not say it; the contract does.
            None if standing::names(self.endpoint, contract, manifest, price, block.number).await? => {}
            None => return failed(false),
        }
        Ok(is_settled?.then(|| Verdict::Settled(self.receipt(block, &mined))))
    }

    fn receipt(&self, block: BlockRef, mined: &Mined) -> Receipt {
        Receipt {
            tx_hash: self.tx_hash,
            block_number: block.number,
            block_hash: block.hash,
            gas_used: mined.gas_used(),
            confirmations: self.confirmations,
            reorganisations: self.reorganisations,
        }
    }

    /// It is in this block.
    fn note(&mut self, block: BlockRef) {
        if self.seen == Some(block) {
            return;
        }
        if let Some(before) = self.seen {
            self.leave(before);
        }
        (self.displaced_by, self.confirmations) = (None, 0);
        self.seen = Some(block);
        (self.on_step)(Step::InBlock { block_number: block.number, block_hash: block.hash });
    }

    /// It is no longer in this block.
    fn leave(&mut self, before: BlockRef) {
        (self.seen, self.confirmations) = (None, 0);
        self.reorganisations += 1;
        (self.on_step)(Step::Reorganised { block_number: before.number, block_hash: before.hash });
    }

    /// Its confirmations, and whether it is settled.
    async fn is_settled(&self, number: u64) -> (u64, Result<bool, EndpointError>) {
        let newest: U64 = match self.endpoint.request("eth_blockNumber", ()).await {
            Ok(newest) => newest,
            Err(error) => return (0, Err(error)),
        };
        let confirmations = newest.to::<u64>().saturating_add(1).saturating_sub(number);
        let is_settled = match self.settled {
            Settled::Confirmations(wanted) => Ok(confirmations >= wanted.max(1)),
            Settled::Tag(tag) => {
                let block = self.endpoint.block(tag).await;
                block.map(|block| block.is_some_and(|block| block.number() >= number))
            }
        };
        (confirmations, is_settled)
    }

    /// Forgets where it was seen when another block stands there now. When none does, the node behind the URL lags.
    async fn look_for_reorganisation(&mut self) -> Result<(), EndpointError> {
        let Some(seen) = self.seen else { return Ok(()) };
        if self.replaced_at(seen).await? {
            self.leave(seen);
        }
        Ok(())
    }

    /// Whether another block stands where this one was.
    async fn replaced_at(&self, block: BlockRef) -> Result<bool, EndpointError> {
        let now: Option<Block> = self.endpoint.block_at(block.number).await?;
        Ok(now.is_some_and(|now| now.hash != block.hash))
    }

    /// It is in no block of the endpoint: searches for one that has used its nonce, the evidence that it was replaced, and
    /// rebroadcasts it when the endpoint has dropped it.
    async fn look_without_it(&mut self, is_known: bool) -> Result<Option<SubmitError>, EndpointError> {
        let Call { sender, nonce: wanted, .. } = *self.call;
        if self.endpoint.nonce(sender, BlockId::latest()).await? > wanted {
            let Some(taken) = self.search.look(self.endpoint).await? else { return Ok(None) };
            self.refusal = None;
            return self.look_at_other(taken).await;
        }
        if !is_known {
            self.send_again().await;
        }
        Ok(None)
    }

    async fn look_at_other(&mut self, taken: Taken) -> Result<Option<SubmitError>, EndpointError> {
        let Taken { by, block } = taken;
        if by == self.tx_hash {
            self.note(block);
            return Ok(None);
        }
        // It comes all the same if that block leaves the chain: so long as this one would be waited for, too.
        let (_, is_settled) = self.is_settled(block.number).await;
        if self.replaced_at(block).await? {
            self.displaced_by = None;
            return Ok(None);
        }
        self.displaced_by = Some(taken);
        let Call { sender, nonce, .. } = *self.call;
        let (tx_hash, block_number) = (self.tx_hash, block.number);
        Ok(is_settled?.then_some(SubmitError::Replaced { tx_hash, sender, nonce, by, block_number }))
    }

    async fn send_again(&mut self) {
        let Some(resend) = &self.resend else { return };
        match broadcast::send_raw(&resend.endpoint, &resend.raw).await {
            Ok(()) => {
                self.refusal = None;
                (self.on_step)(Step::SentAgain { tx_hash: self.tx_hash });
            }
            Err(error) => {
                tracing::debug!(tx_hash = %self.tx_hash, %error, "it was not taken again");
                if broadcast::may_have_it(&error) {
                    self.refusal = None;
                }
                self.trouble = Some(error);
            }
        }
    }
}
