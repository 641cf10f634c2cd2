//! Writing and reading frames of 2.0.0, beside copying as many bytes: `cargo bench -p p2p-blob`.
#![expect(clippy::unwrap_used, reason = "a benchmark that fails panics")]

/// The codec is private to the crate: its source is compiled into this program.
#[path = "../src/wire/mod.rs"]
#[allow(dead_code, unreachable_pub, unused_imports, reason = "not all of it is measured")]
mod wire;

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use manifest::{Digest, Have, HaveChange, PieceSet};

use wire::have;
use wire::v2::Request;

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
fn half(pieces: u32) -> (Have, Vec<u32>) {
    let mut held = PieceSet::none(pieces);
    for piece in (0..pieces).step_by(2) {
        held.insert(piece);
    }
    (Have { version: 1, change: HaveChange::Holds(vec![held; 14]) }, vec![pieces; 14])
}

#[divan::bench(args = [1_000, 100_000])]
fn have_encode(bencher: Bencher<'_, '_>, pieces: u32) {
    let (half, _) = half(pieces);
    bencher
        .counter(BytesCount::new(have::encode(&half).len()))
        .bench_local(|| have::encode(black_box(&half)));
}

#[divan::bench(args = [1_000, 100_000])]
fn have_decode(bencher: Bencher<'_, '_>, pieces: u32) {
    let (half, counts) = half(pieces);
    let frame = have::encode(&half);
    // After the length and the status.
    let rest = &frame[LENGTH_BYTES + 1..];
    bencher
        .counter(BytesCount::new(frame.len()))
        .bench_local(|| have::decode(black_box(rest), &counts).unwrap());
}

#[divan::bench(args = [1_000, 100_000])]
fn copy(bencher: Bencher<'_, '_>, pieces: u32) {
    let frame = have::encode(&half(pieces).0);
    bencher.counter(BytesCount::new(frame.len())).bench_local(|| black_box(&frame).clone());
}
