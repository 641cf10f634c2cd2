//! What a task that serves a stream works with, and why it ends early.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::AsyncWrite;
use manifest::{ByteRange, Digest};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::read::Reader;
use super::seats::Seat;
use super::uploads::{Busy, Place, Uploads};
use crate::admit::Asker;
use crate::discovery::tracker::Tracker;
use crate::limit::stall::{self, Halt};
use crate::store::Store;
use crate::wire::FramingError;

/// What a serving task works with.
pub(super) struct Service {
    /// Whom it serves.
    pub(super) from: Asker,
    pub(super) seat: Seat,
    pub(super) uploads: Uploads,
    pub(super) store: Arc<dyn Store>,
    pub(super) holders: Arc<Tracker>,
    pub(super) disk_reads: Arc<Semaphore>,
    pub(super) progress_timeout: Duration,
    pub(super) idle_timeout: Duration,
    pub(super) stopping: CancellationToken,
}

impl Service {
    /// Waits for a turn at the disk.
    pub(super) async fn disk_permit(&self) -> Result<OwnedSemaphorePermit, ServeError> {
        let permit = Arc::clone(&self.disk_reads).acquire_owned().await;
        permit.map_err(|error| ServeError::Store(io::Error::other(error)))
    }

    /// Waits for the peer's turn, however long that takes.
    pub(super) async fn next_place(&self, blob: &Digest, offset: u64, bytes: u64) -> Place {
        loop {
            match self.uploads.place(self.from, blob, offset, bytes).await {
                Ok(place) => return place,
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

    /// Sends bytes of a blob, as fast as the peer takes them and its share of the rate allows.
    pub(super) async fn send(
        &self,
        stream: &mut (impl AsyncWrite + Unpin),
        place: &Place,
        mut bytes: &[u8],
    ) -> Result<(), ServeError> {
        while !bytes.is_empty() {
            let allowed_bytes = self.uploads.allow(self.from, bytes.len()).await;
            let (mut now, later) = bytes.split_at(allowed_bytes);
            while !now.is_empty() {
                let write = stall::write_some(stream, now, self.progress_timeout);
                let written = place.pace().of(write).await.ok_or(ServeError::Slow)?;
                now = &now[written?..];
            }
            self.uploads.sent(&self.from.peer, allowed_bytes);
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
