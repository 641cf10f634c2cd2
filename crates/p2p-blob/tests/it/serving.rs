//! What a server bears.

use std::time::Duration;

use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use manifest::Digest;
use p2p_blob::{FetchError, Limits, Versions, read_blob};

use crate::common::{MemoryStore, Node, RawPeer, V1, V2, bytes, get, soon};

const SHORT: Duration = Duration::from_millis(500);

/// A GET request for the first `length` bytes.
fn get_frame(blob: Digest, length: u32) -> Vec<u8> {
    [&[0, 0, 0, 77, 1][..], &[0; 32], blob.as_bytes(), &[0; 8], &length.to_be_bytes()].concat()
}

/// Reads until the other side closes or resets the stream.
async fn ends(mut stream: libp2p::Stream) {
    let mut buf = vec![0; 1 << 16];
    soon(async { while matches!(stream.read(&mut buf).await, Ok(1..)) {} }).await;
}

#[tokio::test]
async fn a_reader_that_stalls_loses_its_stream_and_nobody_else_does() {
    let content = bytes(1, 4 << 20);
    let seeder = Node::start(MemoryStore::with(&[&content]), |config| {
        config.with_progress_timeout(SHORT).with_limits(Limits::default().with_streams(1))
    });
    let mut raw = RawPeer::start(V2).await;
    let mut stream = raw.open(&seeder, V2).await;
    for _ in 0..16 {
        stream.write_all(&get_frame(Digest::of(&content), 4 << 20)).await.unwrap();
    }
    // The only place is taken until the server gives up on the stalled stream.
    let fetcher = Node::fetcher();
    let (request, buf) = get(Digest::of(&content), 0, 100);
    soon(async {
        loop {
            match fetcher.ranges(&seeder).await.get(request, buf.clone()).await {
                Ok(got) => break assert_eq!(got, content[..100]),
                Err(error) => assert!(matches!(error, FetchError::Busy { .. }), "{error}"),
            }
            tokio::time::sleep(SHORT / 10).await;
        }
    })
    .await;
    ends(stream).await;
}

#[tokio::test]
async fn an_idle_stream_is_closed() {
    let seeder = Node::start(MemoryStore::with(&[b"data"]), |config| config.with_idle_timeout(SHORT));
    let mut raw = RawPeer::start(V2).await;
    let mut stream = raw.open(&seeder, V2).await;
    stream.write_all(&get_frame(Digest::of(b"data"), 4)).await.unwrap();
    let mut answer = [0; 21];
    soon(stream.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer[17..], b"data");
    ends(stream).await;
}

#[tokio::test]
async fn half_a_request_is_not_waited_for() {
    let seeder = Node::start(MemoryStore::with(&[]), |config| config.with_progress_timeout(SHORT));
    let mut raw = RawPeer::start(V2).await;
    for (protocol, part) in [(V2, 2), (V2, 40), (V1, 0), (V1, 20)] {
        let mut stream = raw.open(&seeder, protocol).await;
        stream.write_all(&get_frame(Digest::ZERO, 1)[..part]).await.unwrap();
        stream.flush().await.unwrap();
        ends(stream).await;
    }
}

#[tokio::test]
async fn a_flood_of_requests_that_are_never_read_stops_at_the_sender() {
    let content = bytes(2, 1 << 20);
    // Not as short: the other fetcher must not seem to stall on a machine that has much to do.
    let limit = Duration::from_secs(2);
    let seeder = Node::start(MemoryStore::with(&[&content]), |config| config.with_progress_timeout(limit));
    let mut raw = RawPeer::start(V2).await;
    let mut stream = raw.open(&seeder, V2).await;
    let flood = tokio::spawn(async move {
        let requests = get_frame(Digest::of(&bytes(2, 1 << 20)), 1 << 20).repeat(100);
        // Ends when the server resets the stream; else this never ends.
        while stream.write_all(&requests).await.is_ok() {}
    });
    let session = Node::fetcher().session(&seeder).await;
    for _ in 0..10 {
        let read = soon(read_blob(&session, Digest::of(&content), 1 << 20)).await.unwrap().unwrap();
        assert!(read == content);
    }
    soon(flood).await.unwrap();
}

#[tokio::test]
async fn frames_that_break_the_protocol_end_the_stream() {
    let seeder = Node::start(MemoryStore::with(&[b"data"]), |config| config);
    let mut raw = RawPeer::start(V2).await;
    for frame in [&[0, 0, 0, 0][..], &[0, 0, 4, 1], &[0xFF; 4]] {
        let mut stream = raw.open(&seeder, V2).await;
        stream.write_all(frame).await.unwrap();
        let mut answer = Vec::new();
        // A reset, or an end without a byte.
        drop(soon(stream.read_to_end(&mut answer)).await);
        assert_eq!(answer, [0; 0], "{frame:?}");
    }
    for request in [
        [&[0, 0, 0, 63][..], &[b'a'; 63]].concat(),
        [&[0, 0, 0, 64][..], &[b'A'; 64]].concat(),
        [&[0xFF; 4][..], &[b'a'; 64]].concat(),
    ] {
        let mut stream = raw.open(&seeder, V1).await;
        stream.write_all(&request).await.unwrap();
        stream.close().await.unwrap();
        let mut answer = Vec::new();
        drop(soon(stream.read_to_end(&mut answer)).await);
        assert_eq!(answer, [0; 0]);
    }
}

#[tokio::test]
async fn requests_that_are_wrong_or_unknown_are_answered_and_the_stream_goes_on() {
    let seeder = Node::start(MemoryStore::with(&[b"data"]), |config| config);
    let mut raw = RawPeer::start(V2).await;
    let mut stream = raw.open(&seeder, V2).await;
    let peers = [&[0, 0, 0, 33, 3][..], &[7; 32]].concat();
    for (request, status) in [
        (vec![0, 0, 0, 1, 0x99], 4),
        (vec![0, 0, 0, 2, 1, 1], 4),
        (get_frame(Digest::of(b"data"), 0), 4),
        (get_frame(Digest::of(b"data"), (4 << 20) + 1), 4),
        (get_frame(Digest::of(b"data"), 5), 4),
        (get_frame(Digest::of(b"none"), 5), 1),
        (peers, 1),
        (get_frame(Digest::of(b"data"), 4), 0),
    ] {
        stream.write_all(&request).await.unwrap();
        let mut length = [0; 4];
        soon(stream.read_exact(&mut length)).await.unwrap();
        let mut body = vec![0; u32::from_be_bytes(length) as usize];
        soon(stream.read_exact(&mut body)).await.unwrap();
        assert_eq!(body[0], status, "{request:?} {:?}", String::from_utf8_lossy(&body[1..]));
    }
}

#[tokio::test]
async fn what_a_store_cannot_read_is_not_held_or_cuts_the_answer() {
    let content = bytes(3, 1 << 20);
    let store = MemoryStore::with(&[]);
    let mut bad_end = store.whole(&content);
    bad_end.fails_from = 600_000;
    store.add(None, Digest::of(&content), bad_end);
    let seeder = Node::start(store, |config| config);
    let fetcher = Node::fetcher();
    let session = fetcher.ranges(&seeder).await;
    let (request, buf) = get(Digest::of(&content), 700_000, 700_001);
    let error = soon(session.get(request, buf)).await.unwrap_err();
    assert!(matches!(error, FetchError::NotHeld { .. }), "{error}");
    let (request, buf) = get(Digest::of(&content), 0, 1 << 20);
    let error = soon(session.get(request, buf)).await.unwrap_err();
    assert!(matches!(error, FetchError::Closed { .. }), "{error}");
    let (request, buf) = get(Digest::of(&content), 0, 500_000);
    let got = soon(fetcher.ranges(&seeder).await.get(request, buf)).await.unwrap();
    assert!(got == content[..500_000], "the server goes on");
}

#[tokio::test]
async fn a_blob_over_32_bits_is_not_found_in_1_0_0() {
    let store = MemoryStore::with(&[]);
    let mut large = store.whole(&bytes(4, 1 << 20));
    large.size_bytes = 1 << 32;
    store.add(None, Digest::of(b"large"), large);
    let seeder = Node::start(store, |config| config);
    let fetcher = Node::start(MemoryStore::with(&[]), |config| config.with_versions(Versions::OnlyBlobs));
    let session = fetcher.session(&seeder).await;
    assert_eq!(soon(read_blob(&session, Digest::of(b"large"), 100)).await.unwrap(), None);
}

#[tokio::test]
async fn a_stream_of_1_0_0_over_the_limit_is_reset() {
    let seeder = Node::start(MemoryStore::with(&[b"data"]), |config| {
        config.with_limits(Limits::default().with_streams_per_peer(1))
    });
    let mut raw = RawPeer::start(V2).await;
    let _kept = raw.open(&seeder, V2).await;
    let stream = raw.open(&seeder, V1).await;
    ends(stream).await;
}
