//! Room for models, and models that move or go where it is short.

use std::io;
use std::os::unix::fs::symlink;

use manifest::Shard;

use super::layout::{JOURNAL, STAMP};
use super::*;

const TIB: u64 = 1 << 40;

/// Of a model that fits on no disk of this test: its size is proven, or only claimed.
fn huge(model_kind: &str) -> Arc<Manifest> {
    let shard = Shard { digest: Digest::of(b"huge"), size_bytes: 14 * TIB, is_parity: false };
    Arc::new(Manifest::new(model_kind.to_owned(), 14 * TIB, vec![shard], 1, 0, Codec::Rs, None).unwrap())
}

fn names(dir: &Path) -> Vec<String> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn there_is_nothing_of_a_model_that_does_not_fit() {
    for model_kind in ["llm-backbone", "single-blob"] {
        let (_dir, cache) = cache();
        let (digest, manifest) = cache.store_manifest(&huge(model_kind).to_json()).unwrap();
        let error =
            cache.partial(cache.lock_fill(&digest).unwrap(), Geometry::new(manifest), true).unwrap_err();
        assert!(
            matches!(error, CacheError::NoRoom { needed_bytes, .. } if needed_bytes > 14 * TIB),
            "{error}"
        );
        assert_eq!(names(&cache.layout().partials()), [""; 0]);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn space_is_reserved_for_sizes_that_are_proven_and_given_back_when_the_rest_does_not_fit() {
    const BYTES: usize = 4 << 20;
    let ((_a, from), (_b, cache)) = (cache(), cache());
    let published = publish_bytes(&from, &sample(BYTES, 1), &options(3, 2, Codec::Rs));
    let partial = begin(&cache, &published);
    let held = || space::held_bytes(&cache.layout().partial(&published.digest).join(WEIGHTS));
    assert!(held() >= BYTES as u64);
    copy(&partial, &published.model, &[at(0, 0), at(3, 0)]);
    let full = CacheError::io("write", Path::new("parity"), io::Error::from(io::ErrorKind::StorageFull));
    assert!(partial.give_back(full).is_disk_full());
    assert!(held() < BYTES as u64 / 4, "{} are still taken", held());
    drop(partial);
    let partial = begin(&cache, &published);
    assert!(held() >= BYTES as u64, "what was given back is reserved again");
    assert_eq!(partial.claims(), [at(0, 0), at(3, 0)]);
    partial.confirm(&[at(0, 0), at(3, 0)]);
    copy(&partial, &published.model, &all_pieces(&published.manifest, 0..3));
    assert_eq!(partial.finish(false).unwrap().weights().unwrap().as_ref(), sample(BYTES, 1));

    let blob = Shard { digest: Digest::of(b"blob"), size_bytes: BYTES as u64, is_parity: false };
    let claimed = Manifest::new("single-blob".to_owned(), BYTES as u64, vec![blob], 1, 0, Codec::Rs, None);
    let (digest, manifest) = cache.store_manifest(&claimed.unwrap().to_json()).unwrap();
    let _partial = cache.partial(cache.lock_fill(&digest).unwrap(), Geometry::new(manifest), true).unwrap();
    let weights = cache.layout().partial(&digest).join(WEIGHTS);
    assert_eq!(fs::metadata(&weights).unwrap().len(), BYTES as u64);
    assert!(space::held_bytes(&weights) < BYTES as u64 / 4);
}

/// Has the cache's `models` on another disk than the rest of it: nothing can be renamed to there.
#[cfg(target_os = "linux")]
fn split_cache() -> (TempDir, TempDir, Cache) {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir_in("/dev/shm").unwrap());
    symlink(other.path(), dir.path().join("models")).unwrap();
    let cache = Cache::open(dir.path()).unwrap();
    (dir, other, cache)
}

#[cfg(target_os = "linux")]
#[test]
fn a_cache_on_two_disks_works_like_any_other() {
    let ((_a, from), (_b, other, cache)) = (cache(), split_cache());
    let published = publish(&from);
    // Published there as well: by moving a whole model, and files that it lacks.
    let kept = publish_bytes(&cache, &sample(SIZE, 2), &options(3, 0, Codec::Rs)).digest;
    let partial = begin(&cache, &published);
    copy(&partial, &published.model, &all_pieces(&published.manifest, 0..3));
    drop(partial.finish(false).unwrap());
    let completed = publish(&cache);
    assert_eq!(
        (completed.model.weights().unwrap().as_ref(), completed.model.parity_kept()),
        (&*sample(SIZE, 1), &[3, 4][..])
    );
    drop(completed);

    // A bad one goes back, and gives way.
    let path = cache.layout().model(&published.digest);
    damage(path.join(WEIGHTS), 150_000, true);
    let lock = cache.lock_fill(&published.digest).unwrap();
    cache.heal(&lock, &manifest::Geometry::new(Arc::clone(&published.manifest))).unwrap();
    assert!(!path.exists());
    let partial = cache.partial(lock, Geometry::new(Arc::clone(&published.manifest)), true).unwrap();
    let claims = partial.claims();
    assert_eq!(claims, all_pieces(&published.manifest, all_shards(&published.manifest)));
    partial.confirm(&claims);
    copy(&partial, &published.model, &claims);
    let model = partial.finish(true).unwrap();
    assert_eq!(model.weights().unwrap().as_ref(), sample(SIZE, 1));
    drop(model);
    damage(path.join(WEIGHTS), 150_000, true);
    drop(publish(&cache));
    assert_eq!(cache.model(&published.digest).unwrap().unwrap().weights().unwrap().as_ref(), sample(SIZE, 1));

    cache.remove(&published.digest).unwrap();
    assert_eq!(names(other.path()), [kept.to_string()], "nothing but the other model is there");
    assert_eq!(names(&cache.layout().partials()), [""; 0]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_move_that_fails_half_way_loses_nothing() {
    let ((_a, from), (_b, other, cache)) = (cache(), split_cache());
    let published = publish(&from);
    let partial = begin(&cache, &published);
    copy(&partial, &published.model, &all_pieces(&published.manifest, 0..3));
    // A file where the model is to come: a directory cannot take its place.
    File::create(other.path().join(published.digest.to_string())).unwrap();
    assert!(partial.finish(false).is_err());
    fs::remove_file(other.path().join(published.digest.to_string())).unwrap();
    let partial = begin(&cache, &published);
    let claims = partial.claims();
    assert_eq!(claims, all_pieces(&published.manifest, 0..3));
    partial.confirm(&claims);
    assert_eq!(partial.finish(false).unwrap().weights().unwrap().as_ref(), sample(SIZE, 1));
}

#[test]
fn what_cannot_be_renamed_is_removed_where_it_is() {
    let (_dir, cache) = cache();
    let digest = publish(&cache).digest;
    let path = cache.layout().model(&digest);
    // As a directory of a lower layer, or as on a disk that is full: the other name is not to be had.
    let (doomed, lock) = cache.doomed(&path).unwrap();
    drop(lock);
    fs::create_dir_all(doomed.join("in the way")).unwrap();
    assert!(cache.remove(&digest).unwrap().freed_bytes >= SIZE as u64);
    assert!(!path.exists() && doomed.exists());
    drop(reopened(&cache));
    assert!(!doomed.exists(), "it is swept");
}

#[test]
fn a_model_that_is_half_removed_is_believed_by_nobody() {
    let (_dir, cache) = cache();
    let published = publish(&cache);
    let (digest, path) = (published.digest, published.model.dir().to_owned());
    drop(published);
    for vouching in [STAMP, JOURNAL, WEIGHTS] {
        atomic::remove_file(&path.join(vouching)).unwrap();
        let model = cache.model(&digest).unwrap();
        assert!(model.is_none_or(|model| model.weights().unwrap().as_ref() == sample(SIZE, 1)), "{vouching}");
        // Hashing has stamped it again.
        atomic::remove_file(&path.join(STAMP)).unwrap();
    }
    assert!(cache.remove(&digest).is_ok());
}
