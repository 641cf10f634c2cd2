//! Piece buffers: reused, and bounded in number, which bounds the memory of a fetch.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A bounded set of buffers.
#[derive(Debug, Clone)]
pub(crate) struct Buffers {
    permits: Arc<Semaphore>,
    free: Arc<Mutex<Vec<Vec<u8>>>>,
}

/// One buffer; goes back to its set when dropped.
#[derive(Debug)]
pub(crate) struct PieceBuf {
    pub(crate) bytes: Vec<u8>,
    free: Arc<Mutex<Vec<Vec<u8>>>>,
    _permit: OwnedSemaphorePermit,
}

impl Buffers {
    /// At most `count` buffers at a time.
    pub(crate) fn new(count: usize) -> Self {
        Self { permits: Arc::new(Semaphore::new(count)), free: Arc::default() }
    }

    /// A buffer of `len` bytes with any content; waits while all are in use. `None` after the set is closed.
    pub(crate) async fn take(&self, len: usize) -> Option<PieceBuf> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.ok()?;
        let mut bytes = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        bytes.resize(len, 0);
        Some(PieceBuf { bytes, free: Arc::clone(&self.free), _permit: permit })
    }
}

/// How many buffers for pieces there are in so much memory.
pub(super) fn buffer_count(memory_bytes: u64, piece_bytes: u32) -> usize {
    let count = (memory_bytes / u64::from(piece_bytes)).max(4);
    usize::try_from(count).unwrap_or(usize::MAX >> 4)
}

impl Drop for PieceBuf {
    fn drop(&mut self) {
        // The bytes were moved out and lost with a request that was given up.
        if self.bytes.capacity() > 0 {
            let bytes = std::mem::take(&mut self.bytes);
            self.free.lock().unwrap_or_else(PoisonError::into_inner).push(bytes);
        }
    }
}
