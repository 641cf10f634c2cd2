//! What works.

use std::sync::Arc;

use futures::future::join_all;
use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use manifest::{Digest, Have, HaveChange, PieceSet};
use p2p_blob::{FetchError, MAX_RANGE_BYTES, Session, Versions, read_blob};

use crate::common::{MemoryStore, Node, QUIC, RawPeer, TCP, V2, bytes, get, soon};

const CHUNK: u64 = 256 << 10;

#[tokio::test]
async fn ranges_of_every_size_come_over_tcp_and_quic() {
    let content = bytes(1, 5 << 20);
    let blob = Digest::of(&content);
    for listen in [TCP, QUIC] {
        let seeder = Node::start(MemoryStore::with(&[&content]), |config| {
            config.with_listen(vec![listen.parse().unwrap()])
        });
        let fetcher = Node::fetcher();
        let session = fetcher.ranges(&seeder).await;
        let max = u64::from(MAX_RANGE_BYTES);
        let size = content.len() as u64;
        for (start, length) in [
            (0, 1),
            (size - 1, 1),
            (7, CHUNK - 1),
            (7, CHUNK),
            (7, CHUNK + 1),
            (0, 3 * CHUNK),
            (1, max),
            (size - max, max),
        ] {
            let (mut request, buf) = get(blob, start, start + length);
            request.blob_size_bytes = Some(size);
            let got = soon(session.get(request, buf)).await.unwrap();
            let (start, end) = (usize::try_from(start).unwrap(), usize::try_from(start + length).unwrap());
            assert!(got == content[start..end], "{listen} {start} {length}");
        }
    }
}

#[tokio::test]
async fn a_buffer_is_reused_and_not_reallocated() {
    let content = bytes(2, 1000);
    let seeder = Node::start(MemoryStore::with(&[&content]), |config| config);
    let session = Node::fetcher().ranges(&seeder).await;
    let (request, buf) = get(Digest::of(&content), 0, 1000);
    let address = buf.as_ptr();
    let buf = soon(session.get(request, buf)).await.unwrap();
    let buf = soon(session.get(request, buf)).await.unwrap();
    assert_eq!(buf.as_ptr(), address);
    assert_eq!(session.received_bytes(), 2000);
}

#[tokio::test]
async fn many_requests_at_once_get_their_own_answers() {
    let contents: Vec<_> = (0..4).map(|seed| bytes(seed, 100_000)).collect();
    let seeder =
        Node::start(MemoryStore::with(&contents.iter().map(|c| &c[..]).collect::<Vec<_>>()), |config| config);
    let session = Node::fetcher().ranges(&seeder).await;
    let gets = (0..300).map(|index| {
        let (session, content) = (session.clone(), &contents[index % 4]);
        async move {
            let start = index * 300;
            let (request, buf) = get(Digest::of(content), start as u64, start as u64 + 777);
            assert_eq!(session.get(request, buf).await.unwrap(), content[start..start + 777], "{index}");
        }
    });
    soon(join_all(gets)).await;
}

#[tokio::test]
async fn versions_fall_back_to_what_both_speak() {
    let content = bytes(3, 700_000);
    let blob = Digest::of(&content);
    for (ours, theirs, ranges) in [
        (Versions::Both, Versions::Both, true),
        (Versions::Both, Versions::OnlyRanges, true),
        (Versions::OnlyRanges, Versions::Both, true),
        (Versions::Both, Versions::OnlyBlobs, false),
        (Versions::OnlyBlobs, Versions::Both, false),
        (Versions::OnlyBlobs, Versions::OnlyBlobs, false),
    ] {
        let seeder = Node::start(MemoryStore::with(&[&content]), |config| config.with_versions(theirs));
        let fetcher = Node::start(MemoryStore::with(&[]), |config| config.with_versions(ours));
        let session = fetcher.session(&seeder).await;
        assert_eq!(matches!(session, Session::Ranges(_)), ranges, "{ours:?} {theirs:?}");
        assert_eq!(session.peer(), seeder.client.peer_id());
        // Three times: in 1.0.0 the first exchange uses the first stream, the others open their own.
        for _ in 0..3 {
            let read = soon(read_blob(&session, blob, 700_000)).await.unwrap();
            assert!(read.as_deref() == Some(&content[..]), "{ours:?} {theirs:?}");
        }
        assert!(session.received_bytes() >= 2_100_000);
        assert_eq!(soon(read_blob(&session, Digest::of(b"none"), 100)).await.unwrap(), None);
        assert!(
            read_blob(&session, blob, 700_000).await.unwrap().is_some(),
            "after a blob that was not there"
        );
    }
}

#[tokio::test]
async fn blobs_come_whole_over_quic_too() {
    let content = bytes(4, 3 << 20);
    let seeder = Node::start(MemoryStore::with(&[&content]), |config| {
        config.with_listen(vec![QUIC.parse().unwrap()]).with_versions(Versions::OnlyBlobs)
    });
    let session = Node::fetcher().session(&seeder).await;
    let Session::Blobs(session) = session else { panic!("expected 1.0.0") };
    let exchanges = (0..8).map(|_| async {
        let mut body = session.request(Digest::of(&content)).await.unwrap().unwrap();
        let mut read = vec![0; usize::try_from(body.size_bytes()).unwrap()];
        let (first, second) = read.split_at_mut(1000);
        body.read_exact(first).await.unwrap();
        body.read_exact(second).await.unwrap();
        assert!(read == content);
    });
    soon(join_all(exchanges)).await;
    assert_eq!(session.received_bytes(), 8 * (3 << 20));
}

#[tokio::test]
async fn a_blob_half_read_and_dropped_does_not_disturb_the_next() {
    let content = bytes(5, 3 << 20);
    let seeder =
        Node::start(MemoryStore::with(&[&content]), |config| config.with_versions(Versions::OnlyBlobs));
    let session = Node::fetcher().session(&seeder).await;
    let Session::Blobs(blobs) = &session else { panic!("expected 1.0.0") };
    for _ in 0..5 {
        let mut body = soon(blobs.request(Digest::of(&content))).await.unwrap().unwrap();
        soon(body.read_exact(&mut [0; 10])).await.unwrap();
    }
    assert!(soon(read_blob(&session, Digest::of(&content), 3 << 20)).await.unwrap().unwrap() == content);
}

#[tokio::test]
async fn have_tells_which_pieces_are_held() {
    let manifest = Digest::of(b"manifest");
    let mut some = PieceSet::none(9);
    some.insert(0);
    some.insert(8);
    let shards = vec![PieceSet::all(1000), PieceSet::none(3), some];
    let have = Have { version: 42, change: HaveChange::Holds(shards) };
    let store = MemoryStore::with(&[]);
    store.have.lock().unwrap().insert(manifest, have.clone());
    let seeder = Node::start(store, |config| config);
    let session = Node::fetcher().ranges(&seeder).await;
    let counts: Arc<[u32]> = vec![1000, 3, 9].into();
    assert_eq!(soon(session.have(manifest, 0, Arc::clone(&counts))).await.unwrap(), Some(have));
    assert_eq!(soon(session.have(Digest::of(b"other"), 0, counts)).await.unwrap(), None);
}

#[tokio::test]
async fn a_shard_of_a_manifest_is_served_in_pieces_before_it_is_whole() {
    let content = bytes(6, 1000);
    let (manifest, blob) = (Digest::of(b"manifest"), Digest::of(&content));
    let store = MemoryStore::with(&[]);
    let mut partial = store.whole(&content);
    partial.held = Some(manifest::ByteRange::new(100, 200));
    store.add(Some(manifest), blob, partial);
    let mut mislabelled = store.whole(b"partial");
    mislabelled.held = Some(manifest::ByteRange::new(0, 7));
    store.add(None, Digest::of(b"partial"), mislabelled);
    let seeder = Node::start(store, |config| config);
    let session = Node::fetcher().ranges(&seeder).await;

    let (mut request, buf) = get(blob, 100, 200);
    request.manifest = Some(manifest);
    assert_eq!(soon(session.get(request, buf)).await.unwrap(), content[100..200]);
    let (request, buf) = get(blob, 100, 200);
    let error = soon(session.get(request, buf)).await.unwrap_err();
    assert!(matches!(error, FetchError::NotFound { .. }), "without the manifest: {error}");
    let (request, buf) = get(Digest::of(b"partial"), 0, 7);
    let error = soon(session.get(request, buf)).await.unwrap_err();
    assert!(matches!(error, FetchError::NotFound { .. }), "not whole: {error}");
}

#[tokio::test]
async fn at_most_sixteen_requests_are_unanswered() {
    let mut seeder = RawPeer::start(V2).await;
    let fetcher = Node::fetcher();
    let (session, mut stream) = seeder.session_of(&fetcher).await;
    let blob = Digest::of(b"x");
    let gets: Vec<_> = (0..40)
        .map(|index| {
            let session = session.clone();
            let (request, buf) = get(blob, index, index + 1);
            tokio::spawn(async move { session.get(request, buf).await })
        })
        .collect();
    let mut offsets = Vec::new();
    for answered in 0..40 {
        while offsets.len() < (answered + 16).min(40) {
            offsets.push(read_get(&mut stream).await);
        }
        if answered < 24 {
            // Only the answer below lets one more request out: it cannot be here yet.
            assert!(futures::poll!(std::pin::pin!(stream.read(&mut [0]))).is_pending());
        }
        let mut answer = vec![0, 0, 0, 14, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1];
        answer.push(u8::try_from(offsets[answered]).unwrap());
        stream.write_all(&answer).await.unwrap();
    }
    let mut got = Vec::new();
    for (index, one) in gets.into_iter().enumerate() {
        assert_eq!(soon(one).await.unwrap().unwrap(), [u8::try_from(index).unwrap()]);
        got.push(index);
    }
    assert_eq!(got.len(), 40);
}

#[tokio::test]
async fn a_forgotten_request_is_not_sent_or_its_answer_is_dropped() {
    let mut seeder = RawPeer::start(V2).await;
    let fetcher = Node::fetcher();
    let (session, mut stream) = seeder.session_of(&fetcher).await;
    let blob = Digest::of(b"x");
    let ask = |index: u64| {
        let session = session.clone();
        let (request, buf) = get(blob, index, index + 1);
        tokio::spawn(async move { session.get(request, buf).await })
    };
    let sent: Vec<_> = (0..16).map(ask).collect();
    for _ in 0..16 {
        read_get(&mut stream).await;
    }
    // The window is full: these wait, and are forgotten.
    for index in 16..20 {
        let waiting = ask(index);
        tokio::task::yield_now().await;
        waiting.abort();
        assert!(waiting.await.unwrap_err().is_cancelled());
    }
    let last = ask(20);
    sent[3].abort();
    for index in 0..16u8 {
        stream.write_all(&[0, 0, 0, 14, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1, index]).await.unwrap();
    }
    assert_eq!(read_get(&mut stream).await, 20, "a forgotten request was sent");
    stream.write_all(&[0, 0, 0, 14, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1, 20]).await.unwrap();
    assert_eq!(soon(last).await.unwrap().unwrap(), [20]);
    for (index, one) in sent.into_iter().enumerate() {
        match soon(one).await {
            Ok(answer) => assert_eq!(answer.unwrap(), [u8::try_from(index).unwrap()]),
            Err(error) => assert!(error.is_cancelled() && index == 3),
        }
    }
}

#[tokio::test]
async fn bytes_of_an_unfinished_answer_count_as_received() {
    let mut seeder = RawPeer::start(V2).await;
    let fetcher = Node::fetcher();
    let (session, mut stream) = seeder.session_of(&fetcher).await;
    let (request, buf) = get(Digest::of(b"x"), 0, 10);
    let asked = session.clone();
    let _get = tokio::spawn(async move { asked.get(request, buf).await });
    read_get(&mut stream).await;
    stream.write_all(&[0, 0, 0, 23, 0, 0, 0, 0, 0, 0, 0, 0, 99, 0, 0, 0, 10, 1, 2, 3]).await.unwrap();
    soon(async {
        while session.received_bytes() != 3 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn dropping_the_session_ends_the_stream() {
    let mut seeder = RawPeer::start(V2).await;
    let fetcher = Node::fetcher();
    let (session, mut stream) = seeder.session_of(&fetcher).await;
    drop(session);
    assert_eq!(soon(stream.read(&mut [0])).await.unwrap(), 0);
}

/// Reads a GET request and gives its offset.
async fn read_get(stream: &mut libp2p::Stream) -> u64 {
    let mut frame = [0; 81];
    soon(stream.read_exact(&mut frame)).await.unwrap();
    assert_eq!(frame[..5], [0, 0, 0, 77, 1]);
    u64::from_be_bytes(frame[69..77].try_into().unwrap())
}
