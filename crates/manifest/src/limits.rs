//! How large the values of a manifest may be.

use std::ops::RangeInclusive;

use crate::ManifestError;

/// Most bytes of a manifest: 16 MiB.
pub const MAX_MANIFEST_BYTES: usize = 16 << 20;
/// Most shards of a manifest, parity included.
pub const MAX_SHARDS: usize = 1 << 16;
/// Most bytes of the weights, and of one shard: 2^48.
pub const MAX_SIZE_BYTES: u64 = 1 << 48;
/// Most pieces of all shards of a manifest together.
pub const MAX_PIECES: u64 = 1 << 24;
/// Most rows and parity shards together: Reed-Solomon over GF(2^8) has no more.
pub const MAX_ROWS: u32 = 256;
/// Most bytes of a piece: 4 MiB.
pub const MAX_PIECE_BYTES: u32 = 4 << 20;
/// The piece size for transfer of a manifest without a piece index: 1 MiB.
pub const TRANSFER_PIECE_BYTES: u32 = 1 << 20;

pub(crate) const SIZES: RangeInclusive<u64> = 1..=MAX_SIZE_BYTES;
pub(crate) const DATA: RangeInclusive<u32> = 1..=MAX_ROWS;
pub(crate) const PIECE_SIZES: RangeInclusive<u32> = 64..=MAX_PIECE_BYTES;

/// How many parity shards there may be besides `data` rows.
pub(crate) const fn parity(data: u32) -> RangeInclusive<u32> {
    0..=MAX_ROWS - data
}

pub(crate) fn out_of_range<T: Copy + Into<u64>>(
    field: String,
    found: u64,
    limits: &RangeInclusive<T>,
) -> ManifestError {
    ManifestError::OutOfRange { field, found, min: (*limits.start()).into(), max: (*limits.end()).into() }
}

/// The first 80 characters, for messages.
pub(crate) fn excerpt(text: &str) -> String {
    text.chars().take(80).collect()
}
