//! A node as a store of blobs: what is put is served at once, and what is not here is asked of peers.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
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
    let waiting_count = Arc::<AtomicUsize>::default();
    let mut asked = FuturesUnordered::<BoxFuture<'static, (Candidate, Answer)>>::new();
    let (mut connecting, mut busy_until) = (true, Instant::now());
    loop {
        while asked.len() < MAX_ASKED
            && let Some(candidate) = waiting.pop_front()
        {
            asked.push(Box::pin(ask(candidate, digest, max_bytes, Arc::clone(&waiting_count))));
        }
        waiting_count.store(waiting.len(), Ordering::Relaxed);
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

/// Asks until it answers, or its time slice is over and others wait: those that wait are counted in `waiting`.
async fn ask(
    candidate: Candidate,
    digest: Digest,
    max_bytes: u64,
    waiting: Arc<AtomicUsize>,
) -> (Candidate, Answer) {
    let slice = FIRST_SLICE * 2u32.saturating_pow(candidate.1);
    let source = Arc::clone(&candidate.0);
    let mut answer = source.read_blob(digest, max_bytes);
    let answer = loop {
        match tokio::time::timeout(slice, &mut answer).await {
            Ok(answer) => break Some(answer),
            Err(_) if waiting.load(Ordering::Relaxed) > 0 => break None,
            Err(_) => {}
        }
    };
    (candidate, answer)
}

/// The bytes, if they have the digest. Hashed on a blocking thread.
async fn checked(digest: Digest, bytes: Vec<u8>) -> Option<Vec<u8>> {
    let is_right = move || (Digest::of(&bytes) == digest).then_some(bytes);
    tokio::task::spawn_blocking(is_right).await.ok().flatten()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use futures::FutureExt as _;
    use loader::{BlobStream, RangeRead};
    use manifest::{Have, SourceId};

    use super::*;

    const BLOB: &[u8] = b"blob";

    /// What a source does when it is asked.
    #[derive(Clone, Copy)]
    enum Mood {
        Hangs,
        Lies,
        HasNot,
        Gives,
        /// Gives it after so long.
        Slow(Duration),
    }

    struct Fake {
        id: SourceId,
        mood: Mood,
        dismissed: AtomicU32,
    }

    impl Source for Fake {
        fn id(&self) -> &SourceId {
            &self.id
        }

        fn serves_ranges(&self) -> bool {
            false
        }

        fn read(&self, _: RangeRead, _: Vec<u8>) -> BoxFuture<'_, Result<Vec<u8>, SourceError>> {
            async { Err(SourceError::NotHeld) }.boxed()
        }

        fn open(&self, _: Digest, _: u64) -> BoxFuture<'_, Result<Box<dyn BlobStream>, SourceError>> {
            async { Err(SourceError::NotHeld) }.boxed()
        }

        fn read_blob(&self, _: Digest, _: u64) -> BoxFuture<'_, Result<Vec<u8>, SourceError>> {
            async {
                match self.mood {
                    Mood::Hangs => std::future::pending().await,
                    Mood::Lies => Ok(b"lies".to_vec()),
                    Mood::HasNot => Err(SourceError::NotHeld),
                    Mood::Gives => Ok(BLOB.to_vec()),
                    Mood::Slow(time) => {
                        tokio::time::sleep(time).await;
                        Ok(BLOB.to_vec())
                    }
                }
            }
            .boxed()
        }

        fn blob_size(&self, _: Digest) -> BoxFuture<'_, Result<u64, SourceError>> {
            async { Err(SourceError::NotHeld) }.boxed()
        }

        fn have(&self, _: Digest, _: Arc<[u32]>, _: u64) -> BoxFuture<'_, Result<Option<Have>, SourceError>> {
            async { Ok(None) }.boxed()
        }

        fn received_bytes(&self) -> u64 {
            0
        }

        fn dismiss(&self) {
            self.dismissed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What is found among these, how long that takes, and how many are dismissed.
    async fn found(moods: &[Mood]) -> (Option<Vec<u8>>, Duration, u32) {
        let (sender, mut events) = mpsc::channel(64);
        let mut sources = Vec::new();
        for (number, mood) in moods.iter().enumerate() {
            let id = SourceId::new(number.to_string());
            let source = Arc::new(Fake { id, mood: *mood, dismissed: AtomicU32::new(0) });
            sender.send(SourceEvent::Up(Arc::<Fake>::clone(&source))).await.unwrap();
            sources.push(source);
        }
        sender.send(SourceEvent::Connecting(false)).await.unwrap();
        let started = Instant::now();
        let found = search(Digest::of(BLOB), 100, &mut events).await;
        let dismissed = sources.iter().map(|source| source.dismissed.load(Ordering::Relaxed)).sum();
        (found, started.elapsed(), dismissed)
    }

    #[tokio::test(start_paused = true)]
    async fn the_right_bytes_are_found_behind_liars_and_those_that_hang() {
        let (blob, time, dismissed) = found(&[Mood::Lies, Mood::HasNot, Mood::Lies, Mood::Gives]).await;
        assert_eq!((blob.as_deref(), dismissed), (Some(BLOB), 2));
        assert!(time < FIRST_SLICE, "{time:?}");
        let hanging = [Mood::Hangs; 12];
        let moods = [&hanging[..], &[Mood::Gives]].concat();
        let (blob, time, _) = found(&moods).await;
        assert_eq!(blob.as_deref(), Some(BLOB));
        assert!(time <= FIRST_SLICE * 4, "{time:?}");
        // A slow one gets its time in the end.
        let moods = [&hanging[..], &[Mood::Slow(FIRST_SLICE * 3)]].concat();
        assert_eq!(found(&moods).await.0.as_deref(), Some(BLOB));
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_soon_when_nobody_is_left_to_ask() {
        for moods in [&[][..], &[Mood::HasNot, Mood::Lies]] {
            let (blob, time, _) = found(moods).await;
            assert_eq!(blob, None);
            assert!(time <= LINGER + Duration::from_millis(10), "{time:?}");
        }
    }
}
