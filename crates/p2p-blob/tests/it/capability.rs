//! What peers of the existing network tell.

use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use libp2p::StreamProtocol;
use manifest::Digest;

use crate::common::{MemoryStore, Node, RawPeer, V1, soon};

const CAPABILITY: StreamProtocol = StreamProtocol::new("/autonet/capability/1.0.0");

/// Sends bytes, ends, and waits until the other end has read as much as it wants.
async fn push(peer: &mut RawPeer, node: &Node, bytes: &[u8]) {
    let mut stream = peer.open(node, CAPABILITY).await;
    // The node may end first.
    let _ = stream.write_all(bytes).await;
    let _ = stream.close().await;
    let _ = soon(stream.read(&mut [0])).await;
}

fn framed(text: &str) -> Vec<u8> {
    let length = u32::try_from(text.len()).unwrap();
    [&length.to_be_bytes(), text.as_bytes()].concat()
}

async fn is_told(node: &Node, peer: &RawPeer, blob: Digest) {
    soon(async {
        while !node.client.holders(&blob).contains(&peer.peer) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn odd_and_long_texts_do_no_harm_and_right_ones_are_heard() {
    let node = Node::start(MemoryStore::with(&[b"blob"]), |config| config);
    let mut peer = RawPeer::start(V1).await;
    let blob = Digest::of(b"theirs");
    let told = framed(&format!(r#"{{"peer_id": "x", "modules_hosted": ["blob:{blob}"], "more": [1]}}"#));
    push(&mut peer, &node, &told).await;
    is_told(&node, &peer, blob).await;

    let too_long = [&(513u32 << 10).to_be_bytes()[..], &vec![b' '; 513 << 10]].concat();
    let cut = &told[..told.len() - 9];
    let odd =
        [vec![], vec![0], vec![0; 4], vec![0xFF; 4], framed("{"), framed("[1]"), cut.to_vec(), too_long];
    for bytes in &odd {
        push(&mut peer, &node, bytes).await;
    }
    // Others hang while it is read.
    let mut hanging = Vec::new();
    for _ in 0..3 {
        let mut stream = peer.open(&node, CAPABILITY).await;
        stream.write_all(&told[..9]).await.unwrap();
        stream.flush().await.unwrap();
        hanging.push(stream);
    }
    // The connection is as good as before.
    let mut stream = peer.open(&node, V1).await;
    let request = [&[0, 0, 0, 64], Digest::of(b"blob").to_string().as_bytes()].concat();
    stream.write_all(&request).await.unwrap();
    stream.flush().await.unwrap();
    let mut answer = [0; 8];
    soon(stream.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"\0\0\0\x04blob");
    drop(hanging);
    let other = Digest::of(b"another");
    let told = framed(&format!(r#"{{"modules_hosted": ["blob:{other}"]}}"#));
    soon(async {
        while !node.client.holders(&other).contains(&peer.peer) {
            push(&mut peer, &node, &told).await;
        }
    })
    .await;
    assert!(node.client.holders(&blob).is_empty(), "what was told last counts");
}

#[tokio::test]
async fn a_peer_that_does_not_say_that_it_listens_is_told_nothing() {
    let node = Node::start(MemoryStore::with(&[]), |config| config);
    let mut peer = RawPeer::start(CAPABILITY).await;
    push(&mut peer, &node, &framed("{}")).await;
    node.client.advertise(&[Digest::of(b"blob")]).await;
    // Later than whatever that has caused.
    push(&mut peer, &node, &framed("{}")).await;
    let told = futures::FutureExt::now_or_never(peer.accept());
    assert!(told.is_none(), "it has no identify");
}
