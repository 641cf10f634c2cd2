//! Serving: a task per inbound stream, so many in all and per peer.

mod blobs;
mod ranges;
mod read;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use libp2p::PeerId;
use manifest::ByteRange;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

use self::read::Reader;
use crate::config::{Config, Limits};
use crate::handler::BlobStream;
use crate::holders::Holders;
use crate::progress::Halt;
use crate::store::Store;
use crate::wire::{FramingError, Version};

/// Streams over the limits that are told so at one time; further ones are reset.
const MAX_REFUSED_STREAMS: usize = 32;

/// What a serving task works with.
#[derive(Clone)]
struct Service {
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

    /// Reads the next chunk of an answer that has begun; `range` is what is left of it.
    async fn read_next(&self, reader: Reader, range: ByteRange) -> Result<Reader, ServeError> {
        let permit = self.disk_permit().await?;
        match reader.next(permit, range).await {
            (reader, Ok(true)) => Ok(reader),
            (_, Ok(false)) => Err(ServeError::Store(io::Error::other("bytes that were held are gone"))),
            (_, Err(error)) => Err(ServeError::Store(error)),
        }
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
    service: Service,
    limits: Limits,
    tasks: JoinSet<()>,
    /// Which peer each task serves, and whether it only refuses.
    serving: HashMap<Id, (PeerId, Admission)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Admission {
    Served,
    Refused,
}

impl Servers {
    pub(crate) fn new(store: Arc<dyn Store>, holders: Arc<Holders>, config: &Config) -> Self {
        let service = Service {
            store,
            holders,
            disk_reads: Arc::new(Semaphore::new(config.limits.disk_reads)),
            progress_timeout: config.progress_timeout,
            idle_timeout: config.idle_timeout,
            stopping: CancellationToken::new(),
        };
        Self { service, limits: config.limits, tasks: JoinSet::new(), serving: HashMap::new() }
    }

    /// Whether no stream is being served.
    pub(crate) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Serves a stream. Over the limits a 2.0.0 stream is answered "busy" and a 1.0.0 stream, which has no such answer,
    /// is reset.
    pub(crate) fn admit(&mut self, peer: PeerId, stream: BlobStream) {
        let count = |admission| self.serving.values().filter(|(_, one)| *one == admission).count();
        let of_peer = self.serving.values().filter(|one| **one == (peer, Admission::Served)).count();
        let has_room =
            count(Admission::Served) < self.limits.streams && of_peer < self.limits.streams_per_peer;
        let admission = match (has_room, stream.version) {
            (true, _) => Admission::Served,
            (false, Version::Ranges) if count(Admission::Refused) < MAX_REFUSED_STREAMS => Admission::Refused,
            (false, _) => {
                tracing::debug!(%peer, "a stream over the limits is reset");
                return;
            }
        };
        let service = self.service.clone();
        let task = self.tasks.spawn(async move {
            let result = match (stream.version, admission) {
                (Version::Blobs, _) => blobs::serve(service, stream.io).await,
                (Version::Ranges, Admission::Served) => ranges::serve(service, peer, stream.io).await,
                (Version::Ranges, Admission::Refused) => ranges::refuse(service, peer, stream.io).await,
            };
            if let Err(error) = result {
                tracing::debug!(%peer, error = &error as &dyn std::error::Error, "serving a stream ended early");
            }
        });
        self.serving.insert(task.id(), (peer, admission));
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
        self.service.stopping.cancel();
    }
}
