//! Connecting, listening, starting.

use std::error::Error as _;
use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use libp2p::multiaddr::Protocol;
use manifest::{Blame, Digest};
use p2p_blob::{Config, ConnectError, Contact, Identity, Limits, PeerEvent, StartError, source_id};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::common::{MemoryStore, Node, QUIC, TCP, bytes, get, ranges, soon};

#[tokio::test]
async fn a_connection_is_up_and_told_to_both() {
    for listen in [TCP, QUIC] {
        let seeder =
            Node::start(MemoryStore::with(&[]), |config| config.with_listen(vec![listen.parse().unwrap()]));
        let fetcher = Node::fetcher();
        let (mut of_seeder, mut of_fetcher) = (seeder.client.peer_events(), fetcher.client.peer_events());
        let addr = seeder.addr().await;
        assert!(addr.to_string().ends_with(&format!("/p2p/{}", seeder.client.peer_id())), "{addr}");
        let peer = soon(fetcher.client.connect(addr.clone())).await.unwrap();
        assert_eq!(peer, seeder.client.peer_id());
        assert_eq!(soon(of_fetcher.recv()).await.unwrap(), PeerEvent::Connected { peer });
        let dialer = fetcher.client.peer_id();
        assert_eq!(soon(of_seeder.recv()).await.unwrap(), PeerEvent::Connected { peer: dialer });

        assert_eq!(soon(fetcher.client.connect(addr)).await.unwrap(), peer, "already connected");
        soon(fetcher.client.shutdown()).await;
        let event = soon(of_seeder.recv()).await.unwrap();
        assert!(matches!(event, PeerEvent::Disconnected { peer, .. } if peer == dialer), "{event:?}");
    }
}

/// Its port is taken for all addresses then, though not for its own.
#[tokio::test]
async fn a_node_whose_port_another_program_has_too_still_dials() {
    let (seeder, fetcher) = {
        let start = || Node::start(MemoryStore::with(&[]), |config| config);
        (start(), start())
    };
    let addr = fetcher.addr().await;
    let port = addr.iter().find_map(|part| match part {
        Protocol::Tcp(port) => Some(port),
        _ => None,
    });
    let _other = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 2), port.unwrap())).unwrap();
    let peer = soon(fetcher.client.connect(seeder.addr().await)).await.unwrap();
    assert_eq!(peer, seeder.client.peer_id());
}

#[tokio::test]
async fn further_connections_carry_streams_of_their_own() {
    const BLOB_BYTES: usize = 1 << 20;
    let content = vec![7; BLOB_BYTES];
    let (seeder, fetcher) = (Node::start(MemoryStore::with(&[&content]), |config| config), Node::fetcher());
    let (addr, mut carried) = relay(seeder.addr().await).await;
    // However often they are asked for.
    for _ in 0..5 {
        let peer = soon(fetcher.client.connect(addr.clone())).await.unwrap();
        assert_eq!(peer, seeder.client.peer_id());
        assert_eq!(soon(fetcher.client.connect_again(peer, addr.clone(), 2)).await.unwrap(), peer);
    }
    let peer = seeder.client.peer_id();
    for _ in 0..2 {
        let session = ranges(soon(fetcher.client.open(peer)).await.unwrap());
        let (request, buf) = get(Digest::of(&content), 0, BLOB_BYTES as u64);
        assert_eq!(soon(session.get(request, buf)).await.unwrap(), content);
    }
    let stranger = Identity::ephemeral().peer_id();
    soon(fetcher.client.connect_again(stranger, addr, 1)).await.unwrap_err();
    soon(fetcher.client.shutdown()).await;
    let mut all = Vec::new();
    for _ in ["first", "second", "stranger"] {
        all.push(soon(carried.recv()).await.unwrap());
    }
    let with_blob = all.iter().filter(|bytes| (1..2).contains(&(**bytes / BLOB_BYTES as u64))).count();
    assert_eq!(with_blob, 2, "bytes of each connection: {all:?}");
}

#[tokio::test]
async fn a_stream_to_a_node_of_this_kind_is_used_before_it_has_answered() {
    let content = bytes(1, 1000);
    let seeder = Node::start(MemoryStore::with(&[&content]), |config| config);
    let fetcher = Node::fetcher();
    let (addr, held) = relay_that_holds(&seeder.addr().await).await;
    let peer = soon(fetcher.client.connect(addr)).await.unwrap();
    held.send_replace(true);
    let session = ranges(soon(fetcher.client.open(peer)).await.unwrap());
    let (request, buf) = get(Digest::of(&content), 0, 1000);
    let answer = session.get(request, buf);
    held.send_replace(false);
    assert_eq!(soon(answer).await.unwrap(), content);
}

/// Passes connections on to a node; while the other value is true, nothing of what the node sends.
async fn relay_that_holds(
    to: &p2p_blob::Multiaddr,
) -> (p2p_blob::Multiaddr, tokio::sync::watch::Sender<bool>) {
    let to = (Ipv4Addr::LOCALHOST, port(to));
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addr = format!("/ip4/127.0.0.1/tcp/{}", listener.local_addr().unwrap().port());
    let (held, is_held) = tokio::sync::watch::channel(false);
    tokio::spawn(async move {
        while let Ok((dialer, _)) = listener.accept().await {
            let mut is_held = is_held.clone();
            let node = tokio::net::TcpStream::connect(to).await.unwrap();
            let (mut from_dialer, mut to_dialer) = dialer.into_split();
            let (mut from_node, mut to_node) = node.into_split();
            tokio::spawn(async move { tokio::io::copy(&mut from_dialer, &mut to_node).await });
            tokio::spawn(async move {
                let mut bytes = vec![0; 4096];
                while let Ok(count @ 1..) = from_node.read(&mut bytes).await {
                    if is_held.wait_for(|held| !held).await.is_err()
                        || to_dialer.write_all(&bytes[..count]).await.is_err()
                    {
                        return;
                    }
                }
            });
        }
    });
    (addr.parse().unwrap(), held)
}

fn port(addr: &p2p_blob::Multiaddr) -> u16 {
    let port = addr.iter().find_map(|part| match part {
        Protocol::Tcp(port) => Some(port),
        _ => None,
    });
    port.unwrap()
}

/// Passes connections on to a node: the address for that, and the bytes to the dialer of each one that has
/// ended.
async fn relay(to: p2p_blob::Multiaddr) -> (p2p_blob::Multiaddr, tokio::sync::mpsc::Receiver<u64>) {
    let to = (Ipv4Addr::LOCALHOST, port(&to));
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addr = format!("/ip4/127.0.0.1/tcp/{}", listener.local_addr().unwrap().port());
    let (ended, carried) = tokio::sync::mpsc::channel(4);
    tokio::spawn(async move {
        while let Ok((mut dialer, _)) = listener.accept().await {
            let ended = ended.clone();
            tokio::spawn(async move {
                let mut listener = tokio::net::TcpStream::connect(to).await.unwrap();
                let (mut from_dialer, mut to_dialer) = dialer.split();
                let (mut from_listener, mut to_listener) = listener.split();
                let there = tokio::io::copy(&mut from_dialer, &mut to_listener);
                let back = tokio::io::copy(&mut from_listener, &mut to_dialer);
                let (_, carried_bytes) = tokio::join!(there, back);
                ended.send(carried_bytes.unwrap_or(0)).await.unwrap();
            });
        }
    });
    (addr.parse().unwrap(), carried)
}

#[tokio::test]
async fn an_address_without_a_peer_id_tells_who_is_there() {
    let (seeder, fetcher) = (Node::start(MemoryStore::with(&[]), |config| config), Node::fetcher());
    let mut addr = seeder.addr().await;
    addr.pop();
    assert_eq!(soon(fetcher.client.connect(addr)).await.unwrap(), seeder.client.peer_id());
}

#[tokio::test]
async fn nobody_there() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let addr: p2p_blob::Multiaddr = format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap();
    let error = soon(Node::fetcher().client.connect(addr)).await.unwrap_err();
    assert!(matches!(error, ConnectError::Dial { .. }), "{error}");
    assert_eq!(error.blame(), Blame::Network);
    assert!(error.source().unwrap().to_string().contains("refused"), "{error:?}");
}

#[tokio::test]
async fn somebody_else_there() {
    let (seeder, fetcher) = (Node::start(MemoryStore::with(&[]), |config| config), Node::fetcher());
    let mut addr = seeder.addr().await;
    addr.pop();
    let stranger = Identity::ephemeral().peer_id();
    let error = soon(fetcher.client.connect(addr.with_p2p(stranger).unwrap())).await.unwrap_err();
    let ConnectError::WrongPeer { expected, found, .. } = &error else { panic!("{error}") };
    assert_eq!((expected, found), (&source_id(&stranger), &source_id(&seeder.client.peer_id())));
}

#[tokio::test]
async fn who_has_connected_needs_no_address() {
    let (seeder, fetcher) = (Node::start(MemoryStore::with(&[]), |config| config), Node::fetcher());
    let mut of_seeder = seeder.client.peer_events();
    soon(fetcher.client.connect(seeder.addr().await)).await.unwrap();
    let peer = fetcher.client.peer_id();
    assert_eq!(soon(of_seeder.recv()).await.unwrap(), PeerEvent::Connected { peer });
    let contact = Contact { peer, addrs: Vec::new() };
    assert_eq!(soon(seeder.client.connect_to(&contact)).await.unwrap(), peer);
}

#[tokio::test]
async fn an_address_of_no_use() {
    let fetcher = Node::fetcher();
    let error = soon(fetcher.client.connect("/ip4/127.0.0.1/udp/1".parse().unwrap())).await.unwrap_err();
    assert!(matches!(error, ConnectError::UnsupportedAddress { .. }), "{error}");
    assert_eq!(error.blame(), Blame::Caller);
}

#[tokio::test]
async fn its_own_address() {
    let node = Node::start(MemoryStore::with(&[]), |config| config);
    let addr = node.addr().await;
    for addr in [addr.clone(), addr.into_iter().take(2).collect()] {
        let error = soon(node.client.connect(addr)).await.unwrap_err();
        assert!(matches!(error, ConnectError::OwnAddress { .. }), "{error}");
    }
}

#[tokio::test]
async fn nobody_speaks() {
    // The system accepts the connection, nobody ever reads it.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = format!("/ip4/127.0.0.1/tcp/{}", silent.local_addr().unwrap().port()).parse().unwrap();
    let after = Duration::from_millis(200);
    let fetcher = Node::start(MemoryStore::with(&[]), |config| config.with_connect_timeout(after));
    let error = soon(fetcher.client.connect(addr)).await.unwrap_err();
    assert!(matches!(error, ConnectError::TimedOut { .. } | ConnectError::Dial { .. }), "{error}");
}

#[tokio::test]
async fn stopped() {
    let fetcher = Node::fetcher();
    soon(fetcher.client.shutdown()).await;
    let error = soon(fetcher.client.connect(TCP.parse().unwrap())).await.unwrap_err();
    assert!(matches!(error, ConnectError::Stopped), "{error}");
    assert_eq!(error.blame(), Blame::Us);
}

#[tokio::test]
async fn connections_over_the_limit_are_refused() {
    let limits = Limits::default().with_connections(1);
    let seeder = Node::start(MemoryStore::with(&[b"data"]), |config| config.with_limits(limits));
    let (one, two) = (Node::fetcher(), Node::fetcher());
    let _session = one.ranges(&seeder).await;
    // The handshake may end before the refusal: then the connection is closed again.
    let mut events = two.client.peer_events();
    match soon(two.client.connect(seeder.addr().await)).await {
        Err(error) => assert!(matches!(error, ConnectError::Dial { .. }), "{error}"),
        Ok(_) => while !matches!(soon(events.recv()).await.unwrap(), PeerEvent::Disconnected { .. }) {},
    }
}

#[test]
fn no_runtime() {
    let config = Config::new(Identity::ephemeral());
    let error = p2p_blob::start(config, MemoryStore::with(&[])).unwrap_err();
    assert!(matches!(error, StartError::NoRuntime), "{error}");
}

#[tokio::test]
async fn an_address_in_use_and_one_of_no_use() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    for addr in [format!("/ip4/127.0.0.1/tcp/{port}"), "/ip4/127.0.0.1/sctp/1".to_owned()] {
        let config = Config::new(Identity::ephemeral()).with_listen(vec![addr.parse().unwrap()]);
        let error = p2p_blob::start(config, MemoryStore::with(&[])).unwrap_err();
        assert!(matches!(error, StartError::Listen { .. }), "{error}");
        assert!(error.to_string().contains(&addr), "{error}");
        assert_eq!(error.blame(), Blame::Caller);
    }
}
