//! Publishing, checked against the plain definitions: rows cut from the bytes, hashed whole.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use manifest::{Layout, MAX_PIECE_BYTES, MODEL_KINDS};
use proptest::prelude::*;
use reed_solomon_erasure::galois_8::ReedSolomon;
use tempfile::TempDir;

use super::options::MIN_PIECE_BYTES;
use super::*;

/// Bytes that repeat nowhere soon, the same for the same seed.
pub(crate) fn sample(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

pub(crate) fn options(data: u32, parity: u32, codec: Codec) -> Options {
    Options { data, parity, codec, piece_size_bytes: Some(MIN_PIECE_BYTES), ..Options::default() }
}

fn write(dir: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    use std::io::Write as _;
    let path = dir.join(name);
    File::create(&path).unwrap().write_all(bytes).unwrap();
    path
}

/// Publishes one file with these bytes.
pub(crate) fn publish_bytes(cache: &Cache, bytes: &[u8], options: &Options) -> Published {
    let dir = tempfile::tempdir().unwrap();
    let input = Input::File(write(dir.path(), "model", bytes));
    publish(cache, &input, options, &|_, _| ()).unwrap()
}

fn publish_layers(cache: &Cache, layers: &[Vec<u8>], options: &Options) -> Published {
    let dir = tempfile::tempdir().unwrap();
    let paths = layers.iter().enumerate().map(|(index, bytes)| write(dir.path(), &index.to_string(), bytes));
    publish(cache, &Input::Layers(paths.collect()), options, &|_, _| ()).unwrap()
}

fn cache() -> (TempDir, Cache) {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path()).unwrap();
    (dir, cache)
}

/// The rows of these weights, padded.
fn rows(bytes: &[u8], data: u32) -> Vec<Vec<u8>> {
    let row_bytes = bytes.len().div_ceil(data as usize);
    let row = |index: usize| {
        let start = (index * row_bytes).min(bytes.len());
        let mut row = bytes[start..(start + row_bytes).min(bytes.len())].to_vec();
        row.resize(row_bytes, 0);
        row
    };
    (0..data as usize).map(row).collect()
}

/// All bytes of a shard, by its digest, as a peer would get them.
fn served(model: &Model, shard: usize) -> Vec<u8> {
    let digest = model.manifest().shards()[shard].digest;
    let same = |other: &u32| model.manifest().shards()[*other as usize].digest == digest;
    let shards = 0..u32::try_from(model.manifest().shards().len()).unwrap();
    let held = shards.filter(same).find_map(|shard| model.shard(shard).unwrap()).unwrap();
    let mut bytes = vec![0; usize::try_from(held.size_bytes()).unwrap()];
    held.read_at(0, &mut bytes).unwrap();
    bytes
}

/// Checks everything that a fetcher relies on.
fn check(published: &Published, weights: &[u8], options: &Options) {
    let (model, manifest) = (&published.model, &published.manifest);
    assert_eq!(model.weights().unwrap().as_ref(), weights);
    assert_eq!(Digest::of(&manifest.to_json()), published.digest);
    for (index, shard) in manifest.shards().iter().enumerate() {
        let bytes = served(model, index);
        assert_eq!(bytes.len() as u64, shard.size_bytes);
        assert_eq!(Digest::of(&bytes), shard.digest, "shard {index}");
    }
    let rows = rows(weights, options.data);
    let parity: Vec<_> = (model.manifest().data_shard_count() as usize..)
        .take(options.parity as usize)
        .map(|i| served(model, i))
        .collect();
    match options.codec {
        Codec::Replica => {
            for (index, copy) in parity.iter().enumerate() {
                assert_eq!(*copy, rows[index % rows.len()], "copy {index}");
            }
        }
        Codec::Rs if options.parity > 0 => rebuilds(&rows, &parity),
        Codec::Rs => {}
    }
    let report = store::recheck(model, 2, &|_, _| ()).unwrap();
    assert!(report.is_good(), "{report}");
}

/// Drops as many rows as there are parity shards, at several places, and rebuilds them.
fn rebuilds(rows: &[Vec<u8>], parity: &[Vec<u8>]) {
    let code = ReedSolomon::new(rows.len(), parity.len()).unwrap();
    let all: Vec<_> = rows.iter().chain(parity).cloned().collect();
    for first in 0..all.len() {
        let mut some: Vec<_> = all.iter().cloned().map(Some).collect();
        for lost in 0..parity.len() {
            some[(first + lost) % all.len()] = None;
        }
        code.reconstruct(&mut some).unwrap();
        assert!(some.into_iter().flatten().eq(all.iter().cloned()), "lost from {first} on");
    }
}

#[test]
fn sizes_around_every_border_are_published() {
    let piece = MIN_PIECE_BYTES as usize;
    for (data, parity) in [(1, 0), (1, 1), (3, 2), (10, 4)] {
        for size in [1, data - 1, data, data + 1, 3 * piece - 1, 3 * piece, 3 * piece + 1, 30 * piece + 7] {
            if size == 0 {
                continue;
            }
            let (_dir, cache) = cache();
            let bytes = sample(size, 1);
            let options = options(u32::try_from(data).unwrap(), parity, Codec::Rs);
            let published = publish_bytes(&cache, &bytes, &options);
            check(&published, &bytes, &options);
            assert_eq!(published.manifest.layout(), Layout::Uniform);
            assert!(published.warnings.is_empty());
        }
    }
}

#[test]
fn slices_join_without_a_seam() {
    let (_dir, cache) = cache();
    let bytes = sample(3 * (256 << 10) * 2 + 12345, 2);
    let options = options(2, 1, Codec::Rs);
    check(&publish_bytes(&cache, &bytes, &options), &bytes, &options);
}

#[test]
fn the_most_rows_there_can_be() {
    let (_dir, cache) = cache();
    let bytes = sample(300_001, 3);
    let options = options(200, 56, Codec::Rs);
    let published = publish_bytes(&cache, &bytes, &options);
    assert_eq!(published.model.weights().unwrap().as_ref(), bytes);
    assert!(store::recheck(&published.model, 2, &|_, _| ()).unwrap().is_good());
}

#[test]
fn zeros_keep_no_parity_of_their_own() {
    let (_dir, cache) = cache();
    let bytes = vec![0; 50_000];
    let options = options(4, 2, Codec::Rs);
    let published = publish_bytes(&cache, &bytes, &options);
    check(&published, &bytes, &options);
    assert!(published.model.parity_kept().is_empty());
}

#[test]
fn replicas_are_the_rows_and_take_no_space() {
    for parity in [0, 2, 3, 7] {
        let (_dir, cache) = cache();
        let bytes = sample(100_001, 4);
        let options = options(3, parity, Codec::Replica);
        let published = publish_bytes(&cache, &bytes, &options);
        check(&published, &bytes, &options);
        assert!(published.model.parity_kept().is_empty());
        assert_eq!(published.warnings.len(), usize::from(parity == 2), "{:?}", published.warnings);
    }
}

#[test]
fn layers_that_straddle_rows_are_published() {
    let layers = [sample(40_000, 5), sample(1, 6), sample(100_000, 7), sample(16_384, 8), sample(777, 9)];
    let weights = layers.concat();
    for (parity, codec) in
        [(0, Codec::Rs), (2, Codec::Rs), (0, Codec::Replica), (2, Codec::Replica), (7, Codec::Replica)]
    {
        let (_dir, cache) = cache();
        let options = options(3, parity, codec);
        let published = publish_layers(&cache, &layers, &options);
        check(&published, &weights, &options);
        assert_eq!(published.manifest.layout(), Layout::LayerWise);
        assert_eq!(published.manifest.data_shard_count(), 5);
    }
}

#[test]
fn many_layers_are_hashed_in_turns() {
    let layers: Vec<_> = (0..23).map(|index| sample(1 + 40_000 * (index % 5), index as u64)).collect();
    let (_dir, cache) = cache();
    let options = options(4, 2, Codec::Rs);
    check(&publish_layers(&cache, &layers, &options), &layers.concat(), &options);
}

#[test]
fn layers_that_are_the_rows_make_the_same_model_as_one_file() {
    let layers = [sample(30_000, 1), sample(30_000, 2), sample(30_000, 3)];
    let options = options(3, 2, Codec::Rs);
    let ((_one, one), (_two, two)) = (cache(), cache());
    let by_layer = publish_layers(&one, &layers, &options);
    assert_eq!(by_layer.manifest.layout(), Layout::Uniform);
    assert_eq!(by_layer.digest, publish_bytes(&two, &layers.concat(), &options).digest);
}

#[test]
fn a_layer_that_parity_cannot_rebuild_is_warned_of() {
    let (_dir, cache) = cache();
    let layers = [sample(30_000, 1), sample(1_000, 2)];
    let published = publish_layers(&cache, &layers, &options(4, 2, Codec::Rs));
    let [warning] = published.warnings.as_slice() else { panic!("{:?}", published.warnings) };
    assert!(warning.contains("30000") && warning.contains("15500"), "{warning}");
}

#[test]
fn without_an_index_the_manifest_names_none() {
    let (_dir, cache) = cache();
    let bytes = sample(100_000, 1);
    let options = Options { piece_size_bytes: None, ..options(3, 2, Codec::Rs) };
    let published = publish_bytes(&cache, &bytes, &options);
    assert!(published.manifest.pieces().is_none());
    check(&published, &bytes, &options);
}

#[test]
fn what_is_finished_is_read_only_and_the_source_is_left_alone() {
    let (_dir, cache) = cache();
    let dir = tempfile::tempdir().unwrap();
    let source = write(dir.path(), "model", &sample(100_000, 1));
    let published =
        publish(&cache, &Input::File(source.clone()), &options(3, 2, Codec::Rs), &|_, _| ()).unwrap();
    let model = published.model;
    for path in
        [model.weights().unwrap().path().to_owned(), model.dir().join(PIECES), model.dir().join("parity/3")]
    {
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o444, "{}", path.display());
    }
    assert_eq!(fs::read(&source).unwrap(), sample(100_000, 1));
    assert_eq!(fs::metadata(&source).unwrap().permissions().mode() & 0o200, 0o200);
}

#[test]
fn publishing_again_leaves_the_finished_model() {
    use std::os::unix::fs::MetadataExt as _;
    let (_dir, cache) = cache();
    let (bytes, options) = (sample(100_000, 1), options(3, 2, Codec::Rs));
    let inode = |model: &Model| fs::metadata(model.weights().unwrap().path()).unwrap().ino();
    let first = publish_bytes(&cache, &bytes, &options);
    let second = publish_bytes(&cache, &bytes, &options);
    assert_eq!(first.digest, second.digest);
    assert_eq!(inode(&first.model), inode(&second.model));
    assert_eq!(fs::read_dir(cache.dir().join("partial")).unwrap().count(), 0);
}

#[test]
fn publishing_again_adds_the_parity_and_index_that_a_fetched_model_lacks() {
    let (_dir, cache) = cache();
    let (bytes, options) = (sample(100_000, 1), options(3, 2, Codec::Rs));
    let first = publish_bytes(&cache, &bytes, &options);
    let dir = first.model.dir().to_owned();
    drop(first);
    fs::remove_dir_all(dir.join(PARITY)).unwrap();
    fs::remove_file(dir.join(PIECES)).unwrap();
    let second = publish_bytes(&cache, &bytes, &options);
    assert_eq!(second.model.parity_kept(), [3, 4]);
    check(&second, &bytes, &options);
}

#[test]
fn what_an_earlier_fetch_left_half_done_is_removed() {
    let (_dir, cache) = cache();
    let (bytes, options) = (sample(100_000, 1), options(3, 2, Codec::Rs));
    let (_other_dir, other) = super::tests::cache();
    let published = publish_bytes(&other, &bytes, &options);
    let lock = cache.lock_fill(&published.digest).unwrap();
    drop(cache.partial(lock, manifest::Geometry::new(published.manifest), true).unwrap());
    check(&publish_bytes(&cache, &bytes, &options), &bytes, &options);
    assert_eq!(fs::read_dir(cache.dir().join("partial")).unwrap().count(), 0);
}

#[test]
fn progress_ends_at_the_total() {
    let (_dir, cache) = cache();
    let dir = tempfile::tempdir().unwrap();
    let layer = |name, len| write(dir.path(), name, &sample(len, 1));
    let inputs =
        [Input::File(layer("model", 100_000)), Input::Layers(vec![layer("a", 70_000), layer("b", 30_001)])];
    for input in inputs {
        let last = std::sync::Mutex::new((0, 1));
        let note = |done, total| {
            let mut last = last.lock().unwrap();
            assert!(done >= last.0 && done <= total);
            *last = (done, total);
        };
        publish(&cache, &input, &options(3, 2, Codec::Rs), &note).unwrap();
        let (done, total) = *last.lock().unwrap();
        assert_eq!(done, total);
    }
}

#[test]
fn bad_requests_are_refused_before_anything_is_written() {
    let (_dir, cache) = cache();
    let dir = tempfile::tempdir().unwrap();
    let file = Input::File(write(dir.path(), "model", b"weights"));
    let empty = Input::File(write(dir.path(), "empty", b""));
    let good = || options(3, 2, Codec::Rs);
    let refused = |input: &Input, options: &Options| {
        let error = publish(&cache, input, options, &|_, _| ()).unwrap_err();
        assert_eq!(error.blame(), manifest::Blame::Caller, "{error}");
        assert_eq!(fs::read_dir(cache.dir().join("partial")).unwrap().count(), 0);
        error.to_string()
    };
    let kind = Options { model_kind: "gpt".to_owned(), ..good() };
    let message = refused(&file, &kind);
    assert!(message.contains("gpt") && MODEL_KINDS.iter().all(|kind| message.contains(kind)), "{message}");
    for (data, parity) in [(0, 2), (255, 2), (1, 256), (u32::MAX, 1)] {
        assert!(refused(&file, &Options { data, parity, ..good() }).contains("256"));
    }
    for bytes in [0, 64, MIN_PIECE_BYTES - 64, MIN_PIECE_BYTES + 1, MAX_PIECE_BYTES + 64] {
        let message = refused(&file, &Options { piece_size_bytes: Some(bytes), ..good() });
        assert!(message.contains(&bytes.to_string()), "{message}");
    }
    assert!(refused(&empty, &good()).contains("empty"));
    assert!(refused(&Input::File(dir.path().to_owned()), &good()).contains("regular file"));
    assert!(refused(&Input::Layers(Vec::new()), &good()).contains("layers"));
    assert!(
        refused(&Input::Layers(vec![dir.path().join("model"); 65_535]), &good()).contains("65537 shards")
    );
    let missing = publish(&cache, &Input::File(dir.path().join("no")), &good(), &|_, _| ()).unwrap_err();
    assert!(matches!(missing, PublishError::Read { .. }), "{missing}");
}

#[test]
fn a_source_that_changes_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), "model", &sample(1000, 1));
    let source = Sources::new([path.as_path()]).unwrap();
    source.check_unchanged().unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    file.set_len(500).unwrap();
    let mut buffer = [0; 1000];
    assert!(matches!(source.read_at(0, &mut buffer), Err(PublishError::Changed { .. })));
    assert!(matches!(source.check_unchanged(), Err(PublishError::Changed { .. })));
}

fn codecs() -> impl Strategy<Value = Codec> {
    prop_oneof![Just(Codec::Rs), Just(Codec::Replica)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn any_file_is_published_and_rebuilt(
        len in 1..200_000usize, seed: u64, data in 1..12u32, parity in 0..6u32, codec in codecs(),
    ) {
        let (_dir, cache) = cache();
        let (bytes, options) = (sample(len, seed), options(data, parity, codec));
        check(&publish_bytes(&cache, &bytes, &options), &bytes, &options);
    }

    #[test]
    fn any_layers_are_published_and_rebuilt(
        lengths in proptest::collection::vec(1..40_000usize, 1..8), seed: u64, data in 1..6u32, parity in 0..4u32,
        codec in codecs(),
    ) {
        let (_dir, cache) = cache();
        let layers: Vec<_> = lengths.iter().zip(0..).map(|(len, index)| sample(*len, seed ^ index)).collect();
        let options = options(data, parity, codec);
        check(&publish_layers(&cache, &layers, &options), &layers.concat(), &options);
    }
}
