//! Untrusted sources of blobs: the loader's interface to the network.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use manifest::{Blame, ByteRange, Digest, Have, SourceId};
use planner::Failure;

/// A range of one blob, as asked of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RangeRead {
    /// The manifest the blob belongs to.
    pub manifest: Digest,
    /// The blob.
    pub blob: Digest,
    /// How large the blob is, going by the manifest.
    pub blob_size_bytes: u64,
    /// Which of its bytes: at least one, at most 4 MiB.
    pub range: ByteRange,
}

/// Why a source did not deliver.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// It does not hold the blob, or not that part of it.
    #[error("does not hold it")]
    NotHeld,
    /// It has no free upload slot.
    #[error("is busy for {retry_after:?}")]
    Busy {
        /// When it may be asked again.
        retry_after: Duration,
    },
    /// It says that the blob is larger than what was asked for may be.
    #[error("says that it has {claimed_bytes} bytes")]
    TooLarge {
        /// The size that it claims.
        claimed_bytes: u64,
    },
    /// It broke the protocol, or sent something of the wrong size.
    #[error("broke the protocol")]
    Misbehaved(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The stream or connection to it failed, or it stopped sending.
    #[error("was lost")]
    Lost(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl SourceError {
    /// Who is at fault.
    pub fn blame(&self) -> Blame {
        match self {
            Self::NotHeld | Self::Busy { .. } | Self::TooLarge { .. } | Self::Lost(_) => Blame::Network,
            Self::Misbehaved(_) => Blame::Peer,
        }
    }

    pub(crate) fn failure(&self) -> Failure {
        match self {
            Self::NotHeld | Self::TooLarge { .. } => Failure::Refused,
            Self::Busy { retry_after } => Failure::Busy(*retry_after),
            Self::Misbehaved(_) => Failure::Misbehaved,
            Self::Lost(_) => Failure::Lost,
        }
    }

    /// The message with its causes, for a report.
    pub fn with_causes(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        text
    }
}

/// A source of blobs. Cheap calls may be made at any time; dropping a future cancels its request.
pub trait Source: Send + Sync + 'static {
    /// Its name.
    fn id(&self) -> &SourceId;

    /// Whether it serves ranges ([`Source::read`]); else only whole blobs ([`Source::open`]).
    fn serves_ranges(&self) -> bool;

    /// Fills `buf`, which is as long as the range, and gives it back. The bytes are not checked.
    fn read(&self, read: RangeRead, buf: Vec<u8>) -> BoxFuture<'_, Result<Vec<u8>, SourceError>>;

    /// Asks for a whole blob that should have `size_bytes`. The bytes are not checked.
    fn open(&self, blob: Digest, size_bytes: u64) -> BoxFuture<'_, Result<Box<dyn BlobStream>, SourceError>>;

    /// A small blob in memory, at most `max_bytes`. The bytes are not checked. Queues behind no [`Self::read`].
    fn read_blob(&self, blob: Digest, max_bytes: u64) -> BoxFuture<'_, Result<Vec<u8>, SourceError>>;

    /// How large a blob is, as it says.
    fn blob_size(&self, blob: Digest) -> BoxFuture<'_, Result<u64, SourceError>>;

    /// Its piece sets of the shards, whose piece counts are given: all, or the changes after the version `since` of an
    /// earlier answer (0: none). `None`: it announces none, and may hold anything. May be polled, and queues behind no
    /// [`Self::read`].
    fn have(
        &self,
        manifest: Digest,
        piece_counts: Arc<[u32]>,
        since: u64,
    ) -> BoxFuture<'_, Result<Option<Have>, SourceError>>;

    /// Bytes received from it so far, incomplete answers included: a measure of progress.
    fn received_bytes(&self) -> u64;

    /// Whether its answers take long to come: round trips are to be saved.
    fn is_far(&self) -> bool {
        false
    }

    /// Bytes of it were right, just now: other sources may be evicted first.
    fn note_useful(&self) {}

    /// It is dismissed for what it sent: it can be disconnected.
    fn dismiss(&self) {}
}

/// The bytes of a blob, front to back.
pub trait BlobStream: Send {
    /// Fills `buf` with the next bytes and gives it back.
    fn read_exact(&mut self, buf: Vec<u8>) -> BoxFuture<'_, Result<Vec<u8>, SourceError>>;
}

/// Events of sources during a fetch.
pub enum SourceEvent {
    /// A source has connected.
    Up(Arc<dyn Source>),
    /// A source has disconnected.
    Down {
        /// Which.
        source: SourceId,
        /// Why.
        reason: String,
    },
    /// A source, named by its address, could not be reached.
    Unreachable {
        /// Its address.
        address: String,
        /// Why not.
        reason: String,
    },
    /// Whether first dials of known addresses are in progress.
    Connecting(bool),
}
