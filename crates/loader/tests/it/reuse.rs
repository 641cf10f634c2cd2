//! New versions of a model take from the old one what they share.
#![expect(clippy::unwrap_used, reason = "test code")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::support::{Origin, load, weights};
use loader::Report;
use manifest::Codec;
use proptest::prelude::*;
use store::Cache;

/// The size of pieces in these models.
const PIECE: usize = 16 << 10;

/// Loads `old`, then `new`, into one cache; returns the report on `new`.
async fn update(old: &Origin, new: &Origin) -> Report {
    let dir = tempfile::tempdir().unwrap();
    load(dir.path(), old.digest, vec![old.without(&[]).named("old")]).await.unwrap();
    update_in(dir.path(), new).await
}

async fn update_in(dir: &Path, new: &Origin) -> Report {
    let (model, report) = load(dir, new.digest, vec![new.without(&[]).named("new")]).await.unwrap();
    assert!(model.weights().unwrap().as_ref() == new.weights);
    report
}

/// Forty whole pieces in four rows, some of them changed.
fn versions(changed: &[usize], index: bool) -> (Origin, Origin) {
    let old = weights(40 * PIECE);
    let mut new = old.clone();
    for piece in changed {
        new[piece * PIECE + 77] ^= 1;
    }
    let of = |bytes| Origin::of(bytes, 4, 2, Codec::Rs, index);
    (of(old), of(new))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fine_tune_fetches_only_the_pieces_it_changed() {
    let (old, new) = versions(&[0, 13, 14, 39], true);
    let report = update(&old, &new).await;
    let piece = PIECE as u64;
    assert_eq!((report.fetched_bytes, report.reused_bytes), (4 * piece, 36 * piece));
    assert_eq!((report.rebuilt_bytes, report.wasted_bytes, report.resumed_bytes), (0, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_index_equal_shards_are_reused() {
    let (old, new) = versions(&[13], false);
    let report = update(&old, &new).await;
    let row = new.manifest.row_size_bytes();
    assert_eq!((report.fetched_bytes, report.reused_bytes), (row, 3 * row));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_insertion_shifts_everything_but_equal_shards() {
    let layers: Vec<Vec<u8>> =
        weights(12 * PIECE).chunks(3 * PIECE).map(|layer| [layer, b"odd"].concat()).collect();
    let of = |layers: &[Vec<u8>]| Origin::of_layers(layers, 3, 2, Codec::Rs, true);
    let mut longer = layers.clone();
    longer[0].insert(5, 9);
    let (old, new) = (of(&layers), of(&longer));
    let report = update(&old, &new).await;
    assert_eq!(report.fetched_bytes, longer[0].len() as u64);
    assert_eq!(report.reused_bytes, longer[1..].concat().len() as u64);
    // The same bytes in one file: nothing is where it was.
    let of = |layers: &[Vec<u8>]| Origin::of(layers.concat(), 3, 2, Codec::Rs, true);
    let report = update(&of(&layers), &of(&longer)).await;
    assert_eq!(report.reused_bytes, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_of_another_size_and_geometry_shares_what_is_at_the_same_offsets() {
    let bytes = weights(30 * PIECE + 100);
    let old = Origin::of(bytes[..20 * PIECE + 5].to_vec(), 5, 1, Codec::Rs, true);
    let new = Origin::of(bytes, 3, 1, Codec::Rs, true);
    let report = update(&old, &new).await;
    assert!(report.reused_bytes > 18 * PIECE as u64, "{report:?}");
    let report = update(&new, &old).await;
    assert_eq!(report.fetched_bytes, 0, "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_rotted_in_the_old_model_is_fetched() {
    // Without an index a row, ten pieces, is right or wrong as a whole.
    for (index, fetched_pieces) in [(true, 2), (false, 20)] {
        let (old, new) = versions(&[3], index);
        let dir = tempfile::tempdir().unwrap();
        let (model, _) = load(dir.path(), old.digest, vec![old.without(&[]).named("old")]).await.unwrap();
        let path = model.weights().unwrap().path().to_owned();
        drop(model);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[20 * PIECE] ^= 1;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        std::fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .and_then(|mut file| std::io::Write::write_all(&mut file, &bytes))
            .unwrap();
        let report = update_in(dir.path(), &new).await;
        let pieces = [report.fetched_bytes, report.reused_bytes].map(|bytes| bytes / PIECE as u64);
        assert_eq!(pieces, [fetched_pieces, 40 - fetched_pieces], "index: {index}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn models_with_nothing_in_common_cost_nothing_but_a_sample() {
    let (old, _) = versions(&[], true);
    let other: Vec<u8> = weights(40 * PIECE).into_iter().map(|byte| !byte).collect();
    let report = update(&old, &Origin::of(other, 4, 2, Codec::Rs, true)).await;
    assert_eq!(report.reused_bytes, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_overlap_that_a_publisher_is_told_is_what_a_node_then_reuses() {
    let (old, new) = versions(&[7, 8], true);
    let dir = tempfile::tempdir().unwrap();
    let load = async |origin: &Origin| {
        load(dir.path(), origin.digest, vec![origin.without(&[]).named("a")]).await.unwrap()
    };
    let (old_model, _) = load(&old).await;
    let (new_model, report) = load(&new).await;
    let overlap = loader::overlap(&new_model, &old_model, 2).unwrap();
    assert_eq!((overlap.reused_bytes, overlap.fetched_bytes), (report.reused_bytes, report.fetched_bytes));
    assert_eq!(overlap.index_bytes, new.manifest.index_size_bytes());
    let cache = Cache::open(dir.path()).unwrap();
    assert_eq!(cache.list().unwrap().len(), 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_changed_the_result_is_the_new_model(
        old_bytes in 1usize..12 * PIECE,
        new_bytes in 1usize..12 * PIECE,
        changes in proptest::collection::vec(0usize..12 * PIECE, 0..6),
        (old_rows, rows) in (1u32..5, 1u32..5),
        (index, replica) in (any::<bool>(), any::<bool>()),
    ) {
        let all = weights(12 * PIECE);
        let mut bytes = all[..new_bytes].to_vec();
        for at in changes.into_iter().filter(|at| *at < new_bytes) {
            bytes[at] ^= 0x80;
        }
        let codec = if replica { Codec::Replica } else { Codec::Rs };
        let old = Origin::of(all[..old_bytes].to_vec(), old_rows, 1, codec, index);
        let new = Origin::of(bytes, rows, 1, codec, index);
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let report = runtime.block_on(update(&old, &new));
        if old.digest != new.digest {
            let padded: u64 = new.manifest.row_size_bytes() * u64::from(rows);
            prop_assert!(report.fetched_bytes + report.reused_bytes <= padded);
            prop_assert!(report.fetched_bytes + report.reused_bytes >= new_bytes as u64 - report.rebuilt_bytes);
        }
    }
}
