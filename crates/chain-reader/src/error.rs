//! Everything that goes wrong here. Messages name an endpoint by host and port, never by URL.

use manifest::Blame;

use crate::config::{Address, BlockTag};

#[cfg(feature = "devnet")]
mod devnet;
mod endpoint;
mod submit;

#[cfg(feature = "devnet")]
pub use devnet::DevnetError;
pub use endpoint::EndpointError;
pub(crate) use endpoint::is_rate_limit;
pub use submit::{SignerError, SubmitError};

/// The start of a text from outside, at most `max_chars` of it, safe to show on a terminal.
pub(crate) fn excerpt(text: &str, max_chars: usize) -> String {
    let mut shown: String = text.chars().take(max_chars).flat_map(char::escape_debug).collect();
    if text.chars().nth(max_chars).is_some() {
        shown.push('…');
    }
    shown
}

/// What may be done about an error. Decisions are made on this, never on message text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Availability {
    /// Not available now: the same request may succeed later.
    NotNow,
    /// It will not succeed until somebody changes what is asked or of whom.
    Never,
    /// The chain was read, and what stands there is wrong: an alarm.
    Alarm,
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
    /// More than one RPC URL in the configuration.
    #[error(
        "{count} RPC URLs were given, but comparing endpoints is not supported yet: give only one, such as {first}"
    )]
    SeveralEndpoints {
        /// How many.
        count: usize,
        /// Host and port of the first.
        first: String,
    },
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
            Self::NoBlock { .. } | Self::NotFinal { .. } | Self::NoModel { .. } => Blame::Network,
            Self::NoEndpoint
            | Self::SeveralEndpoints { .. }
            | Self::WrongChain { .. }
            | Self::NoContract { .. }
            | Self::NotRpb { .. }
            | Self::Reverted { .. } => Blame::Caller,
            Self::NotADigest { .. } => Blame::Peer,
        }
    }

    /// What may be done about it.
    pub fn availability(&self) -> Availability {
        match self {
            Self::Endpoint(error) => error.availability(),
            Self::NoBlock { .. } | Self::NotFinal { .. } | Self::NoModel { .. } | Self::NoContract { .. } => {
                Availability::NotNow
            }
            Self::NoEndpoint
            | Self::SeveralEndpoints { .. }
            | Self::WrongChain { .. }
            | Self::NotRpb { .. }
            | Self::Reverted { .. } => Availability::Never,
            Self::NotADigest { .. } => Availability::Alarm,
        }
    }
}

/// Why a text is not an [`Address`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseAddressError {
    /// Not of the form of an address.
    #[error("\"{found}\" is not an address: expected 0x and 40 hexadecimal characters")]
    Malformed {
        /// The start of the text.
        found: String,
    },
    /// Of the form of an address, mistyped.
    #[error("address {found} has a wrong checksum: as typed it would be {expected}; check each character")]
    Checksum {
        /// The text.
        found: String,
        /// The same address with its right checksum.
        expected: String,
    },
}

/// Why a text is not an [`RpcUrl`](crate::RpcUrl). Never shows the text: it may hold a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseRpcUrlError {
    /// Not a URL.
    #[error("the RPC URL is malformed ({reason}): expected http://HOST or https://HOST")]
    Malformed {
        /// What is wrong with it.
        reason: String,
    },
    /// A WebSocket URL.
    #[error("the RPC URL is a WebSocket one (ws:// or wss://): give the endpoint's http:// or https:// URL")]
    WebSocket,
    /// Another scheme.
    #[error("the RPC URL has an unknown scheme: expected http:// or https://")]
    Scheme,
}

/// Why a text is not a [`BlockTag`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{found}\" is not a block tag: expected latest, safe or finalized")]
pub struct ParseBlockTagError {
    pub(crate) found: String,
}
