//! Serving a model while it is filled.

use manifest::{Have, HaveChange, PieceSet};

use super::*;

/// The piece index of a published model.
fn index_of(published: &Published) -> Vec<u8> {
    fs::read(published.model.index_path()).unwrap()
}

fn pieces_found(blobs: &Blobs, manifest: &Digest, shard: &Digest) -> Offered {
    assert!(blobs.lookup(shard).unwrap().is_none(), "it is not whole yet");
    blobs.pieces(manifest, shard).unwrap().unwrap()
}

fn whole_found(blobs: &Blobs, blob: &Digest) -> Vec<u8> {
    let held = blobs.lookup(blob).unwrap().unwrap();
    let mut bytes = vec![0; usize::try_from(held.size_bytes()).unwrap()];
    held.read_at(0, &mut bytes).unwrap();
    bytes
}

fn told(blobs: &Blobs, manifest: &Digest, since: u64) -> Have {
    blobs.have(manifest, since).unwrap().unwrap()
}

fn is_full(have: &Have) -> bool {
    matches!(have.change, HaveChange::Holds(_))
}

/// The pieces that are told, by shard.
fn pieces(have: &Have) -> Vec<Vec<u32>> {
    have.change.shards().iter().map(|pieces| pieces.iter().collect()).collect()
}

#[test]
fn verified_pieces_are_offered_under_their_manifest_and_whole_blobs_everywhere() {
    let ((_a, from), (_b, cache)) = (cache(), cache());
    let published = publish(&from);
    let (digest, manifest) = (published.digest, &published.manifest);
    let blobs = Blobs::open(cache.clone(), Vec::new()).unwrap();
    let partial = begin(&cache, &published);
    blobs.offer(Arc::clone(partial.offer()));
    assert_eq!(whole_found(&blobs, &digest), manifest.to_json());
    let index = manifest.pieces().unwrap().index;
    assert!(blobs.lookup(&index).unwrap().is_none());
    partial.store_index(&index_of(&published)).unwrap();
    assert_eq!(whole_found(&blobs, &index), index_of(&published));

    let shard = manifest.shards()[0].digest;
    let offered = pieces_found(&blobs, &digest, &shard);
    assert!(!offered.holds(manifest.piece_range(0, 1)));
    let first = told(&blobs, &digest, 0);
    assert_eq!((is_full(&first), pieces(&first)), (true, vec![vec![]; 5]));
    copy(&partial, &published.model, &[at(0, 1), at(3, 0)]);
    let second = told(&blobs, &digest, first.version);
    assert!(!is_full(&second) && second.version > first.version);
    assert_eq!(pieces(&second)[..4], [vec![1], vec![], vec![], vec![0]]);

    let range = manifest.piece_range(0, 1);
    assert!(offered.holds(range) && !offered.is_whole());
    assert!(!offered.holds(ByteRange::new(range.start - 1, range.end)));
    let mut buffer = vec![0; usize::try_from(range.len()).unwrap()];
    assert!(offered.read_at(range.start, &mut buffer).unwrap());
    assert_eq!(buffer, bytes_of(&published.model, 0, range));
    assert!(offered.try_read_at(range.start, &mut buffer).unwrap() != Some(false));
    assert!(!offered.read_at(range.start - 1, &mut buffer).unwrap());
    assert_eq!(offered.try_read_at(range.start - 1, &mut buffer).unwrap(), Some(false));
    let parity = pieces_found(&blobs, &digest, &manifest.shards()[3].digest);
    assert!(parity.read_at(0, &mut buffer[..64]).unwrap());
    assert_eq!(buffer[..64], bytes_of(&published.model, 3, ByteRange::new(0, 64)));

    // Pieces belong to their manifest, and say nothing about the blob.
    assert!(blobs.lookup(&shard).unwrap().is_none());
    assert!(blobs.pieces(&Digest::of(b"other"), &shard).unwrap().is_none());
    copy(&partial, &published.model, &all_pieces(manifest, [0]));
    assert_eq!(Digest::of(&whole_found(&blobs, &shard)), shard);
    assert!(told(&blobs, &digest, second.version).change.shards()[0].is_all());
}

#[test]
fn a_model_that_is_finished_takes_the_place_of_its_offer() {
    let ((_a, from), (_b, cache)) = (cache(), cache());
    let published = publish(&from);
    let (digest, manifest) = (published.digest, &published.manifest);
    let blobs = Blobs::open(cache.clone(), Vec::new()).unwrap();
    let partial = begin(&cache, &published);
    partial.store_index(&index_of(&published)).unwrap();
    let offer = Arc::clone(partial.offer());
    blobs.offer(Arc::clone(&offer));
    copy(&partial, &published.model, &all_pieces(manifest, 0..3));
    let while_filling = told(&blobs, &digest, 0);
    let open = offer.shard(2).unwrap().unwrap();
    let model = partial.finish(false).unwrap();
    // Between the end of the filling and `add` everything is still there.
    let data = || manifest.shards()[..3].iter().map(|shard| shard.digest);
    for blob in data().chain([digest, manifest.pieces().unwrap().index]) {
        assert_eq!(Digest::of(&whole_found(&blobs, &blob)), blob);
    }
    blobs.add(&model);
    blobs.withdraw(&offer);
    for blob in data().chain([digest, manifest.pieces().unwrap().index]) {
        assert_eq!(Digest::of(&whole_found(&blobs, &blob)), blob);
    }
    assert!(open.read_at(0, &mut [0; 64]).unwrap(), "what is open stays readable");
    let finished = told(&blobs, &digest, while_filling.version);
    assert!(is_full(&finished) && finished.version > while_filling.version);
    let shards = finished.change.shards();
    assert!(shards[..3].iter().all(PieceSet::is_all) && shards[3..].iter().all(PieceSet::is_empty));
}

#[test]
fn what_was_not_finished_is_offered_no_more_and_what_earlier_runs_left_once_it_was_hashed() {
    let ((_a, from), (_b, cache)) = (cache(), cache());
    let published = publish(&from);
    let digest = published.digest;
    let blobs = Blobs::open(cache.clone(), Vec::new()).unwrap();
    let partial = begin(&cache, &published);
    let first = Arc::clone(partial.offer());
    blobs.offer(Arc::clone(&first));
    copy(&partial, &published.model, &[at(0, 0), at(1, 1)]);
    let version = told(&blobs, &digest, 0).version;
    drop(partial);
    blobs.withdraw(&first);
    assert!(blobs.lookup(&digest).unwrap().is_none() && blobs.have(&digest, 0).unwrap().is_none());

    let partial = begin(&cache, &published);
    blobs.offer(Arc::clone(partial.offer()));
    // That one's end comes late.
    blobs.withdraw(&first);
    let again = told(&blobs, &digest, version);
    assert!(is_full(&again) && again.version > version, "versions of an earlier run are not known");
    assert!(again.change.shards().iter().all(PieceSet::is_empty));
    partial.confirm(&[at(0, 0), at(1, 1)]);
    let more = told(&blobs, &digest, again.version);
    assert_eq!(pieces(&more)[..2], [[0], [1]]);
    // What turns out wrong after all is withdrawn.
    partial.void(&[at(0, 0)]).unwrap();
    let less = told(&blobs, &digest, more.version);
    assert!(is_full(&less) && pieces(&less)[..2] == [vec![], vec![1]]);
}

#[test]
fn a_forgotten_shard_is_not_offered() {
    let ((_a, from), (_b, cache)) = (cache(), cache());
    let published = publish(&from);
    let partial = begin(&cache, &published);
    let offered = partial.offer().shard(0).unwrap().unwrap();
    copy(&partial, &published.model, &all_pieces(&published.manifest, [0]));
    assert!(offered.is_whole() && partial.is_recorded(at(0, 1)));
    partial.forget(0).unwrap();
    assert!(!offered.is_whole() && !partial.is_recorded(at(0, 1)));
    assert!(!offered.read_at(0, &mut [0; 64]).unwrap());
}

#[test]
fn replicas_are_offered_under_each_of_their_names() {
    let ((_a, from), (_b, cache)) = (cache(), cache());
    let published = publish_bytes(&from, &sample(SIZE, 1), &options(3, 3, Codec::Replica));
    let partial = begin(&cache, &published);
    copy(&partial, &published.model, &[at(1, 2)]);
    let pieces = pieces(&partial.offer().have(0));
    assert_eq!((&pieces[1], &pieces[4]), (&vec![2], &vec![2]));
    let offered = partial.offer().shard(4).unwrap().unwrap();
    assert!(offered.holds(published.manifest.piece_range(4, 2)));
}
