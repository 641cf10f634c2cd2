//! Private networks, and networks of named peers only.

use std::collections::HashSet;
use std::io::Write as _;
use std::time::Duration;

use manifest::Digest;
use p2p_blob::{Client, ConnectError, GetRequest, Multiaddr, NetworkKey, PeerId};

use crate::common::{MemoryStore, Node, bytes, soon};

fn key(seed: u8) -> NetworkKey {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "/key/swarm/psk/1.0.0/\n/base16/\n{}", format!("{seed:02x}").repeat(32)).unwrap();
    NetworkKey::read(file.path()).unwrap()
}

fn with_key(contents: &[&[u8]], key: Option<NetworkKey>) -> Node {
    Node::start(MemoryStore::with(contents), |config| {
        config.with_network_key(key).with_connect_timeout(Duration::from_secs(1))
    })
}

async fn dial(client: &Client, addr: Multiaddr) -> Result<PeerId, ConnectError> {
    soon(client.connect(addr)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn only_nodes_with_the_key_can_talk() {
    let content = bytes(1, 300_000);
    let inside = [with_key(&[&content], Some(key(1))), with_key(&[], Some(key(1)))];
    let outside = [with_key(&[], Some(key(2))), with_key(&[], None)];
    let session = inside[1].ranges(&inside[0]).await;
    let range = manifest::ByteRange::new(0, 300_000);
    let request = GetRequest { manifest: None, blob: Digest::of(&content), blob_size_bytes: None, range };
    assert!(soon(session.get(request, vec![0; 300_000])).await.unwrap() == content);
    for stranger in &outside {
        let error = dial(&stranger.client, inside[0].addr().await).await.unwrap_err();
        assert!(matches!(error, ConnectError::Dial { .. } | ConnectError::TimedOut { .. }), "{error}");
        dial(&inside[1].client, stranger.addr().await).await.unwrap_err();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_node_has_connections_with_the_named_peers_only() {
    let (friend, stranger) = (with_key(&[], None), with_key(&[], None));
    let allowed = HashSet::from([friend.client.peer_id()]);
    let closed = Node::start(MemoryStore::with(&[]), |config| config.with_allowed_peers(allowed));
    let (at_friend, at_stranger, at_closed) =
        (friend.addr().await, stranger.addr().await, closed.addr().await);
    assert_eq!(dial(&closed.client, at_friend).await.unwrap(), friend.client.peer_id());
    assert_eq!(dial(&friend.client, at_closed.clone()).await.unwrap(), closed.client.peer_id());
    dial(&closed.client, at_stranger).await.unwrap_err();
    // It is let in as far as the handshake, and then sent away.
    let mut events = stranger.client.peer_events();
    if dial(&stranger.client, at_closed).await.is_ok() {
        let gone = async {
            loop {
                if let Ok(p2p_blob::PeerEvent::Disconnected { peer, .. }) = events.recv().await
                    && peer == closed.client.peer_id()
                {
                    return;
                }
            }
        };
        soon(gone).await;
    }
}
