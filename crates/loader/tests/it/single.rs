//! Digests of weights themselves, without a manifest.

use std::time::Duration;

use crate::support::{Memory, Origin, load_after_lies, load_with, options, weights};
use loader::{FetchOptions, LoadError};
use manifest::{Codec, Digest, Manifest, Shard};
use store::Cache;

/// More than a manifest may have.
const LARGE: usize = (16 << 20) + 12_345;
const MAX_BYTES: u64 = 64 << 20;

fn allowing(max_bytes: u64) -> FetchOptions {
    options().with_single_blob_max_bytes(max_bytes)
}

/// A source that has these bytes under this digest.
fn source(name: &str, blob: Digest, bytes: &[u8]) -> Memory {
    Memory { blobs: [(blob, bytes.to_vec())].into(), ..Memory::default() }.named(name)
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_of_any_size_are_loaded_and_found_again() {
    for length in [1, 70_000, LARGE] {
        let bytes = weights(length);
        let blob = Digest::of(&bytes);
        for whole in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let sources = vec![Memory { whole, ..source("a", blob, &bytes) }];
            let (model, _) = load_with(dir.path(), blob, sources, &allowing(MAX_BYTES)).await.unwrap();
            assert!(model.weights().unwrap().as_ref() == bytes);
            assert_eq!(model.manifest().shards()[0].digest, blob);
            let (again, report) =
                load_with(dir.path(), blob, Vec::new(), &allowing(MAX_BYTES)).await.unwrap();
            assert!(report.from_cache && again.digest() == model.digest());
            // Its manifest is one like any other.
            let digest = *model.digest();
            assert!(load_with(dir.path(), digest, Vec::new(), &options()).await.unwrap().1.from_cache);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_is_still_one() {
    let origin = Origin::uniform(900_001, 10, 4, Codec::Rs, true);
    let dir = tempfile::tempdir().unwrap();
    let sources = vec![origin.without(&[3]).named("a")];
    let (model, report) = load_with(dir.path(), origin.digest, sources, &allowing(MAX_BYTES)).await.unwrap();
    assert!(model.weights().unwrap().as_ref() == origin.weights && report.rebuilt_bytes > 0);
    assert_eq!(*model.digest(), origin.digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_lies_about_the_size_costs_time_only() {
    for length in [50_000, LARGE] {
        let bytes = weights(length);
        let blob = Digest::of(&bytes);
        for lie in [weights(length + 1), weights(length - 1), weights(LARGE + 1), vec![7]] {
            // More lie than do not.
            let sources = vec![
                source("liar", blob, &lie),
                source("another", blob, &lie),
                source("honest", blob, &bytes),
            ];
            let dir = tempfile::tempdir().unwrap();
            // Nobody is waited for.
            let options = allowing(MAX_BYTES).with_wait(Duration::from_secs(3600));
            let (model, _) = load_with(dir.path(), blob, sources, &options).await.unwrap();
            assert!(model.weights().unwrap().as_ref() == bytes, "{length}, and {} are claimed", lie.len());
            let entries = store::Cache::open(dir.path()).unwrap().list().unwrap();
            assert_eq!(entries.len(), 1, "nothing is left of what it is not");
        }
    }
}

/// Nothing of a blob is verified before all of it is: nobody could go on with a part.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_a_size_that_nothing_proves() {
    let bytes = weights(LARGE);
    let blob = Digest::of(&bytes);
    let liar = source("liar", blob, &weights(LARGE + 1));
    let stalled = Memory { stalls: [blob].into(), ..source("stalled", blob, &bytes) };
    for source in [liar, stalled] {
        let dir = tempfile::tempdir().unwrap();
        let error = load_with(dir.path(), blob, vec![source], &allowing(MAX_BYTES)).await.unwrap_err();
        assert!(matches!(error, LoadError::Unavailable { .. }), "{error}");
        assert_eq!(Cache::open(dir.path()).unwrap().list().unwrap(), [], "{error}");
        assert_eq!(std::fs::read_dir(dir.path().join("manifests")).unwrap().count(), 0, "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_killed_runs_have_left_of_other_sizes_goes_and_the_rest_stays() {
    let bytes = weights(LARGE);
    let blob = Digest::of(&bytes);
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path()).unwrap();
    let leave = |blob: Digest, size_bytes: u64| {
        let shard = Shard { digest: blob, size_bytes, is_parity: false };
        let kind = "single-blob".to_owned();
        let manifest = Manifest::new(kind, size_bytes, vec![shard], 1, 0, Codec::Rs, None).unwrap();
        let (digest, manifest) = cache.store_manifest(&manifest.to_json()).unwrap();
        drop(
            cache
                .partial(cache.lock_fill(&digest).unwrap(), manifest::Geometry::new(manifest), true)
                .unwrap(),
        );
        digest
    };
    leave(blob, LARGE as u64 - 1);
    leave(blob, 7);
    let other = leave(Digest::of(b"another blob"), 7);
    let sources = vec![source("honest", blob, &bytes)];
    let (model, _) = load_with(dir.path(), blob, sources, &allowing(MAX_BYTES)).await.unwrap();
    let mut expected = [other, *model.digest()];
    expected.sort();
    let left: Vec<_> = cache.list().unwrap().into_iter().map(|entry| entry.digest).collect();
    assert_eq!(left, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_not_ready_is_asked_again_and_not_for_ever() {
    let bytes = weights(LARGE);
    let blob = Digest::of(&bytes);
    // The liar's size is tried before the other one is ready.
    for (losses, loaded) in [(3, true), (1000, false)] {
        let slow = source("slow", blob, &bytes);
        slow.losses.store(losses, std::sync::atomic::Ordering::Relaxed);
        let sources = vec![source("liar", blob, &weights(LARGE - 1)), slow];
        let dir = tempfile::tempdir().unwrap();
        let result = load_with(dir.path(), blob, sources, &allowing(MAX_BYTES)).await;
        assert_eq!(result.is_ok(), loaded);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_better_source_of_the_same_size_is_waited_for() {
    let bytes = weights(LARGE);
    let (blob, mut wrong) = (Digest::of(&bytes), bytes.clone());
    wrong[LARGE / 2] ^= 1;
    let (liar, honest) = (source("liar", blob, &wrong), source("honest", blob, &bytes));
    let dir = tempfile::tempdir().unwrap();
    let report = load_after_lies(dir.path(), blob, allowing(MAX_BYTES), &liar, &honest).await;
    assert!(report.wasted_bytes > 0, "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_than_is_allowed_is_fetched() {
    let bytes = weights(70_000);
    let blob = Digest::of(&bytes);
    let dir = tempfile::tempdir().unwrap();
    for allowed in [69_999, 0] {
        let sources = vec![source("a", blob, &bytes)];
        let error = load_with(dir.path(), blob, sources, &allowing(allowed)).await.unwrap_err();
        assert!(matches!(error, LoadError::BlobTooLarge { claimed_bytes: 70_000, .. }), "{error}");
    }
    let error = load_with(dir.path(), blob, Vec::new(), &allowing(MAX_BYTES)).await.unwrap_err();
    assert!(matches!(error, LoadError::ManifestUnavailable { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_are_told_from_manifests_when_they_are_not_allowed() {
    let dir = tempfile::tempdir().unwrap();
    for length in [70_000, LARGE] {
        let bytes = weights(length);
        let blob = Digest::of(&bytes);
        let error =
            load_with(dir.path(), blob, vec![source("a", blob, &bytes)], &options()).await.unwrap_err();
        assert!(error.may_be_single_blob(), "{error}");
        let is_large = matches!(error, LoadError::ManifestTooLarge { claimed_bytes, .. } if claimed_bytes == length as u64);
        assert_eq!(is_large, length == LARGE, "{error}");
    }
}
