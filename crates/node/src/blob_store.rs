//! A node as a store of blobs: what is put is served at once, and what is not here is asked of peers.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use loader::{Source, SourceError, SourceEvent};
use manifest::Digest;
use store::OwnBlobs;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::{Node, NodeError, dial, hosted, join};

/// Peers that are asked at a time: bounds the memory to so many blobs.
const MAX_ASKED: usize = 4;
/// How long one may take while others wait to be asked; doubled each time that it is asked again.
const FIRST_SLICE: Duration = Duration::from_secs(2);
/// How long to go on when nobody is left to ask: peers that have connected by themselves are looked for every second.
const LINGER: Duration = Duration::from_secs(2);

/// The blobs of a node with [`Config::with_own_blobs`](crate::Config::with_own_blobs). Clones are the same store.
///
/// **Trust.** What peers send is given out, and kept, once it has its digest.
/// **Memory.** A blob is in memory as a whole; `max_bytes` of it, and four times as much while peers are asked.
#[derive(Clone)]
pub struct BlobStore {
    node: Node,
    own: Arc<OwnBlobs>,
    max_bytes: u64,
    timeout: Duration,
}

impl Node {
    /// The node as a store of blobs of at most `max_bytes`, which asks peers for `timeout`.
    ///
    /// # Errors
    /// [`NodeError::NoOwnBlobs`] without [`Config::with_own_blobs`](crate::Config::with_own_blobs).
    pub fn blob_store(&self, max_bytes: u64, timeout: Duration) -> Result<BlobStore, NodeError> {
        let own = self.own_blobs.clone().ok_or(NodeError::NoOwnBlobs)?;
        Ok(BlobStore { node: self.clone(), own, max_bytes, timeout })
    }
}

impl BlobStore {
    /// Keeps a blob; when this returns it is on the disk, and served.
    ///
    /// # Errors
    /// - [`NodeError::BlobTooLarge`]: it has more than `max_bytes`.
    /// - [`NodeError::Cache`]: the folder is full, or the disk fails.
    pub async fn put(&self, bytes: Vec<u8>) -> Result<Digest, NodeError> {
        let (own, max_bytes) = (Arc::clone(&self.own), self.max_bytes);
        if bytes.len() as u64 > max_bytes {
            return Err(NodeError::BlobTooLarge { size_bytes: bytes.len() as u64, max_bytes });
        }
        let digest = blocking(move || Ok(own.put(&bytes)?)).await?;
        self.node.membership.on_new_model();
        Ok(digest)
    }

    /// Whether a blob is here, whole and right: put before, or part of a model that is served.
    ///
    /// # Errors
    /// [`NodeError::Blob`] when the disk fails.
    pub async fn has(&self, digest: Digest) -> Result<bool, NodeError> {
        let blobs = Arc::clone(&self.node.blobs);
        blocking(move || Ok(blobs.lookup(&digest).map_err(NodeError::Blob)?.is_some())).await
    }

    /// A blob that is here; no peer is asked.
    ///
    /// # Errors
    /// - [`NodeError::BlobTooLarge`]: it is here, and has more than `max_bytes`.
    /// - [`NodeError::Blob`]: the disk fails.
    pub async fn get_here(&self, digest: Digest) -> Result<Option<Vec<u8>>, NodeError> {
        let (blobs, max_bytes) = (Arc::clone(&self.node.blobs), self.max_bytes);
        blocking(move || {
            let Some(blob) = blobs.lookup(&digest).map_err(NodeError::Blob)? else { return Ok(None) };
            let bytes = hosted::read(&blob, max_bytes).map_err(NodeError::Blob)?;
            let size_bytes = blob.size_bytes();
            bytes.ok_or(NodeError::BlobTooLarge { size_bytes, max_bytes }).map(Some)
        })
        .await
    }

    /// A blob that is here, or that a peer gives: then it is kept. `None` when nobody has it, or not in time.
    ///
    /// **Cancel safety.** After dropping the future, the next call begins anew.
    ///
    /// # Errors
    /// Those of [`Self::get_here`].
    pub async fn get(&self, digest: Digest) -> Result<Option<Vec<u8>>, NodeError> {
        if let Some(bytes) = self.get_here(digest).await? {
            return Ok(Some(bytes));
        }
        let (_dialer, mut sources) = dial::dial(&self.node.client, digest, &self.node.known, Arc::default());
        let found = search(digest, self.max_bytes, &mut sources);
        let found = tokio::time::timeout(self.timeout, found).await.unwrap_or_default();
        join::save(&self.node.known.book).await;
        let Some(bytes) = found else { return Ok(None) };
        let own = Arc::clone(&self.own);
        let (bytes, kept) = blocking(move || {
            let kept = own.put(&bytes);
            Ok((bytes, kept))
        })
        .await?;
        match kept {
            Ok(_) => self.node.membership.on_new_model(),
            // It is there for whoever has asked.
            Err(error) => tracing::warn!(%digest, %error, "a blob that was fetched is not kept"),
        }
        Ok(Some(bytes))
    }

    /// Removes a blob that was put or fetched; false when there was none. It stays here where it is part of a model.
    ///
    /// # Errors
    /// [`NodeError::Cache`] when the disk fails.
    pub async fn remove(&self, digest: Digest) -> Result<bool, NodeError> {
        let own = Arc::clone(&self.own);
        let was_there = blocking(move || Ok(own.remove(&digest)?)).await?;
        if was_there {
            self.node.membership.on_new_model();
        }
        Ok(was_there)
    }

    /// The blobs that were put or fetched.
    ///
    /// # Errors
    /// [`NodeError::Cache`] when the disk fails.
    pub async fn list(&self) -> Result<Vec<Digest>, NodeError> {
        let own = Arc::clone(&self.own);
        blocking(move || Ok(own.list()?)).await
    }
}

/// Runs work on a blocking thread.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, NodeError> + Send + 'static,
) -> Result<T, NodeError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| NodeError::Worker)?
}

/// A source, and how often it was asked.
type Candidate = (Arc<dyn Source>, u32);
/// What it has answered; `None`: it took too long while others waited.
type Answer = Option<Result<Vec<u8>, SourceError>>;

/// Asks sources, some at a time, until one sends the right bytes; `None` when none is left to ask.
async fn search(digest: Digest, max_bytes: u64, events: &mut mpsc::Receiver<SourceEvent>) -> Option<Vec<u8>> {
    let mut waiting = VecDeque::<Candidate>::new();
    let mut asked = FuturesUnordered::<BoxFuture<'static, (Candidate, Answer)>>::new();
    let (mut connecting, mut busy_until) = (true, Instant::now());
    loop {
        while asked.len() < MAX_ASKED
            && let Some(candidate) = waiting.pop_front()
        {
            let slice = (!waiting.is_empty()).then(|| FIRST_SLICE * 2u32.saturating_pow(candidate.1));
            asked.push(Box::pin(ask(candidate, digest, max_bytes, slice)));
        }
        let is_idle = asked.is_empty() && !connecting;
        if !is_idle {
            busy_until = Instant::now();
        }
        tokio::select! {
            event = events.recv() => match event? {
                SourceEvent::Up(source) => waiting.push_back((source, 0)),
                SourceEvent::Connecting(now) => connecting = now,
                SourceEvent::Down { .. } | SourceEvent::Unreachable { .. } => {}
            },
            Some(((source, count), answer)) = asked.next() => match answer {
                Some(Ok(bytes)) => match checked(digest, bytes).await {
                    Some(bytes) => {
                        source.note_useful();
                        return Some(bytes);
                    }
                    None => {
                        tracing::warn!(peer = %source.id(), %digest, "sent something else: disconnected");
                        source.dismiss();
                    }
                },
                Some(Err(error)) => {
                    tracing::debug!(peer = %source.id(), %digest, error = error.with_causes(), "has not given a blob");
                }
                None => waiting.push_back((source, count + 1)),
            },
            () = tokio::time::sleep_until(busy_until + LINGER), if is_idle => return None,
        }
    }
}

async fn ask(
    candidate: Candidate,
    digest: Digest,
    max_bytes: u64,
    slice: Option<Duration>,
) -> (Candidate, Answer) {
    let answer = candidate.0.read_blob(digest, max_bytes);
    let answer = match slice {
        None => Some(answer.await),
        Some(slice) => tokio::time::timeout(slice, answer).await.ok(),
    };
    (candidate, answer)
}

/// The bytes, if they have the digest. Hashed on a blocking thread.
async fn checked(digest: Digest, bytes: Vec<u8>) -> Option<Vec<u8>> {
    let is_right = move || (Digest::of(&bytes) == digest).then_some(bytes);
    tokio::task::spawn_blocking(is_right).await.ok().flatten()
}
