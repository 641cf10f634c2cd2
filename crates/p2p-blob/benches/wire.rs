//! Writing and reading frames of 2.0.0, beside copying as many bytes: `cargo bench -p p2p-blob`.
#![expect(clippy::unwrap_used, reason = "a benchmark that fails panics")]

/// The codec is private to the crate: its source is compiled into this program.
#[path = "../src/wire/mod.rs"]
#[allow(dead_code, unreachable_pub, unused_imports, reason = "not all of it is measured")]
mod wire;

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use manifest::Digest;

use wire::v2::Request;
use wire::{Have, Held, PieceSet};

/// Frames begin with their length.
const LENGTH_BYTES: usize = 4;

fn main() {
    divan::main();
}

fn request() -> Request {
    let digest = Digest::of(b"blob");
    Request::Get { manifest: Some(digest), blob: digest, offset: 5 << 30, length: 1 << 20 }
}

#[divan::bench]
fn get_encode() -> Vec<u8> {
    black_box(request()).encode()
}

#[divan::bench]
fn get_decode(bencher: Bencher<'_, '_>) {
    let frame = request().encode();
    bencher.bench_local(|| Request::decode(black_box(&frame[LENGTH_BYTES..])).unwrap());
}

/// What is held of fourteen shards of so many pieces: every second one.
fn have(pieces: u32) -> (Have, Vec<u32>) {
    let mut held = PieceSet::new(pieces);
    (0..pieces).step_by(2).for_each(|piece| held.insert(piece));
    let shards = vec![Held::Pieces(held); 14];
    (Have { version: 1, is_full: true, shards }, vec![pieces; 14])
}

#[divan::bench(args = [1_000, 100_000])]
fn have_encode(bencher: Bencher<'_, '_>, pieces: u32) {
    let (have, _) = have(pieces);
    bencher.counter(BytesCount::new(have.encode().len())).bench_local(|| black_box(&have).encode());
}

#[divan::bench(args = [1_000, 100_000])]
fn have_decode(bencher: Bencher<'_, '_>, pieces: u32) {
    let (have, counts) = have(pieces);
    let frame = have.encode();
    // After the length and the status.
    let rest = &frame[LENGTH_BYTES + 1..];
    bencher
        .counter(BytesCount::new(frame.len()))
        .bench_local(|| Have::decode(black_box(rest), &counts).unwrap());
}

#[divan::bench(args = [1_000, 100_000])]
fn copy(bencher: Bencher<'_, '_>, pieces: u32) {
    let frame = have(pieces).0.encode();
    bencher.counter(BytesCount::new(frame.len())).bench_local(|| black_box(&frame).clone());
}
