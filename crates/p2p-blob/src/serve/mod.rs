//! Serving: a task per inbound stream, so many in all and per peer.

mod blobs;
mod ranges;
mod read;
mod uploads;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::AsyncWrite;
use libp2p::PeerId;
use manifest::{ByteRange, Digest};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

use self::read::Reader;
use self::uploads::{Busy, Place};
use crate::config::{Config, Limits};
use crate::handler::BlobStream;
use crate::holders::Holders;
use crate::progress::{self, Halt};
use crate::store::Store;
use crate::wire::{FramingError, Version};

pub(crate) use uploads::Uploads;

/// Streams of 1.0.0 at one time. Each has an answer under way for all of its life.
const MAX_WHOLE_BLOBS: usize = 128;
/// Streams over the limits that are told so at one time; further ones are reset.
const MAX_REFUSED_STREAMS: usize = 32;

/// What a serving task works with.
struct Service {
    /// Whom it serves.
    peer: PeerId,
    uploads: Uploads,
    store: Arc<dyn Store>,
    holders: Arc<Holders>,
    disk_reads: Arc<Semaphore>,
    progress_timeout: Duration,
    idle_timeout: Duration,
    stopping: CancellationToken,
}

impl Service {
    /// Waits for a turn at the disk.
    async fn disk_permit(&self) -> Result<OwnedSemaphorePermit, ServeError> {
        let permit = Arc::clone(&self.disk_reads).acquire_owned().await;
        permit.map_err(|error| ServeError::Store(io::Error::other(error)))
    }

    /// Waits for the peer's turn, however long that takes.
    async fn next_place(&self, blob: &Digest, offset: u64, bytes: u64) -> Place {
        loop {
            match self.uploads.place(self.peer, blob, offset, bytes).await {
                Ok(place) => return place,
                Err(Busy(retry_after)) => tokio::time::sleep(retry_after).await,
            }
        }
    }

    /// Reads the next chunk of an answer that has begun; `range` is what is left of it.
    async fn read_next(&self, reader: Reader, range: ByteRange) -> Result<Reader, ServeError> {
        let permit = self.disk_permit().await?;
        match reader.next(permit, range).await {
            (reader, Ok(true)) => Ok(reader),
            (_, Ok(false)) => Err(ServeError::Store(io::Error::other("bytes that were held are gone"))),
            (_, Err(error)) => Err(ServeError::Store(error)),
        }
    }

    /// Sends bytes of a blob, as fast as the peer takes them and its share of the rate allows.
    async fn send(&self, stream: &mut (impl AsyncWrite + Unpin), mut bytes: &[u8]) -> Result<(), ServeError> {
        while !bytes.is_empty() {
            let allowed_bytes = self.uploads.allow(self.peer, bytes.len()).await;
            let (now, later) = bytes.split_at(allowed_bytes);
            progress::write_all(stream, now, self.progress_timeout).await?;
            self.uploads.sent(now.len());
            bytes = later;
        }
        Ok(())
    }
}

/// Why serving a stream ended before the peer was done with it.
#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error("the peer made no progress")]
    Stalled,
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

/// The serving tasks of a node.
pub(crate) struct Servers {
    store: Arc<dyn Store>,
    holders: Arc<Holders>,
    uploads: Uploads,
    disk_reads: Arc<Semaphore>,
    progress_timeout: Duration,
    idle_timeout: Duration,
    stopping: CancellationToken,
    limits: Limits,
    tasks: JoinSet<()>,
    /// Which peer each task serves, in which version, and whether it only refuses.
    serving: HashMap<Id, (PeerId, Version, Admission)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Admission {
    Served,
    Refused,
}

impl Servers {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        holders: Arc<Holders>,
        uploads: Uploads,
        config: &Config,
    ) -> Self {
        Self {
            store,
            holders,
            uploads,
            disk_reads: Arc::new(Semaphore::new(config.limits.disk_reads)),
            progress_timeout: config.progress_timeout,
            idle_timeout: config.idle_timeout,
            stopping: CancellationToken::new(),
            limits: config.limits,
            tasks: JoinSet::new(),
            serving: HashMap::new(),
        }
    }

    /// Whether no stream is being served.
    pub(crate) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Serves a stream. Over the limits a 2.0.0 stream is answered "busy" and a 1.0.0 stream, which has no such answer,
    /// is reset.
    pub(crate) fn admit(&mut self, peer: PeerId, stream: BlobStream) {
        let count = |which: &dyn Fn(PeerId, Version, Admission) -> bool| {
            self.serving
                .values()
                .filter(|(peer, version, admission)| which(*peer, *version, *admission))
                .count()
        };
        let served = count(&|_, _, admission| admission == Admission::Served);
        let of_peer = count(&|other, _, admission| other == peer && admission == Admission::Served);
        let whole_blobs = count(&|_, version, _| version == Version::Blobs);
        let refused = count(&|_, _, admission| admission == Admission::Refused);
        let has_room = served < self.limits.streams
            && of_peer < self.limits.streams_per_peer
            && (stream.version == Version::Ranges || whole_blobs < MAX_WHOLE_BLOBS);
        let admission = match (has_room, stream.version) {
            (true, _) => Admission::Served,
            (false, Version::Ranges) if refused < MAX_REFUSED_STREAMS => Admission::Refused,
            (false, _) => {
                tracing::debug!(%peer, "a stream over the limits is reset");
                return;
            }
        };
        let (service, stream_version) = (self.service(peer), stream.version);
        let task = self.tasks.spawn(async move {
            let result = match (stream.version, admission) {
                (Version::Blobs, _) => blobs::serve(service, stream.io).await,
                (Version::Ranges, Admission::Served) => ranges::serve(service, stream.io).await,
                (Version::Ranges, Admission::Refused) => ranges::refuse(service, stream.io).await,
            };
            if let Err(error) = result {
                tracing::debug!(%peer, error = &error as &dyn std::error::Error, "serving a stream ended early");
            }
        });
        self.serving.insert(task.id(), (peer, stream_version, admission));
    }

    fn service(&self, peer: PeerId) -> Service {
        Service {
            peer,
            uploads: self.uploads.clone(),
            store: Arc::clone(&self.store),
            holders: Arc::clone(&self.holders),
            disk_reads: Arc::clone(&self.disk_reads),
            progress_timeout: self.progress_timeout,
            idle_timeout: self.idle_timeout,
            stopping: self.stopping.clone(),
        }
    }

    /// Waits for a task to end and forgets it. Cancel-safe.
    pub(crate) async fn reap(&mut self) {
        let id = match self.tasks.join_next_with_id().await {
            Some(Ok((id, ()))) => id,
            Some(Err(error)) => {
                tracing::error!(error = &error as &dyn std::error::Error, "a serving task has failed");
                error.id()
            }
            None => return,
        };
        self.serving.remove(&id);
    }

    /// Lets every task end after the answer that it is at.
    pub(crate) fn stop(&self) {
        self.stopping.cancel();
    }
}
