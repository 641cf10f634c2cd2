//! Buffers that are used again: on a virtual machine, memory is slow the first time it is touched.

use super::lock;
use std::sync::Mutex;

/// What a connection puts on the line in one go: little enough that no other waits long for its turn.
pub(super) const UNIT_BYTES: usize = 64 << 10;
/// Less is copied, so that a small message does not keep a whole buffer.
const SMALL_BYTES: usize = 4 << 10;

/// Buffers of [`UNIT_BYTES`] each; the one that was given back last is the next to be taken.
#[derive(Debug, Default)]
pub(crate) struct Pool(Mutex<Vec<Vec<u8>>>);

/// The first so many bytes of a buffer.
#[derive(Debug)]
pub(super) struct Filled {
    buffer: Vec<u8>,
    len: usize,
}

impl Pool {
    /// Makes sure that so many bytes are at hand, and were touched.
    pub(crate) fn provide(&self, bytes: u64) {
        let count = usize::try_from(bytes.div_ceil(UNIT_BYTES as u64)).unwrap_or(usize::MAX);
        let mut buffers = lock(&self.0);
        while buffers.len() < count {
            buffers.push(touched());
        }
    }

    pub(super) fn take(&self) -> Vec<u8> {
        lock(&self.0).pop().unwrap_or_else(touched)
    }

    /// Keeps what a buffer has been filled with, in as little memory as is sensible.
    pub(super) fn filled(&self, buffer: Vec<u8>, len: usize) -> Filled {
        if len > SMALL_BYTES {
            return Filled { buffer, len };
        }
        let copied = buffer[..len].to_vec();
        self.give_back(buffer);
        Filled { buffer: copied, len }
    }

    pub(super) fn done_with(&self, filled: Filled) {
        self.give_back(filled.buffer);
    }

    fn give_back(&self, buffer: Vec<u8>) {
        if buffer.len() == UNIT_BYTES {
            lock(&self.0).push(buffer);
        }
    }
}

impl Filled {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer[..self.len]
    }
}

/// Not zeros: those would be memory that nobody has touched.
fn touched() -> Vec<u8> {
    vec![1; UNIT_BYTES]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_message_keeps_no_buffer() {
        let pool = Pool::default();
        pool.provide(UNIT_BYTES as u64 + 1);
        assert_eq!(lock(&pool.0).len(), 2);
        let small = pool.filled(pool.take(), 3);
        assert_eq!((small.bytes(), lock(&pool.0).len()), (&[1, 1, 1][..], 2));
        let large = pool.filled(pool.take(), UNIT_BYTES - 1);
        assert_eq!((large.bytes().len(), lock(&pool.0).len()), (UNIT_BYTES - 1, 1));
        pool.done_with(large);
        pool.done_with(small);
        assert_eq!(lock(&pool.0).len(), 2);
    }
}
