//! One connected peer as a source of blobs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::FutureExt;
use futures::future::BoxFuture;
use loader::plan::Holding;
use loader::{BlobStream, RangeRead, Source, SourceError};
use manifest::{Blame, Digest, SourceId};
use p2p_blob::{BlobBody, Client, FetchError, GetRequest, Held, PeerId, RangeSession, Session, read_blob};
use tokio::sync::Mutex;

/// A peer, and the session that all its requests share. A session that breaks is replaced when it is next needed.
pub(crate) struct Peer {
    id: SourceId,
    peer: PeerId,
    client: Client,
    ranges: bool,
    session: Mutex<Option<Session>>,
    /// The session whose bytes are counted now, and the bytes of those before it.
    counted: std::sync::Mutex<Session>,
    earlier_bytes: AtomicU64,
}

impl Peer {
    pub(crate) fn new(client: Client, session: Session) -> Self {
        let peer = session.peer();
        Self {
            id: p2p_blob::source_id(&peer),
            peer,
            client,
            ranges: matches!(session, Session::Ranges(_)),
            session: Mutex::new(Some(session.clone())),
            counted: std::sync::Mutex::new(session),
            earlier_bytes: AtomicU64::new(0),
        }
    }

    async fn session(&self) -> Result<Session, SourceError> {
        let mut current = self.session.lock().await;
        if let Some(session) = &*current {
            return Ok(session.clone());
        }
        let session = self.client.open(self.peer).await.map_err(source_error)?;
        let mut counted = self.counted.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let earlier = std::mem::replace(&mut *counted, session.clone());
        self.earlier_bytes.fetch_add(earlier.received_bytes(), Ordering::Relaxed);
        *current = Some(session.clone());
        Ok(session)
    }

    async fn ranges(&self) -> Result<RangeSession, SourceError> {
        match self.session().await? {
            Session::Ranges(session) => Ok(session),
            // It spoke 2.0.0 when it came up: the connection is a new one, to an older node.
            Session::Blobs(_) => Err(SourceError::NotHeld),
        }
    }

    /// Notes what an error means for the session, and translates it.
    async fn failed(&self, error: FetchError) -> SourceError {
        match &error {
            FetchError::NotFound { .. }
            | FetchError::NotHeld { .. }
            | FetchError::Busy { .. }
            | FetchError::BadRequest { .. } => {}
            _ => *self.session.lock().await = None,
        }
        source_error(error)
    }
}

fn source_error(error: FetchError) -> SourceError {
    match error {
        FetchError::NotFound { .. } | FetchError::NotHeld { .. } => SourceError::NotHeld,
        FetchError::Busy { retry_after, .. } => SourceError::Busy { retry_after },
        error if error.blame() == Blame::Peer => SourceError::Misbehaved(Box::new(error)),
        error => SourceError::Lost(Box::new(error)),
    }
}

impl Source for Peer {
    fn id(&self) -> &SourceId {
        &self.id
    }

    fn serves_ranges(&self) -> bool {
        self.ranges
    }

    fn read(&self, read: RangeRead, buf: Vec<u8>) -> BoxFuture<'_, Result<Vec<u8>, SourceError>> {
        async move {
            let request = GetRequest {
                manifest: Some(read.manifest),
                blob: read.blob,
                blob_size_bytes: Some(read.blob_size_bytes),
                range: read.range,
            };
            match self.ranges().await?.get(request, buf).await {
                Ok(buf) => Ok(buf),
                Err(error) => Err(self.failed(error).await),
            }
        }
        .boxed()
    }

    fn open(&self, blob: Digest, size_bytes: u64) -> BoxFuture<'_, Result<Box<dyn BlobStream>, SourceError>> {
        async move {
            let Session::Blobs(session) = self.session().await? else { return Err(SourceError::NotHeld) };
            let body = match session.request(blob).await {
                Ok(body) => body.ok_or(SourceError::NotHeld)?,
                Err(error) => return Err(self.failed(error).await),
            };
            if body.size_bytes() != size_bytes {
                return Err(source_error(FetchError::WrongSize {
                    peer: self.id.clone(),
                    blob,
                    expected_bytes: size_bytes,
                    got_bytes: body.size_bytes(),
                }));
            }
            Ok(Box::new(Body(body)) as Box<dyn BlobStream>)
        }
        .boxed()
    }

    fn read_blob(&self, blob: Digest, max_bytes: u64) -> BoxFuture<'_, Result<Vec<u8>, SourceError>> {
        async move {
            let session = self.session().await?;
            match read_blob(&session, blob, max_bytes).await {
                Ok(bytes) => bytes.ok_or(SourceError::NotHeld),
                Err(error) => Err(self.failed(error).await),
            }
        }
        .boxed()
    }

    fn holdings(
        &self,
        manifest: Digest,
        piece_counts: Arc<[u32]>,
    ) -> BoxFuture<'_, Result<Vec<Holding>, SourceError>> {
        async move {
            let shards = piece_counts.len();
            match self.ranges().await?.have(manifest, 0, Arc::clone(&piece_counts)).await {
                Ok(Some(have)) => Ok(have
                    .shards
                    .iter()
                    .zip(&*piece_counts)
                    .map(|(held, count)| holding(held, *count))
                    .collect()),
                // It may still hold some of the blobs, for another manifest.
                Ok(None) => Ok(vec![Holding::Unknown; shards]),
                Err(error) => Err(self.failed(error).await),
            }
        }
        .boxed()
    }

    fn received_bytes(&self) -> u64 {
        let counted = self.counted.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.earlier_bytes.load(Ordering::Relaxed) + counted.received_bytes()
    }
}

fn holding(held: &Held, count: u32) -> Holding {
    match held {
        Held::All => Holding::All,
        held => {
            let mut bits = vec![0; count.div_ceil(8) as usize];
            for piece in (0..count).filter(|piece| held.contains(*piece)) {
                bits[piece as usize / 8] |= 1 << (piece % 8);
            }
            if bits.iter().all(|byte| *byte == 0) { Holding::None } else { Holding::Some(bits) }
        }
    }
}

struct Body(BlobBody);

impl BlobStream for Body {
    fn read_exact(&mut self, mut buf: Vec<u8>) -> BoxFuture<'_, Result<Vec<u8>, SourceError>> {
        async move {
            self.0.read_exact(&mut buf).await.map_err(source_error)?;
            Ok(buf)
        }
        .boxed()
    }
}
