//! What goes wrong with what is remembered of the chain.

use std::path::PathBuf;
use std::time::Duration;

use manifest::Blame;

use super::Availability;

/// Why what is remembered of the chain cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// The disk refuses.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With which file or directory.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file is there and is not what was written.
    #[error(
        "{} is corrupt ({reason}): the lowest block that may be read stood there. `loader chain forget` removes it, if \
         the RPC endpoints can be trusted once more",
        path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Several files say how far a chain was read, and no endpoint tells which it is.
    #[error(
        "chain {chain_id} is remembered more than once, with different first blocks ({}), and the RPC endpoints do not \
         have the first block: give one that has it, or remove with `loader chain forget` what is not this chain's",
        paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
    )]
    Ambiguous {
        /// Its id.
        chain_id: u64,
        /// The files.
        paths: Vec<PathBuf>,
    },
    /// Another process changes it and gets no further.
    #[error(
        "another process has held {} for {} s: is one of them stopped, or its disk hanging?",
        path.display(),
        waited.as_secs()
    )]
    Locked {
        /// The file that is locked.
        path: PathBuf,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The thread that does it ended unexpectedly.
    #[error("the thread that reads and writes the state of the chain failed")]
    Worker,
}

impl StateError {
    /// Whether the system forbids it to this user, or the file system is read-only.
    pub(crate) fn is_denied(&self) -> bool {
        use std::io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
        matches!(self, Self::Io { source, .. } if matches!(source.kind(), PermissionDenied | ReadOnlyFilesystem))
    }

    /// Who is at fault.
    pub fn blame(&self) -> Blame {
        match self {
            Self::Io { .. } | Self::Corrupt { .. } | Self::Locked { .. } | Self::Worker => Blame::Us,
            Self::Ambiguous { .. } => Blame::Caller,
        }
    }

    /// What may be done about it.
    pub fn availability(&self) -> Availability {
        match self {
            Self::Io { .. } | Self::Locked { .. } | Self::Worker | Self::Ambiguous { .. } => {
                Availability::Never
            }
            Self::Corrupt { .. } => Availability::Alarm,
        }
    }
}
