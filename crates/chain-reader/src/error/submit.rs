//! What goes wrong with the one write.

use std::path::PathBuf;
use std::time::Duration;

use alloy::primitives::B256;
use manifest::Blame;

use super::{Availability, EndpointError};
use crate::config::Address;

/// Why `setMatureModel` was not carried out, or not for sure.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// The endpoint failed before anything was sent.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The endpoint is on another chain.
    #[error("RPC endpoint {endpoint} is on chain {found}, expected chain {expected}: nothing was sent")]
    WrongChain {
        /// Host and port.
        endpoint: String,
        /// The configured chain id.
        expected: u64,
        /// The endpoint's chain id.
        found: u64,
    },
    /// No code at the address.
    #[error("there is no contract at {contract} on chain {chain_id}: nothing was sent")]
    NoContract {
        /// The address.
        contract: Address,
        /// The endpoint's chain id.
        chain_id: u64,
    },
    /// The contract would revert.
    #[error("the contract {contract} refuses setMatureModel from {sender}: \"{reason}\"; nothing was sent")]
    Refused {
        /// The address.
        contract: Address,
        /// Who signs.
        sender: Address,
        /// The start of the contract's reason.
        reason: String,
    },
    /// The transaction could not be signed.
    #[error("cannot sign the transaction of {sender}; nothing was sent")]
    Unsigned {
        /// Who signs.
        sender: Address,
    },
    /// The endpoint did not take the transaction.
    #[error("RPC endpoint did not take transaction {tx_hash}")]
    NotTaken {
        /// The transaction.
        tx_hash: B256,
        /// What the endpoint said.
        source: EndpointError,
    },
    /// No receipt in time.
    #[error(
        "transaction {tx_hash} was sent but is in no block after {after:?}: it may still come; look it up before \
         sending again"
    )]
    NotMined {
        /// The transaction.
        tx_hash: B256,
        /// How long was waited.
        after: Duration,
        /// What the endpoint last said, if it failed.
        source: Option<EndpointError>,
    },
    /// The transaction is in a block and failed there.
    #[error("transaction {tx_hash} failed in block {block_number}: \"{reason}\"")]
    Reverted {
        /// The transaction.
        tx_hash: B256,
        /// Its block.
        block_number: u64,
        /// The start of the contract's reason, when it can be found out.
        reason: String,
    },
}

impl SubmitError {
    /// Who is at fault.
    pub fn blame(&self) -> Blame {
        match self {
            Self::Endpoint(error) | Self::NotTaken { source: error, .. } => error.blame(),
            Self::WrongChain { .. }
            | Self::NoContract { .. }
            | Self::Refused { .. }
            | Self::Reverted { .. } => Blame::Caller,
            Self::Unsigned { .. } => Blame::Us,
            Self::NotMined { .. } => Blame::Network,
        }
    }

    /// What may be done about it.
    pub fn availability(&self) -> Availability {
        match self {
            Self::Endpoint(error) | Self::NotTaken { source: error, .. } => error.availability(),
            Self::NotMined { .. } => Availability::NotNow,
            Self::WrongChain { .. }
            | Self::NoContract { .. }
            | Self::Refused { .. }
            | Self::Unsigned { .. }
            | Self::Reverted { .. } => Availability::Never,
        }
    }
}

/// Why there is no [`Signer`](crate::Signer). Never shows any part of a key or password.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignerError {
    /// The keystore cannot be read.
    #[error("cannot read keystore {}", path.display())]
    Unreadable {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The keystore cannot be opened with this password.
    #[error("cannot decrypt keystore {}: the password is wrong or the file is not an encrypted keystore", path.display())]
    Keystore {
        /// Its path.
        path: PathBuf,
        /// What the decryption said.
        source: alloy::signers::local::LocalSignerError,
    },
    /// The text is not a private key.
    #[error(
        "the private key is not valid: expected 64 hexadecimal characters, with or without 0x, of a number in range"
    )]
    PrivateKey,
}

impl SignerError {
    /// Who is at fault.
    pub fn blame(&self) -> Blame {
        match self {
            Self::Unreadable { .. } | Self::Keystore { .. } | Self::PrivateKey => Blame::Caller,
        }
    }
}
