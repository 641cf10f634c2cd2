//! Fetching from one peer.

mod blobs;
mod exchange;
mod ranges;

use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use libp2p::PeerId;
use libp2p::swarm::ConnectionId;
use manifest::{ByteRange, Digest};

use crate::client::Client;
use crate::error::FetchError;
use crate::identity::source_id;
use crate::swarm::handler::{Connection, Opened};
use crate::wire::Version;

pub use blobs::{BlobBody, BlobSession};
pub use exchange::GetRequest;
pub use ranges::RangeSession;

/// The parts that [`read_blob`] asks for, and how many in parallel.
const PART_BYTES: u64 = 1 << 20;
const PARTS_AT_ONCE: usize = 4;
/// Bounds of the retry time that a busy peer asks for.
const MIN_RETRY: Duration = Duration::from_millis(10);
const MAX_RETRY: Duration = Duration::from_secs(2);

/// A way to fetch from one peer, in the version that it speaks. Clones are the same session.
#[derive(Debug, Clone)]
pub enum Session {
    /// 2.0.0: ranges.
    Ranges(RangeSession),
    /// 1.0.0: whole blobs.
    Blobs(BlobSession),
}

impl Session {
    /// The peer at the other end.
    pub fn peer(&self) -> PeerId {
        match self {
            Self::Ranges(session) => session.peer(),
            Self::Blobs(session) => session.peer(),
        }
    }

    /// The connection that it is on; `None` when each blob has a stream of its own, wherever there are the fewest.
    pub fn connection(&self) -> Option<Connection> {
        match self {
            Self::Ranges(session) => Some(session.connection()),
            Self::Blobs(_) => None,
        }
    }

    /// How many bytes of blobs have arrived so far. Monotonic.
    pub fn received_bytes(&self) -> u64 {
        match self {
            Self::Ranges(session) => session.received_bytes(),
            Self::Blobs(session) => session.received_bytes(),
        }
    }
}

impl Client {
    /// Opens a stream to a connected peer, in the best version that both speak.
    ///
    /// # Errors
    /// - [`FetchError::Unreachable`]: there is no connection.
    /// - [`FetchError::UnsupportedProtocol`]: the peer speaks no version that this node speaks.
    /// - [`FetchError::Stalled`], [`FetchError::Closed`]: the connection failed.
    /// - [`FetchError::Stopped`]: the node has ended.
    pub async fn open(&self, peer: PeerId) -> Result<Session, FetchError> {
        self.open_in(peer, None, self.versions().offered()).await
    }

    /// Opens a stream in 1.0.0, which sends a blob without being asked for its size before.
    ///
    /// # Errors
    /// Those of [`Client::open`].
    pub async fn open_for_blobs(&self, peer: PeerId) -> Result<Session, FetchError> {
        self.open_in(peer, None, &[Version::Blobs]).await
    }

    /// Like [`Client::open`], on this connection and no other.
    ///
    /// # Errors
    /// Those of [`Client::open`].
    pub async fn open_on(&self, peer: PeerId, connection: Connection) -> Result<Session, FetchError> {
        self.open_in(peer, Some(connection.0), self.versions().offered()).await
    }

    async fn open_in(
        &self,
        peer: PeerId,
        on: Option<ConnectionId>,
        versions: &'static [Version],
    ) -> Result<Session, FetchError> {
        let Opened { stream, on } = self.open_stream(peer, on, versions).await?;
        Ok(match stream.version {
            Version::Ranges => Session::Ranges(RangeSession::start(self.clone(), peer, on, stream.io)),
            Version::Blobs => Session::Blobs(BlobSession::new(self.clone(), peer, stream.io)),
        })
    }
}

/// Reads a small blob whole, whichever version the peer speaks. `None`: the peer does not have it. A busy peer is
/// retried until the future is dropped.
///
/// **Trust.** The bytes are *not* checked against the digest here.
/// **Memory.** As much as the peer says the blob has, up to `max_bytes`.
///
/// # Errors
/// - [`FetchError::TooLarge`]: the peer claims a size over `max_bytes`; nothing was read.
/// - Those of [`RangeSession::get`] and [`BlobSession::request`].
pub async fn read_blob(
    session: &Session,
    blob: Digest,
    max_bytes: u64,
) -> Result<Option<Vec<u8>>, FetchError> {
    let check_size = |size_bytes: u64| match size_bytes <= max_bytes {
        true => Ok(()),
        false => Err(FetchError::TooLarge {
            peer: source_id(&session.peer()),
            blob,
            got_bytes: size_bytes,
            max_bytes,
        }),
    };
    match session {
        Session::Ranges(session) => {
            let Some(size_bytes) = claimed_size(session, blob).await? else { return Ok(None) };
            check_size(size_bytes)?;
            let ranges = (0..size_bytes.div_ceil(PART_BYTES)).map(|index| {
                let start = index * PART_BYTES;
                ByteRange::new(start, (start + PART_BYTES).min(size_bytes))
            });
            let parts = ranges.map(|range| part(session, blob, Some(size_bytes), range));
            let mut parts = futures::stream::iter(parts).buffered(PARTS_AT_ONCE);
            let mut bytes = Vec::new();
            while let Some((_, part)) = parts.try_next().await? {
                bytes.extend_from_slice(&part);
            }
            Ok(Some(bytes))
        }
        Session::Blobs(session) => {
            let Some(mut body) = session.request(blob).await? else { return Ok(None) };
            check_size(body.size_bytes())?;
            let mut bytes = Vec::new();
            while (bytes.len() as u64) < body.size_bytes() {
                let start = bytes.len();
                let part_bytes = (body.size_bytes() - start as u64).min(PART_BYTES);
                bytes.resize(start + usize::try_from(part_bytes).unwrap_or(0), 0);
                body.read_exact(&mut bytes[start..]).await?;
            }
            Ok(Some(bytes))
        }
    }
}

/// The size that a peer claims for a blob. `None`: it does not have it. A busy peer is retried, as by [`read_blob`].
///
/// # Errors
/// Those of [`RangeSession::get`] and [`BlobSession::request`].
pub async fn blob_size(session: &Session, blob: Digest) -> Result<Option<u64>, FetchError> {
    match session {
        Session::Ranges(session) => claimed_size(session, blob).await,
        // This version sends the size before the bytes, which are not read.
        Session::Blobs(session) => Ok(session.request(blob).await?.map(|body| body.size_bytes())),
    }
}

/// Every GET answer has the size of its blob: one byte is enough.
async fn claimed_size(session: &RangeSession, blob: Digest) -> Result<Option<u64>, FetchError> {
    match part(session, blob, None, ByteRange::new(0, 1)).await {
        Ok((size_bytes, _)) => Ok(Some(size_bytes)),
        Err(FetchError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A part of a blob, of [`PART_BYTES`] at most, and the size that the peer claims for the blob.
async fn part(
    session: &RangeSession,
    blob: Digest,
    blob_size_bytes: Option<u64>,
    range: ByteRange,
) -> Result<(u64, Vec<u8>), FetchError> {
    let request = GetRequest { manifest: None, blob, blob_size_bytes, range };
    let length = usize::try_from(range.len()).unwrap_or(0);
    loop {
        match session.get_with_size(request, vec![0; length]).await {
            Err(FetchError::Busy { retry_after, .. }) => {
                tokio::time::sleep(retry_after.clamp(MIN_RETRY, MAX_RETRY)).await;
            }
            result => return result,
        }
    }
}
