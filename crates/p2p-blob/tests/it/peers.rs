//! PEERS: nodes tell each other of others, and are not fooled.

use std::collections::HashSet;
use std::sync::Arc;

use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use libp2p::core::PeerRecord;
use libp2p::identity::Keypair;
use manifest::{Digest, Have, HaveChange, PieceSet};
use p2p_blob::{Contact, FetchError, Limits, PeerId, RangeSession};

use crate::common::{MemoryStore, Node, RawPeer, V2, soon};

/// Asks until the answer names as many others.
async fn peers(session: &RangeSession, manifest: Digest, count: usize) -> Vec<Contact> {
    soon(async {
        loop {
            let found = session.peers(manifest).await.unwrap();
            if found.len() >= count {
                return found;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

fn ids(contacts: &[Contact]) -> HashSet<PeerId> {
    contacts.iter().map(|contact| contact.peer).collect()
}

#[tokio::test]
async fn who_asked_for_a_manifest_is_found_by_the_next_and_can_be_dialed() {
    let manifest = Digest::of(b"manifest");
    let hub = Node::start(MemoryStore::with(&[]), |config| config);
    let nodes: Vec<_> = (0..3).map(|_| Node::start(MemoryStore::with(&[]), |config| config)).collect();
    let [one, two, three] = &nodes[..] else { unreachable!() };
    // It does not listen: others are not told of it.
    let hidden = Node::fetcher();
    let mut sessions = Vec::new();
    for node in [one, two, three] {
        node.addr().await;
        sessions.push(node.ranges(&hub).await);
    }
    sessions.push(hidden.ranges(&hub).await);
    assert_eq!(soon(sessions[3].peers(manifest)).await.unwrap(), []);
    assert_eq!(soon(sessions[0].peers(manifest)).await.unwrap(), []);
    assert_eq!(soon(sessions[1].have(manifest, 0, Arc::from([]))).await.unwrap(), None);
    let found = peers(&sessions[2], manifest, 2).await;
    assert_eq!(ids(&found), [one.client.peer_id(), two.client.peer_id()].into());
    assert_eq!(
        ids(&peers(&sessions[0], manifest, 2).await),
        [two, three].map(|node| node.client.peer_id()).into()
    );
    assert_eq!(soon(sessions[2].peers(Digest::of(b"another"))).await.unwrap(), []);

    for contact in &found {
        assert_eq!(soon(three.client.connect_to(contact)).await.unwrap(), contact.peer);
    }
    let nowhere = Contact { peer: PeerId::random(), addrs: Vec::new() };
    soon(three.client.connect_to(&nowhere)).await.unwrap_err();

    // Who has left is not told of any more.
    soon(one.client.shutdown()).await;
    soon(async {
        while session_names(&sessions[2], manifest, one).await {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

async fn session_names(session: &RangeSession, manifest: Digest, node: &Node) -> bool {
    ids(&session.peers(manifest).await.unwrap()).contains(&node.client.peer_id())
}

#[tokio::test]
async fn a_holder_that_was_asked_is_told_of() {
    let manifest = Digest::of(b"manifest");
    let (store, empty) = (MemoryStore::with(&[]), MemoryStore::with(&[]));
    let have = |held| Have { version: 1, change: HaveChange::Holds(vec![held]) };
    store.have.lock().unwrap().insert(manifest, have(PieceSet::all(4)));
    empty.have.lock().unwrap().insert(manifest, have(PieceSet::none(4)));
    let (holder, nothing) = (Node::start(store, |config| config), Node::start(empty, |config| config));
    let asker = Node::start(MemoryStore::with(&[]), |config| config);
    for node in [&holder, &nothing] {
        let session = asker.ranges(node).await;
        soon(session.have(manifest, 0, Arc::from([4]))).await.unwrap().unwrap();
    }
    assert_eq!(asker.client.holders(&manifest), [holder.client.peer_id()]);
    let third = Node::fetcher();
    let found = peers(&third.ranges(&asker).await, manifest, 1).await;
    assert_eq!(ids(&found), [holder.client.peer_id()].into());
}

#[tokio::test]
async fn peers_are_told_of_when_everything_else_is_refused() {
    let manifest = Digest::of(b"manifest");
    let hub =
        Node::start(MemoryStore::with(&[]), |config| config.with_limits(Limits::default().with_streams(1)));
    let (one, two) = (Node::start(MemoryStore::with(&[]), |config| config), Node::fetcher());
    one.addr().await;
    let served = one.ranges(&hub).await;
    soon(served.peers(manifest)).await.unwrap();
    let refused = two.ranges(&hub).await;
    let busy = soon(refused.have(manifest, 0, Arc::from([1]))).await.unwrap_err();
    assert!(matches!(busy, FetchError::Busy { .. }), "{busy:?}");
    // Over the limits a stream is answered sixteen times: each further one is of the next stream.
    soon(async {
        loop {
            let found = two.ranges(&hub).await.peers(manifest).await;
            if found.is_ok_and(|found| ids(&found).contains(&one.client.peer_id())) {
                return;
            }
        }
    })
    .await;
}

fn record(key: &Keypair, addrs: &[&str]) -> Vec<u8> {
    let addrs = addrs.iter().map(|addr| addr.parse().unwrap()).collect();
    PeerRecord::new(key, addrs).unwrap().into_signed_envelope().into_protobuf_encoding()
}

fn answer(records: &[Vec<u8>]) -> Vec<u8> {
    let mut body = vec![0];
    for record in records {
        body.extend(u16::try_from(record.len()).unwrap().to_be_bytes());
        body.extend(record);
    }
    [u32::try_from(body.len()).unwrap().to_be_bytes().to_vec(), body].concat()
}

#[tokio::test]
async fn a_liar_gets_nothing_in_but_addresses_that_their_peers_have_signed() {
    let (node, mut liar) = (Node::fetcher(), RawPeer::start(V2).await);
    let (session, mut stream) = liar.session_of(&node).await;
    let (good, other) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
    let mut forged = record(&other, &["/ip4/127.0.0.1/tcp/1"]);
    *forged.last_mut().unwrap() ^= 1;
    let records = [
        forged,
        b"not a record".to_vec(),
        record(&other, &["/ip4/0.0.0.0/tcp/1", "/memory/7"]),
        record(
            &good,
            &["/ip4/127.0.0.1/tcp/7", &format!("/ip4/127.0.0.1/tcp/8/p2p/{}", other.public().to_peer_id())],
        ),
    ];
    let asked = tokio::spawn(async move { session.peers(Digest::of(b"manifest")).await });
    let mut request = [0; 37];
    soon(stream.read_exact(&mut request)).await.unwrap();
    assert_eq!(request[..5], [0, 0, 0, 33, 3]);
    soon(stream.write_all(&answer(&records))).await.unwrap();
    soon(stream.flush()).await.unwrap();
    let found = soon(asked).await.unwrap().unwrap();
    let only =
        Contact { peer: good.public().to_peer_id(), addrs: vec!["/ip4/127.0.0.1/tcp/7".parse().unwrap()] };
    assert_eq!(found, [only]);
}

#[tokio::test]
async fn an_answer_that_is_none_ends_the_session() {
    let too_many = answer(&vec![vec![9]; 33]);
    let too_long = [(1u32 << 20).to_be_bytes().to_vec(), vec![0]].concat();
    let cut = [vec![0, 0, 0, 4, 0], vec![0, 9, 9]].concat();
    for bytes in [too_many, too_long, cut] {
        let (node, mut liar) = (Node::fetcher(), RawPeer::start(V2).await);
        let (session, mut stream) = liar.session_of(&node).await;
        let asked = tokio::spawn(async move { session.peers(Digest::of(b"manifest")).await });
        soon(stream.write_all(&bytes)).await.unwrap();
        soon(stream.flush()).await.unwrap();
        let error = soon(asked).await.unwrap().unwrap_err();
        assert!(matches!(error, FetchError::BrokenFraming { .. }), "{error:?}");
    }
}
