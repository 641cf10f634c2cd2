//! SHA-256 of one to sixteen lanes at once, against `sha2`, one core: `cargo bench -p sha256-lanes`.

use divan::{Bencher, black_box, counter::BytesCount};
use sha256_lanes::{INITIAL, Lane, State};

/// Bytes in each lane: a transfer piece.
const LANE_BYTES: usize = 1 << 20;

fn main() {
    divan::main();
}

#[divan::bench(args = [1, 2, 3, 4, 8, 12, 14, 16])]
fn lanes(bencher: Bencher<'_, '_>, count: usize) {
    let messages = messages(count);
    let mut states = vec![INITIAL; count];
    bencher.counter(BytesCount::new(count * LANE_BYTES)).bench_local(|| {
        let mut lanes: Vec<Lane<'_>> =
            states.iter_mut().zip(&messages).map(|(state, blocks)| Lane { state, blocks }).collect();
        sha256_lanes::compress(black_box(&mut lanes));
    });
}

#[divan::bench]
fn sha2(bencher: Bencher<'_, '_>) {
    let message = &messages(1)[0];
    let mut state: State = INITIAL;
    bencher.counter(BytesCount::new(LANE_BYTES)).bench_local(|| {
        sha2::block_api::compress256(black_box(&mut state), message.as_chunks().0);
    });
}

fn messages(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|lane| (0..LANE_BYTES).map(|i| (i + lane).to_le_bytes()[0]).collect()).collect()
}
