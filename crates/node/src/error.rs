//! Why a node could not do what it was asked.

use loader::LoadError;
use manifest::Blame;
use p2p_blob::{IdentityError, StartError};
use store::CacheError;

/// Why a node could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// The cache failed.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The node's key cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The network cannot be started.
    #[error(transparent)]
    Network(#[from] StartError),
    /// The contract could not be read.
    #[cfg(feature = "chain")]
    #[error(transparent)]
    Chain(#[from] chain_reader::ChainError),
    /// The model could not be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The current model was asked for, but the configuration names no contract.
    #[cfg(feature = "chain")]
    #[error("no contract is configured: set Config::chain, or load a model by its digest")]
    NoContract,
    /// The node has no folder for blobs of its own.
    #[error("this node keeps no blobs: its configuration names no folder for them")]
    NoOwnBlobs,
    /// A blob is larger than those of this store may be.
    #[error("a blob of {size_bytes} bytes, and one may have {max_bytes}")]
    BlobTooLarge {
        /// Its size.
        size_bytes: u64,
        /// How large one may be.
        max_bytes: u64,
    },
    /// A blob cannot be read from the disk.
    #[error("cannot read a blob")]
    Blob(#[source] std::io::Error),
    /// A thread of the node cannot be started.
    #[error("cannot start a thread of the node")]
    Thread(#[source] std::io::Error),
    /// A thread of the node ended unexpectedly.
    #[error("a worker of the node failed")]
    Worker,
}

impl NodeError {
    /// Who is at fault.
    pub fn blame(&self) -> Blame {
        match self {
            Self::Cache(error) => error.blame(),
            Self::Identity(error) => error.blame(),
            Self::Network(error) => error.blame(),
            #[cfg(feature = "chain")]
            Self::Chain(error) => error.blame(),
            Self::Load(error) => error.blame(),
            #[cfg(feature = "chain")]
            Self::NoContract => Blame::Caller,
            Self::NoOwnBlobs | Self::BlobTooLarge { .. } => Blame::Caller,
            Self::Worker | Self::Thread(_) | Self::Blob(_) => Blame::Us,
        }
    }
}
