use std::fs::{self, File};

use manifest::Codec;
use tempfile::TempDir;

use super::*;
use crate::tests::publish::{Published, options, publish_bytes, sample};
use crate::{Blobs, Partial};

const SIZE: usize = 1 << 20;
/// What one model takes, in a rough way: its weights, two of five shards of parity, and small files.
const MODEL_BYTES: u64 = 2 << 20;
const MIB: u64 = 1 << 20;

fn cache() -> (TempDir, Cache) {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path()).unwrap();
    (dir, cache)
}

/// Models that were used one after the other, long ago.
fn models(cache: &Cache, count: u64) -> Vec<Digest> {
    (0..count).map(|seed| used_at(cache, &published(cache, seed).digest, 1000 + seed)).collect()
}

fn published(cache: &Cache, seed: u64) -> Published {
    publish_bytes(cache, &sample(SIZE, seed), &options(3, 2, Codec::Rs))
}

fn used_at(cache: &Cache, digest: &Digest, second: u64) -> Digest {
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
    cache.note_used(digest);
    File::open(cache.layout().used(digest)).unwrap().set_modified(at).unwrap();
    File::open(cache.layout().model(digest)).unwrap().set_modified(at).unwrap();
    *digest
}

fn to(max_bytes: u64) -> Limit {
    Limit { max_bytes: Some(max_bytes), older_than: None }
}

fn removed(evicted: &Evicted) -> Vec<Digest> {
    evicted.removed.iter().map(|(digest, _)| *digest).collect()
}

/// Begins to fill `cache` with a model of another one.
fn begin(cache: &Cache, from: &Published) -> Result<Partial, CacheError> {
    let (digest, manifest) = cache.store_manifest(&from.manifest.to_json()).unwrap();
    cache.partial(cache.lock_fill(&digest).unwrap(), manifest::Geometry::new(manifest), true)
}

#[test]
fn what_was_used_longest_ago_goes_first_and_a_trial_removes_nothing() {
    let (_dir, cache) = cache();
    let digests = models(&cache, 4);
    used_at(&cache, &digests[0], 2000);
    let all = disk_bytes(cache.dir()).unwrap();
    for is_trial in [true, false] {
        let evicted = cache.evict(to(all - MIB), is_trial).unwrap();
        assert_eq!(removed(&evicted), [digests[1]]);
        assert!(evicted.kept.is_empty() && evicted.left_bytes <= all - MIB);
        assert_eq!(cache.finished().unwrap().len(), if is_trial { 4 } else { 3 });
    }
    assert!(disk_bytes(cache.dir()).unwrap() <= all - MIB);
    assert!(cache.evict(to(all), false).unwrap().removed.is_empty(), "there is room");
}

#[test]
fn what_is_old_goes_however_much_room_there_is() {
    let (_dir, cache) = cache();
    let digests = models(&cache, 3);
    cache.note_used(&digests[1]);
    let old = Limit { max_bytes: None, older_than: Some(Duration::from_secs(3600)) };
    assert_eq!(removed(&cache.evict(old, false).unwrap()), [digests[0], digests[2]]);
}

#[test]
fn what_somebody_needs_stays_with_the_reason() {
    let (dir, cache) = cache();
    let digests = models(&cache, 6);
    let [pinned, linked, before, newest, live, mapped] = digests[..] else { unreachable!() };
    cache.pin(&pinned).unwrap();
    let link = dir.path().join("current");
    for digest in [before, linked] {
        cache.link(&link, &cache.model(&digest).unwrap().unwrap()).unwrap();
    }
    cache.set_live("one", &live).unwrap();
    cache.keep_last("one", &newest, 1, &|_| ()).unwrap();
    let model = cache.model(&mapped).unwrap().unwrap();
    for is_trial in [true, false] {
        let evicted = cache.evict(to(0), is_trial).unwrap();
        assert!(evicted.removed.is_empty());
        let kept: HashMap<Digest, Keep> =
            evicted.kept.into_iter().map(|(digest, _, keep)| (digest, keep)).collect();
        assert_eq!(kept[&pinned], Keep::Pinned);
        assert!(matches!(&kept[&linked], Keep::Linked(_)) && matches!(&kept[&before], Keep::Linked(_)));
        let followed = Keep::Followed("one".to_owned());
        assert_eq!((&kept[&newest], &kept[&live], &kept[&mapped]), (&followed, &followed, &Keep::InUse));
    }
    drop(model);
    assert_eq!(removed(&cache.evict(to(0), false).unwrap()), [mapped]);
    assert!(matches!(cache.remove(&pinned), Err(CacheError::Pinned { .. })));
    cache.unpin(&pinned).unwrap();
    assert_eq!(removed(&cache.evict(to(0), false).unwrap()), [pinned]);
}

#[test]
fn what_this_process_only_serves_goes_and_is_served_no_more() {
    let (_dir, cache) = cache();
    let digests = models(&cache, 2);
    let blobs = Blobs::open(cache.clone(), Vec::new()).unwrap();
    assert_eq!(blobs.models().len(), 2);
    assert_eq!(removed(&cache.evict(to(0), true).unwrap()), digests);
    assert_eq!(removed(&cache.evict(to(0), false).unwrap()), digests);
    assert!(blobs.models().is_empty());
}

#[test]
fn a_model_is_begun_only_when_there_is_room_for_it() {
    let ((_a, from), (_b, cache)) = (self::cache(), self::cache());
    let new = published(&from, 9);
    let digests = models(&cache, 3);
    cache.limit(disk_bytes(cache.dir()).unwrap() + MIB / 4);
    let partial = begin(&cache, &new).unwrap();
    assert!(cache.finished().unwrap().len() < 3 && !cache.finished().unwrap().contains(&digests[0]));
    partial.close();
    // Going on with it takes nothing more.
    let left = cache.finished().unwrap().len();
    begin(&cache, &new).unwrap().close();
    assert_eq!(cache.finished().unwrap().len(), left);

    cache.limit(MODEL_BYTES);
    cache.pin(&digests[2]).unwrap();
    let other = published(&from, 10);
    let error = begin(&cache, &other).unwrap_err();
    assert!(error.is_disk_full() && error.to_string().contains("pinned"), "{error}");
    assert_eq!(cache.finished().unwrap(), [digests[2]], "what it would not have helped to remove is there");
}

#[test]
fn what_another_process_has_made_room_for_is_counted() {
    let ((_a, from), (_b, cache)) = (self::cache(), self::cache());
    let (one, two) = (published(&from, 1), published(&from, 2));
    let other = Cache::open(cache.dir()).unwrap();
    for cache in [&cache, &other] {
        cache.limit(3 * MIB);
    }
    let partial = begin(&cache, &one).unwrap();
    let error = begin(&other, &two).unwrap_err();
    assert!(error.to_string().contains("in use"), "{error}");
    // Once it was given up it is like any other that is left.
    partial.close();
    begin(&other, &two).unwrap().close();
    assert_eq!(cache.begun().unwrap(), [two.digest]);
}

#[test]
fn a_model_that_is_finished_while_all_are_counted_is_not_missed() {
    let (_dir, cache) = cache();
    let digest = published(&cache, 1).digest;
    let _filling = cache.lock_fill(&digest).unwrap();
    cache.promise(&digest, 0).unwrap();
    let other = Cache::open(cache.dir()).unwrap();
    let [model, partial] = [cache.layout().model(&digest), cache.layout().partial(&digest)];
    fs::create_dir_all(partial.parent().unwrap()).unwrap();
    for round in 0..1000 {
        fs::rename(&model, &partial).unwrap();
        let left_bytes = std::thread::scope(|scope| {
            scope.spawn(|| fs::rename(&partial, &model).unwrap());
            // The thread may need longer to begin.
            (0..10).map(|_| other.evict(to(u64::MAX), true).unwrap().left_bytes).min().unwrap()
        });
        assert!(left_bytes >= cache.promised(&digest), "round {round}: {left_bytes}");
    }
}

#[test]
fn parity_goes_alone_and_the_model_is_trusted_as_before() {
    let (_dir, cache) = cache();
    let digest = published(&cache, 1).digest;
    assert_eq!(cache.model(&digest).unwrap().unwrap().parity_kept().len(), 2);
    assert!(cache.drop_parity(&digest).unwrap() >= MIB / 2);
    assert_eq!(cache.drop_parity(&digest).unwrap(), 0);
    let again = Cache::open(cache.dir()).unwrap();
    let model = again.model(&digest).unwrap().unwrap();
    assert!(model.parity_kept().is_empty() && again.is_trusted(&model));
    assert!(matches!(again.drop_parity(&Digest::of(b"other")), Err(CacheError::NotCached { .. })));
}
