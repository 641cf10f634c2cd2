//! Why a model could not be loaded.

use std::fmt;
use std::time::Duration;

use manifest::{Blame, Digest, IndexError, ManifestError, SourceId};
use planner::ShardState;
use store::{CacheError, LockHolders};

use crate::observer::SourceReport;
use crate::selection::Selection;

/// Why a model could not be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The blob with the digest is not a manifest: whoever published it is at fault.
    #[error("blob {digest} is not a valid manifest")]
    NotAManifest {
        /// Its digest.
        digest: Digest,
        /// What is wrong.
        #[source]
        source: ManifestError,
    },
    /// The piece index has its digest but does not fit the manifest.
    #[error("the piece index of manifest {digest} is not valid")]
    BadIndex {
        /// The manifest.
        digest: Digest,
        /// What is wrong.
        #[source]
        source: IndexError,
    },
    /// The bytes after the end of the weights are not zero, though they have their digest.
    #[error("shard {shard} of manifest {digest} has padding that is not zero")]
    DirtyPadding {
        /// The manifest.
        digest: Digest,
        /// The shard.
        shard: u32,
    },
    /// No source gave the manifest.
    #[error("no source has the manifest {digest}; asked: {}", Asked(.asked))]
    ManifestUnavailable {
        /// Its digest.
        digest: Digest,
        /// Who was asked, and what each said.
        asked: Vec<SourceReport>,
    },
    /// Nobody has the digest as that of something small enough for a manifest.
    #[error(
        "{digest} is no manifest: it has {claimed_bytes} bytes, as {source_id} says, and a manifest {max_bytes} at most"
    )]
    ManifestTooLarge {
        /// The digest.
        digest: Digest,
        /// The size that is claimed.
        claimed_bytes: u64,
        /// Who claims that; nothing proves it.
        source_id: SourceId,
        /// The most that a manifest may have.
        max_bytes: u64,
    },
    /// The digest is to be that of a blob of weights, and all who have it say that it is larger than allowed.
    #[error("blob {digest} has {claimed_bytes} bytes, as its sources say, and {max_bytes} are allowed")]
    BlobTooLarge {
        /// The digest.
        digest: Digest,
        /// A size that is claimed; nothing proves it.
        claimed_bytes: u64,
        /// The most that the caller allows.
        max_bytes: u64,
    },
    /// Pieces are missing and no source can be asked for them.
    #[error("missing {}, and no source has enough to rebuild them; asked: {}", Missing(.missing), Asked(.asked))]
    Unavailable {
        /// The manifest.
        digest: Digest,
        /// What is missing.
        missing: Vec<ShardState>,
        /// Who was asked, and what each said.
        asked: Vec<SourceReport>,
    },
    /// The model has no such files.
    #[error("model {digest} has no file {selection}; it has {}", Names(.files))]
    NoSuchFiles {
        /// The manifest.
        digest: Digest,
        /// What was asked for.
        selection: Selection,
        /// Its files.
        files: Vec<String>,
    },
    /// The model has no such tensors.
    #[error("model {digest} has no tensor {selection} in its safetensors files")]
    NoSuchTensors {
        /// The manifest.
        digest: Digest,
        /// What was asked for.
        selection: Selection,
    },
    /// Its pieces cannot be checked one by one while they are read.
    #[error(
        "the pieces of model {digest} cannot be checked one by one: it has no piece index, or only some of its files"
    )]
    NoPieceIndex {
        /// The manifest.
        digest: Digest,
    },
    /// A finished model cannot be read.
    #[error("cannot read the weights")]
    Read(#[source] std::io::Error),
    /// Somebody else fills the model, and got no further for as long as was waited.
    #[error(
        "model {digest} is being fetched by {holders}, and got no further for {wait:?}: end that, or have it go on, and try \
         again"
    )]
    Locked {
        /// The manifest.
        digest: Digest,
        /// Who.
        holders: LockHolders,
        /// How long it was waited.
        wait: Duration,
    },
    /// The cache failed.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// A thread could not be started, or ended unexpectedly.
    #[error("a worker of the loader failed")]
    Worker(#[source] std::io::Error),
}

impl LoadError {
    /// Who is at fault. The peer stands for whoever published the model.
    pub fn blame(&self) -> Blame {
        match self {
            Self::NotAManifest { .. } | Self::BadIndex { .. } | Self::DirtyPadding { .. } => Blame::Peer,
            Self::ManifestUnavailable { .. } | Self::ManifestTooLarge { .. } | Self::Unavailable { .. } => {
                Blame::Network
            }
            Self::BlobTooLarge { .. }
            | Self::NoSuchFiles { .. }
            | Self::NoSuchTensors { .. }
            | Self::NoPieceIndex { .. } => Blame::Caller,
            Self::Cache(error) => error.blame(),
            Self::Locked { .. } | Self::Worker(_) | Self::Read(_) => Blame::Us,
        }
    }

    /// Whether the digest seems to be that of a blob of weights, which [`crate::FetchOptions::with_single_blob_max_bytes`]
    /// would allow.
    pub fn may_be_single_blob(&self) -> bool {
        matches!(self, Self::NotAManifest { .. } | Self::ManifestTooLarge { .. })
    }

    /// Whether there is no room on the disk: more of it, or a smaller model, would help.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Cache(error) if error.is_disk_full())
    }

    /// Whether something has the right digest but is not valid: trying again cannot help.
    pub fn is_integrity(&self) -> bool {
        matches!(self, Self::NotAManifest { .. } | Self::BadIndex { .. } | Self::DirtyPadding { .. })
    }
}

struct Names<'a>(&'a [String]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 16;
        f.write_str(&self.0.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", "))?;
        match self.0.len().checked_sub(SHOWN) {
            Some(more @ 1..) => write!(f, " and {more} more"),
            _ => Ok(()),
        }
    }
}

struct Missing<'a>(&'a [ShardState]);

impl fmt::Display for Missing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 16;
        for (position, state) in self.0.iter().take(SHOWN).enumerate() {
            let separator = if position > 0 { ", " } else { "" };
            write!(f, "{separator}shard {}", state.shard)?;
            if state.missing_pieces < state.pieces {
                write!(f, " ({} of {} pieces)", state.missing_pieces, state.pieces)?;
            }
        }
        if self.0.len() > SHOWN {
            write!(f, " and {} more", self.0.len() - SHOWN)?;
        }
        Ok(())
    }
}

struct Asked<'a>(&'a [SourceReport]);

impl fmt::Display for Asked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 16;
        if self.0.is_empty() {
            return f.write_str("nobody, no source is known");
        }
        for (position, report) in self.0.iter().take(SHOWN).enumerate() {
            let separator = if position > 0 { "; " } else { "" };
            write!(f, "{separator}{}", report.source)?;
            if report.good_bytes > 0 {
                write!(f, " sent {} right bytes", report.good_bytes)?;
            }
            if report.bad_bytes > 0 {
                write!(f, " sent {} wrong bytes", report.bad_bytes)?;
            }
            if let Some(error) = &report.last_error {
                write!(f, " ({error})")?;
            }
        }
        if self.0.len() > SHOWN {
            write!(f, "; and {} more", self.0.len() - SHOWN)?;
        }
        Ok(())
    }
}
