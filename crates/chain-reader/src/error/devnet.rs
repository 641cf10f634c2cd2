//! What goes wrong with the throw-away chain.

use std::path::PathBuf;
use std::time::Duration;

use alloy::primitives::B256;
use manifest::Blame;

use super::EndpointError;

/// Why there is no [`Devnet`](crate::Devnet), or why it did not do as told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DevnetError {
    /// anvil cannot be run.
    #[error("cannot run anvil at {}", path.display())]
    Spawn {
        /// Where it was looked for.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// anvil ended, or said nothing of its port.
    #[error("anvil at {} did not say where it listens within {after:?}", path.display())]
    NotReady {
        /// Where it is.
        path: PathBuf,
        /// How long was waited.
        after: Duration,
    },
    /// The contract's JSON is not as `tests/contracts/compile.mjs` writes it.
    #[error("the contract's JSON is not {{abi, bytecode}}")]
    Artifact {
        /// Where reading it failed.
        source: serde_json::Error,
    },
    /// anvil failed a request.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// A transaction failed.
    #[error("anvil did not carry out transaction {tx_hash} within {after:?}")]
    Transaction {
        /// The transaction.
        tx_hash: B256,
        /// How long was waited.
        after: Duration,
    },
}

impl DevnetError {
    /// Who is at fault.
    pub fn blame(&self) -> Blame {
        match self {
            Self::Spawn { .. } | Self::Artifact { .. } => Blame::Caller,
            Self::Endpoint(error) => error.blame(),
            Self::NotReady { .. } | Self::Transaction { .. } => Blame::Us,
        }
    }
}
