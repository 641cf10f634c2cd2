//! Fetching in 2.0.0: the handle of a session.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use libp2p::{PeerId, Stream};
use manifest::{Digest, Have, SourceId};
use tokio::sync::{mpsc, oneshot};

use super::exchange::{Ask, Exchange, GetRequest, Lent, Reply};
use crate::client::Client;
use crate::discovery::address::Scope;
use crate::discovery::record::Contact;
use crate::error::FetchError;
use crate::identity::source_id;
use crate::limit::Download;
use crate::swarm::handler::{Connection, On};
use crate::wire::MAX_RANGE_BYTES;

/// Requests that wait to be sent; further callers wait themselves.
const QUEUE: usize = 16;

/// Fetches ranges from one peer on one 2.0.0 stream. Clones are the same session.
///
/// **Pipelining.** At most 16 requests are unanswered at the peer; further ones are queued here, and can still be
/// cancelled. Against head-of-line blocking, use another session.
/// **Life.** The stream and its task end when all clones are gone. After a [`FetchError::Stalled`],
/// [`FetchError::Closed`] or one that blames the peer for its framing, every further call fails with
/// [`FetchError::Closed`]: open a new session. Servers close a stream that is idle for minutes.
#[derive(Clone)]
pub struct RangeSession {
    /// Keeps the node running.
    client: Client,
    peer: PeerId,
    connection: Connection,
    name: SourceId,
    queue: mpsc::Sender<Ask>,
    received_bytes: Arc<AtomicU64>,
}

impl RangeSession {
    pub(crate) fn start(client: Client, peer: PeerId, on: On, stream: Stream) -> Self {
        let (queue, asks) = mpsc::channel(QUEUE);
        let received_bytes = Arc::<AtomicU64>::default();
        let name = source_id(&peer);
        let exchange = Exchange {
            peer: name.clone(),
            limit: client.progress_timeout(),
            received_bytes: Arc::clone(&received_bytes),
            uploads: client.uploads().clone(),
            abandoned: on.abandoned,
        };
        let download = Download::new(peer, client.download_rate().cloned());
        tokio::spawn(exchange.run(stream, asks, download));
        Self { client, peer, connection: Connection(on.connection), name, queue, received_bytes }
    }

    /// The peer at the other end.
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// The connection that it is on.
    pub fn connection(&self) -> Connection {
        self.connection
    }

    /// How many bytes of blobs have arrived so far, those of unfinished answers too.
    pub fn received_bytes(&self) -> u64 {
        self.received_bytes.load(Ordering::Relaxed)
    }

    /// Reads a range into `buf`, which has the range's length, and gives it back filled.
    ///
    /// **Trust.** The bytes are *not* checked here.
    /// **Backpressure.** Waits while 16 requests are unanswered.
    /// **Cancel safety.** Dropping the future cancels the request, and frees the buffer: one that was not sent never is; the
    /// answer to one that was is skipped.
    ///
    /// # Errors
    /// - [`FetchError::BadRange`]: nothing was sent.
    /// - [`FetchError::NotFound`], [`FetchError::NotHeld`], [`FetchError::Busy`], [`FetchError::BadRequest`]: the peer
    ///   refuses this request; the session goes on.
    /// - [`FetchError::WrongLength`], [`FetchError::WrongSize`], [`FetchError::BrokenFraming`]: the peer broke the
    ///   protocol; the session is over.
    /// - [`FetchError::Stalled`], [`FetchError::Closed`]: the session is over.
    ///
    /// Source: `docs/protocol.md`, "GET".
    pub async fn get(&self, request: GetRequest, buf: Vec<u8>) -> Result<Vec<u8>, FetchError> {
        self.get_with_size(request, buf).await.map(|(_, buf)| buf)
    }

    /// Like [`RangeSession::get`]; also returns the size that the peer claims for the blob.
    pub(crate) async fn get_with_size(
        &self,
        request: GetRequest,
        buf: Vec<u8>,
    ) -> Result<(u64, Vec<u8>), FetchError> {
        let GetRequest { blob, range, .. } = request;
        let length = u32::try_from(range.len()).ok().filter(|length| (1..=MAX_RANGE_BYTES).contains(length));
        let Some(length) = length.filter(|length| *length as usize == buf.len()) else {
            return Err(FetchError::BadRange {
                blob,
                range,
                buf_bytes: buf.len(),
                max_bytes: MAX_RANGE_BYTES,
            });
        };
        let buf = Lent::new(buf);
        // When the future is dropped.
        let _back = buf.take_back_on_drop();
        self.ask(|reply| Ask::Get { request, length, buf, reply }).await
    }

    /// Asks for the peer's piece sets of a manifest's shards: changes after version `since`, 0 for everything.
    /// `None`: the peer knows nothing of the manifest. `piece_counts` has the number of pieces of each shard.
    ///
    /// **Cancel safety.** As for [`RangeSession::get`].
    ///
    /// # Errors
    /// Those of [`RangeSession::get`].
    ///
    /// Source: `docs/protocol.md`, "HAVE".
    pub async fn have(
        &self,
        manifest: Digest,
        since: u64,
        piece_counts: Arc<[u32]>,
    ) -> Result<Option<Have>, FetchError> {
        match self.ask(|reply| Ask::Have { manifest, since, piece_counts, reply }).await {
            Ok(have) => {
                if have.change.shards().iter().any(|pieces| !pieces.is_empty()) {
                    self.client.known_holders().note(manifest, self.peer, Instant::now());
                }
                Ok(Some(have))
            }
            Err(FetchError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Peer exchange: asks for other peers that hold or fetch shards of a manifest. Records with a wrong signature are left
    /// out, and so are addresses whose scope is narrower than that of the connection.
    ///
    /// **Trust.** The peers have signed these addresses; whether they are reachable there, and hold anything, is unknown.
    /// **Cancel safety.** As for [`RangeSession::get`].
    ///
    /// # Errors
    /// Those of [`RangeSession::get`].
    ///
    /// Source: `docs/protocol.md`, "PEERS".
    pub async fn peers(&self, manifest: Digest) -> Result<Vec<Contact>, FetchError> {
        let records = match self.ask(|reply| Ask::Peers { manifest, reply }).await {
            Ok(records) => records,
            Err(FetchError::NotFound { .. }) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let holders = self.client.known_holders();
        let scope = holders.scope_of(&self.peer).unwrap_or(Scope::World);
        let own = self.client.peer_id();
        let mut contacts = Vec::new();
        let known = self.client.known_records();
        for record in records.iter().filter_map(|record| known.decode(record)) {
            let contact = record.contact().clone().within(scope);
            if contact.peer != own && !contact.addrs.is_empty() {
                contacts.push(contact);
            }
            // Used when the peer is connected and has not identified itself.
            holders.passed_on(record);
        }
        Ok(self.client.reach().limit_named(self.peer, contacts))
    }

    async fn ask<T>(&self, ask: impl FnOnce(Reply<T>) -> Ask) -> Result<T, FetchError> {
        let closed = || FetchError::Closed { peer: self.name.clone(), source: None };
        let (reply, answer) = oneshot::channel();
        self.queue.send(ask(reply)).await.map_err(|_| closed())?;
        answer.await.unwrap_or_else(|_| Err(closed()))
    }
}

impl fmt::Debug for RangeSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RangeSession").field("peer", &self.peer).finish_non_exhaustive()
    }
}
