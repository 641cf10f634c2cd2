//! How an endpoint accepts the block that a read is pinned to. All nodes of Ethereum know `{blockHash, requireCanonical}`;
//! some of other chains, and proxies, support less of EIP-1898.

use std::sync::atomic::Ordering;

use alloy::eips::{BlockId, RpcBlockHash};
use alloy::primitives::{B256, Bytes, U64};
use alloy::rpc::json_rpc::{RpcRecv, RpcSend};
use serde_json::{Value, json};

use crate::address::Address;
use crate::block::Block;
use crate::endpoint::Endpoint;
use crate::error::EndpointError;

/// By its hash, refused when it is no longer part of the chain.
const CANONICAL: u8 = 0;
/// By its hash.
const HASH: u8 = 1;
/// By its height, checking afterwards that the block is still there.
const HEIGHT: u8 = 2;

impl Endpoint {
    /// A request about the state in a block, in the best form that the endpoint supports: `params` gets the block in that
    /// form. The form is cached once it has answered.
    pub(crate) async fn request_at<P: RpcSend, R: RpcRecv>(
        &self,
        method: &'static str,
        params: impl Fn(Value) -> P,
        block: BlockId,
    ) -> Result<R, EndpointError> {
        let BlockId::Hash(RpcBlockHash { block_hash, .. }) = block else {
            return self.request(method, params(json!(block))).await;
        };
        let known = self.pin().load(Ordering::Relaxed);
        let mut refusal = None;
        for pin in known..=HEIGHT {
            let asked = match pin {
                CANONICAL => self.request(method, params(json!(block))).await,
                HASH => self.request(method, params(json!({"blockHash": block_hash}))).await,
                _ => at_height(self, method, &params, block_hash).await,
            };
            match asked {
                Err(error) if error.may_refuse_the_pin() => refusal = refusal.or(Some(error)),
                Ok(_) | Err(EndpointError::Reverted { .. }) => {
                    if pin > known {
                        tracing::debug!(
                            endpoint = self.name(),
                            pin,
                            "it does not know all ways to name a block"
                        );
                        self.pin().store(pin, Ordering::Relaxed);
                    }
                    return asked;
                }
                // The first refusal says more than the error of the fallback.
                Err(error) => return Err(refusal.unwrap_or(error)),
            }
        }
        Err(refusal
            .unwrap_or_else(|| EndpointError::BlockGone { endpoint: self.name(), method: method.to_owned() }))
    }

    pub(crate) async fn has_code(&self, account: Address, block: BlockId) -> Result<bool, EndpointError> {
        let code: Bytes = self.request_at("eth_getCode", |block| (account.0, block), block).await?;
        Ok(!code.is_empty())
    }

    pub(crate) async fn call(
        &self,
        to: Address,
        data: Bytes,
        block: BlockId,
    ) -> Result<Bytes, EndpointError> {
        // `data` rather than `input`: every node knows it.
        let call = json!({"to": to.0, "data": data});
        self.request_at("eth_call", |block| (call.clone(), block), block).await
    }
}

/// The same of the block at its height, which must have this hash before and after.
async fn at_height<P: RpcSend, R: RpcRecv>(
    endpoint: &Endpoint,
    method: &'static str,
    params: &impl Fn(Value) -> P,
    block_hash: B256,
) -> Result<R, EndpointError> {
    let gone = || EndpointError::BlockGone { endpoint: endpoint.name(), method: method.to_owned() };
    let block: Option<Block> = endpoint.request("eth_getBlockByHash", (block_hash, false)).await?;
    let number = block.filter(|block| block.hash == block_hash).ok_or_else(gone)?.number();
    let is_there = async || {
        let now = endpoint.block_at(number).await?;
        if now.is_some_and(|now| now.hash == block_hash) { Ok(()) } else { Err(gone()) }
    };
    is_there().await?;
    let answer = endpoint.request(method, params(json!(U64::from(number)))).await;
    is_there().await?;
    answer
}
