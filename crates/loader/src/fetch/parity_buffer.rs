//! Parity in memory. It is of use only until its column is complete, so that most of it never goes to the disk.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use manifest::PieceId;

use super::buffers::PieceBuf;

/// Verified parity pieces, oldest first.
#[derive(Debug)]
pub(crate) struct ParityBuffer {
    pieces: Mutex<VecDeque<(PieceId, Arc<PieceBuf>)>>,
    max: usize,
}

impl ParityBuffer {
    /// For so many pieces. Each keeps its buffer from being used for others.
    pub(crate) fn new(max: usize) -> Self {
        Self { pieces: Mutex::default(), max }
    }

    /// Keeps a piece.
    pub(crate) fn keep(&self, piece: PieceId, buf: PieceBuf) {
        self.pieces().push_back((piece, Arc::new(buf)));
    }

    /// The oldest piece, when there are too many. It is still held: it must be on the disk before it is dropped.
    pub(crate) fn excess(&self) -> Option<(PieceId, Arc<PieceBuf>)> {
        let pieces = self.pieces();
        pieces.front().filter(|_| pieces.len() > self.max).cloned()
    }

    pub(crate) fn get(&self, piece: PieceId) -> Option<Arc<PieceBuf>> {
        self.pieces().iter().find(|(held, _)| *held == piece).map(|(_, buf)| Arc::clone(buf))
    }

    pub(crate) fn drop(&self, piece: PieceId) {
        self.pieces().retain(|(held, _)| *held != piece);
    }

    fn pieces(&self) -> MutexGuard<'_, VecDeque<(PieceId, Arc<PieceBuf>)>> {
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::buffers::Buffers;
    use super::*;

    #[tokio::test]
    async fn the_oldest_piece_is_too_much_until_it_is_dropped() {
        let (held, buffers) = (ParityBuffer::new(2), Buffers::new(3));
        let id = |piece| PieceId { shard: 10, piece };
        for piece in 0..3 {
            assert!(held.excess().is_none());
            let mut buf = buffers.take(4).await.unwrap();
            buf.bytes.fill(u8::try_from(piece).unwrap());
            held.keep(id(piece), buf);
        }
        assert_eq!(held.get(id(1)).unwrap().bytes, [1; 4]);
        let (oldest, _) = held.excess().unwrap();
        assert_eq!(oldest, id(0));
        assert!(held.get(oldest).is_some(), "it can be read until it is dropped");
        held.drop(oldest);
        assert!(held.get(oldest).is_none() && held.excess().is_none());
        assert_eq!(buffers.take(4).await.unwrap().bytes.len(), 4, "its buffer is used again");
    }
}
