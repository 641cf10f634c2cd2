//! Endpoint, fee limits and timeouts of the transaction.

use std::fmt;
use std::time::Duration;

use super::units::GasPrice;
use crate::address::Address;
use crate::block::BlockTag;
use crate::config::Policy;
use crate::rpc_url::RpcUrl;

/// The default cap on the price of gas: several times what is usual, and far less than what an endpoint could make up.
const DEFAULT_MAX_FEE: GasPrice = GasPrice::from_gwei(300);
/// Default confirmations where chains fork.
const DEFAULT_CONFIRMATIONS: u64 = 3;
/// The chain ids of development nodes (anvil and hardhat; geth --dev and ganache), whose blocks come with transactions only.
const DEVELOPMENT_CHAINS: [u64; 2] = [31337, 1337];

/// Where [`set_mature_model`](crate::set_mature_model) sends its transaction, for how much, and how long it looks after it.
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

    /// Timeout and retries for the endpoint.
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

    /// How long to track the transaction until it is settled.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// The contract.
    pub fn contract(&self) -> Address {
        self.contract
    }
}

/// When a transaction in a block counts as settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// After so many confirmations, its own block included. 0 counts as 1.
    Confirmations(u64),
    /// When its block is under this tag, or before the one that is: from then on nodes that read that tag see the model.
    Tag(BlockTag),
}

impl Settled {
    pub(super) fn on_chain(chain_id: u64) -> Self {
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
