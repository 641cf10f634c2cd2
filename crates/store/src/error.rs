//! What can go wrong with the cache.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use manifest::{Blame, ByteRange, Digest, IndexError, ManifestError, PieceId};

use super::free::{Free, free};
use super::keep::Keep;
use super::lock_holder::LockHolders;

/// Why the cache could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// The operating system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was being done to it.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The disk, or a quota, is full. What was verified so far is kept.
    #[error(
        "no space left to {action} {}{}: free some (`loader cache ls` lists what the cache holds) and try again",
        path.display(),
        describe_free(free.as_ref())
    )]
    DiskFull {
        /// What was being done to it.
        action: &'static str,
        /// The file that did not fit.
        path: PathBuf,
        /// What was free there, as far as the system told. A quota may have allowed less.
        free: Option<Free>,
        /// What the operating system said.
        source: io::Error,
    },
    /// There is not enough free space. None was taken, and what was verified so far is kept.
    #[error(
        "no room for {}: {needed_bytes} bytes are needed and {free_bytes} are free; free some (`loader cache ls` lists \
         what the cache holds) or use another cache directory, and try again",
        path.display()
    )]
    NoRoom {
        /// What does not fit.
        path: PathBuf,
        /// How much it still takes.
        needed_bytes: u64,
        /// How much is free for whoever runs this.
        free_bytes: u64,
    },
    /// A folder of blobs has no room for one more.
    #[error(
        "no room for a blob of {size_bytes} bytes in {}: {held_bytes} of its {max_bytes} bytes are taken; remove blobs, or \
         allow it more",
        dir.display()
    )]
    BlobsFull {
        /// The folder.
        dir: PathBuf,
        /// How large the blob is.
        size_bytes: u64,
        /// How much is in it.
        held_bytes: u64,
        /// How much may be in it.
        max_bytes: u64,
    },
    /// The file system has no room for the names of more files.
    #[error(
        "no room for {}: the file system can take {free} more files, and {needed} are needed; delete some files there, \
         or use another cache directory, and try again",
        path.display()
    )]
    NoFiles {
        /// What does not fit.
        path: PathBuf,
        /// How many are needed.
        needed: u64,
        /// How many there can be.
        free: u64,
    },
    /// The process may not write such large files.
    #[error(
        "{} has {size_bytes} bytes, and this process may write files of {limit_bytes} bytes at most: raise that limit \
         (`ulimit -f`) and try again",
        path.display()
    )]
    FileTooLarge {
        /// The file.
        path: PathBuf,
        /// How long it would be.
        size_bytes: u64,
        /// How long it may be.
        limit_bytes: u64,
    },
    /// The directory belongs to another version of this program.
    #[error(
        "{} says {found:?}, this program knows cache layout {expected:?}: use another cache directory, a program of \
         that version, or delete this directory",
        path.display()
    )]
    UnknownVersion {
        /// The file `VERSION`.
        path: PathBuf,
        /// Its content.
        found: String,
        /// What this program writes there.
        expected: &'static str,
    },
    /// The directory is something else than a cache.
    #[error("{} is no cache of this program: it has other files and no VERSION", path.display())]
    NotACache {
        /// The directory.
        path: PathBuf,
    },
    /// This user may only read the cache, or its file system is read-only.
    #[error(
        "the cache {} is read-only for this user: {} cannot be written to by user {user}{}",
        cache.display(),
        path.display(),
        owner.map_or(String::new(), |owner| format!(", it belongs to user {owner}"))
    )]
    ReadOnly {
        /// The cache.
        cache: PathBuf,
        /// What of it refuses.
        path: PathBuf,
        /// Who wants to write.
        user: u32,
        /// Whose it is, as far as that can be seen.
        owner: Option<u32>,
        /// What the operating system said.
        source: io::Error,
    },
    /// No file of this process may be so large. What was verified so far is kept.
    #[error(
        "cannot {action} {}: files of this process may not be so large (`ulimit -f`); raise that and try again, verified \
         pieces are kept",
        path.display()
    )]
    FileLimit {
        /// What was being done to it.
        action: &'static str,
        /// The file that became too large.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A manifest that has the right digest, or is about to get one, but is not valid.
    #[error("manifest {digest} is not valid")]
    Manifest {
        /// Its digest.
        digest: Digest,
        /// What is wrong with it.
        source: ManifestError,
    },
    /// Something of the user's is where a link is to be.
    #[error(
        "{} is no link into the cache {}, and is not replaced: move it away, or link from another path",
        path.display(), cache.display()
    )]
    NotALink {
        /// What is there.
        path: PathBuf,
        /// The cache.
        cache: PathBuf,
    },
    /// The model is pinned.
    #[error("model {digest} is pinned: `loader cache unpin {digest}` first")]
    Pinned {
        /// The model.
        digest: Digest,
    },
    /// The cache may take so much, and what has to stay leaves too little.
    #[error(
        "model {digest} needs {needed_bytes} bytes, the cache may take {max_bytes}, and not enough can go{}",
        Stays(.kept)
    )]
    OverLimit {
        /// The model.
        digest: Digest,
        /// What it needs beyond what is there of it.
        needed_bytes: u64,
        /// What the cache may take.
        max_bytes: u64,
        /// What stays: models, their disk space, and why.
        kept: Vec<(Digest, u64, Keep)>,
    },
    /// A link leads to the model.
    #[error("model {digest} is what {} leads to: remove that link first", path.display())]
    Linked {
        /// The model.
        digest: Digest,
        /// The link.
        path: PathBuf,
    },
    /// Files are to be laid out where something is.
    #[error("{} is there and not an empty folder: give one that is new or empty", path.display())]
    NotEmpty {
        /// What is there.
        path: PathBuf,
    },
    /// No model, or more than one, has a digest that begins like this.
    #[error("{found} models in the cache {} have a digest that begins with {prefix}: {hint}", path.display())]
    Ambiguous {
        /// The beginning.
        prefix: String,
        /// How many there are.
        found: usize,
        /// What to do.
        hint: &'static str,
        /// The cache.
        path: PathBuf,
    },
    /// A finished model is not what was verified, so somebody else changed it, or the disk did.
    #[error(
        "model {digest} in {} is corrupt: {damage}; remove it (`loader cache rm {digest}`) and fetch it again",
        path.display()
    )]
    Corrupt {
        /// Its manifest's digest.
        digest: Digest,
        /// Where it is.
        path: PathBuf,
        /// Which part is bad, and how.
        damage: String,
    },
    /// Somebody uses, or fills, the model that was to be removed.
    #[error("model {digest} is in use by {}: end what uses it and try again", describe_holders(holders))]
    InUse {
        /// Its manifest's digest.
        digest: Digest,
        /// Ids of the processes that hold it, as far as the system tells.
        holders: Vec<u32>,
    },
    /// Somebody holds a lock for longer than its work takes, or fills a model and gets no further.
    #[error("{} was held by {holders} for {waited:?}: end that, or have it go on, and try again", path.display())]
    Locked {
        /// The lock's file.
        path: PathBuf,
        /// Who.
        holders: LockHolders,
        /// How long it was waited.
        waited: Duration,
    },
    /// The model to be removed is not in the cache.
    #[error("model {digest} is not in the cache {}", path.display())]
    NotCached {
        /// Its manifest's digest.
        digest: Digest,
        /// The cache.
        path: PathBuf,
    },
    /// A piece index blob that does not belong to the manifest.
    #[error("the piece index of model {digest} is not valid")]
    Index {
        /// The manifest's digest.
        digest: Digest,
        /// What is wrong with it.
        source: IndexError,
    },
    /// A piece, or a range of a shard, that the manifest does not have.
    #[error("shard {shard} has no bytes {range}: it has {size_bytes} bytes")]
    OutOfBounds {
        /// Index of the shard.
        shard: u32,
        /// What was asked for.
        range: ByteRange,
        /// How long the shard is; 0 when there is no such shard.
        size_bytes: u64,
    },
    /// A piece that was verified against another manifest.
    #[error("piece {} of shard {} was verified for another model than {digest}", piece.piece, piece.shard)]
    OtherModel {
        /// Digest of the manifest of the model that it was given to.
        digest: Digest,
        /// Which piece.
        piece: PieceId,
    },
    /// A piece, or a buffer for a range, of the wrong length.
    #[error("{found_bytes} bytes were given for {range} of shard {shard}")]
    WrongLength {
        /// Index of the shard.
        shard: u32,
        /// Which bytes of it were meant.
        range: ByteRange,
        /// How many were given.
        found_bytes: usize,
    },
    /// A bad model cannot be healed beside those who use it.
    #[error(
        "model {digest} is corrupt, and in use by {}: healing it takes {needed_bytes} bytes beside it, and {free_bytes} are \
         free; end what uses it, or free disk space, and try again",
        describe_holders(holders)
    )]
    NoRoomToHeal {
        /// Its manifest's digest.
        digest: Digest,
        /// Ids of the processes that use it, as far as the system tells.
        holders: Vec<u32>,
        /// How much is needed.
        needed_bytes: u64,
        /// How much there is.
        free_bytes: u64,
    },
    /// A model was to be finished before all of its pieces were recorded as verified.
    #[error("model {digest} cannot be finished: piece {piece} of shard {shard} has not been verified")]
    Incomplete {
        /// Its manifest's digest.
        digest: Digest,
        /// The first shard that is not complete.
        shard: u32,
        /// Its first piece that is missing.
        piece: u32,
    },
}

impl CacheError {
    /// What the system said, so that a full disk is still one to whoever adds a path again.
    pub(crate) fn into_io(self) -> io::Error {
        match self {
            Self::Io { source, .. } | Self::DiskFull { source, .. } => source,
            error => io::Error::other(error),
        }
    }

    /// A finished model has gone.
    pub(crate) fn gone(digest: &Digest, path: &Path) -> Self {
        Self::Corrupt { digest: *digest, path: path.to_owned(), damage: "it has no weights".to_owned() }
    }

    /// A failed system call; one that failed because the disk is full becomes [`CacheError::DiskFull`].
    pub fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::FileTooLarge => Self::FileLimit { action, path, source },
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                let free = free(&path);
                Self::DiskFull { action, path, free, source }
            }
            _ => Self::Io { action, path, source },
        }
    }

    /// Who is at fault: never a peer, because nothing reaches the cache unverified.
    pub fn blame(&self) -> Blame {
        match self {
            Self::Io { .. }
            | Self::DiskFull { .. }
            | Self::NoRoom { .. }
            | Self::NoFiles { .. }
            | Self::BlobsFull { .. }
            | Self::FileTooLarge { .. }
            | Self::UnknownVersion { .. }
            | Self::Locked { .. }
            | Self::NotACache { .. }
            | Self::ReadOnly { .. }
            | Self::FileLimit { .. }
            | Self::Manifest { .. }
            | Self::Corrupt { .. }
            | Self::Index { .. } => Blame::Us,
            Self::InUse { .. }
            | Self::NotALink { .. }
            | Self::Linked { .. }
            | Self::Pinned { .. }
            | Self::OverLimit { .. }
            | Self::NotEmpty { .. }
            | Self::Ambiguous { .. }
            | Self::NoRoomToHeal { .. }
            | Self::NotCached { .. }
            | Self::OutOfBounds { .. }
            | Self::OtherModel { .. }
            | Self::WrongLength { .. }
            | Self::Incomplete { .. } => Blame::Caller,
        }
    }

    /// Whether the system forbids it.
    pub(super) fn is_denied(&self) -> bool {
        matches!(self, Self::Io { source, .. } if is_denied(source))
    }

    /// Whether there is no room: more of it, or less to store, would help.
    pub fn is_disk_full(&self) -> bool {
        use CacheError::{DiskFull, FileTooLarge, NoFiles, NoRoom, OverLimit};
        matches!(
            self,
            DiskFull { .. } | NoRoom { .. } | NoFiles { .. } | FileTooLarge { .. } | OverLimit { .. }
        )
    }
}

/// Whether the system forbids to write.
pub(super) fn is_denied(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

fn describe_free(free: Option<&Free>) -> String {
    free.map_or_else(String::new, |free| format!(", {free} are free there"))
}

fn describe_holders(holders: &[u32]) -> String {
    match holders {
        [] => "another process".to_owned(),
        [one] => format!("process {one}"),
        many => format!("processes {}", many.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")),
    }
}

/// What stays in a cache that is too full.
struct Stays<'a>(&'a [(Digest, u64, Keep)]);

impl fmt::Display for Stays<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        for (position, (digest, bytes, keep)) in self.0.iter().take(SHOWN).enumerate() {
            let separator = if position == 0 { ": " } else { ", " };
            write!(f, "{separator}{digest} ({bytes} bytes) is {keep}")?;
        }
        match self.0.len().checked_sub(SHOWN) {
            Some(more @ 1..) => write!(f, ", and {more} more stay"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_recognised_whatever_call_met_it() {
        for kind in [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded] {
            let error = CacheError::io("write", Path::new("weights"), io::Error::from(kind));
            assert!(error.is_disk_full(), "{error}");
        }
        let other = CacheError::io("write", Path::new("weights"), io::Error::from(io::ErrorKind::NotFound));
        assert!(!other.is_disk_full(), "{other}");
    }

    #[test]
    fn holders_are_named_as_far_as_they_are_known() {
        assert_eq!(describe_holders(&[]), "another process");
        assert_eq!(describe_holders(&[7]), "process 7");
        assert_eq!(describe_holders(&[7, 8]), "processes 7, 8");
    }
}
