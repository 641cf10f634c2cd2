//! Serving what earlier runs left of models that are not complete.

use std::sync::atomic::AtomicBool;

use super::*;

/// A cache in which a run has ended early, and what it was filling.
fn left(pieces: &[PieceId]) -> ((TempDir, TempDir), Cache, Published) {
    let ((a, from), (b, cache)) = (self::cache(), self::cache());
    let published = publish(&from);
    let partial = begin(&cache, &published);
    partial.store_index(&fs::read(published.model.index_path()).unwrap()).unwrap();
    copy(&partial, &published.model, pieces);
    partial.close();
    let cache = reopened(&cache);
    ((a, b), cache, published)
}

fn tend(blobs: &Blobs) {
    blobs.tend(&AtomicBool::new(false)).unwrap();
}

fn told(blobs: &Blobs, published: &Published) -> Option<Vec<Vec<u32>>> {
    let have = blobs.have(&published.digest, 0).unwrap()?;
    Some(have.change.shards().iter().map(|pieces| pieces.iter().collect()).collect())
}

#[test]
fn what_an_earlier_run_left_is_served_by_the_next_process() {
    let (_dirs, cache, published) = left(&[at(0, 0), at(1, 1), at(3, 1)]);
    let blobs = Blobs::open(cache, Vec::new()).unwrap();
    assert!(told(&blobs, &published).is_none());
    tend(&blobs);
    let pieces = told(&blobs, &published).unwrap();
    assert_eq!(pieces[..4], [vec![0], vec![1], vec![], vec![1]]);
    let shard = published.manifest.shards()[1].digest;
    let offered = blobs.pieces(&published.digest, &shard).unwrap().unwrap();
    let range = published.manifest.piece_range(1, 1);
    let mut buffer = vec![0; usize::try_from(range.len()).unwrap()];
    assert!(offered.read_at(range.start, &mut buffer).unwrap());
    assert_eq!(buffer, bytes_of(&published.model, 1, range));
    assert!(blobs.names().unwrap().contains(&published.digest));
}

#[test]
fn what_was_damaged_meanwhile_is_not_served() {
    let (_dirs, cache, published) = left(&[at(0, 0), at(0, 1)]);
    damage(cache.layout().partial(&published.digest).join(WEIGHTS), 7, true);
    let blobs = Blobs::open(cache, Vec::new()).unwrap();
    tend(&blobs);
    assert_eq!(told(&blobs, &published).unwrap()[0], [1]);
}

#[test]
fn nothing_is_hashed_while_somebody_fills_a_model() {
    let (_dirs, cache, published) = left(&[at(0, 0)]);
    let (blobs, other) = (Blobs::open(cache.clone(), Vec::new()).unwrap(), reopened(&cache));
    let partial = begin(&other, &published);
    tend(&blobs);
    assert!(told(&blobs, &published).is_none(), "another process has it");
    copy(&partial, &published.model, &[at(2, 0)]);
    partial.close();

    let partial = begin(&cache, &published);
    blobs.offer(Arc::clone(partial.offer()));
    tend(&blobs);
    assert!(told(&blobs, &published).unwrap().iter().all(Vec::is_empty), "this process has it");
    let offer = Arc::clone(partial.offer());
    partial.close();
    blobs.withdraw(&offer);
    tend(&blobs);
    assert_eq!(told(&blobs, &published).unwrap()[..3], [vec![0], vec![], vec![0]]);
}

#[test]
fn more_that_was_left_since_is_served_and_what_was_removed_is_not() {
    let (_dirs, cache, published) = left(&[at(0, 0)]);
    let (blobs, other) = (Blobs::open(cache.clone(), Vec::new()).unwrap(), reopened(&cache));
    tend(&blobs);
    let partial = begin(&other, &published);
    copy(&partial, &published.model, &[at(1, 0)]);
    partial.close();
    tend(&blobs);
    assert_eq!(told(&blobs, &published).unwrap()[..2], [vec![0], vec![0]]);
    other.remove(&published.digest).unwrap();
    tend(&blobs);
    assert!(told(&blobs, &published).is_none());
}

#[test]
fn once_it_is_finished_elsewhere_the_model_is_served() {
    let (_dirs, cache, published) = left(&[at(0, 0)]);
    let (blobs, other) = (Blobs::open(cache.clone(), Vec::new()).unwrap(), reopened(&cache));
    tend(&blobs);
    let partial = begin(&other, &published);
    partial.index().unwrap();
    partial.recheck(&partial.claims(), &|| true).unwrap();
    copy(&partial, &published.model, &all_pieces(&published.manifest, 0..3));
    partial.finish(false).unwrap();
    blobs.look_again();
    tend(&blobs);
    assert_eq!(blobs.models(), [published.digest]);
    let pieces = told(&blobs, &published).unwrap();
    assert_eq!(pieces[2].len(), published.manifest.piece_count(2) as usize);
}
