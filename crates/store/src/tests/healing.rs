//! Bad models that become good again.

use std::os::unix::fs::MetadataExt as _;

use manifest::Geometry;

use super::*;

/// Makes a partial model of what is under the final name.
fn healed(cache: &Cache, published: &Published) -> Partial {
    let lock = cache.lock_fill(&published.digest).unwrap();
    let manifest = Arc::clone(&published.manifest);
    cache.heal(&lock, &Geometry::new(Arc::clone(&manifest))).unwrap();
    cache.partial(lock, Geometry::new(manifest), true).unwrap()
}

fn inode(cache: &Cache, digest: &Digest) -> u64 {
    fs::metadata(cache.layout().model(digest).join(WEIGHTS)).unwrap().ino()
}

/// The model of another cache, in this one.
fn place(from: &Published, cache: &Cache) {
    let partial = begin(cache, from);
    partial.store_index(&fs::read(from.model.index_path()).unwrap()).unwrap();
    copy(&partial, &from.model, &all_pieces(&from.manifest, all_shards(&from.manifest)));
    partial.finish(true).unwrap();
}

#[test]
fn a_bad_model_that_nobody_uses_is_healed_where_it_is() {
    let ((_a, from), (_b, cache)) = (cache(), cache());
    let published = publish(&from);
    place(&published, &cache);
    let path = cache.layout().model(&published.digest);
    damage(path.join(WEIGHTS), 150_000, true);
    let before = inode(&cache, &published.digest);
    assert!(matches!(cache.model(&published.digest), Err(CacheError::Corrupt { .. })));

    let partial = healed(&cache, &published);
    assert!(!path.exists());
    let all = all_pieces(&published.manifest, all_shards(&published.manifest));
    assert_eq!(partial.claims(), all, "all of it is claimed, and nothing believed");
    assert!(partial.index().unwrap().is_some());
    let (bad, good): (Vec<_>, Vec<_>) = all.into_iter().partition(|piece| *piece == at(1, 3));
    partial.confirm(&good);
    partial.void(&bad).unwrap();
    copy(&partial, &published.model, &bad);
    let model = partial.finish(true).unwrap();
    assert_eq!(model.weights().unwrap().as_ref(), sample(SIZE, 1));
    assert_eq!((inode(&cache, &published.digest), model.parity_kept()), (before, &[3, 4][..]));
    assert_eq!(fs::metadata(model.weights().unwrap().path()).unwrap().permissions().mode() & 0o777, 0o444);
    assert!(cache.model(&published.digest).unwrap().is_some());
}

#[test]
fn a_bad_model_that_somebody_uses_is_healed_beside_it() {
    let ((_a, from), (_b, cache)) = (cache(), cache());
    let published = publish(&from);
    place(&published, &cache);
    let used = cache.model(&published.digest).unwrap().unwrap();
    damage(used.weights().unwrap().path(), 150_000, true);
    let before = used.weights().unwrap().as_ref().to_vec();
    let partial = healed(&cache, &published);
    let (bad, good): (Vec<_>, Vec<_>) = partial.claims().into_iter().partition(|piece| *piece == at(1, 3));
    partial.confirm(&good);
    copy(&partial, &published.model, &bad);
    let model = partial.finish(true).unwrap();
    assert_eq!(model.weights().unwrap().as_ref(), sample(SIZE, 1));
    assert!(used.weights().unwrap().as_ref() == before, "nothing changes under whoever has it mapped");
    assert_eq!(cache.model(&published.digest).unwrap().unwrap().weights().unwrap().as_ref(), sample(SIZE, 1));
    assert!(fs::read_dir(cache.layout().partials()).unwrap().next().is_none());
}

#[test]
fn weights_that_are_gone_or_cut_off_leave_the_rest() {
    for cut_to in [None, Some(100_000)] {
        let ((_a, from), (_b, cache)) = (cache(), cache());
        let published = publish(&from);
        place(&published, &cache);
        let path = cache.layout().model(&published.digest).join(WEIGHTS);
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        match cut_to {
            None => fs::remove_file(&path).unwrap(),
            Some(bytes) => File::options().write(true).open(&path).unwrap().set_len(bytes).unwrap(),
        }
        assert!(!matches!(cache.model(&published.digest), Ok(Some(_))));
        let partial = healed(&cache, &published);
        let shards = if cut_to.is_some() { 0..5 } else { 3..5 };
        assert_eq!(partial.claims(), all_pieces(&published.manifest, shards), "{cut_to:?}");
        copy(&partial, &published.model, &all_pieces(&published.manifest, 0..3));
        assert_eq!(partial.finish(false).unwrap().weights().unwrap().as_ref(), sample(SIZE, 1));
    }
}

#[test]
fn what_is_being_filled_already_is_left_alone() {
    let ((_a, from), (_b, cache)) = (cache(), cache());
    let published = publish(&from);
    place(&published, &cache);
    damage(cache.layout().model(&published.digest).join(WEIGHTS), 7, true);
    copy(&begin(&cache, &published), &published.model, &[at(0, 0)]);
    let partial = healed(&cache, &published);
    assert_eq!(partial.claims(), [at(0, 0)]);
    partial.confirm(&[at(0, 0)]);
    copy(&partial, &published.model, &all_pieces(&published.manifest, 0..3));
    assert_eq!(partial.finish(false).unwrap().weights().unwrap().as_ref(), sample(SIZE, 1));
    assert!(cache.model(&published.digest).unwrap().is_some());
}
