//! The cache as a whole.

mod filling;
mod healing;
mod left;
mod offering;
pub(crate) mod publish;
mod room;
mod trust;

use std::collections::HashMap;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::SystemTime;

use manifest::{Blame, ByteRange, Codec, Digest, Geometry, Manifest, PieceId};
use tempfile::TempDir;

use super::layout::{PIECES, WEIGHTS};
use super::*;
use crate::recheck::recheck;
use crate::tests::publish::{Published, options, publish_bytes, sample};

const SIZE: usize = 300_001;

fn cache() -> (TempDir, Cache) {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path()).unwrap();
    (dir, cache)
}

fn publish(cache: &Cache) -> Published {
    publish_bytes(cache, &sample(SIZE, 1), &options(3, 2, Codec::Rs))
}

fn at(shard: u32, piece: u32) -> PieceId {
    PieceId { shard, piece }
}

fn all_pieces(manifest: &Manifest, shards: impl IntoIterator<Item = u32>) -> Vec<PieceId> {
    let pieces = |shard| (0..manifest.piece_count(shard)).map(move |piece| at(shard, piece));
    shards.into_iter().flat_map(pieces).collect()
}

fn all_shards(manifest: &Manifest) -> std::ops::Range<u32> {
    0..manifest.shard_count()
}

fn bytes_of(model: &Model, shard: u32, range: ByteRange) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(range.len()).unwrap()];
    model.shard(shard).unwrap().unwrap().read_at(range.start, &mut bytes).unwrap();
    bytes
}

/// Begins to fill `cache` with the model of another one.
fn begin(cache: &Cache, from: &Published) -> Partial {
    begin_with(cache, from, true)
}

fn begin_with(cache: &Cache, from: &Published, durable: bool) -> Partial {
    let (digest, manifest) = cache.store_manifest(&from.manifest.to_json()).unwrap();
    cache.partial(cache.lock_fill(&digest).unwrap(), Geometry::new(manifest), durable).unwrap()
}

fn copy(partial: &Partial, from: &Model, pieces: &[PieceId]) {
    let index = from.index().unwrap().unwrap();
    for piece in pieces {
        let bytes = bytes_of(from, piece.shard, from.manifest().piece_range(piece.shard, piece.piece));
        let verified = index.verify(&[(*piece, &bytes)])[0].unwrap();
        partial.write_verified(&[verified]).unwrap();
    }
}

/// The cache as another process sees it.
fn reopened(cache: &Cache) -> Cache {
    Cache::open(cache.dir()).unwrap()
}

/// The files of a model without names.
fn unnamed() -> super::WeightsFiles {
    super::WeightsFiles::unnamed(1)
}

/// Changes one byte of a read-only file, keeping its time of modification when told to.
fn damage(path: impl AsRef<Path>, at: u64, keep_time: bool) {
    let path = path.as_ref();
    let before = fs::metadata(path).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[!byte[0]], at).unwrap();
    let time = if keep_time { before.modified().unwrap() } else { SystemTime::UNIX_EPOCH };
    file.set_modified(time).unwrap();
}

#[test]
fn opening_creates_the_layout_and_opening_again_keeps_it() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("some/where");
    for _ in 0..2 {
        let cache = Cache::open(&root).unwrap();
        assert_eq!(cache.dir(), root);
        assert!(
            fs::read_to_string(root.join("CACHEDIR.TAG")).unwrap().starts_with("Signature: 8a477f597d28d172")
        );
        assert_eq!(fs::read_to_string(root.join("VERSION")).unwrap(), "2\n");
        assert!(cache.list().unwrap().is_empty());
    }
}

#[test]
fn a_cache_that_is_only_just_created_is_none_yet_and_never_another_folder() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..200 {
        let root = dir.path().join(round.to_string());
        thread::scope(|scope| {
            let creator = scope.spawn(|| Cache::open(&root).unwrap());
            while !creator.is_finished() {
                Cache::open_existing(&root).unwrap();
            }
        });
        assert!(Cache::open_existing(&root).unwrap().is_some());
    }
    let killed = dir.path().join("killed");
    fs::create_dir(&killed).unwrap();
    File::create(killed.join(".tmp-1-0")).unwrap();
    assert!(Cache::open_existing(&killed).unwrap().is_none());
    File::create(killed.join("letters.txt")).unwrap();
    assert!(matches!(Cache::open_existing(&killed), Err(CacheError::NotACache { .. })));
}

#[test]
fn a_cache_of_the_version_before_is_taken_over_with_its_models() {
    let (dir, cache) = cache();
    let published = publish(&cache);
    drop(published.model);
    atomic::write(&dir.path().join("VERSION"), b"1\n", 0o644).unwrap();
    let cache = reopened(&cache);
    assert_eq!(fs::read_to_string(dir.path().join("VERSION")).unwrap(), "2\n");
    let model = cache.model(&published.digest).unwrap().unwrap();
    assert_eq!(model.weights().unwrap().as_ref(), sample(SIZE, 1));
}

#[test]
fn an_unknown_layout_is_refused_with_what_to_do() {
    let (dir, _cache) = cache();
    atomic::write(&dir.path().join("VERSION"), b"7\n", 0o644).unwrap();
    let error = Cache::open(dir.path()).unwrap_err();
    assert_eq!(error.blame(), Blame::Us);
    let text = error.to_string();
    assert!(
        text.contains("\"7\"") && text.contains("\"2\"") && text.contains("another cache directory"),
        "{text}"
    );
}

#[test]
fn manifests_are_kept_once_valid_and_hashed_when_read() {
    let ((_a, from), (_b, cache)) = (cache(), cache());
    let published = publish(&from);
    assert!(matches!(cache.store_manifest(b"{}"), Err(CacheError::Manifest { .. })));
    assert!(cache.manifest(&Digest::of(b"{}")).unwrap().is_none());
    let (digest, _) = cache.store_manifest(&published.manifest.to_json()).unwrap();
    assert_eq!(digest, published.digest);
    assert!(cache.manifest(&digest).unwrap().is_some());
    let path = cache.layout().manifest(&digest);
    damage(&path, 5, false);
    assert!(cache.manifest(&digest).unwrap().is_none());
    assert!(!path.exists(), "a corrupt manifest is removed");
}

#[test]
fn weights_know_their_shards() {
    let (_dir, cache) = cache();
    let model = publish(&cache).model;
    let weights = model.weights().unwrap().clone();
    drop(model);
    assert_eq!(weights.len(), SIZE);
    assert!(weights.safetensors().is_err());
}

#[test]
fn weights_are_read_as_safetensors() {
    let (_dir, cache) = cache();
    let header = br#"{"t":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#;
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header, &[1, 2, 3, 4]].concat();
    let model = publish_bytes(&cache, &bytes, &options(3, 2, Codec::Rs)).model;
    assert_eq!(model.weights().unwrap().safetensors().unwrap().tensor("t").unwrap().data(), [1, 2, 3, 4]);
}

#[test]
fn a_model_in_use_is_not_removed() {
    let (_dir, cache) = cache();
    let Published { digest, model, .. } = publish(&cache);
    let weights = model.weights().unwrap().clone();
    drop(model);
    let error = cache.remove(&digest).unwrap_err();
    assert_eq!(error.blame(), Blame::Caller);
    let expected = CacheError::InUse { digest, holders: vec![std::process::id()] };
    assert_eq!(error.to_string(), expected.to_string());
    drop(weights);
    assert!(cache.remove(&digest).unwrap().freed_bytes >= SIZE as u64);
    assert!(cache.model(&digest).unwrap().is_none() && cache.manifest(&digest).unwrap().is_none());
    assert!(matches!(cache.remove(&digest), Err(CacheError::NotCached { .. })));
}

#[test]
fn a_partial_model_is_listed_and_removed_when_nobody_fills_it() {
    let ((_a, from), (_b, cache)) = (cache(), cache());
    let published = publish(&from);
    let partial = begin(&cache, &published);
    copy(&partial, &published.model, &all_pieces(&published.manifest, [1]));
    let entries = cache.list().unwrap();
    let [entry] = entries.as_slice() else { panic!("{entries:?}") };
    assert_eq!(entry.state, EntryState::Partial { verified_bytes: 100_001 });
    assert_eq!((entry.digest, entry.total_size_bytes), (published.digest, Some(SIZE as u64)));
    assert_eq!(entry.model_kind.as_deref(), Some("vl-jepa"));
    assert!(matches!(cache.remove(&published.digest), Err(CacheError::InUse { .. })));
    drop(partial);
    cache.remove(&published.digest).unwrap();
    assert!(cache.list().unwrap().is_empty());
}

#[test]
fn finished_models_are_listed_even_without_their_manifest() {
    let (_dir, cache) = cache();
    let Published { digest, .. } = publish(&cache);
    fs::remove_file(cache.layout().manifest(&digest)).unwrap();
    let entries = cache.list().unwrap();
    let [entry] = entries.as_slice() else { panic!("{entries:?}") };
    assert_eq!((entry.digest, entry.state), (digest, EntryState::Finished));
    assert_eq!((entry.model_kind.as_ref(), entry.total_size_bytes), (None, None));
    assert!(entry.disk_bytes >= SIZE as u64);
    cache.remove(&digest).unwrap();
}
