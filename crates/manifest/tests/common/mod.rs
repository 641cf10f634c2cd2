//! Manifests for the tests.

use manifest::{Codec, Digest, Manifest, ManifestError, Pieces, Shard};

pub(crate) const ROWS: [&[u8]; 3] = [b"aaaa", b"bbbb", b"cc\0\0"];

pub(crate) fn shard(bytes: &[u8], is_parity: bool) -> Shard {
    Shard { digest: Digest::of(bytes), size_bytes: bytes.len() as u64, is_parity }
}

pub(crate) fn list(data: &[&[u8]], parity: &[&[u8]]) -> Vec<Shard> {
    let data = data.iter().map(|bytes| shard(bytes, false));
    data.chain(parity.iter().map(|bytes| shard(bytes, true))).collect()
}

/// 10 bytes in 3 rows of 4, with 2 parity shards and a piece index.
pub(crate) fn uniform() -> Manifest {
    let pieces = Pieces { size_bytes: 1 << 20, index: Digest::of(b"index") };
    Manifest::new("vl-jepa".into(), 10, list(&ROWS, &[b"1111", b"2222"]), 3, 2, Codec::Rs, Some(pieces))
        .unwrap()
}

/// A model of these data shards alone.
pub(crate) fn plain(total: u64, data: u32, sizes: &[u64]) -> Result<Manifest, ManifestError> {
    let shard = |(i, size): (usize, &u64)| Shard {
        digest: Digest::of(&i.to_be_bytes()),
        size_bytes: *size,
        is_parity: false,
    };
    let shards = sizes.iter().enumerate().map(shard).collect();
    Manifest::new("simplenet".into(), total, shards, data, 0, Codec::Rs, None)
}
