//! The one write: naming a new model.

mod fees;
mod follow;
mod prepare;
mod units;

use std::time::Duration;

use alloy::eips::{BlockId, Encodable2718};
use alloy::network::{Ethereum, NetworkTransactionBuilder, TransactionBuilder};
use alloy::primitives::{B256, Bytes, U256};
use alloy::rpc::types::TransactionRequest;
use manifest::Digest;

pub use fees::Fees;
pub use prepare::{Call, prepare};
pub use units::{GasPrice, Wei};

use crate::config::{Address, BlockTag, Policy, RpcUrl};
use crate::endpoint::Endpoint;
use crate::error::{EndpointError, SubmitError};
use crate::receipt::Receipt;
use crate::signer::Signer;
use follow::Follower;

/// The default cap on the price of gas: several times what is usual, and far less than what an endpoint could make up.
const DEFAULT_MAX_FEE: GasPrice = GasPrice::from_gwei(300);
/// How many blocks are waited for where chains fork.
const DEFAULT_CONFIRMATIONS: u64 = 3;
/// The chain ids of development nodes (anvil and hardhat; geth --dev and ganache), whose blocks come with transactions only.
const DEVELOPMENT_CHAINS: [u64; 2] = [31337, 1337];

/// Where [`set_mature_model`] sends its transaction, for how much, and how long it looks after it.
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
    /// The most that a unit of gas may cost. Nothing is sent while the network takes more.
    pub max_fee: GasPrice,
    /// What is paid on top of the base fee; `None` asks the endpoint what is usual. Nothing on a chain without base fees.
    pub priority_fee: Option<GasPrice>,
    /// When the transaction counts as settled; `None` for three blocks, one on a development chain.
    pub settled: Option<Settled>,
    /// How long to look after the transaction until it is settled.
    pub timeout: Duration,
}

impl SubmitConfig {
    /// Any chain, the default [`Policy`], at most 300 gwei, the usual priority fee, the usual number of blocks, within
    /// five minutes.
    pub fn new(rpc_url: RpcUrl, contract: Address) -> Self {
        Self {
            rpc_url,
            contract,
            chain_id: None,
            policy: Policy::default(),
            max_fee: DEFAULT_MAX_FEE,
            priority_fee: None,
            settled: None,
            timeout: Duration::from_secs(300),
        }
    }
}

/// When a transaction that is in a block is no longer looked after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// When there are so many blocks, its own included. 0 counts as 1.
    Confirmations(u64),
    /// When its block is under this tag, or before the one that is: from then on nodes that read that tag see the model.
    Tag(BlockTag),
}

impl Settled {
    fn on_chain(chain_id: u64) -> Self {
        let is_development = DEVELOPMENT_CHAINS.contains(&chain_id);
        Self::Confirmations(if is_development { 1 } else { DEFAULT_CONFIRMATIONS })
    }
}

/// What happens to a transaction after it was signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The endpoint has taken it.
    Sent {
        /// The transaction.
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
    /// The endpoint had forgotten it, and has taken it again.
    SentAgain {
        /// The transaction.
        tx_hash: B256,
    },
}

/// Sends `setMatureModel(manifest, price)` from the signer's account and looks after it: [`prepare`], then [`send`].
///
/// # Errors
/// Those of both.
pub async fn set_mature_model(
    config: &SubmitConfig,
    signer: &Signer,
    manifest: Digest,
    price: U256,
) -> Result<Receipt, SubmitError> {
    let call = prepare(config, signer.address(), manifest, price).await?;
    send(config, &call, signer, &|_| {}).await
}

/// Signs the call, sends it, and looks after it until it is settled: when a reorganisation takes it out of its block, it
/// is waited for again, and sent again when the endpoint has forgotten it. `on_step` is told what happens.
///
/// **Cancel safety.** None: when the future is dropped the transaction may have been sent.
///
/// # Errors
/// - [`SubmitError::Endpoint`], [`SubmitError::Unsigned`]: nothing was sent.
/// - [`SubmitError::NotTaken`]: it was sent, and the endpoint does not know it.
/// - [`SubmitError::NotMined`]: it may still come.
/// - [`SubmitError::NotSettled`]: it is in a block, and may still leave it.
/// - [`SubmitError::Replaced`]: it never comes.
/// - [`SubmitError::Reverted`]: it cost its gas and changed nothing.
pub async fn send(
    config: &SubmitConfig,
    call: &Call,
    signer: &Signer,
    on_step: &(dyn Fn(Step) + Sync),
) -> Result<Receipt, SubmitError> {
    let endpoint = Endpoint::new(&config.rpc_url, config.policy)?;
    let (raw, tx_hash) = sign(call, signer).await?;
    hand_over(&endpoint, &raw, tx_hash).await?;
    on_step(Step::Sent { tx_hash });
    let settled = config.settled.unwrap_or_else(|| Settled::on_chain(call.chain_id));
    let follower = Follower::new(&endpoint, call, raw, tx_hash, settled, on_step);
    let (mined, receipt) = follower.follow(config.timeout).await?;
    if mined.succeeded() {
        return Ok(receipt);
    }
    let block_number = receipt.block_number;
    let reason = why_reverted(&endpoint, call, block_number).await;
    Err(SubmitError::Reverted { tx_hash, block_number, reason })
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

async fn hand_over(endpoint: &Endpoint, raw: &Bytes, tx_hash: B256) -> Result<(), SubmitError> {
    let Err(source) = endpoint.request::<_, B256>("eth_sendRawTransaction", (raw,)).await else {
        return Ok(());
    };
    // When the answer to a first attempt was lost, the second is refused as known already.
    match is_known(endpoint, tx_hash).await {
        Ok(true) => Ok(()),
        _ => Err(SubmitError::NotTaken { tx_hash, source }),
    }
}

/// Whether the endpoint has the transaction, in a block or waiting for one.
async fn is_known(endpoint: &Endpoint, tx_hash: B256) -> Result<bool, EndpointError> {
    let known: Option<serde_json::Value> = endpoint.request("eth_getTransactionByHash", (tx_hash,)).await?;
    Ok(known.is_some())
}

/// Asks for the same call again after the block it failed in: only a call has its reason told.
async fn why_reverted(endpoint: &Endpoint, call: &Call, block_number: u64) -> String {
    let again = serde_json::json!({"from": call.sender.0, "to": call.contract.0, "data": call.calldata});
    match endpoint.request::<_, Bytes>("eth_call", (again, BlockId::number(block_number))).await {
        Err(EndpointError::Reverted { reason, .. }) => reason,
        _ => "the contract gave no reason".to_owned(),
    }
}
