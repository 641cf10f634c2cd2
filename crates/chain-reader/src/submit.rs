//! The one write: naming a new model.

use std::time::Duration;

use alloy::eips::{BlockId, Encodable2718};
use alloy::network::{Ethereum, TransactionBuilder};
use alloy::primitives::{B256, Bytes, U256};
use alloy::providers::ProviderBuilder;
use alloy::rpc::types::TransactionRequest;
use manifest::Digest;

use crate::config::{Address, Policy, RpcUrl};
use crate::contract;
use crate::endpoint::Endpoint;
use crate::error::{EndpointError, SubmitError};
use crate::receipt::{self, Receipt};
use crate::signer::Signer;

/// Where [`set_mature_model`] sends its transaction.
#[derive(Debug, Clone)]
pub struct SubmitConfig {
    /// The RPC endpoint.
    pub rpc_url: RpcUrl,
    /// The RPB contract.
    pub contract: Address,
    /// The chain the endpoint must be on; `None` accepts any.
    pub chain_id: Option<u64>,
    /// Patience with the endpoint.
    pub policy: Policy,
    /// How long to wait for the transaction to be in a block.
    pub receipt_timeout: Duration,
}

impl SubmitConfig {
    /// Any chain, the default [`Policy`], 120 s for the receipt.
    pub fn new(rpc_url: RpcUrl, contract: Address) -> Self {
        let (policy, receipt_timeout) = (Policy::default(), Duration::from_secs(120));
        Self { rpc_url, contract, chain_id: None, policy, receipt_timeout }
    }
}

/// Sends `setMatureModel(manifest, price)` from the signer's account and waits until it is in a block. `price` is in
/// the contract's own unit. Gas, fees and nonce are asked of the endpoint.
///
/// **Cancel safety.** None: when the future is dropped the transaction may have been sent.
///
/// # Errors
/// - [`SubmitError::Endpoint`], [`SubmitError::WrongChain`], [`SubmitError::NoContract`], [`SubmitError::Refused`],
///   [`SubmitError::Unsigned`]: nothing was sent.
/// - [`SubmitError::NotTaken`]: it was sent, and the endpoint does not know it.
/// - [`SubmitError::NotMined`]: it may still come.
/// - [`SubmitError::Reverted`]: it cost its gas and changed nothing.
pub async fn set_mature_model(
    config: &SubmitConfig,
    signer: &Signer,
    manifest: Digest,
    price: U256,
) -> Result<Receipt, SubmitError> {
    let endpoint = Endpoint::new(&config.rpc_url, config.policy)?;
    let chain_id = endpoint.chain_id().await?;
    if let Some(expected) = config.chain_id.filter(|expected| *expected != chain_id) {
        return Err(SubmitError::WrongChain { endpoint: endpoint.name(), expected, found: chain_id });
    }
    // A call to an address without code succeeds and does nothing.
    if !endpoint.has_code(config.contract, BlockId::latest()).await? {
        return Err(SubmitError::NoContract { contract: config.contract, chain_id });
    }
    let input = Bytes::from(contract::set_mature_model_calldata(manifest, price));
    let (raw, tx_hash) = sign(&endpoint, config.contract, signer, chain_id, &input).await?;
    send(&endpoint, raw, tx_hash).await?;
    tracing::debug!(%tx_hash, %manifest, contract = %config.contract, chain_id, "sent setMatureModel");

    let after = config.receipt_timeout;
    let mined = receipt::wait(&endpoint, tx_hash, after).await.map_err(|source| SubmitError::NotMined {
        tx_hash,
        after,
        source,
    })?;
    if mined.succeeded() {
        return Ok(mined.into_receipt(tx_hash));
    }
    let block_number = mined.block_number();
    let reason = why_reverted(&endpoint, config.contract, signer.address(), &input, block_number).await;
    Err(SubmitError::Reverted { tx_hash, block_number, reason })
}

/// Fills in nonce, gas and fees, and signs: from here on the transaction's hash is known, whatever becomes of it.
async fn sign(
    endpoint: &Endpoint,
    contract: Address,
    signer: &Signer,
    chain_id: u64,
    input: &Bytes,
) -> Result<(Bytes, B256), SubmitError> {
    let sender = signer.address();
    // Not the recommended fillers: their cached nonce can wait for ever after a reorganisation.
    let provider = ProviderBuilder::<_, _, Ethereum>::default()
        .with_gas_estimation()
        .with_simple_nonce_management()
        .wallet(signer.wallet())
        .connect_client(endpoint.client());
    let request = TransactionRequest::default()
        .with_from(sender.0)
        .with_to(contract.0)
        .with_input(input.clone())
        .with_chain_id(chain_id);
    let filled = match provider.fill(request).await.map_err(|error| endpoint.fault("the gas estimate", error))
    {
        Ok(filled) => filled,
        Err(EndpointError::Reverted { reason, .. }) => {
            return Err(SubmitError::Refused { contract, sender, reason });
        }
        Err(error) => return Err(error.into()),
    };
    let signed = filled.try_into_envelope().map_err(|_| SubmitError::Unsigned { sender })?;
    Ok((signed.encoded_2718().into(), *signed.tx_hash()))
}

async fn send(endpoint: &Endpoint, raw: Bytes, tx_hash: B256) -> Result<(), SubmitError> {
    let Err(source) = endpoint.request::<_, B256>("eth_sendRawTransaction", (raw,)).await else {
        return Ok(());
    };
    // When the answer to a first attempt was lost, the second is refused as known already.
    let known =
        endpoint.request::<_, Option<serde_json::Value>>("eth_getTransactionByHash", (tx_hash,)).await;
    match known {
        Ok(Some(_)) => Ok(()),
        _ => Err(SubmitError::NotTaken { tx_hash, source }),
    }
}

/// Asks for the same call again after the block it failed in: only a call has its reason told.
async fn why_reverted(
    endpoint: &Endpoint,
    contract: Address,
    sender: Address,
    input: &Bytes,
    block_number: u64,
) -> String {
    let call = serde_json::json!({"from": sender.0, "to": contract.0, "data": input});
    match endpoint.request::<_, Bytes>("eth_call", (call, BlockId::number(block_number))).await {
        Err(EndpointError::Reverted { reason, .. }) => reason,
        _ => "the contract gave no reason".to_owned(),
    }
}
