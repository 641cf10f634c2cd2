//! Asks the endpoints until the ballot is decided.

use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until};

use crate::ballot::{Ballot, ChainKey, Head, Next, Rules, Said, Vote, Winner};
use crate::config::{Address, BlockTag};
use crate::contract;
use crate::endpoint::{Block, Endpoint};
use crate::error::{EndpointError, StateError};
use crate::state::{ChainMemory, Store};
use crate::testimony::NonVote;

/// How long those that answer wait for the others, at each step. A quorum is not held up any longer by one that stalls;
/// where there is none, everybody is waited for.
const STRAGGLERS: Duration = Duration::from_secs(1);

/// What is asked of all endpoints.
#[derive(Clone, Copy)]
pub(crate) struct Question<'a> {
    pub(crate) endpoints: &'a [Endpoint],
    pub(crate) rules: Rules,
    pub(crate) contract: Address,
    pub(crate) tag: BlockTag,
    /// Where the height stands below which nothing counts.
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
        let mut patience = Instant::now() + STRAGGLERS;
        loop {
            match ballot.next() {
                Next::Won(winner) => return Ok((ballot, Some(winner))),
                Next::Lost => return Ok((ballot, None)),
                Next::Floor(chain) => {
                    let memory = match self.floor {
                        Some(store) => store.load(chain).await?,
                        None => ChainMemory::default(),
                    };
                    ballot.set_floor(chain, memory.floor.map_or(0, |floor| floor.number));
                }
                Next::Ask { height, endpoints } => {
                    patience = Instant::now() + STRAGGLERS;
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
                    () = sleep_until(patience), if ballot.waits() => ballot.hurry(),
                },
            }
        }
    }
}

/// Which chain it is on, and its block under the tag.
async fn head(endpoint: &Endpoint, tag: BlockTag) -> Result<Head, NonVote> {
    let asked = tokio::try_join!(endpoint.chain_id(), endpoint.block_at(0), endpoint.block(tag));
    let (chain_id, genesis, block) = asked.map_err(NonVote::Endpoint)?;
    let genesis = genesis.ok_or(NonVote::Lacks { height: 0 })?.hash;
    Ok(Head { chain: ChainKey { chain_id, genesis }, block: block.ok_or(NonVote::NoBlock)? })
}

/// What the contract says at this height, pinned to the block that the endpoint itself has there.
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
        // It has just named the block: what it lacks is the state.
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
