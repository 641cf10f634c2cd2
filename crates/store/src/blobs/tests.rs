//! What is found of what is there.

use manifest::Codec;

use super::*;
use crate::tests::publish::{options, publish_bytes, sample};

fn cache() -> (tempfile::TempDir, Cache) {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path()).unwrap();
    (dir, cache)
}

/// Which shards are said to be here, each of them whole or not at all.
fn have(blobs: &Blobs, manifest: &Digest) -> Option<Vec<bool>> {
    let have = blobs.have(manifest, 0).unwrap()?;
    assert!(matches!(have.change, HaveChange::Holds(_)) && have.version > 0);
    let again = blobs.have(manifest, have.version).unwrap().unwrap().change;
    let is_nothing = again.shards().iter().all(PieceSet::is_empty);
    assert!(matches!(again, HaveChange::Gained(_)) && is_nothing, "nothing is new");
    assert!(have.change.shards().iter().all(|pieces| pieces.is_all() || pieces.is_empty()));
    Some(have.change.shards().iter().map(PieceSet::is_all).collect())
}

fn assert_served(blobs: &Blobs, digest: &Digest) {
    let held = blobs.lookup(digest).unwrap().unwrap();
    let mut bytes = vec![0; usize::try_from(held.size_bytes()).unwrap()];
    held.read_at(0, &mut bytes).unwrap();
    assert_eq!(Digest::of(&bytes), *digest);
    assert!(held.read_at(1, &mut bytes).is_err(), "it ends there");
    assert!(held.read_at(u64::MAX, &mut bytes).is_err());
    let middle = bytes.len() / 2;
    let mut rest = vec![0; bytes.len() - middle];
    held.read_at(middle as u64, &mut rest).unwrap();
    assert_eq!(rest, bytes[middle..]);
}

#[test]
fn every_blob_of_a_finished_model_is_served() {
    for codec in [Codec::Rs, Codec::Replica] {
        let (_dir, cache) = cache();
        let published = publish_bytes(&cache, &sample(100_001, 1), &options(4, 5, codec));
        let blobs = Blobs::open(cache, Vec::new()).unwrap();
        assert_served(&blobs, &published.digest);
        assert_served(&blobs, &published.manifest.pieces().unwrap().index);
        for shard in published.manifest.shards() {
            assert_served(&blobs, &shard.digest);
        }
        assert_eq!(have(&blobs, &published.digest), Some(vec![true; 9]));
        assert!(blobs.lookup(&Digest::of(b"unknown")).unwrap().is_none());
        assert!(have(&blobs, &Digest::of(b"unknown")).is_none());
        assert_eq!(blobs.models(), [published.digest]);
    }
}

#[test]
fn a_fetched_model_without_parity_has_its_data_shards() {
    let (_dir, cache) = cache();
    let published = publish_bytes(&cache, &sample(100_001, 1), &options(3, 2, Codec::Rs));
    let (digest, dir) = (published.digest, published.model.dir().to_owned());
    let parity = published.manifest.shards()[3].digest;
    drop(published);
    std::fs::remove_dir_all(dir.join("parity")).unwrap();
    let blobs = Blobs::open(cache, Vec::new()).unwrap();
    assert!(blobs.models().is_empty(), "it has to be hashed first");
    blobs.tend(&AtomicBool::new(false)).unwrap();
    assert_eq!(have(&blobs, &digest), Some(vec![true, true, true, false, false]));
    assert!(blobs.lookup(&parity).unwrap().is_none());
}

#[test]
fn models_that_are_finished_later_are_found_at_most_once_a_second_or_when_added() {
    let (_dir, cache) = cache();
    let blobs = Blobs::open(cache.clone(), Vec::new()).unwrap();
    let one = publish_bytes(&cache, &sample(1000, 1), &options(3, 2, Codec::Rs));
    *blobs.refreshed.lock().unwrap() = (Instant::now(), REFRESH);
    assert!(blobs.lookup(&one.digest).unwrap().is_none(), "it has just been looked for");
    blobs.add(&one.model);
    assert_served(&blobs, &one.digest);
    let two = publish_bytes(&cache, &sample(1000, 2), &options(3, 2, Codec::Rs));
    blobs.look_again();
    assert_served(&blobs, &two.digest);
    assert_eq!(blobs.models().len(), 2);
}

#[test]
fn a_served_model_cannot_be_removed_and_a_corrupt_one_is_left_out() {
    let (_dir, cache) = cache();
    let published = publish_bytes(&cache, &sample(1000, 1), &options(3, 2, Codec::Rs));
    let digest = published.digest;
    let path = published.model.weights().unwrap().path().to_owned();
    drop(published);
    let blobs = Blobs::open(cache.clone(), Vec::new()).unwrap();
    assert!(matches!(cache.remove(&digest), Err(CacheError::InUse { .. })));
    drop(blobs);
    std::fs::remove_file(&path).unwrap();
    super::super::atomic::write(&path, &sample(1000, 2), 0o444).unwrap();
    let blobs = Blobs::open(cache, Vec::new()).unwrap();
    assert!(blobs.models().is_empty());
}

#[test]
fn a_model_that_is_given_up_can_be_removed_and_what_others_share_stays() {
    let (_dir, cache) = cache();
    let (bytes, options) = (sample(1000, 1), options(3, 2, Codec::Rs));
    let one = publish_bytes(&cache, &bytes, &options);
    let other = publish_bytes(&cache, &[&bytes[..800], &sample(200, 9)].concat(), &options);
    let (digest, shared) = (one.digest, one.manifest.shards()[0].digest);
    assert_eq!(other.manifest.shards()[0].digest, shared);
    let blobs = Blobs::open(cache.clone(), Vec::new()).unwrap();
    drop(one);
    blobs.remove(&digest);
    cache.remove(&digest).unwrap();
    *blobs.refreshed.lock().unwrap() = (Instant::now(), REFRESH);
    assert!(blobs.lookup(&digest).unwrap().is_none());
    assert_served(&blobs, &shared);
    assert_eq!(blobs.models(), [other.digest]);
}

#[test]
fn folders_serve_whole_shards_and_manifests() {
    let ((_a, from), (_b, cache), dir) = (cache(), cache(), tempfile::tempdir().unwrap());
    let published = publish_bytes(&from, &sample(1001, 1), &options(3, 2, Codec::Rs));
    let put = |digest: &Digest, bytes: &[u8]| {
        super::super::atomic::write(&dir.path().join(digest.to_string()), bytes, 0o644).unwrap();
    };
    put(&published.digest, &published.manifest.to_json());
    for shard in [1, 4] {
        let held = published.model.shard(shard).unwrap().unwrap();
        let mut bytes = vec![0; usize::try_from(held.size_bytes()).unwrap()];
        held.read_at(0, &mut bytes).unwrap();
        put(&published.manifest.shards()[shard as usize].digest, &bytes);
    }
    let blobs = Blobs::open(cache, vec![BlobDir::open(dir.path()).unwrap()]).unwrap();
    assert_eq!(have(&blobs, &published.digest), Some(vec![false, true, false, false, true]));
    assert_served(&blobs, &published.digest);
    assert_served(&blobs, &published.manifest.shards()[4].digest);
    assert!(blobs.lookup(&published.manifest.shards()[0].digest).unwrap().is_none());
    // Also what only looks like a manifest: a file is told apart once.
    put(&Digest::of(b"{}"), b"{}");
    for _ in 0..2 {
        assert_eq!(blobs.names().unwrap(), [published.digest].into());
    }
}
