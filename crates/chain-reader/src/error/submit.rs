//! What goes wrong with the one write.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use alloy::primitives::B256;
use manifest::Blame;

use super::{Availability, EndpointError};
use crate::address::Address;
use crate::submit::{GasPrice, Settled, Wei};

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
    /// The network takes more for its gas than the caller wants to pay.
    #[error(
        "gas costs more than the cap at block {block_number}: base fee {base_fee} and priority fee {priority_fee}, cap \
         {cap}; nothing was sent: wait until it is cheaper, or raise the cap"
    )]
    FeeOverCap {
        /// The base fee; on a chain without one, the price of gas.
        base_fee: GasPrice,
        /// What is paid on top.
        priority_fee: GasPrice,
        /// The cap.
        cap: GasPrice,
        /// The newest block.
        block_number: u64,
    },
    /// The sender has too little money.
    #[error(
        "{sender} cannot pay for the transaction: it has {balance} on chain {chain_id}, and needs up to {max_cost}; \
         nothing was sent"
    )]
    CannotPay {
        /// Who signs.
        sender: Address,
        /// The chain.
        chain_id: u64,
        /// What it has.
        balance: Wei,
        /// What it needs.
        max_cost: Wei,
    },
    /// The transaction could not be signed.
    #[error("cannot sign the transaction of {sender}; nothing was sent")]
    Unsigned {
        /// Who signs.
        sender: Address,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The sender has transactions on their way that the endpoint does not show.
    #[error(
        "{waits_for} transactions of {sender} are in no block yet, and the endpoint does not show what they are: one may be \
         an earlier attempt to set this model; nothing was sent: wait until they are in blocks"
    )]
    Unseen {
        /// Who signs.
        sender: Address,
        /// How many.
        waits_for: u64,
    },
    /// The contract names the model already, but not for as long as was asked.
    #[error(
        "the contract names this model and price already, at block {block_number}; nothing was sent; it counts as settled \
         {settled}, and that was not seen within {after:?}"
    )]
    SetNotSettled {
        /// Where the contract names it.
        block_number: u64,
        /// What was waited for.
        settled: Settled,
        /// How long.
        after: Duration,
        /// What the endpoint last said, if it failed.
        source: Option<EndpointError>,
    },
    /// The endpoint did not get, or did not take, the transaction.
    #[error("transaction {tx_hash} was not sent: the RPC endpoint did not take it")]
    NotTaken {
        /// The transaction.
        tx_hash: B256,
        /// What the endpoint said.
        source: EndpointError,
    },
    /// No block in time.
    #[error(
        "transaction {tx_hash} was handed to the RPC endpoint, and was not seen in a block within {after:?}: it may still \
         come, or have come; the same command looks for it before it sends another one"
    )]
    NotMined {
        /// The transaction.
        tx_hash: B256,
        /// How long was waited.
        after: Duration,
        /// What the endpoint last said, if it failed.
        source: Option<EndpointError>,
    },
    /// It is in a block, and not for as long as was asked.
    #[error(
        "transaction {tx_hash} is in block {block_number}, with {confirmations} blocks from that to the newest; it counts as \
         settled {settled}, and that was not seen within {after:?}: it will most likely stay; do not send another one"
    )]
    NotSettled {
        /// The transaction.
        tx_hash: B256,
        /// Its block.
        block_number: u64,
        /// Blocks from its own to the newest, both included, as far as the endpoint showed them.
        confirmations: u64,
        /// What was waited for.
        settled: Settled,
        /// How long.
        after: Duration,
        /// What the endpoint last said, if it failed.
        source: Option<EndpointError>,
    },
    /// Another transaction with the same nonce is in a block, and not for as long as was asked.
    #[error(
        "transaction {by} of {sender} is in block {block_number} in the place of {tx_hash} (nonce {nonce}); it counts as \
         settled {settled}, and that was not seen within {after:?}: a reorganisation may still bring {tx_hash} back; do \
         not send another one before that"
    )]
    Displaced {
        /// The transaction.
        tx_hash: B256,
        /// Who signed both.
        sender: Address,
        /// The nonce of both.
        nonce: u64,
        /// The other transaction.
        by: B256,
        /// Its block.
        block_number: u64,
        /// What was waited for.
        settled: Settled,
        /// How long.
        after: Duration,
    },
    /// Another transaction with the same nonce is in a block.
    #[error(
        "transaction {tx_hash} will never come: {by}, in block {block_number}, has taken its place (nonce {nonce} of \
         {sender}); make sure that nobody else sends from this account; the same command looks whether the model is set, \
         and sends again if not"
    )]
    Replaced {
        /// The transaction.
        tx_hash: B256,
        /// Who signed both.
        sender: Address,
        /// The nonce of both.
        nonce: u64,
        /// The other transaction.
        by: B256,
        /// Its block.
        block_number: u64,
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
            | Self::CannotPay { .. }
            | Self::Replaced { .. }
            | Self::Reverted { .. } => Blame::Caller,
            Self::Unsigned { .. } => Blame::Us,
            Self::FeeOverCap { .. }
            | Self::Unseen { .. }
            | Self::SetNotSettled { .. }
            | Self::NotMined { .. }
            | Self::NotSettled { .. }
            | Self::Displaced { .. } => Blame::Network,
        }
    }

    /// What may be done about it.
    pub fn availability(&self) -> Availability {
        match self {
            Self::Endpoint(error) | Self::NotTaken { source: error, .. } => error.availability(),
            Self::FeeOverCap { .. }
            | Self::Unseen { .. }
            | Self::SetNotSettled { .. }
            | Self::NotMined { .. }
            | Self::NotSettled { .. }
            | Self::Displaced { .. } => Availability::NotNow,
            Self::WrongChain { .. }
            | Self::NoContract { .. }
            | Self::Refused { .. }
            | Self::CannotPay { .. }
            | Self::Unsigned { .. }
            | Self::Replaced { .. }
            | Self::Reverted { .. } => Availability::Never,
        }
    }

    /// Whether the model may be set on chain for all that this tells.
    pub fn may_be_set(&self) -> bool {
        match self {
            Self::SetNotSettled { .. }
            | Self::Unseen { .. }
            | Self::NotMined { .. }
            | Self::NotSettled { .. }
            | Self::Displaced { .. }
            | Self::Replaced { .. } => true,
            Self::Endpoint(_)
            | Self::WrongChain { .. }
            | Self::NoContract { .. }
            | Self::Refused { .. }
            | Self::FeeOverCap { .. }
            | Self::CannotPay { .. }
            | Self::Unsigned { .. }
            | Self::NotTaken { .. }
            | Self::Reverted { .. } => false,
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
    /// A keystore is not made without a password.
    #[error("the password of a keystore may not be empty")]
    NoPassword,
    /// There is something at the keystore's path.
    #[error("{} exists already: a keystore never replaces anything; choose another path", path.display())]
    Exists {
        /// The path.
        path: PathBuf,
    },
    /// The keystore cannot be written.
    #[error("cannot write keystore {}", path.display())]
    Unwritable {
        /// The path.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The key cannot be encrypted.
    #[error("cannot encrypt the key")]
    Encryption {
        /// What the encryption said.
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
            Self::Unreadable { .. }
            | Self::Keystore { .. }
            | Self::NoPassword
            | Self::Exists { .. }
            | Self::PrivateKey => Blame::Caller,
            Self::Unwritable { .. } | Self::Encryption { .. } => Blame::Us,
        }
    }
}
