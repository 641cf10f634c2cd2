//! Everything about the transaction but sending it.

use alloy::eips::BlockId;
use alloy::primitives::{B256, Bytes, U64, U256};
use manifest::Digest;

use super::config::SubmitConfig;
use super::fees::{self, Fees};
use super::standing::{self, AlreadySet, Standing, Wanted};
use super::units::Wei;
use crate::address::Address;
use crate::contract;
use crate::endpoint::Endpoint;
use crate::error::{EndpointError, SubmitError};

/// A call of `setMatureModel` that its sender may make and can pay: what would be signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The RPB contract.
    pub contract: Address,
    /// The chain it is on.
    pub chain_id: u64,
    /// Who signs.
    pub sender: Address,
    /// The first argument.
    pub manifest: Digest,
    /// The second, in the contract's own unit.
    pub price: U256,
    /// The input data.
    pub calldata: Bytes,
    /// The block that the sender's transactions were counted at.
    pub block_number: u64,
    /// Which transaction of the sender this is, counted from 0.
    pub nonce: u64,
    /// How many earlier ones of the sender are in no block yet: this one waits for them.
    pub waits_for: u64,
    /// An earlier transaction of the sender that makes this very call, with this nonce, and waits for a block: to send
    /// another would be to pay twice.
    pub waiting: Option<B256>,
    /// The most gas it may use: what the endpoint estimates, and a fifth more.
    pub gas_limit: u64,
    /// What it offers.
    pub fees: Fees,
    /// What it costs at most.
    pub max_cost: Wei,
    /// What the sender has.
    pub balance: Wei,
}

/// What is left to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// To send this call.
    Send(Box<Call>),
    /// Nothing: the contract names the model at this price already.
    AlreadySet(AlreadySet),
}

/// Asks the endpoint for all that [`Call`] says, and whether the contract would take it. Sends nothing.
///
/// # Errors
/// - [`SubmitError::Endpoint`], [`SubmitError::WrongChain`], [`SubmitError::NoContract`].
/// - [`SubmitError::Refused`]: with the contract's reason.
/// - [`SubmitError::FeeOverCap`], [`SubmitError::CannotPay`].
/// - [`SubmitError::Unseen`]: it may be on its way already.
pub async fn prepare(
    config: &SubmitConfig,
    sender: Address,
    manifest: Digest,
    price: U256,
) -> Result<Plan, SubmitError> {
    let endpoint = Endpoint::new(&config.rpc_url, config.policy)?;
    let contract = config.contract;
    let chain_id = endpoint.chain_id().await?;
    if let Some(expected) = config.chain_id.filter(|expected| *expected != chain_id) {
        return Err(SubmitError::WrongChain { endpoint: endpoint.name(), expected, found: chain_id });
    }
    // A call to an address without code succeeds and does nothing.
    if !endpoint.has_code(contract, BlockId::latest()).await? {
        return Err(SubmitError::NoContract { contract, chain_id });
    }
    let calldata = Bytes::from(contract::set_mature_model_calldata(manifest, price));
    let wanted = Wanted { contract, sender, manifest, price, calldata: &calldata };
    let (block_number, nonce, waits_for, waiting) =
        match standing::find_out(&endpoint, config, &wanted).await? {
            Standing::Open { block_number, nonce, waits_for, waiting } => {
                (block_number, nonce, waits_for, waiting)
            }
            Standing::Set { block_number } => {
                return Ok(Plan::AlreadySet(AlreadySet { chain_id, manifest, price, block_number }));
            }
        };
    let refused = |error| match error {
        EndpointError::Reverted { reason, .. } => SubmitError::Refused { contract, sender, reason },
        error => error.into(),
    };
    // Without a price of gas, so that an empty account is told why it may not before that it cannot.
    let call = serde_json::json!({"from": sender.0, "to": contract.0, "data": calldata});
    let _: Bytes = endpoint.request("eth_call", (&call, "latest")).await.map_err(refused)?;
    let fees = fees::offer(&endpoint, config.max_fee, config.priority_fee).await?;
    let balance: U256 = endpoint.request("eth_getBalance", (sender.0, "latest")).await?;
    let estimate: U64 = endpoint.request("eth_estimateGas", (&call,)).await.map_err(refused)?;
    let estimate: u64 = estimate.to();
    let gas_limit = estimate.saturating_add(estimate / 5);
    let max_cost = U256::from(gas_limit).saturating_mul(U256::from(fees.max_per_gas().wei()));
    let (max_cost, balance) = (Wei(max_cost), Wei(balance));
    if balance < max_cost {
        return Err(SubmitError::CannotPay { sender, chain_id, balance, max_cost });
    }
    Ok(Plan::Send(Box::new(Call {
        contract,
        chain_id,
        sender,
        manifest,
        price,
        calldata,
        block_number,
        nonce,
        waits_for,
        waiting,
        gas_limit,
        fees,
        max_cost,
        balance,
    })))
}
