//! Everything that goes wrong here. Messages name an endpoint by host and port, never by URL.

use std::time::Duration;

use alloy::primitives::B256;
use manifest::Blame;

use crate::address::Address;
use crate::block::BlockTag;

mod availability;
#[cfg(feature = "devnet")]
mod devnet;
mod endpoint;
mod parse;
mod proof;
mod state;
mod submit;

pub use availability::Availability;
#[cfg(feature = "devnet")]
pub use devnet::DevnetError;
pub use endpoint::EndpointError;
pub use parse::{
    ParseAddressError, ParseBlockTagError, ParseGasPriceError, ParseHeaderError, ParseRpcUrlError,
};
pub use proof::ProofError;
pub use state::StateError;
pub use submit::{SignerError, SubmitError};

pub(crate) use crate::excerpt::{cut as excerpt, with_causes};

/// One line each, as the end of a message.
fn list(said: &[String]) -> String {
    said.iter().map(|line| format!("\n  {line}")).collect()
}

/// What exists in the newest block, but not yet in the block that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NotFinal {
    /// The contract itself.
    Contract,
    /// Its first model.
    Model,
}

impl std::fmt::Display for NotFinal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Contract => "contract",
            Self::Model => "first model of contract",
        })
    }
}

/// Why there is no [`MatureModel`](crate::MatureModel).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// No RPC URL in the configuration.
    #[error("no RPC URL was given: reading the chain needs one")]
    NoEndpoint,
    /// Two URLs of one provider.
    #[error("{endpoint} was given twice as an RPC endpoint: what one provider says counts once")]
    DuplicateEndpoint {
        /// Host and port.
        endpoint: String,
    },
    /// More endpoints than are ever asked.
    #[error("{count} RPC endpoints were given, at most {max} are asked")]
    TooManyEndpoints {
        /// How many.
        count: usize,
        /// How many may be given.
        max: usize,
    },
    /// A quorum that cannot be.
    #[error("a quorum of {quorum} was asked for, expected 1 to {endpoints}, the number of RPC endpoints")]
    Quorum {
        /// The configured quorum.
        quorum: usize,
        /// How many endpoints there are.
        endpoints: usize,
    },
    /// Too few endpoints say the same.
    #[error("no {needed} of {} RPC endpoints agree on what the contract {contract} says{}", said.len(), list(said))]
    NoQuorum {
        /// The contract.
        contract: Address,
        /// How many must agree.
        needed: usize,
        /// What each endpoint said, beginning with its host and port.
        said: Vec<String>,
    },
    /// Another block at a height that was final. That lasts until what is remembered of the chain is forgotten.
    #[error(
        "finalized block {block_number} was {before}, and then a quorum of RPC endpoints said that it is {now}: either \
         the chain was reorganised beyond finality or the endpoints lie; nothing is loaded from it any more. Compare with \
         a block explorer; `loader chain forget` accepts the chain as it is now"
    )]
    FinalizedChanged {
        /// The height.
        block_number: u64,
        /// The block that was read there before.
        before: B256,
        /// The block that was there later.
        now: B256,
    },
    /// The chain is not to be asked, and nothing is known from earlier.
    #[error(
        "nothing was loaded from the contract {contract} at a {tag} block before: run once without --offline"
    )]
    NothingLoaded {
        /// The contract.
        contract: Address,
        /// The tag.
        tag: BlockTag,
    },
    /// The chain is not to be asked, and models from several chains were loaded earlier.
    #[error("models of contract {contract} were loaded from chains {chain_ids:?}: give the chain id of one")]
    SeveralChains {
        /// The contract.
        contract: Address,
        /// Their ids.
        chain_ids: Vec<u64>,
    },
    /// What is remembered of the chain cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// A storage proof forbids to use what the quorum says.
    #[error(transparent)]
    Proof(#[from] Box<ProofError>),
    /// The endpoint failed.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The endpoint is on another chain.
    #[error(
        "RPC endpoint {endpoint} is on chain {found}, expected chain {expected}: check the URL and the chain id"
    )]
    WrongChain {
        /// Host and port.
        endpoint: String,
        /// The configured chain id.
        expected: u64,
        /// The endpoint's chain id.
        found: u64,
    },
    /// The endpoint knows no block under the tag.
    #[error("RPC endpoint {endpoint} has no {tag} block yet: wait, or read another block tag")]
    NoBlock {
        /// Host and port.
        endpoint: String,
        /// The tag.
        tag: BlockTag,
    },
    /// The endpoint does not know the tag.
    #[error("RPC endpoint {endpoint} does not know the block tag {tag}: read another one (--block-tag)")]
    UnknownTag {
        /// Host and port.
        endpoint: String,
        /// The tag.
        tag: BlockTag,
    },
    /// The newest block that a quorum has is too old.
    #[error(
        "the newest {tag} block that {agreeing} of {endpoints} RPC endpoints have, block {block_number}, is {} old, \
         expected at most {} (--max-block-age): either the chain stands still or they do not follow it; compare with a \
         block explorer, and check this machine's clock",
        rough(*age),
        rough(*limit)
    )]
    StaleBlock {
        /// The tag that was read.
        tag: BlockTag,
        /// How many endpoints say so.
        agreeing: usize,
        /// Of how many.
        endpoints: usize,
        /// The block.
        block_number: u64,
        /// How old it is by this machine's clock.
        age: Duration,
        /// How old it may be.
        limit: Duration,
    },
    /// No code at the address, now or at the tag.
    #[error(
        "there is no contract at {contract} (RPC endpoint {endpoint}, block {block_number}): check the address and the chain"
    )]
    NoContract {
        /// Host and port.
        endpoint: String,
        /// The address.
        contract: Address,
        /// The block that was read.
        block_number: u64,
    },
    /// What is asked for is there, but in a block younger than the one that is read.
    #[error(
        "the {what} {contract} is not yet {tag}: it came after block {block_number}, the {tag} one, which is \
         {behind_blocks} blocks behind the latest; wait, or read the block tag `latest`"
    )]
    NotFinal {
        /// What is not there yet.
        what: NotFinal,
        /// The contract.
        contract: Address,
        /// The tag that was read.
        tag: BlockTag,
        /// The block under that tag.
        block_number: u64,
        /// How many blocks the chain is ahead of it.
        behind_blocks: u64,
    },
    /// A contract, but not ours.
    #[error(
        "the contract {contract} (RPC endpoint {endpoint}) is not an RPB contract: getMatureModel() returned \
         {found_bytes} bytes (\"{found}\"), expected (string, uint256); check the address"
    )]
    NotRpb {
        /// Host and port.
        endpoint: String,
        /// The address.
        contract: Address,
        /// The start of what it returned, in hexadecimal.
        found: String,
        /// How much it returned.
        found_bytes: usize,
    },
    /// The contract refused the read.
    #[error(
        "the contract {contract} (RPC endpoint {endpoint}) reverts getMatureModel(): \"{reason}\"; is it an RPB contract?"
    )]
    Reverted {
        /// Host and port.
        endpoint: String,
        /// The address.
        contract: Address,
        /// The start of the reason.
        reason: String,
    },
    /// The contract's string is empty.
    #[error(
        "the contract {contract} has no model yet at block {block_number}: nobody has called setMatureModel"
    )]
    NoModel {
        /// The contract.
        contract: Address,
        /// The block that was read.
        block_number: u64,
    },
    /// The contract's string is not a digest.
    #[error(
        "the contract {contract} names a model that is not a digest at block {block_number}: found {found_bytes} bytes \
         (\"{found}\"), expected 64 lower-case hexadecimal characters"
    )]
    NotADigest {
        /// The contract.
        contract: Address,
        /// The block that was read.
        block_number: u64,
        /// The start of the string, escaped.
        found: String,
        /// How long it is.
        found_bytes: usize,
    },
}

impl ChainError {
    /// Who is at fault.
    pub fn blame(&self) -> Blame {
        match self {
            Self::Endpoint(error) => error.blame(),
            Self::State(error) => error.blame(),
            Self::Proof(error) => error.blame(),
            Self::NoQuorum { .. }
            | Self::NoBlock { .. }
            | Self::StaleBlock { .. }
            | Self::NotFinal { .. }
            | Self::NoModel { .. } => Blame::Network,
            Self::NoEndpoint
            | Self::DuplicateEndpoint { .. }
            | Self::TooManyEndpoints { .. }
            | Self::Quorum { .. }
            | Self::NothingLoaded { .. }
            | Self::SeveralChains { .. }
            | Self::WrongChain { .. }
            | Self::UnknownTag { .. }
            | Self::NoContract { .. }
            | Self::NotRpb { .. }
            | Self::Reverted { .. } => Blame::Caller,
            Self::NotADigest { .. } | Self::FinalizedChanged { .. } => Blame::Peer,
        }
    }

    /// What may be done about it.
    pub fn availability(&self) -> Availability {
        match self {
            Self::Endpoint(error) => error.availability(),
            Self::State(error) => error.availability(),
            Self::Proof(error) => error.availability(),
            Self::NoQuorum { .. }
            | Self::NoBlock { .. }
            | Self::StaleBlock { .. }
            | Self::NotFinal { .. }
            | Self::NoModel { .. }
            | Self::NoContract { .. }
            | Self::NothingLoaded { .. } => Availability::NotNow,
            Self::NoEndpoint
            | Self::DuplicateEndpoint { .. }
            | Self::TooManyEndpoints { .. }
            | Self::Quorum { .. }
            | Self::SeveralChains { .. }
            | Self::WrongChain { .. }
            | Self::UnknownTag { .. }
            | Self::NotRpb { .. }
            | Self::Reverted { .. } => Availability::Never,
            Self::NotADigest { .. } | Self::FinalizedChanged { .. } => Availability::Alarm,
        }
    }

    /// Whether the configuration is at fault, whatever the chain says.
    pub fn is_configuration(&self) -> bool {
        matches!(
            self,
            Self::NoEndpoint
                | Self::DuplicateEndpoint { .. }
                | Self::TooManyEndpoints { .. }
                | Self::Quorum { .. }
                | Self::SeveralChains { .. }
        ) || matches!(self, Self::Proof(error) if matches!(**error, ProofError::UnknownCode { .. }))
    }

    /// Whether the chain could not be read at all: nothing is known of what it says now, whoever is at fault.
    pub fn is_unreachable(&self) -> bool {
        match self {
            // Keys that have run out, proxies that refuse, nodes that are just restarted: all of it is an outage.
            Self::Endpoint(EndpointError::Reverted { .. }) => false,
            Self::Endpoint(_)
            | Self::NoQuorum { .. }
            | Self::NoBlock { .. }
            | Self::UnknownTag { .. }
            | Self::StaleBlock { .. } => true,
            _ => false,
        }
    }
}

/// A length of time for people, in the largest unit of which there are two or more.
fn rough(time: Duration) -> String {
    let s = time.as_secs();
    match s {
        172_800.. => format!("{} days", s / 86_400),
        7_200.. => format!("{} hours", s / 3_600),
        120.. => format!("{} minutes", s / 60),
        _ => format!("{s} seconds"),
    }
}
