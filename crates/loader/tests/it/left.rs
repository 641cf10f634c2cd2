//! What an earlier run left, right and wrong.
#![expect(clippy::unwrap_used, reason = "test code")]

use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::Path;

use loader::{LoadError, Report};
use manifest::Codec;
use store::Cache;

use crate::support::{Memory, Origin, load};

/// Loads from nobody who has enough: the run ends with this many of ten shards, and all of the parity, here.
async fn leave(dir: &Path, origin: &Origin, shards: std::ops::Range<u32>) {
    let lost: Vec<u32> = (0..14).filter(|shard| !shards.contains(shard)).collect();
    let error = load(dir, origin.digest, vec![origin.without(&lost).named("poor")]).await.unwrap_err();
    assert!(matches!(error, LoadError::Unavailable { .. }), "{error}");
}

/// Flips a bit of a file, whatever its mode.
fn flip(path: &Path, at: u64) {
    let mode = std::fs::metadata(path).unwrap().permissions();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    std::fs::set_permissions(path, mode).unwrap();
}

async fn loads(dir: &Path, origin: &Origin, sources: Vec<Memory>) -> Report {
    let (model, report) = load(dir, origin.digest, sources).await.unwrap();
    assert!(model.weights().unwrap().as_ref() == origin.weights);
    assert!(report.sources.iter().all(|source| !source.banned && source.bad_bytes == 0), "{report:?}");
    report
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_of_what_was_recorded_costs_its_piece_and_nobody_is_blamed() {
    for index in [true, false] {
        let origin = Origin::uniform(900_001, 10, 4, Codec::Rs, index);
        let dir = tempfile::tempdir().unwrap();
        leave(dir.path(), &origin, 0..9).await;
        flip(&dir.path().join(format!("partial/{}/weights", origin.digest)), 100_000);
        let report = loads(dir.path(), &origin, vec![origin.without(&[]).named("a")]).await;
        let (row, piece) = (origin.manifest.row_size_bytes(), u64::from(origin.manifest.piece_size_bytes()));
        let wrong = if index { piece } else { row };
        assert_eq!((report.fetched_bytes, report.resumed_bytes), (row + wrong, 9 * row - wrong), "{index}");
    }
}

/// As after a power cut, or when a snapshot is mounted: the journal is there, and the data is not.
#[tokio::test(flavor = "multi_thread")]
async fn a_journal_without_its_data_is_not_believed() {
    let origin = Origin::uniform(900_001, 10, 4, Codec::Rs, true);
    let dir = tempfile::tempdir().unwrap();
    leave(dir.path(), &origin, 0..9).await;
    let weights = dir.path().join(format!("partial/{}/weights", origin.digest));
    std::fs::File::options().write(true).open(&weights).unwrap().write_all_at(&vec![0; 800_000], 0).unwrap();
    let report = loads(dir.path(), &origin, vec![origin.without(&[]).named("a")]).await;
    assert!(report.resumed_bytes < 20_000 + 2 * origin.manifest.row_size_bytes(), "{report:?}");
}

/// What is rebuilt from a piece that has rotted is wrong, and that is nobody's lie.
#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_does_not_stop_a_rebuild() {
    let origin = Origin::uniform(900_001, 10, 4, Codec::Rs, true);
    let dir = tempfile::tempdir().unwrap();
    leave(dir.path(), &origin, 0..9).await;
    let weights = dir.path().join(format!("partial/{}/weights", origin.digest));
    (0..9).for_each(|row| flip(&weights, row * 90_001 + 30_000));
    // The last shard is nowhere: it has to be rebuilt, with what is right.
    let report = loads(dir.path(), &origin, vec![origin.without(&[9]).named("a")]).await;
    assert_eq!(report.rebuilt_bytes, origin.manifest.row_size_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_model_that_is_bad_is_healed_with_what_is_wrong_of_it() {
    for index in [true, false] {
        for is_used in [false, true] {
            let origin = Origin::uniform(900_001, 10, 4, Codec::Rs, index);
            let dir = tempfile::tempdir().unwrap();
            loads(dir.path(), &origin, vec![origin.without(&[]).named("a")]).await;
            let used = Cache::open(dir.path()).unwrap().model(&origin.digest).unwrap().filter(|_| is_used);
            flip(&dir.path().join(format!("models/{}/weights", origin.digest)), 100_000);
            let report = loads(dir.path(), &origin, vec![origin.without(&[]).named("a")]).await;
            let (row, piece) =
                (origin.manifest.row_size_bytes(), u64::from(origin.manifest.piece_size_bytes()));
            assert_eq!(report.fetched_bytes, if index { piece } else { row }, "{index} {is_used}");
            assert!(
                !report.from_cache
                    && used.is_none_or(|used| used.weights().unwrap().as_ref() != origin.weights)
            );
            assert!(load(dir.path(), origin.digest, Vec::new()).await.unwrap().1.from_cache);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_that_somebody_deleted_are_fetched_into_the_place_of_the_rest() {
    let origin = Origin::uniform(900_001, 10, 4, Codec::Rs, true);
    let dir = tempfile::tempdir().unwrap();
    loads(dir.path(), &origin, vec![origin.without(&[]).named("a")]).await;
    std::fs::remove_file(dir.path().join(format!("models/{}/weights", origin.digest))).unwrap();
    let report = loads(dir.path(), &origin, vec![origin.without(&[]).named("a")]).await;
    assert_eq!(report.fetched_bytes, 10 * origin.manifest.row_size_bytes());
    assert_eq!(
        std::fs::read_dir(dir.path().join("partial")).unwrap().count(),
        0,
        "and there is no second copy"
    );
}
