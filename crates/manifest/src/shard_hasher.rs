//! Hashing whole shards while keeping what the piece index needs.

use sha256_lanes::{INITIAL, Lane, State};

use crate::Digest;

const BLOCK_BYTES: usize = 64;

/// Hashes one shard front to back, keeping the chaining value after every whole piece but the last.
#[derive(Debug, Clone)]
pub struct ShardHasher {
    size_bytes: u64,
    piece_size_bytes: u64,
    absorbed_bytes: u64,
    state: State,
    /// The bytes after the last whole block: the first `absorbed_bytes % 64` of these.
    rest: [u8; BLOCK_BYTES],
    values: Vec<[u8; 32]>,
}

impl ShardHasher {
    /// For a shard of `size_bytes` bytes in pieces of `piece_size_bytes`, a multiple of 64.
    ///
    /// # Panics
    /// When `piece_size_bytes` is zero or not a multiple of 64.
    pub fn new(size_bytes: u64, piece_size_bytes: u32) -> Self {
        assert!(
            piece_size_bytes > 0 && piece_size_bytes.is_multiple_of(64),
            "pieces of {piece_size_bytes} bytes are not whole SHA-256 blocks"
        );
        Self {
            size_bytes,
            piece_size_bytes: u64::from(piece_size_bytes),
            absorbed_bytes: 0,
            state: INITIAL,
            rest: [0; BLOCK_BYTES],
            values: Vec::new(),
        }
    }

    /// Absorbs the next bytes of several shards, `slices[i]` into `hashers[i]`, several at once on this thread.
    ///
    /// Slices may have any lengths. Fastest when there are at least four, equally long, and multiples of 64 bytes.
    ///
    /// # Panics
    /// When there are not as many slices as hashers.
    pub fn update_all(hashers: &mut [ShardHasher], slices: &[&[u8]]) {
        assert_eq!(hashers.len(), slices.len(), "each hasher takes one slice");
        let mut inputs: Vec<(&mut ShardHasher, &[u8])> =
            hashers.iter_mut().zip(slices.iter().copied()).collect();
        for (hasher, slice) in &mut inputs {
            *slice = hasher.complete_block(slice);
        }
        // All lanes go on to the nearest end of a piece or a slice, so that as many as possible run at once.
        while let Some(step) = inputs.iter().filter_map(|(hasher, slice)| hasher.blocks_ahead(slice)).min() {
            let mut lanes = Vec::with_capacity(inputs.len());
            for (hasher, slice) in inputs.iter_mut().filter(|(_, slice)| slice.len() >= BLOCK_BYTES) {
                let (blocks, after) = slice.split_at(step);
                *slice = after;
                hasher.absorbed_bytes += step as u64;
                lanes.push(Lane { state: &mut hasher.state, blocks });
            }
            sha256_lanes::compress(&mut lanes);
            for (hasher, _) in &mut inputs {
                hasher.keep_value();
            }
        }
        for (hasher, slice) in inputs {
            // What completed no block is in `rest` already, and then the slice is empty.
            if !slice.is_empty() {
                hasher.rest[..slice.len()].copy_from_slice(slice);
                hasher.absorbed_bytes += slice.len() as u64;
            }
        }
    }

    /// The digest of what was absorbed, and the chaining values `v(1) … v(n-1)`, where *n* is the number of pieces.
    pub fn finish(self) -> (Digest, Vec<[u8; 32]>) {
        let rest = &self.rest[..self.rest_len()];
        (Digest::from_bytes(sha256_lanes::finish(self.state, rest, self.absorbed_bytes)), self.values)
    }

    #[expect(clippy::cast_possible_truncation, reason = "less than 64")]
    fn rest_len(&self) -> usize {
        (self.absorbed_bytes % BLOCK_BYTES as u64) as usize
    }

    /// Adds to a block that was begun earlier; gives back what is left of `slice`.
    fn complete_block<'a>(&mut self, slice: &'a [u8]) -> &'a [u8] {
        let rest_len = self.rest_len();
        if rest_len == 0 {
            return slice;
        }
        let (added, after) = slice.split_at(slice.len().min(BLOCK_BYTES - rest_len));
        self.rest[rest_len..rest_len + added.len()].copy_from_slice(added);
        self.absorbed_bytes += added.len() as u64;
        if self.rest_len() == 0 && !added.is_empty() {
            sha256_lanes::compress(&mut [Lane { state: &mut self.state, blocks: &self.rest }]);
            self.keep_value();
        }
        after
    }

    /// How many bytes of whole blocks `slice` has up to the end of this piece; `None` for none.
    fn blocks_ahead(&self, slice: &[u8]) -> Option<usize> {
        let blocks_bytes = slice.len() - slice.len() % BLOCK_BYTES;
        let left_of_piece = self.piece_size_bytes - self.absorbed_bytes % self.piece_size_bytes;
        let ahead = usize::try_from(left_of_piece).map_or(blocks_bytes, |left| left.min(blocks_bytes));
        (ahead > 0).then_some(ahead)
    }

    /// Keeps the chaining value at the end of a piece that is not the last, once.
    fn keep_value(&mut self) {
        let piece_end = (self.values.len() as u64 + 1) * self.piece_size_bytes;
        if self.absorbed_bytes == piece_end && piece_end < self.size_bytes {
            let mut value = [0; 32];
            for (bytes, word) in value.as_chunks_mut().0.iter_mut().zip(self.state) {
                *bytes = word.to_be_bytes();
            }
            self.values.push(value);
        }
    }
}
