//! The one write: naming a new model.

mod fees;
mod follow;
mod handing;
mod prepare;
mod standing;
mod taken;
mod units;

use std::fmt;
use std::time::Duration;

use alloy::eips::{BlockId, Encodable2718};
use alloy::network::{Ethereum, NetworkTransactionBuilder, TransactionBuilder};
use alloy::primitives::{B256, Bytes, U256};
use alloy::rpc::types::TransactionRequest;
use manifest::Digest;

pub use fees::Fees;
pub use prepare::{Call, Plan, prepare};
pub use standing::{AlreadySet, wait_until_settled};
pub use units::{GasPrice, Wei};

use crate::config::{Address, BlockTag, Policy, RpcUrl};
use crate::endpoint::Endpoint;
use crate::error::{EndpointError, SubmitError};
use crate::receipt::Receipt;
use crate::signer::Signer;
use follow::{Follower, Verdict};
use handing::Handed;

/// The default cap on the price of gas: several times what is usual, and far less than what an endpoint could make up.
const DEFAULT_MAX_FEE: GasPrice = GasPrice::from_gwei(300);
/// How many blocks are waited for where chains fork.
const DEFAULT_CONFIRMATIONS: u64 = 3;
/// The chain ids of development nodes (anvil and hardhat; geth --dev and ganache), whose blocks come with transactions only.
const DEVELOPMENT_CHAINS: [u64; 2] = [31337, 1337];

/// Where [`set_mature_model`] sends its transaction, for how much, and how long it looks after it.
#[derive(Debug, Clone)]
pub struct SubmitConfig {
    pub(crate) rpc_url: RpcUrl,
    pub(crate) contract: Address,
    pub(crate) chain_id: Option<u64>,
    pub(crate) policy: Policy,
    pub(crate) max_fee: GasPrice,
    pub(crate) priority_fee: Option<GasPrice>,
    pub(crate) settled: Option<Settled>,
    pub(crate) timeout: Duration,
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

    /// The RPC endpoint.
    #[must_use]
    pub fn with_rpc_url(self, rpc_url: RpcUrl) -> Self {
        Self { rpc_url, ..self }
    }

    /// The RPB contract.
    #[must_use]
    pub fn with_contract(self, contract: Address) -> Self {
        Self { contract, ..self }
    }

    /// The chain the endpoint must be on; `None` accepts any.
    #[must_use]
    pub fn with_chain_id(self, chain_id: impl Into<Option<u64>>) -> Self {
        Self { chain_id: chain_id.into(), ..self }
    }

    /// Patience with the endpoint.
    #[must_use]
    pub fn with_policy(self, policy: Policy) -> Self {
        Self { policy, ..self }
    }

    /// The most that a unit of gas may cost. Nothing is sent while the network takes more.
    #[must_use]
    pub fn with_max_fee(self, max_fee: GasPrice) -> Self {
        Self { max_fee, ..self }
    }

    /// What is paid on top of the base fee; `None` asks the endpoint what is usual. Nothing on a chain without base fees.
    #[must_use]
    pub fn with_priority_fee(self, priority_fee: impl Into<Option<GasPrice>>) -> Self {
        Self { priority_fee: priority_fee.into(), ..self }
    }

    /// When the transaction counts as settled; `None` for three blocks, one on a development chain.
    #[must_use]
    pub fn with_settled(self, settled: impl Into<Option<Settled>>) -> Self {
        Self { settled: settled.into(), ..self }
    }

    /// How long to look after the transaction until it is settled.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// The contract.
    pub fn contract(&self) -> Address {
        self.contract
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

impl fmt::Display for Settled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Confirmations(blocks) => write!(f, "with {blocks} blocks"),
            Self::Tag(tag) => write!(f, "once it is {tag}"),
        }
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
    /// The endpoint was given it, and its answer was lost, or does not tell whether it has taken it.
    MaybeSent {
        /// The transaction.
        tx_hash: B256,
    },
    /// Nothing was sent: an earlier transaction of the sender that makes the same call waits for a block.
    Waiting {
        /// That transaction.
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
    /// The endpoint did not know it any more, and has taken it again.
    SentAgain {
        /// The transaction.
        tx_hash: B256,
    },
}

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

/// Signs the call, sends it, and looks after it until it is settled: when a reorganisation takes it out of its block, it
/// is waited for again, and sent again when the endpoint has forgotten it. `on_step` is told what happens. When the call
/// is [waiting](Call::waiting) already, that transaction is looked after, and no other sent.
///
/// What an endpoint says of a transaction decides little: answers get lost, and behind one URL there may be nodes that
/// lag. That it failed, or never comes, is said only of what a block shows.
///
/// **Cancel safety.** None: when the future is dropped the transaction may have been sent.
///
/// # Errors
/// - [`SubmitError::Endpoint`], [`SubmitError::Unsigned`], [`SubmitError::NotTaken`]: nothing was sent.
/// - [`SubmitError::NotMined`]: it may still come.
/// - [`SubmitError::NotSettled`]: it is in a block, and may still leave it.
/// - [`SubmitError::Displaced`]: another one is in a block in its place, and may still leave it.
/// - [`SubmitError::Replaced`]: it never comes.
/// - [`SubmitError::Reverted`]: it cost its gas and changed nothing.
pub async fn send(
    config: &SubmitConfig,
    call: &Call,
    signer: &Signer,
    on_step: &(dyn Fn(Step) + Sync),
) -> Result<Receipt, SubmitError> {
    let endpoint = Endpoint::new(&config.rpc_url, config.policy)?;
    let settled = config.settled.unwrap_or_else(|| Settled::on_chain(call.chain_id));
    let mut follower = Follower::new(&endpoint, call, settled, on_step);
    if let Some(tx_hash) = call.waiting {
        on_step(Step::Waiting { tx_hash });
        follower = follower.of(tx_hash);
    } else {
        let (raw, tx_hash) = sign(call, signer).await?;
        let sending = handing::once(config)?;
        let refusal = match handing::hand_over(&sending, &config.policy, &raw, tx_hash).await? {
            Handed::Taken => {
                on_step(Step::Sent { tx_hash });
                None
            }
            Handed::Unclear => {
                on_step(Step::MaybeSent { tx_hash });
                None
            }
            Handed::Refused(refusal) => Some(refusal),
        };
        follower = follower.of(tx_hash).again_with(sending, raw, refusal);
    }
    match follower.follow(config.timeout).await? {
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

/// Whether the endpoint has answered, if not with what was asked for: asking it again does not help, asking for something
/// else may.
fn is_answer(error: &EndpointError) -> bool {
    let is_answer = matches!(
        error,
        EndpointError::Rpc { .. }
            | EndpointError::Reverted { .. }
            | EndpointError::Status { .. }
            | EndpointError::Nonsense { .. }
            | EndpointError::TooLong { .. }
    );
    is_answer && !error.is_retryable()
}

/// Asks for the same call again after the block it failed in: only a call has its reason told.
async fn why_reverted(endpoint: &Endpoint, call: &Call, block_number: u64) -> String {
    let again = serde_json::json!({"from": call.sender.0, "to": call.contract.0, "data": call.calldata});
    match endpoint.request::<_, Bytes>("eth_call", (again, BlockId::number(block_number))).await {
        Err(EndpointError::Reverted { reason, .. }) => reason,
        _ => "the contract gave no reason".to_owned(),
    }
}
