//! Why a model could not be published.

use std::io;
use std::path::PathBuf;

use manifest::{Blame, Digest, MODEL_KINDS, ManifestError};
use store::CacheError;

/// Why a model could not be published.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// Nobody would know what to do with it.
    #[error("unknown model kind {found:?}: expected one of {}", MODEL_KINDS.join(", "))]
    UnknownModelKind {
        /// What was given.
        found: String,
    },
    /// There can be no such code.
    #[error(
        "{data} data rows and {parity} parity shards: expected at least 1 row, and at most {max} of both together"
    )]
    BadGeometry {
        /// Rows asked for.
        data: u32,
        /// Parity shards asked for.
        parity: u32,
        /// The most that a code has.
        max: u32,
    },
    /// Pieces would be too small to be worth a request, too large to be checked one by one, or not whole blocks.
    #[error("pieces of {found_bytes} bytes: expected a multiple of 64 from {min_bytes} to {max_bytes}")]
    BadPieceSize {
        /// What was given.
        found_bytes: u32,
        /// The smallest.
        min_bytes: u32,
        /// The largest.
        max_bytes: u32,
    },
    /// The model has more pieces, or shards, than a manifest may have.
    #[error("the model would have {found} {what}, a manifest has at most {max}: {hint}")]
    TooMany {
        /// Pieces or shards.
        what: &'static str,
        /// How many.
        found: u64,
        /// The most there may be.
        max: u64,
        /// What to do about it.
        hint: &'static str,
    },
    /// No layer was given.
    #[error("no layers: expected one file for each")]
    NoLayers,
    /// An input has no bytes.
    #[error("{} is empty", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// An input is a directory, a pipe or a device.
    #[error("{} is not a regular file", path.display())]
    NotAFile {
        /// What was given.
        path: PathBuf,
    },
    /// A file's name cannot be one in a model.
    #[error("{} cannot be the name of a model's file: {reason}; rename it, or leave it out with --exclude", path.display())]
    BadName {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Some file systems confuse names of the folder, or there are too many.
    #[error("the files of {} cannot be one model: rename some, or leave them out with --exclude", path.display())]
    Names {
        /// The folder.
        path: PathBuf,
        /// What is wrong with them.
        source: ManifestError,
    },
    /// A link in a folder that is not followed.
    #[error("{} is a link {reason}", path.display())]
    BadLink {
        /// The link.
        path: PathBuf,
        /// Where it leads to, and what to do.
        reason: &'static str,
    },
    /// A folder without a byte to publish.
    #[error("{} has no file with bytes to publish ({left_out} left out)", path.display())]
    NoFiles {
        /// The folder.
        path: PathBuf,
        /// How many files or folders in it were left out.
        left_out: usize,
    },
    /// Somebody wrote to an input while it was read.
    #[error("{} was changed while it was read: publish it again when nobody writes to it", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// An input cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A listed shard is not in the folder.
    #[error("shard {digest} is not in {}: expected a file {digest}.shard or {digest}", dir.display())]
    NotInFolder {
        /// The folder.
        dir: PathBuf,
        /// Which shard.
        digest: Digest,
    },
    /// A listed shard is something else.
    #[error("{} has the sha256 {found}, expected {expected} as in its name: copy it here again", path.display())]
    WrongDigest {
        /// The file.
        path: PathBuf,
        /// Its digest.
        found: Digest,
        /// The digest that it is listed by.
        expected: Digest,
    },
    /// What was encoded makes no valid manifest.
    #[error("the model makes no valid manifest")]
    Manifest(#[from] ManifestError),
    /// The code refused, or a thread ended unexpectedly: a bug.
    #[error("encoding failed: {what}")]
    Encoder {
        /// What happened.
        what: String,
    },
    /// The cache failed.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

impl PublishError {
    /// Who is at fault.
    pub fn blame(&self) -> Blame {
        match self {
            Self::UnknownModelKind { .. }
            | Self::BadGeometry { .. }
            | Self::BadPieceSize { .. }
            | Self::TooMany { .. }
            | Self::NoLayers
            | Self::Empty { .. }
            | Self::NotAFile { .. }
            | Self::NotInFolder { .. }
            | Self::BadName { .. }
            | Self::Names { .. }
            | Self::BadLink { .. }
            | Self::NoFiles { .. }
            | Self::WrongDigest { .. }
            | Self::Changed { .. } => Blame::Caller,
            Self::Read { .. } | Self::Manifest(_) | Self::Encoder { .. } => Blame::Us,
            Self::Cache(error) => error.blame(),
        }
    }
}
