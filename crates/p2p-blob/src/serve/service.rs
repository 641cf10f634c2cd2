//! The context of a serving task, and why it ends early.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::AsyncWrite;
use manifest::{ByteRange, Digest};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::read::Reader;
use super::slots::StreamSlot;
use super::uploads::{Busy, UploadSlot, Uploads};
use crate::admit::Asker;
use crate::discovery::tracker::Tracker;
use crate::limit::stall::{self, Halt};
use crate::store::Store;
use crate::traffic::Transport;
use crate::wire::FramingError;

/// The context of a serving task.
pub(super) struct Service {
    /// The peer that it serves.
    pub(super) from: Asker,
    pub(super) slot: StreamSlot,
    pub(super) uploads: Uploads,
    pub(super) store: Arc<dyn Store>,
    pub(super) holders: Arc<Tracker>,
    pub(super) disk_reads: Arc<Semaphore>,
    pub(super) progress_timeout: Duration,
    pub(super) idle_timeout: Duration,
    pub(super) stopping: CancellationToken,
}

impl Service {
    /// Waits for a disk permit.
    pub(super) async fn disk_permit(&self) -> Result<OwnedSemaphorePermit, ServeError> {
        let permit = Arc::clone(&self.disk_reads).acquire_owned().await;
        permit.map_err(|error| ServeError::Store(io::Error::other(error)))
    }

    /// Waits for an upload slot, however long that takes.
    pub(super) async fn next_upload_slot(&self, blob: &Digest, offset: u64, bytes: u64) -> UploadSlot {
        loop {
            match self.uploads.acquire(self.from, blob, offset, bytes).await {
                Ok(slot) => return slot,
                Err(Busy(retry_after)) => tokio::time::sleep(retry_after).await,
            }
        }
    }

    /// Reads the next chunk of an answer that has begun; `range` is what is left of it.
    pub(super) async fn read_next(&self, reader: Reader, range: ByteRange) -> Result<Reader, ServeError> {
        let permit = self.disk_permit().await?;
        match reader.next(permit, range).await {
            (reader, Ok(true)) => Ok(reader),
            (_, Ok(false)) => Err(ServeError::Store(io::Error::other("bytes that were held are gone"))),
            (_, Err(error)) => Err(ServeError::Store(error)),
        }
    }

    /// Sends bytes of a blob, as fast as the peer and its share of the rate limit allow.
    pub(super) async fn send(
        &self,
        stream: &mut (impl AsyncWrite + Unpin),
        slot: &UploadSlot,
        mut bytes: &[u8],
    ) -> Result<(), ServeError> {
        let transport = self.holders.transport_of(&self.from.peer).unwrap_or(Transport::Tcp);
        while !bytes.is_empty() {
            let allowed_bytes = self.uploads.allow(self.from, bytes.len()).await;
            let (mut now, later) = bytes.split_at(allowed_bytes);
            while !now.is_empty() {
                let write = stall::write_some(stream, now, self.progress_timeout);
                let written = slot.receive_rate().measure(write).await.ok_or(ServeError::Slow)?;
                now = &now[written?..];
            }
            self.uploads.sent(&self.from.peer, transport, allowed_bytes);
            bytes = later;
        }
        Ok(())
    }
}

/// Why serving a stream ended before the peer was done with it.
#[derive(Debug, thiserror::Error)]
pub(super) enum ServeError {
    #[error("the peer made no progress")]
    Stalled,
    #[error("the peer was too slow while others waited")]
    Slow,
    #[error("the stream was cut")]
    Closed(#[source] Option<io::Error>),
    #[error("the peer broke the protocol")]
    Framing(#[from] FramingError),
    #[error("the store failed in the middle of a blob")]
    Store(#[source] io::Error),
}

impl From<Halt> for ServeError {
    fn from(halt: Halt) -> Self {
        match halt {
            Halt::Stalled => Self::Stalled,
            Halt::Closed(source) => Self::Closed(source),
        }
    }
}
