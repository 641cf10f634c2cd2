//! Fetching in 2.0.0: one stream, requests pipelined, answers in order.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::io::{ReadHalf, WriteHalf};
use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use manifest::{ByteRange, Digest, Have, SourceId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::error::FetchError;
use crate::limit::Download;
use crate::limit::stall::{self, Halt};
use crate::serve::Uploads;
use crate::wire::v2::{self, GetHead, Refusal, Request};
use crate::wire::{FramingError, have, peers};

pub(super) type Reply<T> = oneshot::Sender<Result<T, FetchError>>;

/// Bytes of a cancelled answer that are skipped at a time.
const SKIP_BYTES: usize = 16 << 10;

/// Which bytes to ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GetRequest {
    /// The manifest whose shard it is. Without one only complete, verified blobs are served.
    pub manifest: Option<Digest>,
    /// The blob.
    pub blob: Digest,
    /// The size that the blob must have, when that is known.
    pub blob_size_bytes: Option<u64>,
    /// 1 to [`MAX_RANGE_BYTES`](crate::MAX_RANGE_BYTES) bytes of it.
    pub range: ByteRange,
}

/// A request and where its answer goes.
pub(super) enum Ask {
    Get {
        request: GetRequest,
        length: u32,
        buf: Lent,
        reply: Reply<(u64, Vec<u8>)>,
    },
    Have {
        manifest: Digest,
        since: u64,
        piece_counts: Arc<[u32]>,
        reply: Reply<Have>,
    },
    /// Records as they are: nothing of them was checked.
    Peers {
        manifest: Digest,
        reply: Reply<Vec<Vec<u8>>>,
    },
}

/// A buffer that is lent to a session. The caller gets it back with the answer, or takes it back on cancel: the peer may
/// stall, and buffers bound the memory of a fetch.
#[derive(Clone)]
pub(super) struct Lent(Arc<Mutex<Option<Vec<u8>>>>);

impl Lent {
    pub(super) fn new(buf: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(Some(buf))))
    }

    /// `None` when it was taken already.
    fn take(&self) -> Option<Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Takes it back when the value is dropped.
    pub(super) fn take_back_on_drop(&self) -> impl Drop + use<> {
        TakeBack(self.clone())
    }
}

struct TakeBack(Lent);

impl Drop for TakeBack {
    fn drop(&mut self) {
        self.0.take();
    }
}

impl Ask {
    fn is_forgotten(&self) -> bool {
        match self {
            Self::Get { reply, .. } => reply.is_closed(),
            Self::Have { reply, .. } => reply.is_closed(),
            Self::Peers { reply, .. } => reply.is_closed(),
        }
    }

    /// Fails it, if the caller still waits.
    fn fail(self, error: FetchError) {
        match self {
            Self::Get { reply, .. } => drop(reply.send(Err(error))),
            Self::Have { reply, .. } => drop(reply.send(Err(error))),
            Self::Peers { reply, .. } => drop(reply.send(Err(error))),
        }
    }

    fn encode(&self) -> Vec<u8> {
        match self {
            Self::Get { request: GetRequest { manifest, blob, range, .. }, length, .. } => {
                Request::Get { manifest: *manifest, blob: *blob, offset: range.start, length: *length }
                    .encode()
            }
            Self::Have { manifest, since, .. } => {
                Request::Have { manifest: *manifest, since: *since }.encode()
            }
            Self::Peers { manifest, .. } => Request::Peers { manifest: *manifest }.encode(),
        }
    }

    /// The error for a peer that refuses it.
    fn refused(&self, peer: SourceId, refusal: Refusal) -> FetchError {
        let (blob, range) = match self {
            Self::Get { request, .. } => (request.blob, request.range),
            Self::Have { manifest, .. } | Self::Peers { manifest, .. } => (*manifest, ByteRange::new(0, 0)),
        };
        match refusal {
            Refusal::NotFound => FetchError::NotFound { peer, blob },
            Refusal::NotHeld => FetchError::NotHeld { peer, blob, range },
            Refusal::Busy { retry_after } => FetchError::Busy { peer, retry_after },
            Refusal::BadRequest { reason } => FetchError::BadRequest { peer, blob, reason },
        }
    }
}

/// A request at the peer. Its permit is given back when its answer is read.
struct Sent {
    ask: Ask,
    _permit: OwnedSemaphorePermit,
}

/// The task of one session.
pub(super) struct Exchange {
    pub(super) peer: SourceId,
    pub(super) limit: Duration,
    pub(super) received_bytes: Arc<AtomicU64>,
    pub(super) uploads: Uploads,
    /// Its connection is dead.
    pub(super) abandoned: CancellationToken,
}

impl Exchange {
    pub(super) async fn run(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        asks: mpsc::Receiver<Ask>,
        mut download: Download,
    ) {
        let (mut reader, mut writer) = stream.split();
        let (sent_tx, mut sent) = mpsc::channel(v2::MAX_UNANSWERED);
        let outcome = tokio::select! {
            // Without handles no caller waits for answers.
            () = self.send_requests(&mut writer, asks, sent_tx) => Ok(()),
            outcome = self.read_answers(&mut reader, &mut sent, &mut download) => outcome,
            () = self.abandoned.cancelled() => {
                Err(FetchError::halted(&self.peer, self.limit, Halt::Closed(None)))
            }
        };
        match outcome {
            Err(error) => {
                tracing::debug!(peer = %self.peer, error = &error as &dyn std::error::Error, "session is over");
                while let Ok(Sent { ask, .. }) = sent.try_recv() {
                    ask.fail(error.clone());
                }
            }
            // Best effort: the stream is done with.
            Ok(()) => drop(stall::close(&mut writer, self.limit).await),
        }
    }

    /// Ends when no handle is left.
    async fn send_requests(
        &self,
        writer: &mut WriteHalf<impl AsyncWrite + Unpin>,
        mut asks: mpsc::Receiver<Ask>,
        sent: mpsc::Sender<Sent>,
    ) {
        let window = Arc::new(Semaphore::new(v2::MAX_UNANSWERED));
        while let Ok(permit) = Arc::clone(&window).acquire_owned().await {
            let Some(ask) = asks.recv().await else { return };
            if ask.is_forgotten() {
                continue;
            }
            let frame = ask.encode();
            // Recorded before it is sent: an answer always finds its request.
            if sent.send(Sent { ask, _permit: permit }).await.is_err() {
                return;
            }
            let written = async {
                stall::write_all(writer, &frame, self.limit).await?;
                stall::flush(writer, self.limit).await
            };
            if written.await.is_err() {
                break;
            }
        }
        // The peer takes no more requests. What it still answers is read; then reading fails, which ends the task.
        std::future::pending().await
    }

    /// Ends with an error, or when sending has ended and all is answered.
    async fn read_answers(
        &self,
        reader: &mut ReadHalf<impl AsyncRead + Unpin>,
        sent: &mut mpsc::Receiver<Sent>,
        download: &mut Download,
    ) -> Result<(), FetchError> {
        loop {
            let mut unsolicited = [0];
            let next = tokio::select! {
                biased;
                next = sent.recv() => next,
                read = reader.read(&mut unsolicited) => {
                    return Err(match read {
                        Ok(1..) => self.broke(FramingError::Unsolicited),
                        Ok(0) => FetchError::halted(&self.peer, self.limit, Halt::Closed(None)),
                        Err(error) => FetchError::halted(&self.peer, self.limit, Halt::Closed(Some(error))),
                    });
                }
            };
            let Some(Sent { ask, _permit }) = next else { return Ok(()) };
            self.read_answer(reader, ask, download).await?;
        }
    }

    /// Reads one answer and hands it over. An error ends the session.
    async fn read_answer(
        &self,
        reader: &mut ReadHalf<impl AsyncRead + Unpin>,
        ask: Ask,
        download: &mut Download,
    ) -> Result<(), FetchError> {
        let mut head = [0; 5];
        if let Err(halt) = stall::read_exact(reader, &mut head, self.limit, |_| ()).await {
            return self.give_up(ask, FetchError::halted(&self.peer, self.limit, halt));
        }
        let [a, b, c, d, status] = head;
        let body_bytes = u32::from_be_bytes([a, b, c, d]);
        if body_bytes == 0 {
            let error = FramingError::FrameLength { found_bytes: 0, max_bytes: u64::from(u32::MAX) };
            return self.give_up(ask, self.broke(error));
        }
        if status != v2::STATUS_OK {
            return match self.read_refusal(reader, status, body_bytes).await {
                Ok(refusal) => {
                    if matches!(refusal, Refusal::Busy { .. }) {
                        self.uploads.on_busy();
                    }
                    let error = ask.refused(self.peer.clone(), refusal);
                    ask.fail(error);
                    Ok(())
                }
                Err(error) => self.give_up(ask, error),
            };
        }
        match ask {
            Ask::Get { request, length, buf, mut reply } => {
                let read = async {
                    let size_bytes = self.read_head(reader, body_bytes, request, length).await?;
                    let body = self.read_body(reader, length, buf, &mut reply, download).await?;
                    Ok(body.map(|body| (size_bytes, body)))
                };
                match read.await {
                    Ok(Some(answer)) => self.hand_over(reply, Ok(answer)),
                    // It was cancelled.
                    Ok(None) => Ok(()),
                    Err(error) => self.hand_over(reply, Err(error)),
                }
            }
            Ask::Have { piece_counts, reply, .. } => {
                let result = self.read_have(reader, body_bytes, &piece_counts).await;
                self.hand_over(reply, result)
            }
            Ask::Peers { reply, .. } => {
                let result = self.read_peers(reader, body_bytes).await;
                self.hand_over(reply, result)
            }
        }
    }

    /// Reads the head of a GET answer; returns the size that the peer claims for the blob.
    async fn read_head(
        &self,
        reader: &mut ReadHalf<impl AsyncRead + Unpin>,
        body_bytes: u32,
        request: GetRequest,
        length: u32,
    ) -> Result<u64, FetchError> {
        let peer = &self.peer;
        let head_bytes = u64::from(v2::GET_HEAD_BYTES);
        let wrong_length = |got_bytes| FetchError::WrongLength {
            peer: peer.clone(),
            blob: request.blob,
            expected_bytes: u64::from(length),
            got_bytes,
        };
        if u64::from(body_bytes) != head_bytes + u64::from(length) {
            return Err(wrong_length(u64::from(body_bytes).saturating_sub(head_bytes)));
        }
        let mut head = [0; v2::GET_HEAD_BYTES as usize - 1];
        let halted = |halt| FetchError::halted(peer, self.limit, halt);
        stall::read_exact(reader, &mut head, self.limit, |_| ()).await.map_err(halted)?;
        let head = GetHead::decode(&head);
        if head.length != length {
            return Err(wrong_length(u64::from(head.length)));
        }
        if let Some(expected_bytes) = request.blob_size_bytes
            && head.size_bytes != expected_bytes
        {
            let got_bytes = head.size_bytes;
            return Err(FetchError::WrongSize {
                peer: peer.clone(),
                blob: request.blob,
                expected_bytes,
                got_bytes,
            });
        }
        Ok(head.size_bytes)
    }

    /// Reads the bytes of a GET answer; `None` when the request was cancelled.
    async fn read_body(
        &self,
        reader: &mut ReadHalf<impl AsyncRead + Unpin>,
        length: u32,
        buf: Lent,
        reply: &mut Reply<(u64, Vec<u8>)>,
        download: &mut Download,
    ) -> Result<Option<Vec<u8>>, FetchError> {
        let halted = |halt| FetchError::halted(&self.peer, self.limit, halt);
        let mut left_bytes = length as usize;
        let count = |left_bytes: &mut usize, bytes: usize| {
            *left_bytes -= bytes;
            self.received_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        };
        let mut body = buf.take();
        if let Some(buf) = &mut body {
            tokio::select! {
                read = download.read_exact(reader, buf, self.limit, |bytes| count(&mut left_bytes, bytes)) => {
                    read.map_err(halted)?;
                }
                () = reply.closed() => body = None,
            }
        }
        // The bytes before the next answer are skipped.
        let mut skipped = vec![0; left_bytes.min(SKIP_BYTES)];
        while left_bytes > 0 {
            let next_bytes = left_bytes.min(SKIP_BYTES);
            let skipped = &mut skipped[..next_bytes];
            let read =
                download.read_exact(reader, skipped, self.limit, |bytes| count(&mut left_bytes, bytes));
            read.await.map_err(halted)?;
        }
        self.uploads.received(&download.peer(), u64::from(length));
        Ok(body)
    }

    async fn read_have(
        &self,
        reader: &mut ReadHalf<impl AsyncRead + Unpin>,
        body_bytes: u32,
        piece_counts: &[u32],
    ) -> Result<Have, FetchError> {
        let max_bytes = have::max_body_bytes(piece_counts);
        if u64::from(body_bytes) > max_bytes {
            return Err(
                self.broke(FramingError::FrameLength { found_bytes: u64::from(body_bytes), max_bytes })
            );
        }
        let rest = self.read_rest(reader, body_bytes as usize).await?;
        have::decode(&rest, piece_counts).map_err(|error| self.broke(error))
    }

    async fn read_peers(
        &self,
        reader: &mut ReadHalf<impl AsyncRead + Unpin>,
        body_bytes: u32,
    ) -> Result<Vec<Vec<u8>>, FetchError> {
        let max_bytes = peers::MAX_BODY_BYTES as u64;
        if u64::from(body_bytes) > max_bytes {
            let found_bytes = u64::from(body_bytes);
            return Err(self.broke(FramingError::FrameLength { found_bytes, max_bytes }));
        }
        let rest = self.read_rest(reader, body_bytes as usize).await?;
        let records = peers::decode(&rest).map_err(|error| self.broke(error))?;
        Ok(records.into_iter().map(<[u8]>::to_vec).collect())
    }

    async fn read_refusal(
        &self,
        reader: &mut ReadHalf<impl AsyncRead + Unpin>,
        status: u8,
        body_bytes: u32,
    ) -> Result<Refusal, FetchError> {
        let length = Refusal::check_length(status, body_bytes).map_err(|error| self.broke(error))?;
        let rest = self.read_rest(reader, length).await?;
        Refusal::decode(status, &rest).map_err(|error| self.broke(error))
    }

    /// The body after its status, of a length that was checked.
    async fn read_rest(
        &self,
        reader: &mut ReadHalf<impl AsyncRead + Unpin>,
        body_bytes: usize,
    ) -> Result<Vec<u8>, FetchError> {
        let mut rest = vec![0; body_bytes - 1];
        stall::read_exact(reader, &mut rest, self.limit, |_| ())
            .await
            .map_err(|halt| FetchError::halted(&self.peer, self.limit, halt))?;
        Ok(rest)
    }

    fn broke(&self, source: FramingError) -> FetchError {
        FetchError::BrokenFraming { peer: self.peer.clone(), source }
    }

    /// Gives an answer to the caller, who may be gone. An error ends the session, too.
    fn hand_over<T>(&self, reply: Reply<T>, result: Result<T, FetchError>) -> Result<(), FetchError> {
        let outcome = result.as_ref().map(|_| ()).map_err(Clone::clone);
        drop(reply.send(result));
        outcome
    }

    fn give_up(&self, ask: Ask, error: FetchError) -> Result<(), FetchError> {
        ask.fail(error.clone());
        Err(error)
    }
}

#[cfg(test)]
mod tests;
