//! One test per way in which a fetch fails.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use manifest::{Blame, ByteRange, Digest};
use p2p_blob::{FetchError, FramingError, Limits, MAX_RANGE_BYTES, Session, Versions, read_blob, source_id};

use crate::common::{MemoryStore, Node, RawPeer, V1, V2, bytes, get, soon};

/// What a peer that answers a GET of ten bytes with `answer`, and then closes, makes of it.
async fn answered(answer: &[u8]) -> FetchError {
    let mut seeder = RawPeer::start(V2).await;
    let fetcher = Node::fetcher();
    let (session, mut stream) = seeder.session_of(&fetcher).await;
    let (mut request, buf) = get(Digest::of(b"x"), 0, 10);
    request.blob_size_bytes = Some(99);
    let answering = async {
        stream.read_exact(&mut [0; 81]).await.unwrap();
        stream.write_all(answer).await.unwrap();
        stream.close().await.unwrap();
    };
    let (result, ()) = soon(futures::future::join(session.get(request, buf), answering)).await;
    let error = result.unwrap_err();
    let again = soon(session.get(request, vec![0; 10])).await.unwrap_err();
    assert!(matches!(again, FetchError::Closed { .. }), "the session goes on after {error}: {again}");
    error
}

fn frame(body: &[u8]) -> Vec<u8> {
    [&u32::try_from(body.len()).unwrap().to_be_bytes(), body].concat()
}

#[tokio::test]
async fn not_found() {
    let seeder = Node::start(MemoryStore::with(&[b"here"]), |config| config);
    let session = Node::fetcher().ranges(&seeder).await;
    let blob = Digest::of(b"elsewhere");
    let (request, buf) = get(blob, 0, 4);
    let error = soon(session.get(request, buf)).await.unwrap_err();
    assert!(matches!(&error, FetchError::NotFound { blob: b, .. } if *b == blob), "{error}");
    assert_eq!(error.blame(), Blame::Network);
    assert_eq!(
        error.to_string(),
        format!("peer {} does not have blob {blob}", source_id(&seeder.client.peer_id()))
    );
}

#[tokio::test]
async fn not_held() {
    let store = MemoryStore::with(&[]);
    let manifest = Digest::of(b"manifest");
    let mut blob = store.whole(b"0123456789");
    blob.held = Some(ByteRange::new(2, 5));
    store.add(Some(manifest), Digest::of(b"x"), blob);
    let seeder = Node::start(store, |config| config);
    let session = Node::fetcher().ranges(&seeder).await;
    for (start, end) in [(0, 3), (4, 6), (5, 10)] {
        let (mut request, buf) = get(Digest::of(b"x"), start, end);
        request.manifest = Some(manifest);
        let error = soon(session.get(request, buf)).await.unwrap_err();
        assert!(
            matches!(&error, FetchError::NotHeld { range, .. } if *range == ByteRange::new(start, end)),
            "{error}"
        );
    }
}

#[tokio::test]
async fn busy_when_the_disk_is() {
    let store = MemoryStore::with(&[b"slow"]);
    let gate = Arc::clone(&store.gate);
    let seeder = Node::start(store, |config| config.with_limits(Limits::default().with_disk_reads(1)));
    let fetcher = Node::fetcher();
    let (first, second) = (fetcher.ranges(&seeder).await, fetcher.ranges(&seeder).await);
    gate.shut(true);
    let (request, buf) = get(Digest::of(b"slow"), 0, 4);
    let slow = tokio::spawn(async move { first.get(request, buf).await });
    gate.waiting(1).await;
    let (request, buf) = get(Digest::of(b"slow"), 0, 4);
    let error = soon(second.get(request, buf)).await.unwrap_err();
    assert!(matches!(error, FetchError::Busy { retry_after, .. } if retry_after > Duration::ZERO), "{error}");
    let error = soon(second.have(Digest::of(b"m"), 0, Arc::from([]))).await.unwrap_err();
    assert!(matches!(error, FetchError::Busy { .. }), "{error}");
    gate.shut(false);
    assert_eq!(soon(slow).await.unwrap().unwrap(), b"slow");
    assert_eq!(soon(second.get(request, vec![0; 4])).await.unwrap(), b"slow", "the session goes on");
}

#[tokio::test]
async fn busy_over_the_limit_of_streams() {
    let limits = Limits::default().with_streams_per_peer(2).with_streams(3);
    let seeder = Node::start(MemoryStore::with(&[b"data"]), |config| config.with_limits(limits));
    let (one, two) = (Node::fetcher(), Node::fetcher());
    let mut served = Vec::new();
    let (request, buf) = get(Digest::of(b"data"), 0, 4);
    for (fetcher, has_room) in [(&one, true), (&one, true), (&one, false), (&two, true), (&two, false)] {
        let session = fetcher.ranges(&seeder).await;
        match soon(session.get(request, buf.clone())).await {
            Ok(data) => assert!(has_room && data == b"data"),
            Err(error) => assert!(!has_room && matches!(error, FetchError::Busy { .. }), "{error}"),
        }
        served.push(session);
    }
    // A stream that ends makes room.
    served.clear();
    soon(async {
        while one.ranges(&seeder).await.get(request, buf.clone()).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn bad_request() {
    let seeder = Node::start(MemoryStore::with(&[b"data"]), |config| config);
    let session = Node::fetcher().ranges(&seeder).await;
    for (start, end) in [(0, 5), (4, 5), (u64::MAX - 1, u64::MAX)] {
        let (request, buf) = get(Digest::of(b"data"), start, end);
        let error = soon(session.get(request, buf)).await.unwrap_err();
        assert!(
            matches!(&error, FetchError::BadRequest { reason, .. } if reason.contains("4 bytes")),
            "{error}"
        );
    }
    let (request, buf) = get(Digest::of(b"data"), 0, 4);
    assert_eq!(soon(session.get(request, buf)).await.unwrap(), b"data", "the session goes on");
}

#[tokio::test]
async fn wrong_length() {
    let mut body = [&[0][..], &99u64.to_be_bytes(), &9u32.to_be_bytes(), &[7; 9]].concat();
    let error = answered(&frame(&body)).await;
    assert!(matches!(error, FetchError::WrongLength { expected_bytes: 10, got_bytes: 9, .. }), "{error}");
    assert_eq!(error.blame(), Blame::Peer);
    body.push(7);
    let error = answered(&frame(&body)).await;
    assert!(matches!(error, FetchError::WrongLength { expected_bytes: 10, got_bytes: 9, .. }), "{error}");
}

#[tokio::test]
async fn wrong_size() {
    let body = [&[0][..], &98u64.to_be_bytes(), &10u32.to_be_bytes(), &[7; 10]].concat();
    let error = answered(&frame(&body)).await;
    assert!(matches!(error, FetchError::WrongSize { expected_bytes: 99, got_bytes: 98, .. }), "{error}");
    assert_eq!(error.blame(), Blame::Peer);
}

#[tokio::test]
async fn too_large() {
    let content = bytes(1, 1001);
    for versions in [Versions::OnlyRanges, Versions::OnlyBlobs] {
        let seeder = Node::start(MemoryStore::with(&[&content]), |config| config.with_versions(versions));
        let session = Node::fetcher().session(&seeder).await;
        let error = soon(read_blob(&session, Digest::of(&content), 1000)).await.unwrap_err();
        assert!(
            matches!(error, FetchError::TooLarge { got_bytes: 1001, max_bytes: 1000, .. }),
            "{versions:?} {error}"
        );
    }
}

#[tokio::test]
async fn broken_framing() {
    for (answer, expected) in [
        (vec![0, 0, 0, 0, 0], "a frame of 0 bytes"),
        (frame(&[0x77]), "unknown status 0x77"),
        (frame(&[0x01, 0]), "status 0x01 with 2 bytes"),
        (frame(&[0x02, 0]), "status 0x02 with 2 bytes"),
        (frame(&[4; 258]), "status 0x04 with 258 bytes"),
        (frame(&[4, 0xFF]), "not UTF-8"),
    ] {
        let error = answered(&answer).await;
        assert!(matches!(error, FetchError::BrokenFraming { .. }), "{error}");
        assert!(error.source().unwrap().to_string().contains(expected), "{error:?}");
        assert_eq!(error.blame(), Blame::Peer);
    }
}

#[tokio::test]
async fn broken_framing_when_nothing_was_asked() {
    let mut seeder = RawPeer::start(V2).await;
    let fetcher = Node::fetcher();
    let (session, mut stream) = seeder.session_of(&fetcher).await;
    stream.write_all(&[0, 0, 0, 1, 0x77]).await.unwrap();
    // The session ends by itself; whoever comes later, or comes in between, is told.
    let (request, buf) = get(Digest::of(b"x"), 0, 10);
    let error = soon(session.get(request, buf)).await.unwrap_err();
    assert!(matches!(error, FetchError::Closed { .. } | FetchError::BrokenFraming { .. }), "{error}");
}

#[tokio::test]
async fn broken_framing_of_a_have() {
    let mut seeder = RawPeer::start(V2).await;
    let fetcher = Node::fetcher();
    let (session, mut stream) = seeder.session_of(&fetcher).await;
    let answering = async {
        stream.read_exact(&mut [0; 45]).await.unwrap();
        stream.write_all(&frame(&[0; 30])).await.unwrap();
    };
    let have = session.have(Digest::of(b"m"), 0, Arc::from([8]));
    let (result, ()) = soon(futures::future::join(have, answering)).await;
    let error = result.unwrap_err();
    assert!(
        matches!(
            error,
            FetchError::BrokenFraming {
                source: FramingError::FrameLength { found_bytes: 30, max_bytes: 15 },
                ..
            }
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn broken_framing_after_a_whole_blob() {
    let mut seeder = RawPeer::start(V1).await;
    let fetcher = Node::fetcher();
    soon(fetcher.client.connect(seeder.addr.clone())).await.unwrap();
    let (session, mut stream) =
        soon(futures::future::join(fetcher.client.open(seeder.peer), seeder.accept())).await;
    let Session::Blobs(session) = session.unwrap() else { panic!("expected 1.0.0") };
    let answering = async {
        stream.read_exact(&mut [0; 68]).await.unwrap();
        stream.write_all(&[0, 0, 0, 3, 1, 2, 3, 4]).await.unwrap();
    };
    let reading = async {
        let mut body = session.request(Digest::of(b"x")).await.unwrap().unwrap();
        body.read_exact(&mut [0; 3]).await
    };
    let (result, ()) = soon(futures::future::join(reading, answering)).await;
    let error = result.unwrap_err();
    assert!(matches!(error, FetchError::BrokenFraming { source: FramingError::Unsolicited, .. }), "{error}");
}

#[tokio::test]
async fn stalled_before_and_within_an_answer() {
    let limit = Duration::from_secs(1);
    for answer in [&[][..], &[0, 0, 0], &[0, 0, 0, 23, 0, 0, 0, 0, 0, 0, 0, 0, 99, 0, 0, 0, 10, 1, 2]] {
        let mut seeder = RawPeer::start(V2).await;
        let fetcher = Node::start(MemoryStore::with(&[]), |config| config.with_progress_timeout(limit));
        let (session, mut stream) = seeder.session_of(&fetcher).await;
        stream.write_all(answer).await.unwrap();
        let (request, buf) = get(Digest::of(b"x"), 0, 10);
        let gets = (0..3).map(|_| session.get(request, buf.clone()));
        if answer.is_empty() {
            for result in soon(futures::future::join_all(gets)).await {
                let error = result.unwrap_err();
                assert!(matches!(error, FetchError::Stalled { after, .. } if after == limit), "{error}");
                assert_eq!(error.blame(), Blame::Network);
            }
        } else {
            // These bytes came unasked, or they stall: either ends the session.
            assert!(soon(futures::future::join_all(gets)).await.iter().all(Result::is_err));
        }
    }
}

#[tokio::test]
async fn stalled_within_a_whole_blob() {
    let mut seeder = RawPeer::start(V1).await;
    let limit = Duration::from_secs(1);
    let fetcher = Node::start(MemoryStore::with(&[]), |config| config.with_progress_timeout(limit));
    soon(fetcher.client.connect(seeder.addr.clone())).await.unwrap();
    let (session, mut stream) =
        soon(futures::future::join(fetcher.client.open(seeder.peer), seeder.accept())).await;
    let Session::Blobs(session) = session.unwrap() else { panic!("expected 1.0.0") };
    stream.write_all(&[0, 0, 0, 3, 1, 2]).await.unwrap();
    let mut body = soon(session.request(Digest::of(b"x"))).await.unwrap().unwrap();
    assert_eq!(body.size_bytes(), 3);
    let error = soon(body.read_exact(&mut [0; 3])).await.unwrap_err();
    assert!(matches!(error, FetchError::Stalled { .. }), "{error}");
    assert_eq!(session.received_bytes(), 2);
}

#[tokio::test]
async fn closed_by_the_peer() {
    let error = answered(&[0, 0, 0, 23, 0, 0, 0]).await;
    assert!(matches!(error, FetchError::Closed { .. }), "{error}");
    assert_eq!(error.blame(), Blame::Network);
}

#[tokio::test]
async fn closed_with_the_connection() {
    let mut seeder = RawPeer::start(V2).await;
    let fetcher = Node::fetcher();
    let (session, stream) = seeder.session_of(&fetcher).await;
    let (request, buf) = get(Digest::of(b"x"), 0, 10);
    let asked = tokio::spawn(async move { session.get(request, buf).await });
    drop(stream);
    let error = soon(asked).await.unwrap().unwrap_err();
    assert!(matches!(error, FetchError::Closed { .. }), "{error}");
}

#[tokio::test]
async fn unreachable() {
    let (fetcher, stranger) = (Node::fetcher(), Node::fetcher());
    let error = soon(fetcher.client.open(stranger.client.peer_id())).await.unwrap_err();
    assert!(matches!(error, FetchError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn unsupported_protocol() {
    let seeder = Node::start(MemoryStore::with(&[]), |config| config.with_versions(Versions::OnlyRanges));
    let fetcher = Node::start(MemoryStore::with(&[]), |config| config.with_versions(Versions::OnlyBlobs));
    let peer = soon(fetcher.client.connect(seeder.addr().await)).await.unwrap();
    let error = soon(fetcher.client.open(peer)).await.unwrap_err();
    assert!(
        matches!(&error, FetchError::UnsupportedProtocol { offered, .. } if offered == V1.as_ref()),
        "{error}"
    );
}

#[tokio::test]
async fn bad_range() {
    let seeder = Node::start(MemoryStore::with(&[b"data"]), |config| config);
    let session = Node::fetcher().ranges(&seeder).await;
    for (start, end, buf_bytes) in
        [(0, 0, 0), (1, 1, 1), (0, 4, 3), (0, u64::from(MAX_RANGE_BYTES) + 1, 4), (0, u64::MAX, 4)]
    {
        let (mut request, _) = get(Digest::of(b"data"), 0, 4);
        request.range = ByteRange::new(start, end);
        let error = soon(session.get(request, vec![0; buf_bytes])).await.unwrap_err();
        assert!(matches!(error, FetchError::BadRange { .. }), "{error}");
        assert_eq!(error.blame(), Blame::Caller);
    }
    let (request, _) = get(Digest::of(b"data"), 0, u64::from(MAX_RANGE_BYTES) + 1);
    let error = soon(session.get(request, vec![0; MAX_RANGE_BYTES as usize + 1])).await.unwrap_err();
    assert!(matches!(error, FetchError::BadRange { .. }), "{error}");
}

#[tokio::test]
async fn past_the_end() {
    let seeder =
        Node::start(MemoryStore::with(&[b"data"]), |config| config.with_versions(Versions::OnlyBlobs));
    let Session::Blobs(session) = Node::fetcher().session(&seeder).await else { panic!("expected 1.0.0") };
    let mut body = soon(session.request(Digest::of(b"data"))).await.unwrap().unwrap();
    soon(body.read_exact(&mut [0; 3])).await.unwrap();
    let error = soon(body.read_exact(&mut [0; 2])).await.unwrap_err();
    assert!(matches!(error, FetchError::PastEnd { buf_bytes: 2, left_bytes: 1, .. }), "{error}");
    assert_eq!(error.blame(), Blame::Caller);
}

#[tokio::test]
async fn stopped() {
    let fetcher = Node::fetcher();
    soon(fetcher.client.shutdown()).await;
    let error = soon(fetcher.client.open(fetcher.client.peer_id())).await.unwrap_err();
    assert!(matches!(error, FetchError::Stopped), "{error}");
    assert_eq!(error.blame(), Blame::Us);
}
