//! A new version is loaded while the old one is mapped.

use futures::StreamExt as _;
use loader::Silent;
use loader::encode::{Input, Options, publish};
use manifest::Digest;
use node::{Config, Multiaddr, Node};
use store::CacheError;

/// A node that publishes and serves.
async fn seeder(dir: &std::path::Path, versions: &[Vec<u8>]) -> (Node, Vec<Digest>) {
    let listen = vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()];
    let config = Config::new(dir.join("cache")).with_mdns(false).with_listen(listen);
    let node = Node::start(config).await.unwrap();
    let mut digests = Vec::new();
    for (number, weights) in versions.iter().enumerate() {
        let (cache, path) = (node.cache().clone(), dir.join(format!("weights-{number}")));
        std::io::Write::write_all(&mut std::fs::File::create(&path).unwrap(), weights).unwrap();
        let options = Options::default().with_piece_size_bytes(16 << 10);
        let published = tokio::task::spawn_blocking(move || {
            publish(&cache, &Input::File(path), &options, &|_, _| ()).unwrap()
        });
        digests.push(published.await.unwrap().digest);
    }
    for digest in &digests {
        node.load(*digest, &Silent).await.unwrap();
    }
    (node, digests)
}

async fn address(node: &Node) -> Multiaddr {
    let mut addresses = node.listen_addrs();
    loop {
        if let Some(address) = addresses.next().await.unwrap().first() {
            return address.clone();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_old_version_lives_for_as_long_as_somebody_maps_it() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let old: Vec<u8> = (0..400_000u32).map(|index| (index.wrapping_mul(0x9E37_79B9) >> 24) as u8).collect();
    let mut new = old.clone();
    new[..20_000].iter_mut().for_each(|byte| *byte ^= 1);
    let (seeder, digests) = seeder(from.path(), &[old.clone(), new.clone()]).await;
    let address = address(&seeder).await;
    let config = Config::new(to.path()).with_mdns(false).with_peers(vec![address]);
    let node = Node::start(config).await.unwrap();

    let first = node.load(digests[0], &Silent).await.unwrap().model;
    let weights = first.weights().unwrap().clone();
    drop(first);
    let second = node.load(digests[1], &Silent).await.unwrap();
    assert!(weights.as_ref() == old && second.model.weights().unwrap().as_ref() == new);
    assert!(second.report.reused_bytes > 300_000, "{:?}", second.report);

    // Not even when the node is told to make room.
    assert!(node.keep_last("series", digests[0], 1).await.unwrap().is_empty());
    assert!(node.keep_last("series", digests[1], 1).await.unwrap().is_empty());
    assert!(weights.as_ref() == old);
    let cache = node.cache().clone();
    assert!(matches!(cache.remove(&digests[0]), Err(CacheError::InUse { .. })));
    drop(weights);
    assert_eq!(node.keep_last("series", digests[1], 1).await.unwrap(), [digests[0]]);
    assert!(cache.model(&digests[0]).unwrap().is_none());
    assert!(second.model.weights().unwrap().as_ref() == new);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_is_under_way_asks_peers_that_are_added() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let weights: Vec<u8> =
        (0..100_000u32).map(|index| (index.wrapping_mul(0x9E37_79B9) >> 24) as u8).collect();
    let (seeder, digests) = seeder(from.path(), std::slice::from_ref(&weights)).await;
    let node = Node::start(Config::new(to.path()).with_mdns(false)).await.unwrap();
    let mut load = Box::pin(node.load(digests[0], &Silent));
    for _ in 0..10 {
        assert!(futures::poll!(&mut load).is_pending(), "nobody is there to be asked");
        tokio::task::yield_now().await;
    }
    node.add_peer(address(&seeder).await);
    assert!(load.await.unwrap().model.weights().unwrap().as_ref() == weights);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_verifies_what_its_cache_holds() {
    let dir = tempfile::tempdir().unwrap();
    let (node, digests) = seeder(dir.path(), &[vec![7; 50_000]]).await;
    assert!(node.verify(digests[0]).await.unwrap().unwrap().is_good());
    assert!(node.verify(Digest::of(b"another")).await.unwrap().is_none());
    let path = node.load(digests[0], &Silent).await.unwrap().model.weights().unwrap().path().to_owned();
    let mut permissions = std::fs::metadata(&path).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o644);
    std::fs::set_permissions(&path, permissions).unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[8], 40_000).unwrap();
    let report = node.verify(digests[0]).await.unwrap().unwrap();
    assert!(!report.is_good(), "{report:?}");
}
