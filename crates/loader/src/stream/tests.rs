//! Tensors that are read while they arrive.

use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::time::Duration;

use manifest::{ByteRange, Codec, Digest};
use store::Cache;
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};

use super::*;
use crate::encode::Published;
use crate::encode::tests::{options, publish_bytes, sample};
use crate::fetch::LoadedTensor;
use crate::fetch::tests::Shelf;
use crate::observer::Silent;
use crate::source::SourceEvent;
use crate::{Selection, load};

/// Nothing here takes so long.
const PATIENCE: Duration = Duration::from_secs(20);
const TENSOR_BYTES: usize = 300_000;
const COUNT: usize = 4;

/// Four tensors in two shards, in a cache of its own.
fn published() -> (TempDir, Published) {
    let entry = |number: usize| {
        let (start, end) = (number * TENSOR_BYTES, (number + 1) * TENSOR_BYTES);
        format!(r#""t{number}":{{"dtype":"U8","shape":[3,100000],"data_offsets":[{start},{end}]}}"#)
    };
    let header = format!("{{{}}}", (0..COUNT).map(entry).collect::<Vec<_>>().join(","));
    let data = sample(COUNT * TENSOR_BYTES, 5);
    let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path()).unwrap();
    (dir, publish_bytes(&cache, &file, &options(2, 1, Codec::Rs)))
}

fn data(number: usize) -> Vec<u8> {
    sample(COUNT * TENSOR_BYTES, 5)[number * TENSOR_BYTES..(number + 1) * TENSOR_BYTES].to_vec()
}

async fn fetch(
    cache: &Cache,
    digest: Digest,
    shelf: Option<Shelf>,
    verify: bool,
    sender: TensorSender,
) -> Result<(), LoadError> {
    let (events, receiver) = mpsc::channel(1);
    if let Some(shelf) = shelf {
        events.send(SourceEvent::Up(Arc::new(shelf))).await.ok().unwrap();
    }
    drop(events);
    let options = FetchOptions::default().with_threads(2).with_wait(Duration::from_millis(100));
    let feed = TensorFeed::new(Vec::new(), verify, &options, &Silent, sender);
    let options = options.with_ahead(feed.ahead());
    let (model, _) = load(cache, digest, receiver, &options, &feed).await?;
    feed.complete(Some(&model));
    Ok(())
}

async fn next(tensors: &mut TensorReceiver) -> Option<Result<LoadedTensor, LoadError>> {
    tokio::time::timeout(PATIENCE, tensors.recv()).await.unwrap()
}

async fn assert_next(tensors: &mut TensorReceiver, number: usize) {
    let tensor = next(tensors).await.unwrap().unwrap();
    assert_eq!((tensor.name, tensor.shape), (format!("t{number}"), vec![3, 100_000]));
    assert!(tensor.bytes == data(number));
}

#[tokio::test]
async fn each_tensor_comes_as_soon_as_its_pieces_are_here_and_in_order() {
    let ((_a, published), dir) = (published(), tempfile::tempdir().unwrap());
    let (cache, digest) = (Cache::open(dir.path()).unwrap(), published.digest);
    let (open, gate) = watch::channel(false);
    // The second half of each shard.
    let held_back = ByteRange::new(400_000, u64::MAX);
    let mut shelf = Shelf::of(&published);
    shelf.gate = Some((held_back, gate));
    let (sender, mut tensors) = tensor_channel();
    let load = tokio::spawn(async move { fetch(&cache, digest, Some(shelf), true, sender).await });
    assert_next(&mut tensors, 0).await;
    assert!(!load.is_finished());
    open.send(true).unwrap();
    for number in 1..COUNT {
        assert_next(&mut tensors, number).await;
    }
    assert!(next(&mut tensors).await.is_none());
    load.await.unwrap().unwrap();
}

#[tokio::test]
async fn what_is_in_the_cache_comes_without_a_source_and_is_hashed_if_asked() {
    let (_a, published) = published();
    let cache = Cache::open(_a.path()).unwrap();
    for verify in [false, true] {
        let (sender, mut tensors) = tensor_channel();
        fetch(&cache, published.digest, None, verify, sender).await.unwrap();
        for number in 0..COUNT {
            assert_next(&mut tensors, number).await;
        }
        assert!(next(&mut tensors).await.is_none());
    }
    // A byte of the third tensor changes after the cache has looked at the file.
    let (sender, mut tensors) = tensor_channel();
    fetch(&cache, published.digest, None, true, sender).await.unwrap();
    let path = published.model.path();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let file = std::fs::File::options().read(true).write(true).open(&path).unwrap();
    let (at, mut byte) = (file.metadata().unwrap().len() - 1, [0]);
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[!byte[0]], at).unwrap();
    let mut failed = None;
    while let Some(tensor) = next(&mut tensors).await {
        match tensor {
            Ok(tensor) => assert!(tensor.name != format!("t{}", COUNT - 1)),
            Err(error) => failed = Some(error),
        }
    }
    assert!(matches!(failed, Some(LoadError::Cache(store::CacheError::Corrupt { .. }))), "{failed:?}");
}

#[tokio::test]
async fn a_load_that_fails_ends_the_stream_and_so_does_one_that_is_dropped() {
    let ((_a, published), dir) = (published(), tempfile::tempdir().unwrap());
    let (cache, digest) = (Cache::open(dir.path()).unwrap(), published.digest);
    let (sender, mut tensors) = tensor_channel();
    assert!(fetch(&cache, digest, None, false, sender).await.is_err());
    assert!(next(&mut tensors).await.is_none());

    let (_open, gate) = watch::channel(false);
    let held_back = ByteRange::new(400_000, u64::MAX);
    let mut shelf = Shelf::of(&published);
    shelf.gate = Some((held_back, gate));
    let (sender, mut tensors) = tensor_channel();
    let load = tokio::spawn(async move { fetch(&cache, digest, Some(shelf), false, sender).await });
    assert_next(&mut tensors, 0).await;
    load.abort();
    assert!(next(&mut tensors).await.is_none());
}

#[tokio::test]
async fn a_load_that_says_all_is_here_though_it_is_not_ends_in_an_error() {
    let ((_a, published), dir) = (published(), tempfile::tempdir().unwrap());
    let (_open, gate) = watch::channel(false);
    let mut shelf = Shelf::of(&published);
    shelf.gate = Some((ByteRange::new(400_000, u64::MAX), gate));
    let (events, receiver) = mpsc::channel(1);
    events.send(SourceEvent::Up(Arc::new(shelf))).await.ok().unwrap();
    let ((sender, mut tensors), options) = (tensor_channel(), FetchOptions::default().with_threads(2));
    let feed = TensorFeed::new(Vec::new(), false, &options, &Silent, sender);
    let cache = Cache::open(dir.path()).unwrap();
    tokio::select! {
        _ = load(&cache, published.digest, receiver, &options, &feed) => unreachable!("half of it is held back"),
        () = assert_next(&mut tensors, 0) => {}
    }
    feed.complete(None);
    assert!(matches!(next(&mut tensors).await, Some(Err(LoadError::Worker(_)))));
    assert!(next(&mut tensors).await.is_none());
}

#[tokio::test]
async fn nobody_who_takes_them_is_no_reason_to_stop() {
    let ((_a, published), dir) = (published(), tempfile::tempdir().unwrap());
    let (cache, digest) = (Cache::open(dir.path()).unwrap(), published.digest);
    let (sender, tensors) = tensor_channel();
    // They are not taken, and then nobody is there.
    let load = fetch(&cache, digest, Some(Shelf::of(&published)), false, sender);
    tokio::time::timeout(PATIENCE, load).await.unwrap().unwrap();
    drop(tensors);
    assert!(cache.model(&digest).unwrap().is_some());
    let choice = TensorChoice { names: Selection::new(&["t9".to_owned()], &[]).unwrap(), rows: None };
    let (sender, mut tensors) = tensor_channel();
    let feed = TensorFeed::new(vec![choice], false, &FetchOptions::default(), &Silent, sender);
    feed.complete(Some(&cache.model(&digest).unwrap().unwrap()));
    assert!(matches!(next(&mut tensors).await, Some(Err(LoadError::NoSuchTensors { .. }))));
}
