//! The tasks that move bytes from sources into piece buffers.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use manifest::{Digest, Geometry, Have, PieceId};
use planner::RequestId;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

use super::buffers::{Buffers, PieceBuf};
use super::have_poll::Ask;
use crate::source::{RangeRead, Source, SourceError};

/// Timeout of a HAVE request.
const HAVE_PATIENCE: Duration = Duration::from_secs(5);

/// What the tasks report.
pub(super) enum TransferEvent {
    /// A piece is complete in its buffer.
    Arrived { request: RequestId, piece: PieceId, buf: PieceBuf },
    /// A request ended.
    Ended { request: RequestId, result: Result<(), SourceError> },
    /// A HAVE request ended.
    Have { ask: Ask, result: Result<Option<Have>, SourceError> },
}

/// Runs requests. Dropping it cancels all of them.
pub(super) struct Transfers {
    manifest: Digest,
    geometry: Geometry,
    piece_counts: Arc<[u32]>,
    buffers: Buffers,
    tasks: JoinSet<()>,
    running: HashMap<RequestId, AbortHandle>,
    moved: mpsc::Sender<TransferEvent>,
}

impl Transfers {
    pub(super) fn new(
        manifest: Digest,
        geometry: Geometry,
        buffers: Buffers,
        moved: mpsc::Sender<TransferEvent>,
    ) -> Self {
        let shards = (0..).zip(geometry.manifest().shards());
        let piece_counts = shards.map(|(shard, _)| geometry.manifest().piece_count(shard)).collect();
        let (tasks, running) = (JoinSet::new(), HashMap::new());
        Self { manifest, geometry, piece_counts, buffers, tasks, running, moved }
    }

    pub(super) fn start(
        &mut self,
        request: RequestId,
        source: Arc<dyn Source>,
        shard: u32,
        pieces: Range<u32>,
    ) {
        // Reaps ended tasks.
        while self.tasks.try_join_next().is_some() {}
        let task = Task {
            manifest: self.manifest,
            geometry: self.geometry.clone(),
            buffers: self.buffers.clone(),
            moved: self.moved.clone(),
            request,
            shard,
        };
        let handle = self.tasks.spawn(async move {
            let result = if source.serves_ranges() {
                task.read_pieces(&*source, pieces).await
            } else {
                task.read_whole(&*source, pieces).await
            };
            // The driver is gone: so is the reason for this request.
            let _ = task.moved.send(TransferEvent::Ended { request, result }).await;
        });
        self.running.insert(request, handle);
    }

    pub(super) fn ask_have(&mut self, ask: Ask, source: Arc<dyn Source>) {
        let (manifest, counts, moved) = (self.manifest, Arc::clone(&self.piece_counts), self.moved.clone());
        self.tasks.spawn(async move {
            let answer = tokio::time::timeout(HAVE_PATIENCE, source.have(manifest, counts, ask.since));
            let result = answer.await.unwrap_or_else(|elapsed| Err(SourceError::Lost(Box::new(elapsed))));
            let _ = moved.send(TransferEvent::Have { ask, result }).await;
        });
    }

    pub(super) fn cancel(&mut self, request: RequestId) {
        if let Some(handle) = self.running.remove(&request) {
            handle.abort();
        }
    }

    pub(super) fn ended(&mut self, request: RequestId) {
        self.running.remove(&request);
    }
}

struct Task {
    manifest: Digest,
    geometry: Geometry,
    buffers: Buffers,
    moved: mpsc::Sender<TransferEvent>,
    request: RequestId,
    shard: u32,
}

impl Task {
    async fn read_pieces(&self, source: &dyn Source, pieces: Range<u32>) -> Result<(), SourceError> {
        for piece in pieces {
            let piece = PieceId { shard: self.shard, piece };
            let Some(mut buf) = self.buffer(piece).await else { return Ok(()) };
            let manifest = self.geometry.manifest();
            let shard = manifest.shards()[self.shard as usize];
            let read = RangeRead {
                manifest: self.manifest,
                blob: shard.digest,
                blob_size_bytes: shard.size_bytes,
                range: manifest.piece_range(self.shard, piece.piece),
            };
            let bytes = std::mem::take(&mut buf.bytes);
            buf.bytes = source.read(read, bytes).await?;
            self.arrived(piece, buf).await;
        }
        Ok(())
    }

    async fn read_whole(&self, source: &dyn Source, pieces: Range<u32>) -> Result<(), SourceError> {
        let shard = self.geometry.manifest().shards()[self.shard as usize];
        let mut stream = source.open(shard.digest, shard.size_bytes).await?;
        for piece in pieces {
            let piece = PieceId { shard: self.shard, piece };
            let Some(mut buf) = self.buffer(piece).await else { return Ok(()) };
            let bytes = std::mem::take(&mut buf.bytes);
            buf.bytes = stream.read_exact(bytes).await?;
            self.arrived(piece, buf).await;
        }
        Ok(())
    }

    async fn buffer(&self, piece: PieceId) -> Option<PieceBuf> {
        #[expect(clippy::cast_possible_truncation, reason = "a piece has at most 4 MiB")]
        let len = self.geometry.piece_bytes(piece) as usize;
        self.buffers.take(len).await
    }

    async fn arrived(&self, piece: PieceId, buf: PieceBuf) {
        let _ = self.moved.send(TransferEvent::Arrived { request: self.request, piece, buf }).await;
    }
}
