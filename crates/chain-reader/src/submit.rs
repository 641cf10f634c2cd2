//! The one write: naming a new model.

mod broadcast;
mod config;
mod confirm;
mod fees;
mod prepare;
mod standing;
mod taken;
mod units;

use alloy::eips::{BlockId, Encodable2718};
use alloy::network::{Ethereum, NetworkTransactionBuilder, TransactionBuilder};
use alloy::primitives::{B256, Bytes, U256};
use alloy::rpc::types::TransactionRequest;
use manifest::Digest;

pub use config::{Settled, SubmitConfig};
pub use confirm::Step;
pub use fees::Fees;
pub use prepare::{Call, Plan, prepare};
pub use standing::{AlreadySet, wait_until_settled};
pub use units::{GasPrice, Wei};

use crate::endpoint::Endpoint;
use crate::error::{EndpointError, SubmitError};
use crate::receipt::Receipt;
use crate::signer::Signer;
use broadcast::Broadcast;
use confirm::{Confirmation, Verdict};

/// How it ended that the contract names a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// A transaction has set it.
    Mined(Receipt),
    /// It had been set before: nothing was sent.
    AlreadySet(AlreadySet),
}

impl Done {
    /// A block in which the contract names the model.
    pub fn block_number(&self) -> u64 {
        match self {
            Self::Mined(receipt) => receipt.block_number,
            Self::AlreadySet(set) => set.block_number,
        }
    }
}

/// Has the contract name the model: [`prepare()`], then [`send`] from the signer's account, or [`wait_until_settled`] when
/// it names the model already.
///
/// # Errors
/// Those of the three.
pub async fn set_mature_model(
    config: &SubmitConfig,
    signer: &Signer,
    manifest: Digest,
    price: U256,
) -> Result<Done, SubmitError> {
    match prepare(config, signer.address(), manifest, price).await? {
        Plan::Send(call) => send(config, &call, signer, &|_| {}).await.map(Done::Mined),
        Plan::AlreadySet(set) => wait_until_settled(config, set).await.map(Done::AlreadySet),
    }
}

/// Signs the call, sends it, and tracks it until it is settled: after a reorg it is waited for again, and rebroadcast when
/// the endpoint has dropped it. `on_step` gets each step. When the call is [waiting](Call::waiting) already, that
/// transaction is tracked, and no other sent.
///
/// Endpoints' answers about a transaction decide little: they get lost, and behind one URL there may be nodes that lag.
/// That it failed, or was replaced, is only concluded from a block.
///
/// **Cancel safety.** None: when the future is dropped the transaction may have been sent.
///
/// # Errors
/// - [`SubmitError::Endpoint`], [`SubmitError::Unsigned`], [`SubmitError::NotTaken`]: nothing was sent.
/// - [`SubmitError::NotMined`]: it may still be mined.
/// - [`SubmitError::NotSettled`]: it is in a block, and may still be reorganised away.
/// - [`SubmitError::Displaced`]: another one with its nonce is in a block, and may still be reorganised away.
/// - [`SubmitError::Replaced`]: another one has used its nonce for good.
/// - [`SubmitError::Reverted`]: it cost its gas and changed nothing.
pub async fn send(
    config: &SubmitConfig,
    call: &Call,
    signer: &Signer,
    on_step: &(dyn Fn(Step) + Sync),
) -> Result<Receipt, SubmitError> {
    let endpoint = Endpoint::new(&config.rpc_url, config.policy)?;
    let settled = config.settled.unwrap_or_else(|| Settled::on_chain(call.chain_id));
    let mut confirmation = Confirmation::new(&endpoint, call, settled, on_step);
    if let Some(tx_hash) = call.waiting {
        on_step(Step::Waiting { tx_hash });
        confirmation = confirmation.of(tx_hash);
    } else {
        let (raw, tx_hash) = sign(call, signer).await?;
        let sending = broadcast::once(config)?;
        let refusal = match broadcast::hand_over(&sending, &config.policy, &raw, tx_hash).await? {
            Broadcast::Taken => {
                on_step(Step::Sent { tx_hash });
                None
            }
            Broadcast::Unclear => {
                on_step(Step::MaybeSent { tx_hash });
                None
            }
            Broadcast::Refused(refusal) => Some(refusal),
        };
        confirmation = confirmation.of(tx_hash).again_with(sending, raw, refusal);
    }
    match confirmation.wait(config.timeout).await? {
        Verdict::Settled(receipt) => Ok(receipt),
        Verdict::Failed { tx_hash, block_number, by_receipt } => {
            let reason = match by_receipt {
                true => why_reverted(&endpoint, call, block_number).await,
                false => {
                    "its receipt does not say how it went, and the contract does not name the model then"
                        .into()
                }
            };
            Err(SubmitError::Reverted { tx_hash, block_number, reason })
        }
    }
}

/// From here on the transaction's hash is known, whatever becomes of it.
async fn sign(call: &Call, signer: &Signer) -> Result<(Bytes, B256), SubmitError> {
    let request = TransactionRequest::default()
        .with_from(call.sender.0)
        .with_to(call.contract.0)
        .with_input(call.calldata.clone())
        .with_chain_id(call.chain_id)
        .with_nonce(call.nonce)
        .with_gas_limit(call.gas_limit);
    let request = match call.fees {
        Fees::Dynamic { priority_fee, max_fee, .. } => {
            request.with_max_fee_per_gas(max_fee.wei()).with_max_priority_fee_per_gas(priority_fee.wei())
        }
        Fees::Legacy { gas_price } => request.with_gas_price(gas_price.wei()),
    };
    let wallet = signer.wallet();
    let signed = NetworkTransactionBuilder::<Ethereum>::build(request, &wallet)
        .await
        .map_err(|source| SubmitError::Unsigned { sender: call.sender, source: source.into() })?;
    Ok((signed.encoded_2718().into(), *signed.tx_hash()))
}

/// Asks for the same call again after the block it failed in: only a call has its reason told.
async fn why_reverted(endpoint: &Endpoint, call: &Call, block_number: u64) -> String {
    let again = serde_json::json!({"from": call.sender.0, "to": call.contract.0, "data": call.calldata});
    match endpoint.request::<_, Bytes>("eth_call", (again, BlockId::number(block_number))).await {
        Err(EndpointError::Reverted { reason, .. }) => reason,
        _ => "the contract gave no reason".to_owned(),
    }
}
