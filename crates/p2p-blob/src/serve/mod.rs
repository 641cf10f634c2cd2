//! Serving: a task per inbound stream, limited in all and per peer.

mod blobs;
mod ranges;
mod read;
mod receive_rate;
mod service;
mod slots;
mod uploads;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio_util::sync::CancellationToken;

use self::service::Service;
use self::slots::{StreamSlot, StreamSlots};
use crate::admit::{Asker, Decision};
use crate::config::{Config, Limits};
use crate::discovery::tracker::Tracker;
use crate::store::Store;
use crate::swarm::handler::BlobStream;
use crate::wire::Version;

pub(crate) use uploads::Uploads;

/// Streams of 1.0.0 at one time. Each is in the middle of an answer all its life.
const MAX_WHOLE_BLOBS: usize = 128;
/// Streams over the limits that are answered "busy" at one time; further ones are reset.
const MAX_REFUSED_STREAMS: usize = 32;

/// The serving tasks of a node.
pub(crate) struct Servers {
    store: Arc<dyn Store>,
    holders: Arc<Tracker>,
    uploads: Uploads,
    disk_reads: Arc<Semaphore>,
    progress_timeout: Duration,
    idle_timeout: Duration,
    stopping: CancellationToken,
    limits: Limits,
    tasks: JoinSet<()>,
    serving: HashMap<Id, Serving>,
    /// Streams that are served: those of 2.0.0 and those of 1.0.0.
    slots: StreamSlots,
    whole_blobs: StreamSlots,
    next_number: u64,
}

/// One serving task.
#[derive(Debug)]
struct Serving {
    number: u64,
    from: Asker,
    admission: Admission,
    abort: AbortHandle,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Admission {
    Served,
    Refused,
}

impl Servers {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        holders: Arc<Tracker>,
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
            slots: StreamSlots::new(config.limits.streams),
            whole_blobs: StreamSlots::new(MAX_WHOLE_BLOBS.min(config.limits.streams)),
            next_number: 0,
        }
    }

    /// Whether no stream is being served.
    pub(crate) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Serves a stream. Over the limits a 2.0.0 stream is answered "busy" and a 1.0.0 stream, which has no such answer,
    /// is reset.
    pub(crate) fn admit(&mut self, from: Asker, stream: BlobStream) {
        let count = |which: &dyn Fn(&Serving) -> bool| self.serving.values().filter(|one| which(one)).count();
        let of_peer = count(&|one| one.from == from && one.admission == Admission::Served);
        let refused = count(&|one| one.admission == Admission::Refused);
        let has_room = of_peer < self.limits.streams_per_peer && self.make_room(from, stream.version);
        let admission = match (has_room, stream.version) {
            (true, _) => Admission::Served,
            (false, Version::Ranges) if refused < MAX_REFUSED_STREAMS => Admission::Refused,
            (false, _) => {
                tracing::debug!(peer = %from.peer, "a stream over the limits is reset");
                return;
            }
        };
        let number = self.next_number;
        self.next_number += 1;
        let slots = match (admission, stream.version) {
            (Admission::Served, Version::Ranges) => &self.slots,
            (Admission::Served, Version::Blobs) => &self.whole_blobs,
            // It takes no slot.
            (Admission::Refused, _) => &StreamSlots::new(1),
        };
        let service = self.service(from, slots.insert(number, from));
        let abort = self.tasks.spawn(async move {
            let result = match (stream.version, admission) {
                (Version::Blobs, _) => blobs::serve(service, stream.io).await,
                (Version::Ranges, Admission::Served) => ranges::serve(service, stream.io).await,
                (Version::Ranges, Admission::Refused) => ranges::refuse(service, stream.io).await,
            };
            if let Err(error) = result {
                let error = &error as &dyn std::error::Error;
                tracing::debug!(peer = %from.peer, error, "serving a stream ended early");
            }
        });
        self.serving.insert(abort.id(), Serving { number, from, admission, abort });
    }

    /// Whether there is a slot for a stream; another stream may be evicted, which resets it.
    fn make_room(&self, from: Asker, version: Version) -> bool {
        let slots = match version {
            Version::Ranges => &self.slots,
            Version::Blobs => &self.whole_blobs,
        };
        match slots.ask(from) {
            Decision::Admit => true,
            Decision::Refuse => false,
            Decision::Evict(number) => {
                slots.remove(number);
                for other in self.serving.values().filter(|one| one.number == number) {
                    tracing::debug!(peer = %other.from.peer, "a stream is reset for one from another address");
                    other.abort.abort();
                }
                true
            }
        }
    }

    fn service(&self, from: Asker, slot: StreamSlot) -> Service {
        Service {
            from,
            slot,
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
            Some(Err(error)) if error.is_cancelled() => error.id(),
            Some(Err(error)) => {
                tracing::error!(error = &error as &dyn std::error::Error, "a serving task has failed");
                error.id()
            }
            None => return,
        };
        self.serving.remove(&id);
    }

    /// Ends every task after its current answer.
    pub(crate) fn stop(&self) {
        self.stopping.cancel();
    }
}
