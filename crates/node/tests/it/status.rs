//! What a running node tells of itself.

use std::os::unix::net::UnixListener;

use loader::encode::{Input, Options, publish};
use node::status::{QueryError, running};
use node::{Config, Node};

#[tokio::test(flavor = "multi_thread")]
async fn every_node_of_a_cache_answers_until_it_ends() {
    let dir = tempfile::tempdir().unwrap();
    assert!(running(dir.path()).unwrap().is_empty(), "nothing runs, and the folder is not there");
    let (one, two) = (start(dir.path()).await, start(dir.path()).await);
    let heard: Vec<_> = ask(dir.path()).await.into_iter().map(Result::unwrap).collect();
    let mut ids: Vec<_> = heard.iter().map(|status| status.peer_id.clone()).collect();
    let mut expected = [one.peer_id().to_string(), two.peer_id().to_string()];
    ids.sort_unstable();
    expected.sort_unstable();
    assert_eq!(ids, expected);
    assert!(heard.iter().all(|status| status.pid == std::process::id() && status.loading.is_empty()));
    one.shutdown().await;
    let heard = ask(dir.path()).await;
    assert_eq!(heard.len(), 1);
    assert_eq!(heard[0].as_ref().unwrap().peer_id, two.peer_id().to_string());
    drop(two);
    assert!(ask(dir.path()).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn models_and_loads_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path()).await;
    let cache = node.cache().clone();
    let file = dir.path().join("weights");
    std::fs::copy(std::env::current_exe().unwrap(), &file).unwrap();
    let published = tokio::task::spawn_blocking(move || {
        publish(&cache, &Input::File(file), &Options::default(), &|_, _| ()).unwrap()
    });
    let digest = published.await.unwrap().digest;
    assert!(node.status().models.is_empty(), "it is not served before somebody loads it or asks for it");
    node.load(digest, &loader::Silent).await.unwrap();
    assert_eq!(node.status().models, [digest.to_string()]);

    let other = manifest::Digest::of(b"nobody has it");
    let loading = node.load(other, &loader::Silent);
    tokio::pin!(loading);
    let polled = futures::poll!(&mut loading);
    assert!(polled.is_pending());
    // The load has begun once it waits for something else than the cache.
    let begun = async {
        while node.status().loading.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        _ = &mut loading => panic!("nobody has it"),
        () = begun => {}
    }
    assert_eq!(node.status().loading[0].manifest, other.to_string());
    assert_eq!(node.status().loading[0].total_size_bytes, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_sockets_are_swept_and_strangers_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    std::fs::create_dir(&run).unwrap();
    drop(UnixListener::bind(run.join("1.sock")).unwrap());
    let node = start(dir.path()).await;
    assert!(!run.join("1.sock").exists());
    let stranger = UnixListener::bind(run.join("0.sock")).unwrap();
    let silent = std::thread::spawn(move || drop(stranger.accept()));
    let heard = ask(dir.path()).await;
    silent.join().unwrap();
    assert!(matches!(heard[0], Err(QueryError::Nonsense { .. })), "{:?}", heard[0]);
    assert!(heard[1].is_ok());
    node.shutdown().await;
}

async fn start(dir: &std::path::Path) -> Node {
    Node::start(Config::new(dir).with_mdns(false)).await.unwrap()
}

async fn ask(dir: &std::path::Path) -> Vec<node::status::Running> {
    let dir = dir.to_owned();
    tokio::task::spawn_blocking(move || running(&dir).unwrap()).await.unwrap()
}
