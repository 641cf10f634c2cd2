//! Verifying pieces, some at once, against hashing them one by one with `sha2`; and reading manifests. One core:
//! `cargo bench -p manifest`.
#![expect(clippy::unwrap_used, reason = "a benchmark that fails panics")]

use std::sync::Arc;

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use manifest::piece_index::{PieceIndex, ShardHasher, encode_index};
use manifest::{Codec, Digest, Manifest, PieceId, Pieces, Shard};
use sha2::{Digest as _, Sha256};

const PIECE_BYTES: u32 = 1 << 20;
const PIECES: u32 = 16;

fn main() {
    divan::main();
}

/// How many pieces are verified at once: a fetch and `loader verify` have up to sixteen.
#[divan::bench(args = [1, 2, 4, 8, 16])]
fn verify(bencher: Bencher<'_, '_>, count: u32) {
    let (manifest, bytes, index) = model();
    let index = PieceIndex::parse(index, &manifest).unwrap();
    let pieces = bytes.chunks(PIECE_BYTES as usize);
    let pieces: Vec<_> = (0..count).map(|piece| PieceId { shard: 0, piece }).zip(pieces).collect();
    bencher
        .counter(BytesCount::new(u64::from(count) * u64::from(PIECE_BYTES)))
        .bench_local(|| index.verify(black_box(&pieces)));
    assert!(index.verify(&pieces).iter().all(Option::is_some));
}

#[divan::bench]
fn sha2(bencher: Bencher<'_, '_>) {
    let bytes = vec![7; PIECE_BYTES as usize];
    bencher.counter(BytesCount::new(PIECE_BYTES)).bench_local(|| Sha256::digest(black_box(&bytes)));
}

/// Manifests with this many shards.
#[divan::bench(args = [14, 1000, 60_000])]
fn parse(bencher: Bencher<'_, '_>, shards: u32) {
    let shard =
        |index: u32| Shard { digest: Digest::of(&index.to_be_bytes()), size_bytes: 1, is_parity: false };
    let list = (0..shards).map(shard).collect();
    let json = Manifest::new("simplenet".to_owned(), u64::from(shards), list, 1, 0, Codec::Rs, None);
    let json = json.unwrap().to_json();
    bencher.counter(BytesCount::of_slice(&json)).bench_local(|| Manifest::parse(black_box(&json)).unwrap());
}

/// One shard of some pieces: its manifest, its bytes, its piece index.
fn model() -> (Arc<Manifest>, Vec<u8>, Vec<u8>) {
    let bytes = vec![7; (PIECES * PIECE_BYTES) as usize];
    let mut hashers = [ShardHasher::new(bytes.len() as u64, PIECE_BYTES)];
    ShardHasher::update_all(&mut hashers, &[&bytes]);
    let [hasher] = hashers;
    let (digest, values) = hasher.finish();
    let index = encode_index(PIECE_BYTES, &[values]);
    let size_bytes = bytes.len() as u64;
    let shard = Shard { digest, size_bytes, is_parity: false };
    let pieces = Pieces { size_bytes: PIECE_BYTES, index: Digest::of(&index) };
    let manifest =
        Manifest::new("simplenet".to_owned(), size_bytes, vec![shard], 1, 0, Codec::Rs, Some(pieces));
    (Arc::new(manifest.unwrap()), bytes, index)
}
