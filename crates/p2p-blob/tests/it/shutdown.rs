//! How a node ends.

use std::sync::Arc;

use manifest::Digest;
use p2p_blob::FetchError;

use crate::common::{MemoryStore, Node, bytes, get, soon};

#[tokio::test]
async fn answers_in_progress_are_finished_and_new_requests_are_not_taken() {
    let content = bytes(1, 2 << 20);
    let store = MemoryStore::with(&[&content]);
    let gate = Arc::clone(&store.gate);
    let seeder = Node::start(store, |config| config);
    let session = Node::fetcher().ranges(&seeder).await;
    gate.shut(true);
    let (request, buf) = get(Digest::of(&content), 0, 2 << 20);
    let in_progress = tokio::spawn({
        let (session, buf) = (session.clone(), buf.clone());
        async move { session.get(request, buf).await }
    });
    gate.waiting(1).await;
    let client = seeder.client.clone();
    let shutdown = tokio::spawn(async move { client.shutdown().await });
    // The order is in when the node takes no more commands.
    soon(async {
        while !matches!(seeder.client.open(session.peer()).await, Err(FetchError::Stopped)) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    gate.shut(false);
    assert!(soon(in_progress).await.unwrap().unwrap() == content);
    soon(shutdown).await.unwrap();
    soon(seeder.task.join()).await.unwrap();
    let error = soon(session.get(request, buf)).await.unwrap_err();
    assert!(matches!(error, FetchError::Closed { .. }), "{error}");
}

#[tokio::test]
async fn an_answer_that_does_not_end_is_cut_after_the_drain_timeout() {
    let store = MemoryStore::with(&[b"data"]);
    let gate = Arc::clone(&store.gate);
    let seeder =
        Node::start(store, |config| config.with_drain_timeout(std::time::Duration::from_millis(100)));
    let session = Node::fetcher().ranges(&seeder).await;
    gate.shut(true);
    let (request, buf) = get(Digest::of(b"data"), 0, 4);
    let cut = tokio::spawn(async move { session.get(request, buf).await });
    gate.waiting(1).await;
    soon(seeder.client.shutdown()).await;
    gate.shut(false);
    let error = soon(cut).await.unwrap().unwrap_err();
    assert!(matches!(error, FetchError::Closed { .. }), "{error}");
}

#[tokio::test]
async fn the_last_client_or_session_takes_the_node_along() {
    let seeder = Node::start(MemoryStore::with(&[b"data"]), |config| config);
    let Node { client, task } = Node::fetcher();
    let peer = soon(client.connect(seeder.addr().await)).await.unwrap();
    let session = soon(client.open(peer)).await.unwrap();
    drop(client);
    let read = soon(p2p_blob::read_blob(&session, Digest::of(b"data"), 4)).await.unwrap();
    assert_eq!(read.as_deref(), Some(&b"data"[..]));
    drop(session);
    soon(task.join()).await.unwrap();
}

#[tokio::test]
async fn an_aborted_node_is_gone_at_once() {
    let node = Node::start(MemoryStore::with(&[]), |config| config);
    node.task.abort();
    assert!(soon(node.task.join()).await.unwrap_err().is_cancelled());
    soon(node.client.shutdown()).await;
}
