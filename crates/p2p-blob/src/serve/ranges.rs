//! Serving 2.0.0: the requests of a stream are answered in order.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use manifest::{ByteRange, Digest};

use super::read::{Outcome, Reader};
use super::service::{ServeError, Service};
use super::uploads::{Busy, UploadSlot};
use crate::limit::stall;
use crate::wire::v2::{GetHead, MAX_REQUEST_BYTES, MAX_UNANSWERED, Refusal, Request, RequestError};
use crate::wire::{FramingError, have, peers};

/// Retry time in a "busy" answer that is not about upload slots.
const RETRY_AFTER: Duration = Duration::from_millis(500);
const BUSY: Refusal = Refusal::Busy { retry_after: RETRY_AFTER };

/// Answers requests until the peer closes the stream, is idle, or the node stops.
pub(super) async fn serve(
    service: Service,
    stream: impl AsyncRead + AsyncWrite + Unpin,
) -> Result<(), ServeError> {
    let mut server = RangeServer { service, stream, reader: Reader::default() };
    while let Some(request) = server.read_request().await? {
        server.service.slot.begin_request();
        match request {
            Ok(Request::Get { manifest, blob, offset, length }) => {
                server.answer_get(manifest, blob, offset, length).await?;
            }
            Ok(Request::Have { manifest, since }) => server.answer_have(manifest, since).await?,
            Ok(Request::Peers { manifest }) => server.answer_peers(manifest).await?,
            Err(error) => server.send_bad_request(error).await?,
        }
        server.service.slot.end_request();
    }
    server.close().await
}

/// Answers "busy" to as many requests as a peer may pipeline, then closes the stream. PEERS is answered all the same:
/// it costs little, and moves load to other seeders.
pub(super) async fn refuse(
    mut service: Service,
    stream: impl AsyncRead + AsyncWrite + Unpin,
) -> Result<(), ServeError> {
    service.idle_timeout = service.progress_timeout;
    let mut server = RangeServer { service, stream, reader: Reader::default() };
    for _ in 0..MAX_UNANSWERED {
        match server.read_request().await? {
            Some(Ok(Request::Peers { manifest })) => server.answer_peers(manifest).await?,
            Some(_) => server.send_busy(BUSY).await?,
            None => break,
        }
    }
    server.close().await
}

struct RangeServer<S> {
    service: Service,
    stream: S,
    reader: Reader,
}

impl<S: AsyncRead + AsyncWrite + Unpin> RangeServer<S> {
    /// The next request, well-formed or not. `None`: the peer is done or idle, or the node stops.
    async fn read_request(&mut self) -> Result<Option<Result<Request, RequestError>>, ServeError> {
        let limit = self.service.progress_timeout;
        let mut head = [0; 4];
        let first_bytes = tokio::select! {
            biased;
            () = self.service.stopping.cancelled() => return Ok(None),
            read = tokio::time::timeout(self.service.idle_timeout, self.stream.read(&mut head)) => match read {
                Ok(read) => read.map_err(|error| ServeError::Closed(Some(error)))?,
                Err(_) => return Ok(None),
            },
        };
        if first_bytes == 0 {
            return Ok(None);
        }
        stall::read_exact(&mut self.stream, &mut head[first_bytes..], limit, |_| ()).await?;
        let body_bytes = u32::from_be_bytes(head);
        let mut body = [0; MAX_REQUEST_BYTES];
        let body = match body.get_mut(..body_bytes as usize) {
            Some(body) if !body.is_empty() => body,
            _ => {
                let max_bytes = MAX_REQUEST_BYTES as u64;
                return Err(
                    FramingError::FrameLength { found_bytes: u64::from(body_bytes), max_bytes }.into()
                );
            }
        };
        stall::read_exact(&mut self.stream, body, limit, |_| ()).await?;
        let request = Request::decode(body);
        if let Ok(request) = &request
            && let Some(manifest) = request.manifest()
        {
            // A fetcher of a manifest will soon hold some of it.
            self.service.holders.note(manifest, self.service.from.peer, Instant::now());
        }
        Ok(Some(request))
    }

    async fn send_busy(&mut self, refusal: Refusal) -> Result<(), ServeError> {
        self.service.uploads.answered_busy();
        self.send(&refusal.encode()).await
    }

    async fn answer_get(
        &mut self,
        manifest: Option<Digest>,
        blob: Digest,
        offset: u64,
        length: u32,
    ) -> Result<(), ServeError> {
        let Some(end) = offset.checked_add(u64::from(length)) else {
            return self.send_bad_request(RequestError::RangeLength(length)).await;
        };
        let slot = self.service.uploads.acquire(self.service.from, &blob, offset, u64::from(length)).await;
        let slot = match slot {
            Ok(slot) => slot,
            Err(Busy(retry_after)) => return self.send_busy(Refusal::Busy { retry_after }).await,
        };
        // A new answer is refused as "busy" at once; only one that has begun waits for a disk permit.
        let Ok(permit) = Arc::clone(&self.service.disk_reads).try_acquire_owned() else {
            slot.cancel();
            return self.send_busy(BUSY).await;
        };
        let range = ByteRange::new(offset, end);
        let store = Arc::clone(&self.service.store);
        let mut reader = std::mem::take(&mut self.reader);
        reader.swap_buffer(self.service.uploads.take_buffer());
        let (reader, outcome) = reader.first(permit, store, manifest, blob, Some(range)).await;
        self.reader = reader;
        let refusal = match outcome {
            Ok(Outcome::Read { size_bytes }) => {
                self.write(&GetHead { size_bytes, length }.encode()).await?;
                self.send_range(&slot, range).await?;
                None
            }
            Ok(Outcome::NotFound) => Some(Refusal::NotFound),
            Ok(Outcome::NotHeld) => Some(Refusal::NotHeld),
            Ok(Outcome::OutOfBounds { size_bytes }) => {
                let error = RequestError::OutOfBounds { end, size_bytes };
                Some(Refusal::BadRequest { reason: error.to_string() })
            }
            Err(error) => {
                tracing::warn!(%blob, %range, error = &error as &dyn std::error::Error, "cannot read the store");
                // A retry would not help: the fetcher is to ask others.
                Some(Refusal::NotHeld)
            }
        };
        self.service.uploads.give_buffer(self.reader.swap_buffer(Vec::new()));
        match refusal {
            Some(refusal) => {
                slot.cancel();
                self.send(&refusal.encode()).await
            }
            None => Ok(()),
        }
    }

    /// Sends the chunk that is read, and reads and sends the rest.
    async fn send_range(&mut self, slot: &UploadSlot, range: ByteRange) -> Result<(), ServeError> {
        let mut start = range.start;
        loop {
            self.service.send(&mut self.stream, slot, self.reader.chunk()).await?;
            start += self.reader.chunk().len() as u64;
            if start >= range.end {
                return Ok(stall::flush(&mut self.stream, self.service.progress_timeout).await?);
            }
            let reader = std::mem::take(&mut self.reader);
            self.reader = self.service.read_next(reader, ByteRange::new(start, range.end)).await?;
        }
    }

    async fn answer_have(&mut self, manifest: Digest, since: u64) -> Result<(), ServeError> {
        let Ok(permit) = Arc::clone(&self.service.disk_reads).try_acquire_owned() else {
            return self.send_busy(BUSY).await;
        };
        let store = Arc::clone(&self.service.store);
        let job = tokio::task::spawn_blocking(move || {
            let have = store.have(&manifest, since).map(|have| have.map(|have| have::encode(&have)));
            drop(permit);
            have
        });
        match job.await.map_err(std::io::Error::other).flatten() {
            Ok(Some(frame)) => self.send(&frame).await,
            Ok(None) => self.send(&Refusal::NotFound.encode()).await,
            Err(error) => {
                tracing::warn!(%manifest, error = &error as &dyn std::error::Error, "cannot read the store");
                self.send_busy(BUSY).await
            }
        }
    }

    async fn answer_peers(&mut self, manifest: Digest) -> Result<(), ServeError> {
        let records = self.service.holders.records_for(&self.service.from.peer, &manifest, Instant::now());
        match records.is_empty() {
            true => self.send(&Refusal::NotFound.encode()).await,
            false => self.send(&peers::encode(&records)).await,
        }
    }

    async fn send_bad_request(&mut self, error: RequestError) -> Result<(), ServeError> {
        self.send(&Refusal::BadRequest { reason: error.to_string() }.encode()).await
    }

    async fn send(&mut self, frame: &[u8]) -> Result<(), ServeError> {
        self.write(frame).await?;
        Ok(stall::flush(&mut self.stream, self.service.progress_timeout).await?)
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), ServeError> {
        Ok(stall::write_all(&mut self.stream, bytes, self.service.progress_timeout).await?)
    }

    async fn close(&mut self) -> Result<(), ServeError> {
        Ok(stall::close(&mut self.stream, self.service.progress_timeout).await?)
    }
}
