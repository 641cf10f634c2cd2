//! The one read: which model is current.

use alloy::primitives::{B256, U256};
use manifest::Digest;

use crate::config::{BlockTag, Config};
use crate::contract::{self, Returned};
use crate::endpoint::{Block, Endpoint};
use crate::error::{ChainError, EndpointError, NotFinal, excerpt};

/// The current model, and the block in which the contract said so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatureModel {
    /// The digest of its manifest.
    pub manifest: Digest,
    /// Its price, in the contract's own unit.
    pub price: U256,
    /// The chain it was read from.
    pub chain_id: u64,
    /// The height it was read at.
    pub block_number: u64,
    /// The block it was read at.
    pub block_hash: B256,
}

/// Reads the RPB contract.
pub struct ChainReader {
    config: Config,
    endpoint: Endpoint,
}

impl std::fmt::Debug for ChainReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ChainReader").field(&self.config).finish()
    }
}

impl ChainReader {
    /// Checks the configuration; nothing is sent yet.
    ///
    /// # Errors
    /// - [`ChainError::NoEndpoint`], [`ChainError::SeveralEndpoints`]: exactly one URL is used for now.
    /// - [`ChainError::Endpoint`]: TLS cannot be set up on this machine.
    pub fn new(config: Config) -> Result<Self, ChainError> {
        let url = match config.rpc_urls.as_slice() {
            [] => return Err(ChainError::NoEndpoint),
            [url] => url,
            urls => {
                return Err(ChainError::SeveralEndpoints { count: urls.len(), first: urls[0].to_string() });
            }
        };
        let endpoint = Endpoint::new(url, config.policy)?;
        Ok(Self { config, endpoint })
    }

    /// Asks the contract for its current model, at the block that now stands under the configured tag.
    ///
    /// **Time.** At most seven requests, each within the configured [`Policy`](crate::Policy); two round trips when
    /// all is well. A read whose block the endpoint no longer knows starts again, as often as the policy allows.
    /// **Cancel safety.** Dropping the future stops the read.
    ///
    /// # Errors
    /// Decide with [`ChainError::availability`]. The answer of an endpoint is an error unless it is a digest.
    pub async fn mature_model(&self) -> Result<MatureModel, ChainError> {
        let policy = self.config.policy;
        let mut attempt = 1;
        loop {
            match self.read().await {
                // Behind one URL stand several nodes, and a block may be gone since: each may lack the pinned one.
                Err(ChainError::Endpoint(error @ EndpointError::Rpc { .. }))
                    if attempt < policy.attempts && error.may_lack_the_block() =>
                {
                    tracing::debug!(%error, attempt, "reading again at a newer block");
                    tokio::time::sleep(policy.pause(attempt)).await;
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    async fn read(&self) -> Result<MatureModel, ChainError> {
        let (chain_id, block) = tokio::try_join!(self.chain_id(), self.block(self.config.block_tag))?;
        let Returned { text, price } = self.current(block).await?;
        if text.is_empty() {
            return Err(self.why_no_model(block).await?);
        }
        let text = String::from_utf8_lossy(&text);
        let manifest = text.parse::<Digest>().map_err(|_| ChainError::NotADigest {
            contract: self.config.contract,
            block_number: block.number(),
            found: excerpt(&text, 80),
            found_bytes: text.len(),
        })?;
        let model =
            MatureModel { manifest, price, chain_id, block_number: block.number(), block_hash: block.hash };
        tracing::debug!(endpoint = %self.endpoint.name(), %manifest, block = model.block_number, "read the contract");
        Ok(model)
    }

    async fn chain_id(&self) -> Result<u64, ChainError> {
        let found = self.endpoint.chain_id().await?;
        match self.config.chain_id {
            Some(expected) if expected != found => {
                Err(ChainError::WrongChain { endpoint: self.endpoint.name(), expected, found })
            }
            _ => Ok(found),
        }
    }

    async fn block(&self, tag: BlockTag) -> Result<Block, ChainError> {
        let block = self.endpoint.block(tag).await?;
        block.ok_or_else(|| ChainError::NoBlock { endpoint: self.endpoint.name(), tag })
    }

    /// What `getMatureModel()` returns at this block.
    async fn current(&self, block: Block) -> Result<Returned, ChainError> {
        let contract = self.config.contract;
        let answer = match self.endpoint.call(contract, contract::encode_get(), block.id()).await {
            Ok(answer) => answer,
            Err(EndpointError::Reverted { endpoint, reason }) => {
                return Err(ChainError::Reverted { endpoint, contract, reason });
            }
            Err(error) => return Err(error.into()),
        };
        if answer.is_empty() {
            return Err(self.why_no_answer(block).await?);
        }
        contract::decode_get(&answer).ok_or_else(|| ChainError::NotRpb {
            endpoint: self.endpoint.name(),
            contract,
            found: excerpt(&answer.to_string(), 80),
            found_bytes: answer.len(),
        })
    }

    /// An empty answer: a contract of another kind, one that is not final yet, or none at all.
    async fn why_no_answer(&self, block: Block) -> Result<ChainError, ChainError> {
        let contract = self.config.contract;
        let endpoint = self.endpoint.name();
        if self.endpoint.has_code(contract, block.id()).await? {
            return Ok(ChainError::NotRpb { endpoint, contract, found: String::new(), found_bytes: 0 });
        }
        if self.config.block_tag != BlockTag::Latest {
            let latest = self.block(BlockTag::Latest).await?;
            if self.endpoint.has_code(contract, latest.id()).await? {
                return Ok(self.not_final(NotFinal::Contract, block, latest));
            }
        }
        Ok(ChainError::NoContract { endpoint, contract, block_number: block.number() })
    }

    /// An empty string: a model that is not final yet, or none at all.
    async fn why_no_model(&self, block: Block) -> Result<ChainError, ChainError> {
        if self.config.block_tag != BlockTag::Latest {
            let latest = self.block(BlockTag::Latest).await?;
            if !self.current(latest).await?.text.is_empty() {
                return Ok(self.not_final(NotFinal::Model, block, latest));
            }
        }
        Ok(ChainError::NoModel { contract: self.config.contract, block_number: block.number() })
    }

    fn not_final(&self, what: NotFinal, block: Block, latest: Block) -> ChainError {
        ChainError::NotFinal {
            what,
            contract: self.config.contract,
            tag: self.config.block_tag,
            block_number: block.number(),
            behind_blocks: latest.number().saturating_sub(block.number()),
        }
    }
}
