//! A look at one endpoint, for a person who wants to know whether it will do. Nothing that it says is believed by anybody.

use std::time::Duration;

use alloy::primitives::B256;
use alloy::rpc::types::EIP1186AccountProofResponse;
use tokio::time::Instant;

use crate::address::Address;
use crate::block::{BlockRef, BlockTag};
use crate::config::Policy;
use crate::endpoint::Endpoint;
use crate::error::EndpointError;
use crate::non_vote::NonVote;
use crate::rpc_url::RpcUrl;

/// What an endpoint answers to each kind of request that is made of endpoints.
#[derive(Debug)]
#[non_exhaustive]
pub struct Probe {
    /// The chain that it is on.
    pub chain_id: u64,
    /// How long the answer to that took, connecting included.
    pub took: Duration,
    /// The block that it has under each tag: `latest`, `safe` and `finalized`; or why it has none, in words.
    pub blocks: Vec<(BlockTag, Result<ProbedBlock, String>)>,
    /// Whether it shows a proof of storage (`eth_getProof`) at its newest block; or why not, in words.
    pub proof: Result<(), String>,
}

/// A block that an endpoint has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProbedBlock {
    /// Which.
    pub block: BlockRef,
    /// When it was made, in seconds since 1970.
    pub timestamp: u64,
}

impl Probe {
    /// The block under a tag, if the endpoint has one.
    pub fn block(&self, tag: BlockTag) -> Option<ProbedBlock> {
        let found = self.blocks.iter().find(|(other, _)| *other == tag)?;
        found.1.as_ref().ok().copied()
    }
}

/// Asks the endpoint a handful of things, each once.
///
/// # Errors
/// When it does not say which chain it is on.
pub async fn probe(url: &RpcUrl, policy: Policy) -> Result<Probe, EndpointError> {
    let endpoint = Endpoint::new(url, policy)?;
    let started = Instant::now();
    let chain_id = endpoint.chain_id().await?;
    let took = started.elapsed();
    let tags = [BlockTag::Latest, BlockTag::Safe, BlockTag::Finalized];
    let (blocks, proof) =
        tokio::join!(futures::future::join_all(tags.map(|tag| block(&endpoint, tag))), proof(&endpoint));
    Ok(Probe { chain_id, took, blocks: tags.into_iter().zip(blocks).collect(), proof })
}

async fn block(endpoint: &Endpoint, tag: BlockTag) -> Result<ProbedBlock, String> {
    let found = endpoint.block(tag).await.map_err(NonVote::of_tag);
    let found = found.and_then(|block| block.ok_or(NonVote::NoBlock(None)));
    let block = found.map_err(|why| why.text(tag))?;
    let timestamp = block.timestamp();
    Ok(ProbedBlock { block: BlockRef { number: block.number(), hash: block.hash }, timestamp })
}

/// Of an account that every chain has, without slots.
async fn proof(endpoint: &Endpoint) -> Result<(), String> {
    let params = (Address::from_bytes([0; 20]).0, [B256::ZERO; 0], BlockTag::Latest.as_str());
    let shown = endpoint.request::<_, EIP1186AccountProofResponse>("eth_getProof", params).await;
    shown.map(drop).map_err(|error| error.to_string())
}
