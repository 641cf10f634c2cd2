//! Fetching in 1.0.0: a stream per blob.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::AsyncReadExt as _;
use libp2p::{PeerId, Stream};
use manifest::{Digest, SourceId};

use crate::client::Client;
use crate::error::FetchError;
use crate::identity::source_id;
use crate::limit::Download;
use crate::limit::stall::{self, Halt};
use crate::serve::Uploads;
use crate::wire::{FramingError, Version, v1};

/// How long a finished exchange waits for the peer to close its side: some QUIC stacks fail without that.
const FAREWELL_TIMEOUT: Duration = Duration::from_millis(500);

/// Fetches whole blobs from one peer in 1.0.0. Clones are the same session.
#[derive(Clone)]
pub struct BlobSession {
    client: Client,
    peer: PeerId,
    /// The stream on which the version was negotiated; the first exchange uses it.
    first: Arc<Mutex<Option<Stream>>>,
    received_bytes: Arc<AtomicU64>,
}

impl BlobSession {
    pub(crate) fn new(client: Client, peer: PeerId, first: Stream) -> Self {
        Self { client, peer, first: Arc::new(Mutex::new(Some(first))), received_bytes: Arc::default() }
    }

    /// The peer at the other end.
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// How many bytes of blobs have arrived so far, in all exchanges.
    pub fn received_bytes(&self) -> u64 {
        self.received_bytes.load(Ordering::Relaxed)
    }

    /// Asks for a blob, on a stream of its own. `None`: the peer does not have it.
    ///
    /// # Errors
    /// - [`FetchError::Unreachable`]: the connection is gone.
    /// - [`FetchError::Stalled`], [`FetchError::Closed`]: the peer does not answer, or hung up.
    /// - [`FetchError::UnsupportedProtocol`]: it does not speak 1.0.0 any more.
    /// - [`FetchError::Stopped`]: the node has ended.
    ///
    /// Source: `docs/protocol.md`, "1.0.0".
    pub async fn request(&self, blob: Digest) -> Result<Option<BlobBody>, FetchError> {
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut stream = match first {
            Some(stream) => stream,
            None => self.client.open_stream(self.peer, None, &[Version::Blobs]).await?.stream.io,
        };
        let limit = self.client.progress_timeout();
        let mut head = [0; 4];
        let exchange = async {
            stall::write_all(&mut stream, &v1::encode_request(&blob), limit).await?;
            stall::flush(&mut stream, limit).await?;
            stall::read_exact(&mut stream, &mut head, limit, |_| ()).await
        };
        exchange.await.map_err(|halt| FetchError::halted(&source_id(&self.peer), limit, halt))?;
        Ok(v1::decode_size(head).map(|size_bytes| BlobBody {
            peer: source_id(&self.peer),
            blob,
            stream,
            limit,
            size_bytes,
            left_bytes: size_bytes,
            download: Download::new(self.peer, self.client.download_rate().cloned()),
            received_bytes: Arc::clone(&self.received_bytes),
            uploads: self.client.uploads().clone(),
        }))
    }
}

impl fmt::Debug for BlobSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobSession").field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// A blob on its way. Dropping it before its end resets the stream.
///
/// Existing peers reset a stream whose reader pauses for five seconds: read on without waiting for others.
pub struct BlobBody {
    peer: SourceId,
    blob: Digest,
    stream: Stream,
    limit: Duration,
    size_bytes: u64,
    left_bytes: u64,
    download: Download,
    received_bytes: Arc<AtomicU64>,
    uploads: Uploads,
}

impl BlobBody {
    /// The size that the peer claims, at least 1.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Fills `buf` with the next bytes of the blob.
    ///
    /// **Trust.** The bytes are *not* checked here.
    /// **Cancel safety.** None: after a dropped future it is unknown how far the body was read. Drop it too.
    ///
    /// # Errors
    /// - [`FetchError::Stalled`], [`FetchError::Closed`]: the peer stopped sending.
    /// - [`FetchError::BrokenFraming`]: it sends more than the blob.
    /// - [`FetchError::PastEnd`]: fewer bytes are left; nothing was read.
    pub async fn read_exact(&mut self, buf: &mut [u8]) -> Result<(), FetchError> {
        if buf.len() as u64 > self.left_bytes {
            let (buf_bytes, left_bytes) = (buf.len(), self.left_bytes);
            return Err(FetchError::PastEnd { blob: self.blob, buf_bytes, left_bytes });
        }
        let count = |bytes| {
            self.received_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        };
        self.download
            .read_exact(&mut self.stream, buf, self.limit, count)
            .await
            .map_err(|halt| FetchError::halted(&self.peer, self.limit, halt))?;
        self.left_bytes -= buf.len() as u64;
        self.uploads.received(&self.download.peer(), buf.len() as u64);
        if self.left_bytes > 0 || buf.is_empty() {
            return Ok(());
        }
        match stall::within(FAREWELL_TIMEOUT, self.stream.read(&mut [0])).await {
            Ok(1..) => {
                let peer = self.peer.clone();
                Err(FetchError::BrokenFraming { peer, source: FramingError::Unsolicited })
            }
            // The blob is complete, whatever happens to the stream.
            Ok(0) | Err(Halt::Stalled | Halt::Closed(_)) => Ok(()),
        }
    }
}

impl fmt::Debug for BlobBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobBody")
            .field("peer", &self.peer)
            .field("blob", &self.blob)
            .field("size_bytes", &self.size_bytes)
            .field("left_bytes", &self.left_bytes)
            .finish_non_exhaustive()
    }
}
