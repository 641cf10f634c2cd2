//! The state before anything is sent: a model that is set, or pending, is not paid for again.

use std::collections::BTreeMap;
use std::time::Duration;

use alloy::eips::BlockId;
use alloy::primitives::{self, B256, Bytes, U64, U256};
use manifest::Digest;
use serde::Deserialize;
use tokio::time::{Instant, sleep, timeout};

use super::config::{Settled, SubmitConfig};
use crate::address::Address;
use crate::block::Block;
use crate::contract;
use crate::endpoint::Endpoint;
use crate::error::{EndpointError, SubmitError};

/// For so long requests are repeated: behind one URL there may be nodes that lag.
const LAG: Duration = Duration::from_secs(10);
/// Poll interval.
const PAUSE: Duration = Duration::from_millis(500);

/// The contract names a model already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AlreadySet {
    /// The chain the contract is on.
    pub chain_id: u64,
    /// The model.
    pub manifest: Digest,
    /// Its price.
    pub price: U256,
    /// A block after which the contract names it.
    pub block_number: u64,
}

/// What is wanted, and by whom.
#[derive(Debug, Clone)]
pub(super) struct Wanted<'a> {
    pub(super) contract: Address,
    pub(super) sender: Address,
    pub(super) manifest: Digest,
    pub(super) price: U256,
    pub(super) calldata: &'a Bytes,
}

/// How it stands.
#[derive(Debug)]
pub(super) enum Standing {
    /// It is set.
    Set { block_number: u64 },
    /// A transaction for it is to be sent, or, with `waiting`, was.
    Open { block_number: u64, nonce: u64, waits_for: u64, waiting: Option<B256> },
}

/// Finds out how it stands.
///
/// # Errors
/// [`SubmitError::Unseen`], [`SubmitError::Endpoint`].
pub(super) async fn find_out(
    endpoint: &Endpoint,
    config: &SubmitConfig,
    wanted: &Wanted<'_>,
) -> Result<Standing, SubmitError> {
    let deadline = Instant::now() + LAG.min(config.timeout);
    loop {
        let found = look(endpoint, wanted).await;
        let may_lag = match &found {
            Err(SubmitError::Endpoint(error)) => error.is_answer(),
            Err(SubmitError::Unseen { .. }) => true,
            _ => false,
        };
        if !may_lag || Instant::now() >= deadline {
            return found;
        }
        sleep(PAUSE).await;
    }
}

/// All that counts is read at one block: what is missing in the count of one is missing in the other, too, so that a
/// transaction that is not seen here has the nonce of the one that would be sent.
async fn look(endpoint: &Endpoint, wanted: &Wanted<'_>) -> Result<Standing, SubmitError> {
    let head: Block = endpoint.request("eth_getBlockByNumber", ("latest", false)).await?;
    let block_number = head.number();
    if names(endpoint, wanted.contract, wanted.manifest, wanted.price, block_number).await? {
        return Ok(Standing::Set { block_number });
    }
    let sender = wanted.sender;
    let mined = endpoint.nonce(sender, BlockId::number(block_number)).await?;
    let next = match endpoint.nonce(sender, BlockId::pending()).await {
        Ok(next) => next.max(mined),
        // Not every node has that tag.
        Err(error) if error.is_answer() => mined,
        Err(error) => return Err(error.into()),
    };
    let waits_for = next - mined;
    let open = |nonce, waits_for, waiting| Standing::Open { block_number, nonce, waits_for, waiting };
    if waits_for == 0 {
        return Ok(open(mined, 0, None));
    }
    let pool = waiting_of(endpoint, sender, mined, next).await?;
    let last = pool.values().rfind(|sent| sent.to == Some(wanted.contract.0));
    match last.filter(|sent| sent.input() == Some(wanted.calldata)) {
        Some(sent) => {
            let nonce = sent.nonce.to::<u64>();
            Ok(open(nonce, nonce - mined, Some(sent.hash)))
        }
        None if pool.len() as u64 == waits_for => Ok(open(next, waits_for, None)),
        None => Err(SubmitError::Unseen { sender, waits_for }),
    }
}

/// Whether the contract names this model and price after this block.
pub(super) async fn names(
    endpoint: &Endpoint,
    contract: Address,
    manifest: Digest,
    price: U256,
    block_number: u64,
) -> Result<bool, EndpointError> {
    match endpoint.call(contract, contract::encode_get(), BlockId::number(block_number)).await {
        Ok(data) => Ok(contract::decode_get(&data)
            .is_some_and(|named| named.price == price && named.text[..] == *manifest.to_string().as_bytes())),
        // A contract that only takes, or that names nothing yet.
        Err(EndpointError::Reverted { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The fields we need of a transaction that waits.
#[derive(Debug, Deserialize)]
struct Sent {
    hash: B256,
    from: primitives::Address,
    nonce: U64,
    to: Option<primitives::Address>,
    input: Option<Bytes>,
    data: Option<Bytes>,
}

impl Sent {
    /// Nodes have one name or the other for it.
    fn input(&self) -> Option<&Bytes> {
        self.input.as_ref().or(self.data.as_ref())
    }
}

/// The sender's pending transactions, by nonce, as far as the endpoint shows them.
async fn waiting_of(
    endpoint: &Endpoint,
    sender: Address,
    from: u64,
    to: u64,
) -> Result<BTreeMap<u64, Sent>, EndpointError> {
    let mut found = BTreeMap::new();
    // Each node has another way to show them, if any.
    for method in ["eth_getBlockByNumber", "txpool_contentFrom", "txpool_content"] {
        let shown: Result<serde_json::Value, _> = match method {
            "eth_getBlockByNumber" => endpoint.request(method, ("pending", true)).await,
            "txpool_contentFrom" => endpoint.request(method, (sender.0,)).await,
            _ => endpoint.request(method, ()).await,
        };
        match shown {
            Ok(shown) => collect(shown, &mut |sent| {
                let nonce = sent.nonce.to::<u64>();
                if sent.from == sender.0 && (from..to).contains(&nonce) {
                    found.insert(nonce, sent);
                }
            }),
            Err(error) if error.is_answer() => {}
            Err(error) => return Err(error),
        }
        if found.len() as u64 == to - from {
            break;
        }
    }
    Ok(found)
}

/// Gives `take` each transaction in an answer, however deep: blocks have a list, pools tables of tables.
fn collect(shown: serde_json::Value, take: &mut impl FnMut(Sent)) {
    if let Ok(sent) = serde_json::from_value(shown.clone()) {
        return take(sent);
    }
    match shown {
        serde_json::Value::Array(items) => items.into_iter().for_each(|item| collect(item, take)),
        serde_json::Value::Object(fields) => fields.into_iter().for_each(|(_, item)| collect(item, take)),
        _ => {}
    }
}

/// Waits until a model that is set already has settled like one that was just set: nodes that read that block see it.
///
/// # Errors
/// [`SubmitError::SetNotSettled`].
pub async fn wait_until_settled(config: &SubmitConfig, set: AlreadySet) -> Result<AlreadySet, SubmitError> {
    let endpoint = Endpoint::new(&config.rpc_url, config.policy)?;
    let settled = config.settled.unwrap_or_else(|| Settled::on_chain(set.chain_id));
    let mut trouble = None;
    let looking = async {
        loop {
            match is_settled(&endpoint, config.contract, &set, settled).await {
                Ok(true) => return,
                Ok(false) => trouble = None,
                Err(error) => trouble = Some(error),
            }
            sleep(PAUSE).await;
        }
    };
    match timeout(config.timeout, looking).await {
        Ok(()) => Ok(set),
        Err(_) => Err(SubmitError::SetNotSettled {
            block_number: set.block_number,
            settled,
            after: config.timeout,
            source: trouble,
        }),
    }
}

/// Whether the contract names it both now and where that has settled.
async fn is_settled(
    endpoint: &Endpoint,
    contract: Address,
    set: &AlreadySet,
    settled: Settled,
) -> Result<bool, EndpointError> {
    let head: Block = endpoint.request("eth_getBlockByNumber", ("latest", false)).await?;
    let height = match settled {
        Settled::Confirmations(blocks) => (head.number() + 1).checked_sub(blocks.max(1)),
        Settled::Tag(tag) => endpoint.block(tag).await?.map(|block| block.number()),
    };
    let Some(height) = height else { return Ok(false) };
    let named = async |height| names(endpoint, contract, set.manifest, set.price, height).await;
    Ok(named(height).await? && (height == head.number() || named(head.number()).await?))
}
