//! A node that nobody can dial is reached through a relay.

use futures::StreamExt as _;
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, SwarmBuilder, identify, noise, relay, tcp, yamux};
use manifest::{ByteRange, Digest};
use p2p_blob::{GetRequest, Session};

use crate::common::{MemoryStore, Node, TCP, bytes, soon};

#[derive(NetworkBehaviour)]
struct RelayServer {
    relay: relay::Behaviour,
    identify: identify::Behaviour,
}

/// A relay as libp2p has it, and its full address.
async fn relay() -> Multiaddr {
    let mut swarm = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|key| RelayServer {
            relay: relay::Behaviour::new(key.public().to_peer_id(), relay::Config::default()),
            identify: identify::Behaviour::new(identify::Config::new("/test/1.0.0".into(), key.public())),
        })
        .unwrap()
        .build();
    swarm.listen_on(TCP.parse().unwrap()).unwrap();
    let addr = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = soon(swarm.select_next_some()).await {
            break address;
        }
    };
    swarm.add_external_address(addr.clone());
    let addr = addr.with_p2p(*swarm.local_peer_id()).unwrap();
    tokio::spawn(async move {
        loop {
            swarm.select_next_some().await;
        }
    });
    addr
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_comes_through_a_relay() {
    let circuit: Multiaddr = format!("{}/p2p-circuit", relay().await).parse().unwrap();
    assert!(p2p_blob::is_dialable(&circuit));
    let content = bytes(1, 20_000);
    let hidden =
        Node::start(MemoryStore::with(&[&content]), |config| config.with_listen(vec![circuit.clone()]));
    let addr = hidden.addr().await;
    assert!(addr.to_string().starts_with(&circuit.to_string()), "{addr}");
    let fetcher = Node::fetcher();
    let peer = soon(fetcher.client.connect(addr)).await.unwrap();
    assert_eq!(peer, hidden.client.peer_id());
    let Session::Ranges(session) = soon(fetcher.client.open(peer)).await.unwrap() else {
        panic!("it speaks 2.0.0");
    };
    let range = ByteRange::new(0, content.len() as u64);
    let request = GetRequest { manifest: None, blob: Digest::of(&content), blob_size_bytes: None, range };
    assert!(soon(session.get(request, vec![0; content.len()])).await.unwrap() == content);
}

#[cfg(feature = "nat")]
#[tokio::test(flavor = "multi_thread")]
async fn more_than_a_relay_lets_through_comes_over_a_direct_connection() {
    let circuit: Multiaddr = format!("{}/p2p-circuit", relay().await).parse().unwrap();
    let content = bytes(1, 1 << 20);
    let hidden = Node::start(MemoryStore::with(&[&content]), |config| {
        config.with_listen(vec![TCP.parse().unwrap(), circuit.clone()])
    });
    let mut addrs = hidden.client.listen_addrs();
    let is_relayed = |addr: &Multiaddr| addr.to_string().contains("p2p-circuit");
    let relayed = soon(addrs.wait_for(|all| all.iter().any(is_relayed))).await.unwrap().clone();
    let addr = relayed.into_iter().find(is_relayed).unwrap();
    let fetcher = Node::start(MemoryStore::with(&[]), |config| config);
    fetcher.addr().await;
    let peer = soon(fetcher.client.connect(addr.clone())).await.unwrap();
    // The relay ends the connection after 128 KiB: only a direct one does. It may do so before there is one.
    soon(async {
        loop {
            let session = fetcher.client.open(peer).await;
            if session.is_err() {
                let _ = fetcher.client.connect(addr.clone()).await;
            }
            if let Ok(Session::Ranges(session)) = session {
                let range = ByteRange::new(0, content.len() as u64);
                let blob = Digest::of(&content);
                let request = GetRequest { manifest: None, blob, blob_size_bytes: None, range };
                if let Ok(found) = session.get(request, vec![0; content.len()]).await {
                    assert!(found == content);
                    return;
                }
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
}
