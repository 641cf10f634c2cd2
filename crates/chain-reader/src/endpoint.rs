//! One RPC endpoint: typed requests, typed errors.

use std::sync::atomic::AtomicU8;
use std::sync::{Mutex, MutexGuard, PoisonError};

use alloy::eips::BlockId;
use alloy::primitives::{B256, U64};
use alloy::rpc::client::RpcClient;
use alloy::rpc::json_rpc::{RpcError, RpcRecv, RpcSend};
use alloy::transports::{IntoBoxTransport, TransportError, TransportErrorKind};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::address::Address;
use crate::block::{Block, BlockTag};
use crate::config::Policy;
use crate::error::{EndpointError, with_causes};
use crate::revert;
use crate::rpc_url::RpcUrl;
use crate::transport::Http;

/// The one field we need of a block that is only compared.
#[derive(Debug, Deserialize)]
struct Hash {
    hash: B256,
}

/// Cached facts about an endpoint's chain.
#[derive(Debug, Default)]
struct Constants {
    chain_id: Option<u64>,
    /// `Some(None)` when it does not have that block.
    genesis: Option<Option<B256>>,
}

/// A connection to one RPC endpoint, with cached facts that never change.
pub(crate) struct Endpoint {
    client: RpcClient,
    url: RpcUrl,
    constants: Mutex<Constants>,
    /// How it accepts pinned blocks, as far as is known.
    pin: AtomicU8,
}

impl Endpoint {
    pub(crate) fn new(url: &RpcUrl, policy: Policy) -> Result<Self, EndpointError> {
        Ok(Self::over(url, Http::new(url.clone(), policy)?))
    }

    /// The same over another transport, which has its own time limit and retries.
    pub(crate) fn over(url: &RpcUrl, transport: impl IntoBoxTransport) -> Self {
        let client = RpcClient::new(transport, url.is_loopback());
        Self { client, url: url.clone(), constants: Mutex::default(), pin: AtomicU8::default() }
    }

    /// Its host and port.
    pub(crate) fn name(&self) -> String {
        self.url.to_string()
    }

    /// As `pin` numbers the ways.
    pub(crate) fn pin(&self) -> &AtomicU8 {
        &self.pin
    }

    pub(crate) fn url(&self) -> &RpcUrl {
        &self.url
    }

    pub(crate) async fn request<P: RpcSend, R: RpcRecv>(
        &self,
        method: &'static str,
        params: P,
    ) -> Result<R, EndpointError> {
        // Unread, so that alloy does not log it, and what is wrong with it is ours to word.
        let answer: Box<RawValue> =
            self.client.request(method, params).await.map_err(|error| self.fault(method, error))?;
        serde_json::from_str(answer.get()).map_err(|error| EndpointError::Nonsense {
            endpoint: self.name(),
            method: method.to_owned(),
            found: self.url.excerpt(answer.get()),
            source: Some(self.url.excerpt(&error.to_string())),
        })
    }

    pub(crate) async fn chain_id(&self) -> Result<u64, EndpointError> {
        if let Some(known) = self.constants().chain_id {
            return Ok(known);
        }
        let chain_id = self.request::<_, U64>("eth_chainId", ()).await?.to();
        self.constants().chain_id = Some(chain_id);
        Ok(chain_id)
    }

    /// The hash of its first block. `None` when it does not say: nodes that prune may have dropped that block.
    pub(crate) async fn genesis(&self) -> Option<B256> {
        let known = self.constants().genesis;
        if let Some(known) = known {
            return known;
        }
        let genesis = match self.block_hash(0).await {
            Ok(hash) => hash,
            // It has answered: the missing block is cached, too.
            Err(EndpointError::Rpc { .. }) => None,
            Err(error) if matches!(error, EndpointError::Status { .. }) && !error.is_retryable() => None,
            Err(_) => return None,
        };
        self.constants().genesis = Some(genesis);
        genesis
    }

    /// Drops the cached chain, which differs from that of the others.
    pub(crate) fn forget_chain(&self) {
        *self.constants() = Constants::default();
    }

    fn constants(&self) -> MutexGuard<'_, Constants> {
        self.constants.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` when the endpoint has no block under this tag yet.
    pub(crate) async fn block(&self, tag: BlockTag) -> Result<Option<Block>, EndpointError> {
        self.request("eth_getBlockByNumber", (tag.as_str(), false)).await
    }

    /// The hash of its block at this height; `None` when it has none.
    pub(crate) async fn block_hash(&self, height: u64) -> Result<Option<B256>, EndpointError> {
        // Less than a header must have: that of a first block is odd on some chains.
        let block: Option<Hash> = self.request("eth_getBlockByNumber", (U64::from(height), false)).await?;
        Ok(block.map(|block| block.hash))
    }

    /// Its block at this height; `None` when it has none.
    pub(crate) async fn block_at(&self, height: u64) -> Result<Option<Block>, EndpointError> {
        self.request("eth_getBlockByNumber", (U64::from(height), false)).await
    }

    /// How many transactions of the sender there are up to this block.
    pub(crate) async fn nonce(&self, sender: Address, block: BlockId) -> Result<u64, EndpointError> {
        let count: U64 = self.request("eth_getTransactionCount", (sender.0, block)).await?;
        Ok(count.to())
    }

    /// Sorts an error of alloy into ours. `method` is what was asked, as a person would name it.
    pub(crate) fn fault(&self, method: &str, error: TransportError) -> EndpointError {
        let (endpoint, method) = (self.name(), method.to_owned());
        match error {
            RpcError::Transport(TransportErrorKind::Custom(inner)) => match inner.downcast() {
                Ok(ours) => *ours,
                Err(other) => {
                    let source = self.url.excerpt(&other.to_string());
                    EndpointError::Request { endpoint, method, source }
                }
            },
            RpcError::ErrorResp(payload) => {
                if let Some(reason) = revert::told_by(&method, &payload) {
                    return EndpointError::Reverted { endpoint, reason: self.url.excerpt(&reason).into() };
                }
                let message = self.url.excerpt(&payload.message);
                EndpointError::Rpc { endpoint, method, code: payload.code, message }
            }
            other => {
                let source = self.url.excerpt(&with_causes(&other));
                EndpointError::Request { endpoint, method, source }
            }
        }
    }
}
