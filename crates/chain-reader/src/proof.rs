//! Storage proofs: the contract's storage, proven against the state root of the block that a quorum agreed on.
//!
//! `getMatureModel()` is run by the endpoints, and its result is trusted by quorum. With a proof it need not be: the header
//! with the agreed hash has a state root, and `eth_getProof` proves under it the storage slots that Solidity keeps the
//! string in. What that proves, and what not, is documented at [`StringSlot`].

mod check;
mod layout;

use std::time::Duration;

use alloy::consensus::Header;
use alloy::primitives::U256;
use alloy::rpc::types::EIP1186AccountProofResponse;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::time::sleep;

use crate::address::Address;
use crate::ballot::Winner;
use crate::block::Block;
use crate::endpoint::Endpoint;
use crate::error::ProofError;
use check::{Evidence, NoEvidence};

pub use layout::StringSlot;

/// The result of a proof that does not contradict the quorum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Proof {
    /// The string stands in this slot; the endpoint with this name has shown it.
    Proven { slot: U256, endpoint: String },
    /// No endpoint of the quorum has a proof for that block. That is no contradiction: nodes that prune lack the state of old
    /// blocks, and some never serve proofs.
    Unprovable { reasons: Vec<String> },
}

/// Proves the winner's string in the contract's storage, with the first proof from an endpoint that voted for it, within
/// `patience`.
///
/// # Errors
/// - [`ProofError::Contradicted`]: something else stands there.
/// - [`ProofError::UnknownCode`]: the slot is to be that of known code, and this is not.
pub(crate) async fn prove(
    endpoints: &[Endpoint],
    winner: &Winner,
    contract: Address,
    text: &[u8],
    slot: StringSlot,
    patience: Duration,
) -> Result<Proof, ProofError> {
    let (block, block_number) = (winner.vote.block, winner.vote.block.number());
    let mut reasons = Vec::new();
    let ask =
        |voter: usize| async move { (voter, show(&endpoints[voter], block, contract, text, slot).await) };
    let mut asked: FuturesUnordered<_> = winner.voters.iter().copied().map(ask).collect();
    let mut silent = winner.voters.clone();
    let patience = sleep(patience);
    tokio::pin!(patience);
    loop {
        let shown = tokio::select! {
            shown = asked.next() => shown,
            () = &mut patience => None,
        };
        let Some((voter, shown)) = shown else { break };
        silent.retain(|other| *other != voter);
        let endpoint = endpoints[voter].name();
        match shown {
            Ok((slot, Evidence::Same)) => return Ok(Proof::Proven { slot, endpoint }),
            Ok((slot, Evidence::Other { key, found, expected })) => {
                return Err(ProofError::Contradicted { contract, block_number, slot, key, found, expected });
            }
            Err(NoProof::Final(error)) => return Err(error),
            Err(NoProof::Here(why)) => reasons.push(format!("{endpoint}: {why}")),
        }
    }
    reasons
        .extend(silent.iter().map(|voter| format!("{}: has not answered in time", endpoints[*voter].name())));
    Ok(Proof::Unprovable { reasons })
}

/// Why one endpoint gave no proof.
enum NoProof {
    /// Another one may.
    Here(String),
    /// No other one will.
    Final(ProofError),
}

impl From<crate::error::EndpointError> for NoProof {
    fn from(error: crate::error::EndpointError) -> Self {
        Self::Here(error.to_string())
    }
}

impl From<NoEvidence> for NoProof {
    fn from(why: NoEvidence) -> Self {
        Self::Here(why.to_string())
    }
}

/// One endpoint's proof of the string's slots, and the first of them.
async fn show(
    endpoint: &Endpoint,
    block: Block,
    contract: Address,
    text: &[u8],
    slot: StringSlot,
) -> Result<(U256, Evidence), NoProof> {
    let header: Option<Header> = endpoint.request("eth_getBlockByHash", (block.hash, false)).await?;
    let header = header.ok_or_else(|| NoProof::Here("it does not have the block any more".to_owned()))?;
    let state_root = check::state_root(&header, block.hash)?;
    let ask = async |keys: Vec<_>| -> Result<EIP1186AccountProofResponse, NoProof> {
        let params = |block| (contract.0, keys.clone(), block);
        Ok(endpoint.request_at("eth_getProof", params, block.id()).await?)
    };
    let slot = match slot {
        StringSlot::At(slot) => slot,
        StringSlot::OfKnownCode => {
            let code_hash = check::account(state_root, contract, &ask(Vec::new()).await?)?.code_hash;
            layout::known_slot(code_hash)
                .ok_or(NoProof::Final(ProofError::UnknownCode { contract, code_hash }))?
        }
    };
    let words = layout::string_words(slot, text);
    let proof = ask(words.iter().map(|(key, _)| *key).collect()).await?;
    let account = check::account(state_root, contract, &proof)?;
    Ok((slot, check::storage(account.storage_root, &words, &proof)?))
}
