//! Asks the endpoints until the ballot is decided.

use std::time::Duration;

use alloy::primitives::B256;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until};

use crate::address::Address;
use crate::ballot::{Ballot, ChainKey, Head, Next, Rules, Said, Vote, Winner};
use crate::block::{Block, BlockRef, BlockTag};
use crate::contract;
use crate::endpoint::Endpoint;
use crate::error::{EndpointError, StateError};
use crate::non_vote::NonVote;
use crate::state::{ChainMemory, Store};

/// How long a quorum waits for endpoints that stall, in all. Without a quorum, all are waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is asked of all endpoints.
#[derive(Clone, Copy)]
pub(crate) struct Question<'a> {
    pub(crate) endpoints: &'a [Endpoint],
    pub(crate) rules: Rules,
    pub(crate) contract: Address,
    pub(crate) tag: BlockTag,
    /// The stored state: which chains were read, and how far.
    pub(crate) floor: Option<&'a Store>,
}

/// A reply that has arrived.
enum Reply {
    Head(usize, Result<Head, NonVote>),
    Vote(usize, u64, Result<Vote, NonVote>),
}

impl Question<'_> {
    /// Asks once.
    ///
    /// # Errors
    /// When the floor cannot be read.
    pub(crate) async fn ask(&self) -> Result<(Ballot, Option<Winner>), StateError> {
        let mut ballot = Ballot::new(self.rules, self.endpoints.len());
        let mut heads: Vec<Option<Block>> = vec![None; self.endpoints.len()];
        let mut asked: FuturesUnordered<BoxFuture<'_, Reply>> = FuturesUnordered::new();
        for (i, endpoint) in self.endpoints.iter().enumerate() {
            asked.push(Box::pin(async move { Reply::Head(i, head(endpoint, self.tag).await) }));
        }
        let patience = Instant::now() + PATIENCE;
        loop {
            match ballot.next() {
                Next::Won(winner) => {
                    self.forget_others(&ballot, winner.chain);
                    return Ok((ballot, Some(winner)));
                }
                Next::Lost => {
                    if ballot.named_chain().is_none() {
                        self.endpoints.iter().for_each(Endpoint::forget_chain);
                    }
                    return Ok((ballot, None));
                }
                Next::Floor(asked) => {
                    let (chain, memory) = match self.floor {
                        Some(store) => store.load(asked).await?,
                        None => (asked, ChainMemory::default()),
                    };
                    ballot.set_floor(asked, chain, memory.floor.map_or(0, |floor| floor.number));
                }
                Next::Ask { height, endpoints } => {
                    for i in endpoints {
                        let (endpoint, contract) = (&self.endpoints[i], self.contract);
                        let known = heads[i].filter(|block| block.number() == height);
                        asked.push(Box::pin(async move {
                            Reply::Vote(i, height, vote(endpoint, contract, known, height).await)
                        }));
                    }
                }
                Next::Wait => tokio::select! {
                    Some(reply) = asked.next() => match reply {
                        Reply::Head(i, head) => {
                            heads[i] = head.as_ref().ok().map(|head| head.block);
                            ballot.on_head(i, head);
                        }
                        Reply::Vote(i, height, vote) => ballot.on_vote(i, height, vote),
                    },
                    () = sleep_until(patience), if ballot.is_patient() => ballot.hurry(),
                },
            }
        }
    }
}

impl Question<'_> {
    /// Drops the cached chain of endpoints on another chain: it may have been a mistake.
    fn forget_others(&self, ballot: &Ballot, chain: ChainKey) {
        for (head, endpoint) in ballot.heads.iter().zip(self.endpoints) {
            if head.known().is_some_and(|head| !chain.is_compatible(&head.chain)) {
                endpoint.forget_chain();
            }
        }
    }
}

/// Which endpoints have another block than `floor` at its height, and which block. The `first` are asked first, and all
/// others only when one of those denies it. Waits while a quorum of denials is possible, for at most a second, or for
/// `alarmed` once an endpoint denies it.
pub(crate) async fn denials(
    endpoints: &[Endpoint],
    rules: Rules,
    first: &[usize],
    floor: BlockRef,
    alarmed: Duration,
) -> Vec<(usize, B256)> {
    let ask = |i: usize| async move { (i, endpoints[i].block_hash(floor.number).await) };
    let mut asked: FuturesUnordered<_> = first.iter().copied().map(ask).collect();
    let mut others: Vec<_> = (0..endpoints.len()).filter(|i| !first.contains(i)).collect();
    let mut denials = Vec::new();
    let started_at = Instant::now();
    let patience = sleep_until(started_at + PATIENCE);
    tokio::pin!(patience);
    loop {
        let answer = tokio::select! {
            answer = asked.next() => answer,
            () = &mut patience => None,
        };
        let Some((who, answer)) = answer else { return denials };
        let Ok(Some(hash)) = answer else { continue };
        if hash != floor.hash {
            denials.push((who, hash));
            patience.as_mut().reset(started_at + alarmed);
            asked.extend(others.drain(..).map(ask));
        }
        if denials.len() + asked.len() + others.len() < rules.quorum {
            return denials;
        }
    }
}

/// Which chain it is on, and its block under the tag.
async fn head(endpoint: &Endpoint, tag: BlockTag) -> Result<Head, NonVote> {
    let block = async { endpoint.block(tag).await.map_err(NonVote::of_tag) };
    let chain_id = async { endpoint.chain_id().await.map_err(NonVote::Endpoint) };
    let genesis = async { Ok(endpoint.genesis().await) };
    let (chain_id, genesis, block) = tokio::try_join!(chain_id, genesis, block)?;
    Ok(Head { chain: ChainKey { chain_id, genesis }, block: block.ok_or(NonVote::NoBlock(None))? })
}

/// The contract's answer at this height, pinned to the endpoint's own block there.
async fn vote(
    endpoint: &Endpoint,
    contract: Address,
    known: Option<Block>,
    height: u64,
) -> Result<Vote, NonVote> {
    let block = match known {
        Some(block) => block,
        None => {
            let block = endpoint.block_at(height).await.map_err(NonVote::Endpoint)?;
            block.ok_or(NonVote::Lacks { height })?
        }
    };
    if block.number() != height {
        return Err(NonVote::OtherHeight { asked: height, answered: block.number() });
    }
    let said = said(endpoint, contract, block).await.map_err(|error| match error {
        // It has just returned the block: only its state is missing.
        error if error.may_lack_the_block() => NonVote::NoState { height, source: error },
        error => NonVote::Endpoint(error),
    })?;
    Ok(Vote { block, said })
}

async fn said(endpoint: &Endpoint, contract: Address, block: Block) -> Result<Said, EndpointError> {
    let data = match endpoint.call(contract, contract::encode_get(), block.id()).await {
        Ok(data) => data,
        Err(EndpointError::Reverted { reason, .. }) => return Ok(Said::Reverted { reason }),
        Err(error) => return Err(error),
    };
    if data.is_empty() && !endpoint.has_code(contract, block.id()).await? {
        return Ok(Said::NoCode);
    }
    Ok(match contract::decode_get(&data) {
        Some(contract::Returned { text, price }) => Said::Returned { text, price },
        None => Said::Undecodable(data),
    })
}
