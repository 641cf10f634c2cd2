//! Loading from sources in memory: every layout and codec, and every way a source can be bad.
#![expect(clippy::unwrap_used, reason = "test code")]

use crate::support::{Memory, Origin, load, load_after_lies, load_rescued, options};
use loader::{Event, LoadError, SourceReport};
use manifest::{Codec, Digest};
use store::Cache;

const KIB: usize = 1 << 10;

/// Loads from `sources` and compares.
async fn loads(origin: &Origin, sources: Vec<Memory>) -> loader::Report {
    let dir = tempfile::tempdir().unwrap();
    let (model, report) = load(dir.path(), origin.digest, sources).await.unwrap();
    assert!(model.weights().unwrap().as_ref() == origin.weights);
    // Again: from the cache, with nobody to ask.
    let (_, again) = load(dir.path(), origin.digest, Vec::new()).await.unwrap();
    assert!(again.from_cache);
    report
}

fn named<'a>(sources: &'a [SourceReport], name: &str) -> &'a SourceReport {
    sources.iter().find(|source| source.source.as_str() == name).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_codecs_and_layouts() {
    for index in [true, false] {
        for codec in [Codec::Rs, Codec::Replica] {
            for total_bytes in [1, 9, 10, 11, 160 * KIB, 333_333] {
                let origin = Origin::uniform(total_bytes, 10, 4, codec, index);
                let report = loads(&origin, vec![origin.without(&[]).named("a")]).await;
                let fetched_bytes = report.fetched_bytes + report.rebuilt_bytes;
                assert!(fetched_bytes >= total_bytes as u64, "{total_bytes} {codec} {index}: {report:?}");
            }
            let origin = Origin::layers(&[70_000, 1, 100_000, 33_333, 5], 4, 2, codec, index);
            loads(&origin, vec![origin.without(&[]).named("a")]).await;
        }
        let origin = Origin::uniform(100_000, 10, 0, Codec::Rs, index);
        loads(&origin, vec![origin.without(&[]).named("a")]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_shards_are_rebuilt() {
    for index in [true, false] {
        let origin = Origin::uniform(900_001, 10, 4, Codec::Rs, index);
        let lost = [0, 3, 8, 9];
        let report = loads(&origin, vec![origin.without(&lost).named("a")]).await;
        assert_eq!(report.wasted_bytes, 0);
        assert_eq!(report.rebuilt_bytes, 4 * origin.manifest.row_size_bytes());
        assert_eq!(report.fetched_bytes, 10 * origin.manifest.row_size_bytes());
        // A layer of two rows at most, across three rows.
        let origin = Origin::layers(&[70_000, 90_000, 100_000, 40_000], 5, 2, Codec::Rs, index);
        let report = loads(&origin, vec![origin.without(&[1]).named("a")]).await;
        assert_eq!(report.rebuilt_bytes, 90_000);
        // A copy of each row is kept, but a layer is none.
        let origin = Origin::layers(&[70_000, 90_000, 100_000, 40_000], 4, 4, Codec::Replica, index);
        loads(&origin, vec![origin.without(&[2]).named("a")]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parity_that_does_not_fit_into_the_memory_is_used_from_the_disk() {
    let origin = Origin::uniform(900_001, 10, 4, Codec::Rs, true);
    let dir = tempfile::tempdir().unwrap();
    // Room for one of the four parity pieces that a column needs.
    let memory_bytes = 4 * u64::from(origin.manifest.piece_size_bytes());
    let options = crate::support::options().with_memory_bytes(memory_bytes);
    let sources = vec![origin.without(&[0, 3, 8, 9]).named("a")];
    let (model, report) =
        crate::support::load_with(dir.path(), origin.digest, sources, &options).await.unwrap();
    assert!(model.weights().unwrap().as_ref() == origin.weights);
    assert_eq!(report.rebuilt_bytes, 4 * origin.manifest.row_size_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn too_little_is_named() {
    let origin = Origin::uniform(900_001, 10, 4, Codec::Rs, true);
    let dir = tempfile::tempdir().unwrap();
    let lost = [1, 2, 3, 4, 12];
    let error = load(dir.path(), origin.digest, vec![origin.without(&lost).named("a")]).await.unwrap_err();
    let LoadError::Unavailable { missing, asked, .. } = &error else { panic!("{error}") };
    assert_eq!(missing.iter().map(|state| state.shard).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert_eq!(asked[0].source.as_str(), "a");
    // What is here stays: another source with the rest ends it, and the first is not needed.
    let rest = [0, 5, 6, 7, 8, 9, 10, 11, 12, 13];
    let (_, report) = load(dir.path(), origin.digest, vec![origin.without(&rest).named("b")]).await.unwrap();
    assert!(report.resumed_bytes >= 6 * origin.manifest.row_size_bytes());
    assert!(report.fetched_bytes <= 4 * origin.manifest.row_size_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn that_nobody_has_the_rest_is_told_so_that_others_are_looked_for() {
    let origin = Origin::uniform(900_001, 10, 4, Codec::Rs, true);
    let dir = tempfile::tempdir().unwrap();
    let (some, all) = (origin.without(&[1, 2, 3, 4, 12]).named("a"), origin.without(&[]).named("b"));
    let is_starved = |event: &Event<'_>| matches!(event, Event::Starved { is_starved: true });
    let report = load_rescued(dir.path(), origin.digest, options(), &some, &all, is_starved).await;
    assert!(named(&report.sources, "a").good_bytes > 0 && named(&report.sources, "b").good_bytes > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_liar_is_named_and_wastes_little() {
    for index in [true, false] {
        for whole in [true, false] {
            let origin = Origin::uniform(900_001, 10, 4, Codec::Rs, index);
            let mut liar = origin.lying().named("liar");
            liar.whole = whole;
            let report = loads(&origin, vec![liar, origin.without(&[]).named("honest")]).await;
            assert!(!named(&report.sources, "honest").banned, "{report:?}");
            // One piece at a time from a source that is not proven, of each shard at most.
            let bound_bytes = 14 * u64::from(origin.manifest.piece_size_bytes());
            let bad_bytes = named(&report.sources, "liar").bad_bytes;
            assert!(!index || whole || bad_bytes <= bound_bytes, "{report:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_liar_is_not_asked_in_the_next_runs() {
    let dir = tempfile::tempdir().unwrap();
    let origin = Origin::uniform(900_001, 10, 4, Codec::Rs, true);
    let (liar, honest) = (origin.lying().named("liar"), origin.without(&[]).named("honest"));
    let report = load_after_lies(dir.path(), origin.digest, options(), &liar, &honest).await;
    assert!(named(&report.sources, "liar").banned && !named(&report.sources, "honest").banned, "{report:?}");
    assert!(named(&report.sources, "liar").bad_bytes > 0, "{report:?}");
    Cache::open(dir.path()).unwrap().remove(&origin.digest).unwrap();
    let (_, report) = load(dir.path(), origin.digest, vec![liar, honest]).await.unwrap();
    let liar = named(&report.sources, "liar");
    assert!(liar.banned && liar.bad_bytes == 0 && !named(&report.sources, "honest").banned, "{report:?}");
    assert_eq!(liar.last_error.as_deref(), Some("sent wrong bytes in an earlier run"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_source_does_not_hold_the_rest() {
    let origin = Origin::uniform(900_001, 10, 4, Codec::Rs, true);
    let mut stalled = origin.without(&[]).named("stalled");
    stalled.stalls = origin.manifest.shards().iter().map(|shard| shard.digest).collect();
    loads(&origin, vec![stalled.clone(), origin.without(&[]).named("honest")]).await;
    // Four shards only at the one that stalls: they are rebuilt.
    let report = loads(&origin, vec![stalled, origin.without(&[0, 1, 2, 3]).named("honest")]).await;
    assert!(report.rebuilt_bytes > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn whole_blobs_only() {
    for index in [true, false] {
        let origin = Origin::uniform(900_001, 10, 4, Codec::Rs, index);
        let mut old = origin.without(&[2, 5]).named("old");
        old.whole = true;
        loads(&origin, vec![old.clone()]).await;
        loads(&origin, vec![old, origin.without(&[7]).named("new")]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_manifest_leaves_nothing() {
    let bytes = b"{\"version\": 1}".to_vec();
    let digest = Digest::of(&bytes);
    let source = Memory { blobs: [(digest, bytes)].into(), ..Memory::default() };
    let dir = tempfile::tempdir().unwrap();
    let error = load(dir.path(), digest, vec![source.named("a")]).await.unwrap_err();
    assert!(matches!(error, LoadError::NotAManifest { .. }) && error.is_integrity(), "{error}");
    assert_eq!(std::fs::read_dir(dir.path().join("manifests")).map_or(0, Iterator::count), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_manifest_is_refused() {
    let origin = Origin::uniform(1_000, 2, 1, Codec::Rs, true);
    let mut liar = origin.without(&[]).named("liar");
    liar.lies = [origin.digest].into();
    let dir = tempfile::tempdir().unwrap();
    let error = load(dir.path(), origin.digest, vec![liar.clone()]).await.unwrap_err();
    assert!(matches!(error, LoadError::ManifestUnavailable { .. }), "{error}");
    assert!(error.to_string().contains("liar"), "{error}");
    loads(&origin, vec![liar, origin.without(&[]).named("honest")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_does_not_fit_leaves_nothing() {
    let mut origin = Origin::uniform(100_000, 2, 1, Codec::Rs, true);
    let bad = b"RPBX and no more".to_vec();
    let index = origin.manifest.pieces().unwrap();
    let text = String::from_utf8(origin.manifest.to_json()).unwrap();
    let json = text.replace(&index.index.to_string(), &Digest::of(&bad).to_string()).into_bytes();
    origin.digest = Digest::of(&json);
    origin.blobs.extend([(origin.digest, json), (Digest::of(&bad), bad)]);
    let dir = tempfile::tempdir().unwrap();
    let error = load(dir.path(), origin.digest, vec![origin.without(&[]).named("a")]).await.unwrap_err();
    assert!(error.is_integrity(), "{error}");
    for place in ["manifests", "models", "partial"] {
        assert_eq!(std::fs::read_dir(dir.path().join(place)).map_or(0, Iterator::count), 0, "{place}");
    }
}
