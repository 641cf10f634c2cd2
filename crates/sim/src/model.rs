//! A model to fetch: only its numbers, no bytes.

use manifest::{Codec, Digest, Manifest, Pieces, Shard};

use crate::scenario::PIECE_BYTES;

const DATA: u32 = 10;
const PARITY: u32 = 4;

/// Ten rows of `pieces` MiB in all, and four parity shards.
pub(crate) fn manifest(pieces: u64) -> Manifest {
    let total_bytes = pieces * PIECE_BYTES;
    let row_bytes = total_bytes.div_ceil(u64::from(DATA));
    let shard = |index: u32| Shard {
        digest: Digest::of(&index.to_be_bytes()),
        size_bytes: row_bytes,
        is_parity: index >= DATA,
    };
    let shards = (0..DATA + PARITY).map(shard).collect();
    #[expect(clippy::cast_possible_truncation, reason = "a constant")]
    let pieces = Pieces { size_bytes: PIECE_BYTES as u32, index: Digest::ZERO };
    let kind = "simplenet".to_owned();
    match Manifest::new(kind, total_bytes, shards, DATA, PARITY, Codec::Rs, Some(pieces)) {
        Ok(manifest) => manifest,
        Err(error) => panic!("the model of a scenario must be valid: {error}"),
    }
}
