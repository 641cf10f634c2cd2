//! Nodes with a store in memory, and peers that do as a test says.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use futures::StreamExt as _;
use libp2p::swarm::SwarmEvent;
use libp2p::{StreamProtocol, Swarm, SwarmBuilder, noise, tcp, yamux};
use manifest::{ByteRange, Digest, Have};
use p2p_blob::{
    Blob, Client, Config, GetRequest, Identity, Multiaddr, PeerId, RangeSession, ReadOutcome, Session, Store,
    Task,
};

pub(crate) const TCP: &str = "/ip4/127.0.0.1/tcp/0";
pub(crate) const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";
pub(crate) const V1: StreamProtocol = StreamProtocol::new("/autonet/blob/1.0.0");
pub(crate) const V2: StreamProtocol = StreamProtocol::new("/autonet/blob/2.0.0");

/// Fails a test that waits for something that does not come.
pub(crate) async fn soon<T>(event: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), event).await.expect("did not happen in time")
}

/// Bytes that differ everywhere and from seed to seed.
pub(crate) fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    (0..length)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect()
}

/// A blob, and the manifest under which it is served before it is whole.
type BlobName = (Option<Digest>, Digest);

/// A store in memory whose reads a test can hold up or fail.
#[derive(Default)]
pub(crate) struct MemoryStore {
    blobs: Mutex<HashMap<BlobName, Arc<MemoryBlob>>>,
    pub(crate) have: Mutex<HashMap<Digest, Have>>,
    pub(crate) gate: Arc<Gate>,
}

pub(crate) struct MemoryBlob {
    pub(crate) size_bytes: u64,
    pub(crate) content: Vec<u8>,
    pub(crate) held: Option<ByteRange>,
    pub(crate) fails_from: u64,
    pub(crate) gate: Arc<Gate>,
}

/// Reads wait while it is shut.
#[derive(Default)]
pub(crate) struct Gate {
    state: Mutex<(bool, usize)>,
    changed: Condvar,
}

impl Gate {
    pub(crate) fn shut(&self, shut: bool) {
        self.state.lock().unwrap().0 = shut;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.1 += 1;
        self.changed.notify_all();
        while state.0 {
            state = self.changed.wait(state).unwrap();
        }
        state.1 -= 1;
    }

    /// Waits until this many reads stand at the gate.
    pub(crate) async fn waiting(self: &Arc<Self>, count: usize) {
        let gate = Arc::clone(self);
        let wait = tokio::task::spawn_blocking(move || {
            let state = gate.state.lock().unwrap();
            let limit = Duration::from_secs(20);
            let waited = gate.changed.wait_timeout_while(state, limit, |s| s.1 != count).unwrap();
            assert!(!waited.1.timed_out(), "no read came");
        });
        wait.await.unwrap();
    }
}

impl MemoryStore {
    pub(crate) fn with(contents: &[&[u8]]) -> Arc<Self> {
        let store = Arc::new(Self::default());
        for content in contents {
            store.add(None, Digest::of(content), store.whole(content));
        }
        store
    }

    pub(crate) fn whole(&self, content: &[u8]) -> MemoryBlob {
        let gate = Arc::clone(&self.gate);
        let size_bytes = content.len() as u64;
        MemoryBlob { size_bytes, content: content.to_vec(), held: None, fails_from: u64::MAX, gate }
    }

    pub(crate) fn add(&self, manifest: Option<Digest>, digest: Digest, blob: MemoryBlob) {
        self.blobs.lock().unwrap().insert((manifest, digest), Arc::new(blob));
    }
}

impl Store for MemoryStore {
    fn open(&self, manifest: Option<&Digest>, blob: &Digest) -> io::Result<Option<Arc<dyn Blob>>> {
        let blobs = self.blobs.lock().unwrap();
        Ok(blobs.get(&(manifest.copied(), *blob)).map(|blob| Arc::clone(blob) as Arc<dyn Blob>))
    }

    fn have(&self, manifest: &Digest, _: u64) -> io::Result<Option<Have>> {
        Ok(self.have.lock().unwrap().get(manifest).cloned())
    }
}

impl Blob for MemoryBlob {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn is_whole(&self) -> bool {
        self.held.is_none()
    }

    fn holds(&self, range: ByteRange) -> bool {
        self.held.is_none_or(|held| held.start <= range.start && range.end <= held.end)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<ReadOutcome> {
        self.gate.pass();
        let start = usize::try_from(offset).unwrap();
        if offset + buf.len() as u64 > self.fails_from {
            return Err(io::Error::other("a bad sector"));
        }
        buf.copy_from_slice(&self.content[start..start + buf.len()]);
        Ok(ReadOutcome::Held)
    }
}

/// A node of ours.
pub(crate) struct Node {
    pub(crate) client: Client,
    pub(crate) task: Task,
}

impl Node {
    pub(crate) fn start(store: Arc<MemoryStore>, change: impl FnOnce(Config) -> Config) -> Self {
        let config = Config::new(Identity::ephemeral()).with_listen(vec![TCP.parse().unwrap()]);
        let (client, task) = p2p_blob::start(change(config), store).unwrap();
        Self { client, task }
    }

    /// A node that serves nothing.
    pub(crate) fn fetcher() -> Self {
        Self::start(MemoryStore::with(&[]), |config| config.with_listen(Vec::new()))
    }

    pub(crate) async fn addr(&self) -> Multiaddr {
        let mut addrs = self.client.listen_addrs();
        let addrs = soon(addrs.wait_for(|addrs| !addrs.is_empty())).await.unwrap();
        addrs[0].clone()
    }

    /// Connects to `other` and opens a session.
    pub(crate) async fn session(&self, other: &Node) -> Session {
        let peer = soon(self.client.connect(other.addr().await)).await.unwrap();
        soon(self.client.open(peer)).await.unwrap()
    }

    pub(crate) async fn ranges(&self, other: &Node) -> RangeSession {
        ranges(self.session(other).await)
    }
}

pub(crate) fn ranges(session: Session) -> RangeSession {
    match session {
        Session::Ranges(session) => session,
        Session::Blobs(_) => panic!("expected 2.0.0"),
    }
}

pub(crate) fn get(blob: Digest, start: u64, end: u64) -> (GetRequest, Vec<u8>) {
    let range = ByteRange::new(start, end);
    let request = GetRequest { manifest: None, blob, blob_size_bytes: None, range };
    (request, vec![0; usize::try_from(range.len()).unwrap()])
}

/// A peer whose streams a test reads and writes itself.
pub(crate) struct RawPeer {
    pub(crate) peer: PeerId,
    pub(crate) addr: Multiaddr,
    pub(crate) control: libp2p_stream::Control,
    incoming: libp2p_stream::IncomingStreams,
    dials: tokio::sync::mpsc::Sender<Multiaddr>,
}

impl RawPeer {
    /// Accepts streams of `protocol`.
    pub(crate) async fn start(protocol: StreamProtocol) -> Self {
        let mut swarm = SwarmBuilder::with_new_identity()
            .with_tokio()
            .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
            .unwrap()
            .with_behaviour(|_| libp2p_stream::Behaviour::new())
            .unwrap()
            .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(60)))
            .build();
        swarm.listen_on(TCP.parse().unwrap()).unwrap();
        let peer = *swarm.local_peer_id();
        let mut control = swarm.behaviour().new_control();
        let incoming = control.accept(protocol).unwrap();
        let addr = soon(async {
            loop {
                if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                    return address.with_p2p(peer).unwrap();
                }
            }
        })
        .await;
        let (dials, mut to_dial) = tokio::sync::mpsc::channel::<Multiaddr>(1);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    Some(addr) = to_dial.recv() => swarm.dial(addr).unwrap(),
                    _ = Swarm::select_next_some(&mut swarm) => {}
                }
            }
        });
        Self { peer, addr, control, incoming, dials }
    }

    /// The next stream that somebody opens.
    pub(crate) async fn accept(&mut self) -> libp2p::Stream {
        soon(self.incoming.next()).await.expect("no stream").1
    }

    /// Connects to a node of ours and opens a stream.
    pub(crate) async fn open(&mut self, node: &Node, protocol: StreamProtocol) -> libp2p::Stream {
        let peer = node.client.peer_id();
        self.dials.send(node.addr().await).await.unwrap();
        soon(async {
            loop {
                match self.control.open_stream(peer, protocol.clone()).await {
                    Ok(stream) => return stream,
                    Err(error) => tracing::debug!(%error, "not connected yet"),
                }
            }
        })
        .await
    }

    /// A 2.0.0 session of `node` with this peer, and this peer's end of it.
    pub(crate) async fn session_of(&mut self, node: &Node) -> (RangeSession, libp2p::Stream) {
        let peer = soon(node.client.connect(self.addr.clone())).await.unwrap();
        assert_eq!(peer, self.peer);
        let (session, stream) = soon(futures::future::join(node.client.open(peer), self.accept())).await;
        (ranges(session.unwrap()), stream)
    }
}
