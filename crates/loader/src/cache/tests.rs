//! The cache as a whole: filling, finishing, trusting, removing, serving.

use std::os::unix::fs::FileExt as _;
use std::time::SystemTime;

use manifest::{Blame, ByteRange, Codec};
use tempfile::TempDir;

use super::*;
use crate::encode::tests::{options, publish_bytes, sample};
use crate::encode::{Options, Published};
use crate::recheck::IndexState;

const SIZE: usize = 300_001;

fn cache() -> (TempDir, Cache) {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path()).unwrap();
    (dir, cache)
}

fn publish(cache: &Cache) -> Published {
    publish_bytes(cache, &sample(SIZE, 1), &options(3, 2, Codec::Rs))
}

fn all_pieces(manifest: &Manifest, shards: impl IntoIterator<Item = u32>) -> Vec<(u32, u32)> {
    let pieces = |shard| (0..manifest.piece_count(shard)).map(move |piece| (shard, piece));
    shards.into_iter().flat_map(pieces).collect()
}

fn all_shards(manifest: &Manifest) -> std::ops::Range<u32> {
    0..manifest.data_shard_count() + manifest.parity()
}

fn bytes_of(model: &Model, shard: u32, range: ByteRange) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(range.len()).unwrap()];
    model.shard(shard).unwrap().unwrap().read_at(range.start, &mut bytes).unwrap();
    bytes
}

/// Begins to fill `cache` with the model of another one.
fn begin(cache: &Cache, from: &Published) -> Partial {
    let (digest, manifest) = cache.store_manifest(&from.manifest.to_json()).unwrap();
    cache.partial(cache.lock_fill(&digest).unwrap(), manifest).unwrap()
}

fn copy(partial: &Partial, from: &Model, pieces: &[(u32, u32)]) {
    for (shard, piece) in pieces {
        let range = from.manifest().piece_range(*shard, *piece);
        partial.write_piece(*shard, *piece, &bytes_of(from, *shard, range)).unwrap();
    }
    partial.record(pieces).unwrap();
}

/// Changes one byte of a read-only file, keeping its time of change when told to.
fn damage(path: &Path, at: u64, keep_time: bool) {
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
        assert_eq!(fs::read_to_string(root.join("VERSION")).unwrap(), "1\n");
        assert!(cache.list().unwrap().is_empty());
    }
}

#[test]
fn an_unknown_layout_is_refused_with_what_to_do() {
    let (dir, _cache) = cache();
    atomic::write(&dir.path().join("VERSION"), b"7\n", 0o644).unwrap();
    let error = Cache::open(dir.path()).unwrap_err();
    assert_eq!(error.blame(), Blame::Us);
    let text = error.to_string();
    assert!(
        text.contains("\"7\"") && text.contains("\"1\"") && text.contains("another cache directory"),
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
fn a_model_is_filled_piece_by_piece_and_mapped() {
    for keep_parity in [false, true] {
        let ((_a, from), (_b, cache)) = (cache(), cache());
        let published = publish(&from);
        let partial = begin(&cache, &published);
        assert!(cache.model(&published.digest).unwrap().is_none());
        partial.store_index(&fs::read(published.model.index_path()).unwrap()).unwrap();
        copy(&partial, &published.model, &all_pieces(&published.manifest, all_shards(&published.manifest)));
        let model = partial.finish(keep_parity).unwrap();
        assert_eq!(model.weights().as_ref(), sample(SIZE, 1));
        assert_eq!(model.parity_kept(), if keep_parity { &[3, 4][..] } else { &[] });
        assert!(model.index().unwrap().is_some());
        assert!(recheck(&model, 1, &|_, _| ()).unwrap().is_good());
        let mode = fs::metadata(model.weights().path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o444);
        let names = |dir: &Path| {
            let entries = fs::read_dir(dir).unwrap();
            let mut names: Vec<_> =
                entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        assert_eq!(names(model.dir()), ["parity", "pieces", "stamp", "weights"]);
        assert!(names(&cache.layout().partials()).is_empty());
        assert_eq!(cache.model(&published.digest).unwrap().unwrap().digest(), model.digest());
    }
}

#[test]
fn weights_know_their_shards() {
    let (_dir, cache) = cache();
    let model = publish(&cache).model;
    let weights = model.weights().clone();
    drop(model);
    assert_eq!(weights.len(), SIZE);
    assert_eq!(weights.shard(0).unwrap(), &sample(SIZE, 1)[..100_001]);
    assert_eq!(weights.shard(2).unwrap().len(), 99_999, "without padding");
    assert!(weights.shard(3).is_none(), "parity is not in the weights");
    assert!(weights.shard(5).is_none());
    assert!(weights.safetensors().is_err());
}

#[test]
fn weights_are_read_as_safetensors() {
    let (_dir, cache) = cache();
    let header = br#"{"t":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#;
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header, &[1, 2, 3, 4]].concat();
    let model = publish_bytes(&cache, &bytes, &options(3, 2, Codec::Rs)).model;
    assert_eq!(model.weights().safetensors().unwrap().tensor("t").unwrap().data(), [1, 2, 3, 4]);
}

#[test]
fn recorded_pieces_survive_the_process_and_are_claims_after_a_reboot() {
    let ((_a, from), (dir, cache)) = (cache(), cache());
    let published = publish(&from);
    let pieces = all_pieces(&published.manifest, [0, 3]);
    let partial = begin(&cache, &published);
    assert_eq!(partial.resumed(), Resumed { pieces: Vec::new(), trusted: true });
    copy(&partial, &published.model, &pieces);
    drop(partial);

    let partial = begin(&cache, &published);
    assert_eq!(partial.resumed(), Resumed { pieces: pieces.clone(), trusted: true });
    drop(partial);

    let rebooted = Cache::open_in_boot(dir.path(), BootId::other()).unwrap();
    let partial = begin(&rebooted, &published);
    assert_eq!(partial.resumed(), Resumed { pieces: pieces.clone(), trusted: false });
    partial.record(&pieces[..2]).unwrap();
    drop(partial);
    let partial = begin(&rebooted, &published);
    assert_eq!(
        partial.resumed(),
        Resumed { pieces: pieces.clone(), trusted: false },
        "some are claims still"
    );
    partial.record(&pieces).unwrap();
    drop(partial);
    assert_eq!(begin(&rebooted, &published).resumed(), Resumed { pieces, trusted: true });
}

#[test]
fn claims_of_an_earlier_boot_do_not_finish_a_model() {
    let ((_a, from), (dir, cache)) = (cache(), cache());
    let published = publish(&from);
    let pieces = all_pieces(&published.manifest, 0..3);
    copy(&begin(&cache, &published), &published.model, &pieces);
    let rebooted = Cache::open_in_boot(dir.path(), BootId::other()).unwrap();
    let error = begin(&rebooted, &published).finish(false).unwrap_err();
    assert!(matches!(error, CacheError::Incomplete { shard: 0, piece: 0, .. }), "{error}");
    let partial = begin(&rebooted, &published);
    partial.record(&pieces).unwrap();
    partial.finish(false).unwrap();
}

#[test]
fn a_torn_journal_loses_the_torn_record_only() {
    let ((_a, from), (_b, cache)) = (cache(), cache());
    let published = publish(&from);
    let pieces = all_pieces(&published.manifest, 0..3);
    copy(&begin(&cache, &published), &published.model, &pieces);
    let path = cache.layout().partial(&published.digest).join(layout::JOURNAL);
    let journal = File::options().write(true).open(&path).unwrap();
    journal.set_len(journal.metadata().unwrap().len() - 5).unwrap();
    let partial = begin(&cache, &published);
    assert_eq!(partial.resumed().pieces, pieces[..pieces.len() - 1]);
    copy(&partial, &published.model, &pieces[pieces.len() - 1..]);
    assert_eq!(partial.finish(false).unwrap().weights().as_ref(), sample(SIZE, 1));
}

#[test]
fn what_the_journal_says_of_lost_files_is_not_believed() {
    let ((_a, from), (_b, cache)) = (cache(), cache());
    let published = publish(&from);
    let dir = cache.layout().partial(&published.digest);
    copy(&begin(&cache, &published), &published.model, &all_pieces(&published.manifest, 0..5));
    fs::remove_file(dir.join("parity/3")).unwrap();
    assert_eq!(begin(&cache, &published).resumed().pieces, all_pieces(&published.manifest, [0, 1, 2, 4]));
    File::options().write(true).open(dir.join(WEIGHTS)).unwrap().set_len(10).unwrap();
    assert_eq!(begin(&cache, &published).resumed().pieces, all_pieces(&published.manifest, [4]));
    assert_eq!(begin(&cache, &published).resumed().pieces, all_pieces(&published.manifest, [4]));
}

#[test]
fn a_forgotten_shard_is_missing_again() {
    let ((_a, from), (_b, cache)) = (cache(), cache());
    let published = publish(&from);
    let partial = begin(&cache, &published);
    copy(&partial, &published.model, &all_pieces(&published.manifest, 0..3));
    partial.forget(1).unwrap();
    assert_eq!(partial.resumed().pieces, all_pieces(&published.manifest, [0, 2]));
    drop(partial);
    let partial = begin(&cache, &published);
    assert_eq!(partial.resumed().pieces, all_pieces(&published.manifest, [0, 2]));
    let error = partial.finish(false).unwrap_err();
    assert!(matches!(error, CacheError::Incomplete { shard: 1, piece: 0, .. }), "{error}");
    assert_eq!(error.blame(), Blame::Caller);
}

#[test]
fn shards_with_one_digest_are_written_together_and_count_as_one() {
    let ((_a, from), (_b, cache)) = (cache(), cache());
    let row = sample(40_000, 1);
    let weights = [&row[..], &sample(40_000, 2), &row].concat();
    let published = publish_bytes(&from, &weights, &options(3, 3, Codec::Replica));
    let partial = begin(&cache, &published);
    // Shard 3 is a copy of row 0, and row 2 is too.
    for piece in 0..published.manifest.piece_count(3) {
        let range = published.manifest.piece_range(3, piece);
        partial.write_piece(3, piece, &bytes_of(&published.model, 0, range)).unwrap();
        partial.record(&[(3, piece)]).unwrap();
    }
    let mut read = vec![0; 40_000];
    for shard in [0, 2, 3, 5] {
        partial.read(shard, ByteRange::new(0, 40_000), &mut read).unwrap();
        assert_eq!(read, row, "shard {shard}");
    }
    assert_eq!(partial.resumed().pieces, all_pieces(&published.manifest, [0]));
    copy(&partial, &published.model, &all_pieces(&published.manifest, [1]));
    let model = partial.finish(true).unwrap();
    assert_eq!(model.weights().as_ref(), weights);
    assert!(model.parity_kept().is_empty());
}

#[test]
fn padding_is_not_stored_and_reads_as_zeros() {
    let ((_a, from), (_b, cache)) = (cache(), cache());
    // Four rows of two bytes: the third has one, the fourth none.
    let published = publish_bytes(&from, &[1, 2, 3, 4, 5], &options(4, 1, Codec::Rs));
    let partial = begin(&cache, &published);
    for (shard, bytes) in [[1, 2], [3, 4], [5, 0]].iter().enumerate() {
        let shard = u32::try_from(shard).unwrap();
        partial.write_piece(shard, 0, bytes).unwrap();
        partial.record(&[(shard, 0)]).unwrap();
    }
    let mut read = [9; 2];
    for (shard, bytes) in [(2, [5, 0]), (3, [0, 0])] {
        partial.read(shard, ByteRange::new(0, 2), &mut read).unwrap();
        assert_eq!(read, bytes);
    }
    let model = partial.finish(false).unwrap();
    assert_eq!(model.weights().as_ref(), [1, 2, 3, 4, 5]);
    assert_eq!(model.weights().shard(3), Some(&[][..]));
    assert_eq!(bytes_of(&model, 3, ByteRange::new(0, 2)), [0, 0]);
}

#[test]
fn what_is_not_a_piece_is_refused() {
    let ((_a, from), (_b, cache)) = (cache(), cache());
    let published = publish(&from);
    let partial = begin(&cache, &published);
    let count = published.manifest.piece_count(0);
    for (shard, piece) in [(0, count), (0, u32::MAX), (5, 0), (u32::MAX, 0)] {
        let error = partial.write_piece(shard, piece, &[0; 10]).unwrap_err();
        assert!(matches!(error, CacheError::OutOfBounds { .. }), "{error}");
        assert!(matches!(partial.record(&[(shard, piece)]), Err(CacheError::OutOfBounds { .. })));
    }
    assert!(matches!(
        partial.write_piece(0, 0, &[0; 10]),
        Err(CacheError::WrongLength { found_bytes: 10, .. })
    ));
    let mut buffer = [0; 10];
    for (shard, start) in [(0, 100_000), (3, 100_000), (9, 0)] {
        let error = partial.read(shard, ByteRange::new(start, start + 10), &mut buffer).unwrap_err();
        assert!(matches!(error, CacheError::OutOfBounds { .. }), "{error}");
    }
    let error = partial.read(0, ByteRange::new(0, 11), &mut buffer).unwrap_err();
    assert!(matches!(error, CacheError::WrongLength { .. }), "{error}");
    let error = partial.read(3, ByteRange::new(0, 10), &mut buffer).unwrap_err();
    assert!(matches!(error, CacheError::Io { .. }), "no parity was written: {error}");
}

#[test]
fn only_the_manifests_own_index_is_kept_and_a_bad_file_is_dropped() {
    let ((_a, from), (_b, cache)) = (cache(), cache());
    let published = publish(&from);
    let mut blob = fs::read(published.model.index_path()).unwrap();
    let partial = begin(&cache, &published);
    assert!(partial.index().unwrap().is_none());
    partial.store_index(&blob).unwrap();
    blob[20] ^= 1;
    assert!(matches!(partial.store_index(&blob), Err(CacheError::Index { .. })));
    assert!(partial.index().unwrap().is_some());
    drop(partial);
    damage(&cache.layout().partial(&published.digest).join(PIECES), 20, false);
    let partial = begin(&cache, &published);
    assert!(partial.index().unwrap().is_none());
    assert!(!cache.layout().partial(&published.digest).join(PIECES).exists());
}

#[test]
fn incomplete_parity_is_dropped_even_by_those_who_keep_it() {
    let ((_a, from), (_b, cache)) = (cache(), cache());
    let published = publish(&from);
    let partial = begin(&cache, &published);
    copy(&partial, &published.model, &all_pieces(&published.manifest, 0..4));
    copy(&partial, &published.model, &[(4, 0)]);
    assert_eq!(partial.finish(true).unwrap().parity_kept(), [3]);
}

#[test]
fn whoever_finishes_second_gets_the_first_ones_model() {
    let ((_a, from), (_b, cache)) = (cache(), cache());
    let published = publish(&from);
    let place = |damaged: bool| {
        let dir = cache.layout().model(&published.digest);
        fs::create_dir_all(&dir).unwrap();
        fs::copy(published.model.weights().path(), dir.join(WEIGHTS)).unwrap();
        if damaged {
            damage(&dir.join(WEIGHTS), 7, false);
        }
    };
    let filled = || {
        let partial = begin(&cache, &published);
        copy(&partial, &published.model, &all_pieces(&published.manifest, 0..3));
        partial
    };
    let partial = filled();
    place(true);
    let error = partial.finish(false).unwrap_err();
    assert!(matches!(error, CacheError::Corrupt { .. }), "{error}");
    assert!(!begin(&cache, &published).resumed().pieces.is_empty(), "ours is kept");
    let partial = filled();
    place(false);
    assert_eq!(partial.finish(false).unwrap().weights().as_ref(), sample(SIZE, 1));
    assert!(!cache.layout().partial(&published.digest).exists());
}

#[test]
fn of_many_who_want_a_model_one_fills_it() {
    let ((_a, from), (dir, cache)) = (cache(), cache());
    let published = publish(&from);
    cache.store_manifest(&published.manifest.to_json()).unwrap();
    let fills = std::sync::atomic::AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let cache = Cache::open(dir.path()).unwrap();
                let lock = cache.lock_fill(&published.digest).unwrap();
                let model = match cache.model(&published.digest).unwrap() {
                    Some(model) => model,
                    None => {
                        fills.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        let partial = cache.partial(lock, Arc::clone(&published.manifest)).unwrap();
                        copy(&partial, &published.model, &all_pieces(&published.manifest, 0..3));
                        partial.finish(false).unwrap()
                    }
                };
                assert_eq!(model.weights().as_ref(), sample(SIZE, 1));
            });
        }
    });
    assert_eq!(fills.into_inner(), 1);
}

#[test]
fn files_that_were_touched_are_hashed_and_stamped_again() {
    let (_dir, cache) = cache();
    let Published { digest, model, .. } = publish(&cache);
    let dir = model.dir().to_owned();
    File::open(dir.join(WEIGHTS)).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    assert!(!stamp::matches(&dir).unwrap());
    assert!(cache.model(&digest).unwrap().is_some());
    assert!(stamp::matches(&dir).unwrap());
}

#[test]
fn changed_weights_are_not_trusted() {
    let (_dir, cache) = cache();
    let Published { digest, model, .. } = publish(&cache);
    damage(model.weights().path(), 150_000, false);
    let error = cache.model(&digest).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, CacheError::Corrupt { .. }), "{text}");
    assert!(
        text.contains("shard 1 (piece 3)") && text.contains(&format!("loader cache rm {digest}")),
        "{text}"
    );
    let path = model.weights().path().to_owned();
    drop(model);
    File::options().write(true).open(&path).unwrap().set_len(1000).unwrap();
    let text = cache.model(&digest).unwrap_err().to_string();
    assert!(text.contains("1000 bytes, expected 300001"), "{text}");
    cache.remove(&digest).unwrap();
    assert!(cache.model(&digest).unwrap().is_none());
}

#[test]
fn damage_behind_the_stamp_is_found_by_verifying() {
    for index in [true, false] {
        let (_dir, cache) = cache();
        let options = options(3, 2, Codec::Rs);
        let options = if index { options } else { Options { piece_size_bytes: None, ..options } };
        let Published { digest, model, .. } = publish_bytes(&cache, &sample(SIZE, 1), &options);
        let report = cache.verify(&digest, 2, &|_, _| ()).unwrap().unwrap();
        assert!(report.is_good(), "{report}");
        assert_eq!((report.checked_shards, report.checked_bytes), (5, 5 * 100_001));
        damage(model.weights().path(), 150_000, true);
        damage(&model.parity_path(4), 7, true);
        assert!(cache.model(&digest).unwrap().is_some(), "the stamp fits");
        let report = cache.verify(&digest, 2, &|_, _| ()).unwrap().unwrap();
        let found: Vec<_> =
            report.bad.iter().map(|bad| (bad.shard, bad.is_parity, bad.pieces.clone())).collect();
        let pieces = |piece| if index { vec![piece] } else { Vec::new() };
        assert_eq!(found, [(1, false, pieces(3)), (4, true, pieces(0))]);
        assert_eq!(report.index, if index { IndexState::Good } else { IndexState::Absent });
        assert!(matches!(cache.model(&digest), Err(CacheError::Corrupt { .. })), "now it is known");
    }
    let (_dir, cache) = cache();
    assert!(cache.verify(&Digest::of(b"nothing"), 1, &|_, _| ()).unwrap().is_none());
}

#[test]
fn bad_parity_and_a_bad_index_are_dropped_and_the_weights_used() {
    let (_dir, cache) = cache();
    let Published { digest, model, .. } = publish(&cache);
    damage(&model.parity_path(3), 7, false);
    damage(&model.index_path(), 40, false);
    let report = cache.verify(&digest, 1, &|_, _| ()).unwrap().unwrap();
    assert_eq!((report.bad.len(), report.index), (1, IndexState::Corrupt), "{report}");
    let healed = cache.model(&digest).unwrap().unwrap();
    assert_eq!(healed.parity_kept(), [4]);
    assert!(healed.index().unwrap().is_none());
    assert!(stamp::matches(healed.dir()).unwrap());
}

#[test]
fn an_index_that_calls_right_pieces_wrong_is_told_from_damage() {
    let ((_a, from), (_b, cache)) = (cache(), cache());
    let published = publish(&from);
    let mut blob = fs::read(published.model.index_path()).unwrap();
    blob[50] ^= 1;
    let pieces = manifest::Pieces { index: Digest::of(&blob), ..published.manifest.pieces().unwrap() };
    let right = &published.manifest;
    let shards = right.shards().to_vec();
    let kind = right.model_kind().to_owned();
    let manifest = Manifest::new(kind, SIZE as u64, shards, 3, 2, Codec::Rs, Some(pieces)).unwrap();
    let (digest, manifest) = cache.store_manifest(&manifest.to_json()).unwrap();
    let partial = cache.partial(cache.lock_fill(&digest).unwrap(), manifest).unwrap();
    partial.store_index(&blob).unwrap();
    copy(&partial, &published.model, &all_pieces(right, 0..3));
    let model = partial.finish(false).unwrap();
    let report = recheck(&model, 1, &|_, _| ()).unwrap();
    assert!(report.bad.is_empty() && report.weights_are_good() && !report.is_good(), "{report}");
    assert_eq!(report.index, IndexState::Wrong);
}

#[test]
fn a_model_in_use_is_not_removed() {
    let (_dir, cache) = cache();
    let Published { digest, model, .. } = publish(&cache);
    let weights = model.weights().clone();
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
