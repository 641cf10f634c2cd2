//! What is believed of files that somebody else may have changed.

use std::sync::atomic::AtomicBool;

use super::publish::Options;
use super::*;
use crate::recheck::IndexState;
use crate::stamp::Verdict;

#[test]
fn files_that_were_touched_are_hashed_and_stamped_again() {
    let (_dir, cache) = cache();
    let Published { digest, model, .. } = publish(&cache);
    let dir = model.dir().to_owned();
    File::open(dir.join(WEIGHTS)).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(stamp::verdict(&dir, &unnamed()).unwrap(), Verdict::Unknown);
    assert!(cache.model(&digest).unwrap().is_some());
    assert_eq!(stamp::verdict(&dir, &unnamed()).unwrap(), Verdict::Good);
}

#[test]
fn changed_weights_are_not_trusted() {
    let (_dir, cache) = cache();
    let Published { digest, model, .. } = publish(&cache);
    damage(model.weights().unwrap().path(), 150_000, false);
    let error = cache.model(&digest).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, CacheError::Corrupt { .. }), "{text}");
    assert!(
        text.contains("shard 1 (piece 3)") && text.contains(&format!("loader cache rm {digest}")),
        "{text}"
    );
    let path = model.weights().unwrap().path().to_owned();
    drop(model);
    File::options().write(true).open(&path).unwrap().set_len(1000).unwrap();
    let text = cache.model(&digest).unwrap_err().to_string();
    assert!(text.contains("1000 bytes, expected 300001"), "{text}");
    cache.remove(&digest).unwrap();
    assert!(cache.model(&digest).unwrap().is_none());
}

#[test]
fn bytes_are_hashed_while_they_are_read_whatever_the_stamp_says() {
    let (_dir, cache) = cache();
    let expected = sample(SIZE, 1);
    let Published { model, .. } = publish_bytes(&cache, &expected, &options(3, 2, Codec::Rs));
    let reader = model.verified_reader().unwrap().unwrap();
    let read = |start: usize, bytes: usize, threads| {
        let mut out = vec![0; bytes];
        reader.read(WEIGHTS, start as u64, &mut out, threads).map(|()| out)
    };
    for (start, bytes) in
        [(0, SIZE), (0, 0), (SIZE, 0), (SIZE - 1, 1), (16_383, 2), (99_990, 40_000), (1, SIZE - 2)]
    {
        for threads in [0, 1, 2, 5] {
            assert!(
                read(start, bytes, threads).unwrap() == expected[start..start + bytes],
                "{start}, {bytes}"
            );
        }
    }
    let mut plain = vec![0; SIZE - 2];
    model.read(WEIGHTS, 1, &mut plain, 3).unwrap();
    assert!(plain == expected[1..SIZE - 1] && model.read(WEIGHTS, 3, &mut plain, 3).is_err());
    assert!(matches!(read(1, SIZE, 1), Err(CacheError::Io { .. })));
    assert!(reader.read("another", 0, &mut [], 1).is_err());

    damage(model.weights().unwrap().path(), 150_000, true);
    let error = read(149_999, 1, 2).unwrap_err();
    assert!(error.to_string().contains("piece 3 of shard 1 of weights has not its digest"), "{error}");
    assert!(matches!(read(0, SIZE, 2), Err(CacheError::Corrupt { .. })));
    assert!(read(0, 100_001, 2).unwrap() == expected[..100_001], "the rest is right");
    assert!(
        publish_bytes(&cache, b"x", &Options { piece_size_bytes: None, ..options(1, 0, Codec::Rs) })
            .model
            .verified_reader()
            .unwrap()
            .is_none()
    );
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
        damage(model.weights().unwrap().path(), 150_000, true);
        damage(model.parity_path(4), 7, true);
        // As after a flipped bit, which changes no time.
        stamp::write_good(model.dir(), &stamp::of(model.dir(), &unnamed()).unwrap()).unwrap();
        assert!(cache.model(&digest).unwrap().is_some(), "the stamp fits");
        let report = cache.verify(&digest, 2, &|_, _| ()).unwrap().unwrap();
        let found: Vec<_> =
            report.bad.iter().map(|bad| (bad.shard, bad.is_parity, bad.pieces.clone())).collect();
        let pieces = |piece| if index { vec![piece] } else { Vec::new() };
        assert_eq!(found, [(1, false, pieces(3)), (4, true, pieces(0))]);
        assert_eq!(report.index, if index { IndexState::Good } else { IndexState::Absent });
        assert!(matches!(cache.model(&digest), Err(CacheError::Corrupt { .. })), "now it is known");
        let known = stamp::verdict(model.dir(), &unnamed()).unwrap();
        assert!(matches!(known, Verdict::Bad(damage) if damage.contains("shard 1")), "and not hashed again");
    }
    let (_dir, cache) = cache();
    assert!(cache.verify(&Digest::of(b"nothing"), 1, &|_, _| ()).unwrap().is_none());
}

#[test]
fn bad_parity_and_a_bad_index_are_dropped_and_the_weights_used() {
    let (_dir, cache) = cache();
    let Published { digest, model, .. } = publish(&cache);
    damage(model.parity_path(3), 7, false);
    damage(model.index_path(), 40, false);
    let report = cache.verify(&digest, 1, &|_, _| ()).unwrap().unwrap();
    assert_eq!((report.bad.len(), report.index), (1, IndexState::Corrupt), "{report}");
    let healed = cache.model(&digest).unwrap().unwrap();
    assert_eq!(healed.parity_kept(), [4]);
    assert!(healed.index().unwrap().is_none());
    assert_eq!(stamp::verdict(healed.dir(), &unnamed()).unwrap(), Verdict::Good);
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
    let partial = cache.partial(cache.lock_fill(&digest).unwrap(), Geometry::new(manifest), true).unwrap();
    partial.store_index(&blob).unwrap();
    for piece in all_pieces(right, 0..3) {
        let range = right.piece_range(piece.shard, piece.piece);
        partial.write_unverified(piece, &bytes_of(&published.model, piece.shard, range)).unwrap();
    }
    for shard in 0..3 {
        assert!(partial.check_shard(shard, &HashMap::new(), &|| true).unwrap().unwrap().good);
    }
    let model = partial.finish(false).unwrap();
    let report = recheck(&model, 1, &|_, _| ()).unwrap();
    assert!(report.bad.is_empty() && report.weights_are_good() && !report.is_good(), "{report}");
    assert_eq!(report.index, IndexState::Wrong);
}

/// A model that was fetched without waiting for the disk, and the cache as this process and as another one sees it.
fn not_durable() -> (TempDir, Cache, Cache, Model) {
    let ((_a, from), (dir, cache)) = (cache(), cache());
    let published = publish(&from);
    let partial = begin_with(&cache, &published, false);
    copy(&partial, &published.model, &all_pieces(&published.manifest, 0..3));
    let model = partial.finish(false).unwrap();
    let other = reopened(&cache);
    (dir, cache, other, model)
}

#[test]
fn what_was_not_synced_is_trusted_by_its_own_process_only() {
    let (_dir, cache, other, model) = not_durable();
    assert_eq!(stamp::verdict(model.dir(), &unnamed()).unwrap(), Verdict::Unknown);
    assert!(matches!(cache.trusted(model.digest()).unwrap(), Trust::Good(_)));
    assert!(matches!(other.trusted(model.digest()).unwrap(), Trust::Unknown));
    // What a snapshot of the disk holds that is mounted in the same boot: the right size, and other bytes.
    damage(model.weights().unwrap().path(), 150_000, true);
    assert!(matches!(other.model(model.digest()), Err(CacheError::Corrupt { .. })));
}

#[test]
fn what_was_not_synced_is_hashed_once_and_then_durable() {
    let (_dir, cache, other, model) = not_durable();
    assert_eq!(other.model(model.digest()).unwrap().unwrap().weights().unwrap().as_ref(), sample(SIZE, 1));
    assert_eq!(stamp::verdict(model.dir(), &unnamed()).unwrap(), Verdict::Good);
    assert!(matches!(reopened(&cache).trusted(model.digest()).unwrap(), Trust::Good(_)));
}

/// Whoever finds a model in its place without a stamp knows that something was not synced.
#[test]
fn a_sync_that_failed_is_made_up_for_by_the_next_run() {
    let (_dir, cache) = cache();
    let Published { digest, model, .. } = publish(&cache);
    stamp::remove(model.dir()).unwrap();
    assert!(matches!(reopened(&cache).trusted(&digest).unwrap(), Trust::Unknown));
    assert!(reopened(&cache).model(&digest).unwrap().is_some());
    assert_eq!(stamp::verdict(model.dir(), &unnamed()).unwrap(), Verdict::Good);
}

#[test]
fn what_is_found_bad_is_served_no_more_and_hashed_once() {
    let (_dir, cache) = cache();
    let Published { digest, model, manifest, .. } = publish(&cache);
    let blobs = Blobs::open(reopened(&cache), Vec::new()).unwrap();
    assert_eq!(blobs.models(), [digest]);
    damage(model.weights().unwrap().path(), 150_000, true);
    // Another process finds out.
    assert!(!cache.verify(&digest, 1, &|_, _| ()).unwrap().unwrap().is_good());
    let stop = AtomicBool::new(false);
    blobs.look_again();
    blobs.tend(&stop).unwrap();
    assert!(blobs.models().is_empty() && blobs.lookup(&manifest.shards()[0].digest).unwrap().is_none());

    // A model of which nobody knows anything waits for its turn.
    let other = publish_bytes(&cache, &sample(1000, 2), &options(3, 2, Codec::Rs));
    stamp::remove(other.model.dir()).unwrap();
    blobs.look_again();
    blobs.lookup(&Digest::of(b"nothing")).unwrap();
    assert!(blobs.models().is_empty());
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    blobs.tend(&stop).unwrap();
    assert!(blobs.models().is_empty(), "it was told to stop");
    stop.store(false, std::sync::atomic::Ordering::Relaxed);
    blobs.look_again();
    blobs.tend(&stop).unwrap();
    assert_eq!(blobs.models(), [other.digest]);
}
