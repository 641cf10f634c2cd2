//! Filling a model, being killed while at it, and finishing it.

use std::os::unix::fs::MetadataExt as _;
use std::sync::atomic::{AtomicU32, Ordering};

use manifest::PieceSet;

use super::*;

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
        assert_eq!(model.weights().unwrap().as_ref(), sample(SIZE, 1));
        assert_eq!(model.parity_kept(), if keep_parity { &[3, 4][..] } else { &[] });
        assert!(model.index().unwrap().is_some());
        assert!(recheck(&model, 1, &|_, _| ()).unwrap().is_good());
        let mode = fs::metadata(model.weights().unwrap().path()).unwrap().permissions().mode();
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
fn recorded_pieces_survive_the_process_as_claims_until_they_are_hashed() {
    let ((_a, from), (_b, cache)) = (cache(), cache());
    let published = publish(&from);
    let pieces = all_pieces(&published.manifest, [0, 3]);
    let partial = begin(&cache, &published);
    assert_eq!(partial.claims(), []);
    copy(&partial, &published.model, &pieces);
    assert_eq!(partial.claims(), [], "this process knows");
    drop(partial);

    let journal = cache.layout().partial(&published.digest).join(layout::JOURNAL);
    let length = || fs::metadata(&journal).unwrap().len();
    let before = length();
    let partial = begin(&cache, &published);
    assert_eq!(partial.claims(), pieces);
    assert!(partial.offer().have(0).change.shards().iter().all(PieceSet::is_empty));
    assert_eq!(partial.confirm(&pieces[..2]), pieces[..2]);
    assert_eq!(partial.confirm(&pieces[..2]), [], "nobody doubts it");
    assert_eq!(partial.claims(), pieces[2..]);
    partial.void(&pieces[2..3]).unwrap();
    assert_eq!(partial.claims(), pieces[3..]);
    assert!(partial.is_recorded(at(0, 1)) && !partial.is_recorded(at(0, 2)));
    drop(partial);
    assert_eq!(begin(&cache, &published).claims(), [&pieces[..2], &pieces[3..]].concat());
    for _ in 0..5 {
        begin(&cache, &published).confirm(&pieces);
    }
    assert_eq!(length(), before + 28, "what is said once is not said at every start");
}

#[test]
fn claims_do_not_finish_a_model() {
    let ((_a, from), (_b, cache)) = (cache(), cache());
    let published = publish(&from);
    let pieces = all_pieces(&published.manifest, 0..3);
    copy(&begin(&cache, &published), &published.model, &pieces);
    let error = begin(&cache, &published).finish(false).unwrap_err();
    assert!(matches!(error, CacheError::Incomplete { shard: 0, piece: 0, .. }), "{error}");
    let partial = begin(&cache, &published);
    partial.confirm(&pieces);
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
    assert_eq!(partial.claims(), pieces[..pieces.len() - 1]);
    partial.confirm(&pieces);
    copy(&partial, &published.model, &pieces[pieces.len() - 1..]);
    assert_eq!(partial.finish(false).unwrap().weights().unwrap().as_ref(), sample(SIZE, 1));
}

#[test]
fn what_the_journal_says_of_lost_files_is_not_believed() {
    let ((_a, from), (_b, cache)) = (cache(), cache());
    let published = publish(&from);
    let dir = cache.layout().partial(&published.digest);
    copy(&begin(&cache, &published), &published.model, &all_pieces(&published.manifest, 0..5));
    fs::remove_file(dir.join("parity/3")).unwrap();
    assert_eq!(begin(&cache, &published).claims(), all_pieces(&published.manifest, [0, 1, 2, 4]));
    File::options().write(true).open(dir.join(WEIGHTS)).unwrap().set_len(10).unwrap();
    assert_eq!(begin(&cache, &published).claims(), all_pieces(&published.manifest, [4]));
    assert_eq!(begin(&cache, &published).claims(), all_pieces(&published.manifest, [4]));
}

#[test]
fn a_forgotten_shard_is_missing_again() {
    let ((_a, from), (_b, cache)) = (cache(), cache());
    let published = publish(&from);
    let partial = begin(&cache, &published);
    copy(&partial, &published.model, &all_pieces(&published.manifest, 0..3));
    partial.forget(1).unwrap();
    drop(partial);
    let partial = begin(&cache, &published);
    assert_eq!(partial.claims(), all_pieces(&published.manifest, [0, 2]));
    partial.confirm(&all_pieces(&published.manifest, [0, 2]));
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
        partial.write_unverified(at(3, piece), &bytes_of(&published.model, 0, range)).unwrap();
    }
    assert!(partial.check_shard(3, &HashMap::new(), &|| true).unwrap().unwrap().good);
    let mut read = vec![0; 40_000];
    for shard in [0, 2, 3, 5] {
        partial.read(shard, ByteRange::new(0, 40_000), &mut read).unwrap();
        assert_eq!(read, row, "shard {shard}");
    }
    drop(partial);
    let partial = begin(&cache, &published);
    assert_eq!(partial.claims(), all_pieces(&published.manifest, [0]));
    partial.confirm(&all_pieces(&published.manifest, [2]));
    copy(&partial, &published.model, &all_pieces(&published.manifest, [1]));
    let model = partial.finish(true).unwrap();
    assert_eq!(model.weights().unwrap().as_ref(), weights);
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
        partial.write_unverified(at(shard, 0), bytes).unwrap();
        assert!(partial.check_shard(shard, &HashMap::new(), &|| true).unwrap().unwrap().good);
    }
    let mut read = [9; 2];
    for (shard, bytes) in [(2, [5, 0]), (3, [0, 0])] {
        partial.read(shard, ByteRange::new(0, 2), &mut read).unwrap();
        assert_eq!(read, bytes);
    }
    let model = partial.finish(false).unwrap();
    assert_eq!(model.weights().unwrap().as_ref(), [1, 2, 3, 4, 5]);
    assert_eq!(bytes_of(&model, 3, ByteRange::new(0, 2)), [0, 0]);
}

#[test]
fn what_is_not_a_piece_is_refused() {
    let ((_a, from), (_b, cache)) = (cache(), cache());
    let published = publish(&from);
    let partial = begin(&cache, &published);
    let count = published.manifest.piece_count(0);
    for (shard, piece) in [(0, count), (0, u32::MAX), (5, 0), (u32::MAX, 0)] {
        let error = partial.write_unverified(at(shard, piece), &[0; 10]).unwrap_err();
        assert!(matches!(error, CacheError::OutOfBounds { .. }), "{error}");
    }
    assert!(matches!(
        partial.write_unverified(at(0, 0), &[0; 10]),
        Err(CacheError::WrongLength { found_bytes: 10, .. })
    ));
    let checked = partial.check_shard(5, &HashMap::new(), &|| true);
    assert!(matches!(checked, Err(CacheError::OutOfBounds { .. })));
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
    damage(cache.layout().partial(&published.digest).join(PIECES), 20, false);
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
    copy(&partial, &published.model, &[at(4, 0)]);
    assert_eq!(partial.finish(true).unwrap().parity_kept(), [3]);
}

#[test]
fn whoever_finishes_second_gets_the_first_ones_model_if_it_is_right() {
    let ((_a, from), (_b, cache)) = (cache(), cache());
    let published = publish(&from);
    let place = |damaged: bool| {
        let dir = cache.layout().model(&published.digest);
        fs::create_dir_all(&dir).unwrap();
        fs::copy(published.model.weights().unwrap().path(), dir.join(WEIGHTS)).unwrap();
        if damaged {
            damage(dir.join(WEIGHTS), 7, false);
        }
    };
    let filled = || {
        let partial = begin(&cache, &published);
        copy(&partial, &published.model, &all_pieces(&published.manifest, 0..3));
        partial
    };
    for damaged in [false, true] {
        let partial = filled();
        place(damaged);
        let inode = || fs::metadata(cache.layout().model(&published.digest).join(WEIGHTS)).unwrap().ino();
        let first = inode();
        assert_eq!(partial.finish(false).unwrap().weights().unwrap().as_ref(), sample(SIZE, 1));
        assert_eq!(inode() == first, !damaged, "a bad one gives way");
        assert!(!cache.layout().partial(&published.digest).exists());
        cache.remove(&published.digest).unwrap();
    }
}

#[test]
fn of_many_who_want_a_model_one_fills_it() {
    let ((_a, from), (dir, cache)) = (cache(), cache());
    let published = publish(&from);
    cache.store_manifest(&published.manifest.to_json()).unwrap();
    let fills = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let cache = Cache::open(dir.path()).unwrap();
                let lock = cache.lock_fill(&published.digest).unwrap();
                let model = match cache.model(&published.digest).unwrap() {
                    Some(model) => model,
                    None => {
                        fills.fetch_add(1, Ordering::Relaxed);
                        let partial = cache
                            .partial(lock, Geometry::new(Arc::clone(&published.manifest)), true)
                            .unwrap();
                        copy(&partial, &published.model, &all_pieces(&published.manifest, 0..3));
                        partial.finish(false).unwrap()
                    }
                };
                assert_eq!(model.weights().unwrap().as_ref(), sample(SIZE, 1));
            });
        }
    });
    assert_eq!(fills.into_inner(), 1);
}

#[cfg(target_os = "linux")]
#[test]
fn whoever_closes_it_has_let_go_of_its_files() {
    let ((_a, from), (_b, cache)) = (cache(), cache());
    let published = publish(&from);
    let partial = begin(&cache, &published);
    copy(&partial, &published.model, &all_pieces(&published.manifest, [0, 3]));
    let open = || {
        let links =
            fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        links.filter(|link| link.starts_with(cache.dir())).collect::<Vec<_>>()
    };
    assert!(!open().is_empty());
    partial.close();
    // Else the room that they take would not be there when they are removed.
    assert_eq!(open(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn what_was_verified_for_one_model_does_not_count_for_another() {
    let ((_a, from), (_b, cache)) = (cache(), cache());
    let published = publish(&from);
    let other = publish_bytes(&from, &sample(SIZE, 2), &options(3, 2, Codec::Rs));
    let range = published.manifest.piece_range(0, 0);
    let bytes = bytes_of(&published.model, 0, range);
    let index = published.model.index().unwrap().unwrap();
    let verified = index.verify(&[(at(0, 0), bytes.as_slice())])[0].unwrap();

    let partial = begin(&cache, &other);
    let error = partial.write_verified(&[verified]).unwrap_err();
    assert!(matches!(error, CacheError::OtherModel { piece, .. } if piece == at(0, 0)), "{error}");
    let held = published.model.shard(0).unwrap().unwrap();
    assert!(matches!(partial.copy_verified(&[(verified, &held, 0)]), Err(CacheError::OtherModel { .. })));
    assert!(!partial.is_recorded(at(0, 0)));

    let partial = begin(&cache, &published);
    partial.write_verified(&[verified]).unwrap();
    assert!(partial.is_recorded(at(0, 0)) && partial.claims().is_empty());
}

#[test]
fn unproven_bytes_count_only_once_their_shard_has_its_digest() {
    let ((_a, from), (_b, cache)) = (cache(), cache());
    let published = publish(&from);
    let partial = begin(&cache, &published);
    let pieces = all_pieces(&published.manifest, [0]);
    for piece in &pieces {
        let range = published.manifest.piece_range(piece.shard, piece.piece);
        let mut bytes = bytes_of(&published.model, piece.shard, range);
        bytes[0] ^= u8::from(piece.piece == 0);
        partial.write_unverified(*piece, &bytes).unwrap();
    }
    let check = || partial.check_shard(0, &HashMap::new(), &|| true).unwrap().unwrap();
    assert!(!check().good);
    assert!(!pieces.iter().any(|piece| partial.is_recorded(*piece)));
    let right = bytes_of(&published.model, 0, published.manifest.piece_range(0, 0));
    partial.write_unverified(pieces[0], &right).unwrap();
    assert!(check().good);
    assert!(pieces.iter().all(|piece| partial.is_recorded(*piece)));
    partial.write_unverified(pieces[0], &right).unwrap();
    assert!(!partial.is_recorded(pieces[1]), "nothing is known of the shard any more");
}
