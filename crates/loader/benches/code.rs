//! The erasure code on one column, as publishing and rebuilding cut it: 256 KiB of each row, 10 + 4. Against copying the
//! rows. One core: `cargo bench -p loader --bench code`.
#![expect(clippy::unwrap_used, reason = "a benchmark that fails panics")]

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use reed_solomon_erasure::galois_8::ReedSolomon;

const DATA: usize = 10;
const PARITY: usize = 4;
/// `SLICE_BYTES` of the library.
const SLICE_BYTES: usize = 256 << 10;

fn main() {
    divan::main();
}

#[divan::bench]
fn encode(bencher: Bencher<'_, '_>) {
    let code = ReedSolomon::new(DATA, PARITY).unwrap();
    let (rows, mut parity) = (rows(DATA), rows(PARITY));
    bencher.counter(BytesCount::new(DATA * SLICE_BYTES)).bench_local(|| {
        code.encode_sep(black_box(&rows), &mut parity).unwrap();
    });
}

/// How many rows are lost; bytes are those of the whole column, so that figures can be compared.
#[divan::bench(args = [1, 2, 3, 4])]
fn rebuild(bencher: Bencher<'_, '_>, lost: usize) {
    let code = ReedSolomon::new(DATA, PARITY).unwrap();
    let mut rows = rows(DATA + PARITY);
    code.encode(&mut rows).unwrap();
    bencher.counter(BytesCount::new(DATA * SLICE_BYTES)).bench_local(|| {
        let shards = rows.iter_mut().enumerate();
        let mut shards: Vec<_> =
            shards.map(|(index, row)| (row.as_mut_slice(), (lost..DATA + lost).contains(&index))).collect();
        code.reconstruct_data(black_box(&mut shards)).unwrap();
    });
}

#[divan::bench]
fn copy(bencher: Bencher<'_, '_>) {
    let (rows, mut copies) = (rows(DATA), rows(DATA));
    bencher.counter(BytesCount::new(DATA * SLICE_BYTES)).bench_local(|| {
        for (copy, row) in copies.iter_mut().zip(black_box(&rows)) {
            copy.copy_from_slice(row);
        }
    });
}

fn rows(count: usize) -> Vec<Vec<u8>> {
    let row = |row: usize| (0..SLICE_BYTES).map(move |i| (i * (2 * row + 3)).to_le_bytes()[1]).collect();
    (0..count).map(row).collect()
}
