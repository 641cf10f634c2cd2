//! What is done with whole models of 256 MiB in a cache in the temporary directory: `cargo bench -p loader --bench
//! model`. Publishing and its sync depend on the disk; the rest on the page cache, in which the model is.
#![expect(clippy::unwrap_used, reason = "a benchmark that fails panics")]

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use divan::Bencher;
use divan::counter::BytesCount;
use loader::encode::{Input, Options, Published, publish};
use manifest::{Geometry, PieceId};
use store::Pages;
use store::{Cache, Model};
use tempfile::TempDir;

const MODEL_BYTES: usize = 256 << 20;

fn main() {
    divan::main();
}

/// From opening the cache to a map that can be read. Takes as long for a model of any size.
#[divan::bench]
fn load_cached(bencher: Bencher<'_, '_>) {
    let (dir, published) = published();
    bencher.bench_local(|| {
        let model = Cache::open(dir.path()).unwrap().model(&published.digest).unwrap().unwrap();
        model.weights().unwrap().as_ref()[MODEL_BYTES / 2]
    });
}

#[divan::bench(args = [Pages::Lazy, Pages::Populated], sample_count = 10)]
fn load_and_touch_every_page(bencher: Bencher<'_, '_>, pages: Pages) {
    let (dir, published) = published();
    bencher.counter(BytesCount::new(MODEL_BYTES)).bench_local(|| {
        let model = Cache::open(dir.path()).unwrap().model(&published.digest).unwrap().unwrap();
        model.weights().unwrap().advise(pages).unwrap();
        model.weights().unwrap().as_ref().iter().step_by(4096).map(|byte| u64::from(*byte)).sum::<u64>()
    });
}

/// By threads; bytes are those of all shards, 1.4 times the model.
#[divan::bench(args = [1, 2], sample_count = 10)]
fn recheck(bencher: Bencher<'_, '_>, threads: usize) {
    let (_dir, published) = published();
    let bytes = shard_bytes(&published.model);
    bencher.counter(BytesCount::new(bytes)).bench_local(|| {
        assert!(store::recheck(&published.model, threads, &|_, _| ()).unwrap().is_good());
    });
}

#[divan::bench(sample_count = 5)]
fn publish_durably(bencher: Bencher<'_, '_>) {
    let dir = tempfile::tempdir().unwrap();
    let source = source(dir.path());
    bencher
        .counter(BytesCount::new(MODEL_BYTES))
        .with_inputs(|| tempfile::tempdir().unwrap())
        .bench_local_values(|cache| {
            publish_into(cache.path(), &source);
            cache
        });
}

/// What a fetch does with pieces that have arrived and are verified, until the model is finished: with and without
/// waiting for the disk.
#[divan::bench(args = [true, false], sample_count = 5)]
fn fill(bencher: Bencher<'_, '_>, durable: bool) {
    let (_dir, published) = published();
    let (manifest, index) = (&published.manifest, published.model.index().unwrap().unwrap());
    let data = 0..manifest.data_shard_count();
    let pieces =
        data.flat_map(|shard| (0..manifest.piece_count(shard)).map(move |piece| PieceId { shard, piece }));
    let bytes_of = |piece: PieceId| {
        let range = manifest.piece_range(piece.shard, piece.piece);
        let mut bytes = vec![0; usize::try_from(range.len()).unwrap()];
        published.model.shard(piece.shard).unwrap().unwrap().read_at(range.start, &mut bytes).unwrap();
        (piece, bytes)
    };
    let pieces: Vec<(PieceId, Vec<u8>)> = pieces.map(bytes_of).collect();
    let pieces: Vec<_> = pieces.iter().map(|(piece, bytes)| (*piece, bytes.as_slice())).collect();
    let verified: Vec<_> = index.verify(&pieces).into_iter().flatten().collect();
    assert_eq!(verified.len(), pieces.len());
    let empty = || {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let (digest, manifest) = cache.store_manifest(&manifest.to_json()).unwrap();
        let lock = cache.lock_fill(&digest).unwrap();
        (dir, cache.partial(lock, Geometry::new(manifest), durable).unwrap())
    };
    bencher.counter(BytesCount::new(MODEL_BYTES)).with_inputs(empty).bench_local_values(|(dir, partial)| {
        verified.iter().for_each(|piece| partial.write_verified(&[*piece]).unwrap());
        (partial.finish(false).unwrap(), dir)
    });
}

fn shard_bytes(model: &Model) -> u64 {
    model.manifest().shards().iter().map(|shard| shard.size_bytes).sum()
}

fn published() -> (TempDir, Published) {
    let dir = tempfile::tempdir().unwrap();
    let source = source(dir.path());
    let published = publish_into(dir.path(), &source);
    (dir, published)
}

fn publish_into(cache: &Path, source: &Input) -> Published {
    publish(&Cache::open(cache).unwrap(), source, &Options::default(), &|_, _| ()).unwrap()
}

fn source(dir: &Path) -> Input {
    let path = dir.join("model");
    let block: Vec<u8> = (0..1 << 20).map(|i: usize| (i * i).to_le_bytes()[1]).collect();
    let mut file = File::create_new(&path).unwrap();
    for _ in 0..MODEL_BYTES / block.len() {
        file.write_all(&block).unwrap();
    }
    Input::File(path)
}
