//! What is limited: answers at one time, and rates.

use std::num::NonZeroU64;
use std::sync::Arc;

use manifest::Digest;
use p2p_blob::{FetchError, Limits, PeerEvent, Versions, read_blob};

use crate::common::{MemoryStore, Node, bytes, get, soon};

/// Not over the burst of a rate by much, so that tests take no time.
const RATE: Option<NonZeroU64> = NonZeroU64::new(2 << 20);

#[tokio::test]
async fn whoever_is_told_busy_is_served_when_a_place_is_free() {
    let content = bytes(1, 300_000);
    let store = MemoryStore::with(&[&content]);
    let gate = Arc::clone(&store.gate);
    let seeder = Node::start(store, |config| config.with_limits(Limits::default().with_uploads(1)));
    let (one, two) = (Node::fetcher(), Node::fetcher());
    let (first, second) = (one.ranges(&seeder).await, two.ranges(&seeder).await);
    gate.shut(true);
    let (request, buf) = get(Digest::of(&content), 0, 300_000);
    let slow = tokio::spawn(async move { first.get(request, buf).await });
    gate.waiting(1).await;
    let error = soon(second.get(request, vec![0; 300_000])).await.unwrap_err();
    assert!(matches!(error, FetchError::Busy { retry_after, .. } if !retry_after.is_zero()), "{error}");
    gate.shut(false);
    assert!(soon(slow).await.unwrap().unwrap() == content);
    assert!(soon(second.get(request, vec![0; 300_000])).await.unwrap() == content, "the session goes on");
    assert_eq!(seeder.client.sent_bytes(), 600_000, "a refusal sends nothing of the blob");
}

#[tokio::test]
async fn both_versions_deliver_within_rates_for_sending_and_receiving() {
    let content = bytes(2, 700_001);
    let blob = Digest::of(&content);
    for versions in [Versions::Both, Versions::OnlyBlobs] {
        for (upload, download) in [(RATE, None), (None, RATE), (RATE, RATE)] {
            let seeder = Node::start(MemoryStore::with(&[&content]), |config| {
                config.with_limits(Limits::default().with_upload_bytes_per_s(upload))
            });
            let fetcher = Node::start(MemoryStore::with(&[]), |config| {
                let limits = Limits::default().with_download_bytes_per_s(download);
                config.with_versions(versions).with_limits(limits)
            });
            let session = fetcher.session(&seeder).await;
            let read = soon(read_blob(&session, blob, 1 << 20)).await.unwrap().unwrap();
            assert!(read == content, "{versions:?} {upload:?} {download:?}");
            assert!(seeder.client.sent_bytes() >= 700_001 && session.received_bytes() >= 700_001);
        }
    }
}

#[tokio::test]
async fn a_small_blob_comes_while_all_places_are_taken() {
    let (large, small) = (bytes(3, 300_000), bytes(4, 1000));
    let store = MemoryStore::with(&[&large]);
    let mut open = store.whole(&small);
    open.gate = Arc::default();
    store.add(None, Digest::of(&small), open);
    let gate = Arc::clone(&store.gate);
    let seeder = Node::start(store, |config| config.with_limits(Limits::default().with_uploads(1)));
    let (one, two) = (Node::fetcher(), Node::fetcher());
    let (first, second) = (one.ranges(&seeder).await, two.session(&seeder).await);
    gate.shut(true);
    let (request, buf) = get(Digest::of(&large), 0, 300_000);
    let slow = tokio::spawn(async move { first.get(request, buf).await });
    gate.waiting(1).await;
    let read = soon(read_blob(&second, Digest::of(&small), 1 << 20)).await.unwrap().unwrap();
    assert_eq!(read, small);
    gate.shut(false);
    assert!(soon(slow).await.unwrap().unwrap() == large);
}

#[tokio::test]
async fn connections_that_others_make_leave_room_for_those_that_this_node_makes() {
    let node = Node::start(MemoryStore::with(&[]), |config| {
        config.with_limits(Limits::default().with_connections(4))
    });
    let others: Vec<_> = (0..6).map(|_| Node::fetcher()).collect();
    let addr = node.addr().await;
    let mut events = node.client.peer_events();
    let mut let_in = 0;
    for other in &others {
        // One that is not let in may be told so a moment after its handshake.
        let connected = soon(other.client.connect(addr.clone())).await;
        let is_in = connected.is_ok() && soon(other.client.open(node.client.peer_id())).await.is_ok();
        let_in += usize::from(is_in);
    }
    assert_eq!(let_in, 3, "all come from one address, and none is idle for long");
    while let Ok(event) = events.try_recv() {
        assert!(matches!(event, PeerEvent::Connected { .. }), "{event:?}");
    }
    let target = Node::start(MemoryStore::with(&[]), |config| config);
    soon(node.client.connect(target.addr().await)).await.unwrap();
}
