//! Starting the node, and its handle.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use libp2p::core::transport::TransportError;
use libp2p::swarm::ConnectionId;
use libp2p::{Multiaddr, PeerId};
use manifest::Digest;
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::admit::ConnectionSlots;
use crate::config::{Config, Versions};
use crate::discovery::address::{self, Scope};
#[cfg(feature = "dht")]
use crate::discovery::dht::Dht;
use crate::discovery::lan::Nearby;
use crate::discovery::record::{Contact, KnownRecords};
use crate::discovery::tracker::Tracker;
use crate::error::{ConnectError, FetchError, StartError};
use crate::identity::source_id;
use crate::limit::RateLimit;
use crate::reach::{AddrSource, Reach};
use crate::serve::{Servers, Uploads};
use crate::store::Store;
use crate::swarm::builder;
use crate::swarm::handler::{Connection, OpenError, OpenStream, Opened};
use crate::swarm::listen;
use crate::swarm::task::{Command, Dial, NetworkTask, PeerEvent};
use crate::traffic::{ConnectedPeer, Introduction, Traffic, Transport};
use crate::transport::SameKind;
use crate::wire::{Version, capability};

/// Commands that wait for the network task; further callers wait themselves.
const COMMAND_QUEUE: usize = 64;
/// Dials in progress, and streams in negotiation; further callers wait.
const MAX_CONNECTING: usize = 64;
const MAX_OPENING: usize = 256;
/// Providers found and not read yet; further ones are dropped.
const FOUND_QUEUE: usize = 256;
/// A subscriber that lags further behind loses the oldest events, and is notified.
const PEER_EVENT_QUEUE: usize = 256;

/// Starts a node on the caller's tokio runtime. It listens, serves `store`, and fetches through its [`Client`].
///
/// The node ends, draining, when [`Client::shutdown`] is called or when the last [`Client`] and [`Session`](crate::Session) are gone.
///
/// # Errors
/// - [`StartError::NoRuntime`]: called outside of a runtime.
/// - [`StartError::Clock`]: the clock stands before 1970.
/// - [`StartError::Listen`]: an address is in use or has no transport here.
/// - [`StartError::Transport`]: the system lacks something.
pub fn start(config: Config, store: Arc<dyn Store>) -> Result<(Client, Task), StartError> {
    let runtime = tokio::runtime::Handle::try_current().map_err(|_| StartError::NoRuntime)?;
    if SystemTime::now() < SystemTime::UNIX_EPOCH {
        return Err(StartError::Clock);
    }
    let connection_slots = ConnectionSlots::new(&config.limits);
    let reach = Arc::<Reach>::default();
    let same_kind = Arc::<SameKind>::default();
    let mut swarm = builder::build(&config, &connection_slots, &reach, Arc::clone(&same_kind))?;
    for addr in &config.listen {
        reach.named(addr);
        let free = listen::is_free(addr).map_err(TransportError::Other);
        free.and_then(|()| swarm.listen_on(addr.clone()))
            .map_err(|source| StartError::Listen { addr: addr.clone(), source })?;
    }
    for addr in &config.external_addrs {
        swarm.add_external_address(addr.clone());
    }

    let _in_runtime = runtime.enter();
    let uploads = Uploads::new(&config.limits, connection_slots);
    let download_rate = config.limits.download_bytes_per_s.map(RateLimit::start);
    let (commands_tx, commands) = mpsc::channel(COMMAND_QUEUE);
    let (listen_addrs, listen_addrs_rx) = watch::channel(Vec::new());
    let (peer_events, _) = broadcast::channel(PEER_EVENT_QUEUE);
    let (holders, nearby) = (Arc::<Tracker>::default(), Arc::<Nearby>::default());
    let stop = CancellationToken::new();
    let ended = CancellationToken::new();
    let client = Client {
        node: Arc::new(Node {
            peer_id: config.identity.peer_id(),
            commands: commands_tx,
            connecting: Arc::new(Semaphore::new(MAX_CONNECTING)),
            opening: Arc::new(Semaphore::new(MAX_OPENING)),
            listen_addrs: listen_addrs_rx,
            peer_events: peer_events.clone(),
            holders: Arc::clone(&holders),
            records: KnownRecords::default(),
            nearby: Arc::clone(&nearby),
            reach: Arc::clone(&reach),
            same_kind,
            versions: config.versions,
            progress_timeout: config.progress_timeout,
            connect_timeout: config.connect_timeout,
            uploads: uploads.clone(),
            download_rate,
            stop: stop.clone(),
            ended: ended.clone(),
        }),
    };
    let task = NetworkTask {
        swarm,
        servers: Servers::new(store, Arc::clone(&holders), uploads, &config),
        holders,
        #[cfg(feature = "mdns")]
        nearby,
        #[cfg(feature = "dht")]
        dht: Dht::default(),
        reach,
        commands,
        dials: HashMap::new(),
        found: HashMap::new(),
        stop,
        drain_timeout: config.drain_timeout,
        listen_addrs,
        peer_events,
        identity: config.identity,
        ended: ended.drop_guard(),
    };
    Ok((client, Task { handle: runtime.spawn(task.run()) }))
}

/// The running node. Dropping it leaves the node running.
#[derive(Debug)]
pub struct Task {
    handle: JoinHandle<()>,
}

impl Task {
    /// Waits until the node has ended; [`Client::shutdown`] makes it end.
    ///
    /// # Errors
    /// When it was aborted or panicked.
    pub async fn join(self) -> Result<(), JoinError> {
        self.handle.await
    }

    /// Ends the node now, without draining.
    pub fn abort(&self) {
        self.handle.abort();
    }
}

/// A handle to a running node. Clones are the same node.
#[derive(Debug, Clone)]
pub struct Client {
    node: Arc<Node>,
}

#[derive(Debug)]
struct Node {
    peer_id: PeerId,
    commands: mpsc::Sender<Command>,
    connecting: Arc<Semaphore>,
    opening: Arc<Semaphore>,
    listen_addrs: watch::Receiver<Vec<Multiaddr>>,
    peer_events: broadcast::Sender<PeerEvent>,
    holders: Arc<Tracker>,
    records: KnownRecords,
    nearby: Arc<Nearby>,
    reach: Arc<Reach>,
    same_kind: Arc<SameKind>,
    versions: Versions,
    progress_timeout: Duration,
    connect_timeout: Duration,
    uploads: Uploads,
    download_rate: Option<RateLimit<PeerId>>,
    stop: CancellationToken,
    ended: CancellationToken,
}

impl Client {
    /// This node's peer id.
    pub fn peer_id(&self) -> PeerId {
        self.node.peer_id
    }

    /// The addresses that the node listens on now, each with its `/p2p/…`.
    pub fn listen_addrs(&self) -> watch::Receiver<Vec<Multiaddr>> {
        self.node.listen_addrs.clone()
    }

    /// Peers that connect and disconnect from now on.
    pub fn peer_events(&self) -> broadcast::Receiver<PeerEvent> {
        self.node.peer_events.subscribe()
    }

    /// Connects to the peer at `addr` and returns its id. A `/p2p/…` at the end is checked. An existing connection is
    /// reused.
    ///
    /// **Cancel safety.** Dropping the future leaves the dial to itself.
    ///
    /// # Errors
    /// - [`ConnectError::Dial`], [`ConnectError::TimedOut`]: not reachable now.
    /// - [`ConnectError::WrongPeer`]: another peer is there.
    /// - [`ConnectError::UnsupportedAddress`], [`ConnectError::OwnAddress`]: no use to try again.
    /// - [`ConnectError::Stopped`]: the node has ended.
    pub async fn connect(&self, addr: Multiaddr) -> Result<PeerId, ConnectError> {
        self.dial(addr, Vec::new(), AddrSource::User, 1).await
    }

    /// Connects to a peer at the first of its addresses that works. An existing connection is reused. The addresses are not
    /// trusted: names must resolve to global addresses, and dials of each address are rate limited.
    ///
    /// **Cancel safety.** Dropping the future leaves the dial to itself.
    ///
    /// # Errors
    /// Those of [`Client::connect`]; they name the first address.
    pub async fn connect_to(&self, contact: &Contact) -> Result<PeerId, ConnectError> {
        let mut addrs = contact.addrs.iter().map(|addr| address::with_peer(addr.clone(), contact.peer));
        let first = addrs.next().unwrap_or_else(|| address::with_peer(Multiaddr::empty(), contact.peer));
        self.dial(first, addrs.collect(), AddrSource::Peer, 1).await
    }

    /// Closes all connections with a peer. It may connect again.
    pub async fn disconnect(&self, peer: PeerId) {
        // When the node has ended, the connections are closed.
        let _ = self.node.commands.send(Command::Disconnect(peer)).await;
    }

    /// Closes the connection on which a session is. Those on others go on.
    pub async fn abandon(&self, connection: Connection) {
        // When the node has ended, all are closed.
        let _ = self.node.commands.send(Command::Abandon(connection.0)).await;
    }

    /// The connected peers that lately asked for shards of the manifest, or announced some.
    pub fn holders(&self, manifest: &Digest) -> Vec<PeerId> {
        self.node.holders.of(manifest, Instant::now())
    }

    /// The peers that mDNS has found in the local network.
    pub fn nearby(&self) -> Vec<Contact> {
        // Only a peer on this machine may announce loopback addresses.
        let scope = self.node.reach.widest().min(Scope::Site);
        self.node.nearby.contacts().into_iter().map(|contact| contact.within(scope)).collect()
    }

    /// The address at which a connected peer was dialed; `None` when it has dialed this node, or is not connected.
    pub fn reached_at(&self, peer: &PeerId) -> Option<Multiaddr> {
        self.node.holders.reached_at(peer)
    }

    /// Searches the DHT for providers of the manifest. The channel closes with the search, after 20 s at most; provider
    /// records are not proven. None is found while no DHT server is known, nor without the feature `dht`.
    #[cfg_attr(not(feature = "dht"), expect(clippy::unused_async, reason = "there is nobody to ask"))]
    pub async fn find_providers(&self, manifest: Digest) -> mpsc::Receiver<Contact> {
        let (found, receiver) = mpsc::channel(FOUND_QUEUE);
        // When the node has ended, the channel has, too.
        #[cfg(feature = "dht")]
        let _ = self.node.commands.send(Command::Search { manifest, found }).await;
        #[cfg(not(feature = "dht"))]
        let _ = (manifest, found);
        receiver
    }

    /// Publishes provider records for exactly these manifests in the DHT, while this node is a server.
    #[cfg_attr(not(feature = "dht"), expect(clippy::unused_async, reason = "there is nobody to tell"))]
    pub async fn provide(&self, held: HashSet<Digest>) {
        #[cfg(feature = "dht")]
        let _ = self.node.commands.send(Command::Provide(held)).await;
        #[cfg(not(feature = "dht"))]
        let _ = held;
    }

    /// Tells connected peers of the existing network, and those that connect from now on, that these blobs are here; the first
    /// 4,096 of them. Each is told one thing at a time, the last. To be called again every minute.
    pub async fn advertise(&self, blobs: &[Digest]) {
        let addrs = self.node.listen_addrs.borrow().clone();
        let frame = capability::encode(self.node.peer_id, blobs, &addrs, SystemTime::now());
        // When the node has ended, there is nobody to tell.
        let _ = self.node.commands.send(Command::Advertise(frame.into())).await;
    }

    /// Opens one more connection with `peer`, at `addr`, unless there are `count` already: [`Client::open`] spreads
    /// streams over all of them. One core at each end encrypts and decrypts a connection.
    ///
    /// **Cancel safety.** Dropping the future leaves the dial to itself.
    ///
    /// # Errors
    /// Those of [`Client::connect`]. Peers limit how many connections they take; one too many is closed by them.
    pub async fn connect_again(
        &self,
        peer: PeerId,
        addr: Multiaddr,
        count: usize,
    ) -> Result<PeerId, ConnectError> {
        self.dial(address::with_peer(addr, peer), Vec::new(), AddrSource::User, count).await
    }

    /// Dials, unless `enough` connections with the peer at `addr` are known.
    async fn dial(
        &self,
        addr: Multiaddr,
        others: Vec<Multiaddr>,
        source: AddrSource,
        enough: usize,
    ) -> Result<PeerId, ConnectError> {
        let after = self.node.connect_timeout;
        let (reply, answer) = oneshot::channel();
        let connected = async {
            let permit = Arc::clone(&self.node.connecting).acquire_owned().await;
            let permit = permit.map_err(|_| ConnectError::Stopped)?;
            let dial = Dial { addr: addr.clone(), others, source, enough, reply, _permit: permit };
            let command = Command::Connect(dial);
            self.node.commands.send(command).await.map_err(|_| ConnectError::Stopped)?;
            answer.await.unwrap_or(Err(ConnectError::Stopped))
        };
        match tokio::time::timeout(after, connected).await {
            Ok(result) => result,
            Err(_) => Err(ConnectError::TimedOut { addr, after }),
        }
    }

    /// How many bytes of blobs this node has sent.
    pub fn sent_bytes(&self) -> u64 {
        self.node.uploads.sent_bytes()
    }

    /// What this node has served so far, and is serving.
    pub fn traffic(&self) -> Traffic {
        self.node.uploads.traffic()
    }

    /// What the newest connection with a peer runs on; `None` when there is none.
    pub fn transport(&self, peer: &PeerId) -> Option<Transport> {
        self.node.holders.transport_of(peer)
    }

    /// The peers that are connected.
    pub fn connected(&self) -> Vec<ConnectedPeer> {
        self.node.holders.all()
    }

    /// What a connected peer has told of itself, and how it is connected; `None` until it has.
    pub fn introduction(&self, peer: &PeerId) -> Option<Introduction> {
        let told = self.node.holders.told_by(peer)?;
        let transport = self.transport(peer)?;
        let is_tls = transport == Transport::Quic || self.node.same_kind.is_tls(peer);
        Some(Introduction { is_tls, transport, ..told })
    }

    /// Addresses of this node that peers have tried to reach (AutoNAT), and whether they could. None without the feature
    /// `nat`.
    pub fn tried_addrs(&self) -> Vec<(Multiaddr, bool)> {
        self.node.holders.tried()
    }

    /// The node fetches a model until the guard is dropped. Meanwhile it has fewer upload slots
    /// ([`crate::Limits::with_uploads_while_fetching`]), and sends less than it receives.
    pub fn fetching(&self) -> Fetching {
        self.node.uploads.set_fetching(true);
        Fetching { uploads: self.node.uploads.clone() }
    }

    /// Stops serving and fetching: answers in progress may end within the drain timeout, then all connections close.
    /// Returns when the node has ended.
    pub async fn shutdown(&self) {
        self.node.stop.cancel();
        self.node.ended.cancelled().await;
    }

    pub(crate) fn download_rate(&self) -> Option<&RateLimit<PeerId>> {
        self.node.download_rate.as_ref()
    }

    pub(crate) fn uploads(&self) -> &Uploads {
        &self.node.uploads
    }

    pub(crate) fn progress_timeout(&self) -> Duration {
        self.node.progress_timeout
    }

    pub(crate) fn versions(&self) -> Versions {
        self.node.versions
    }

    pub(crate) fn reach(&self) -> &Reach {
        &self.node.reach
    }

    pub(crate) fn known_holders(&self) -> &Arc<Tracker> {
        &self.node.holders
    }

    pub(crate) fn known_records(&self) -> &KnownRecords {
        &self.node.records
    }

    /// Opens a stream in the first of `versions` that the peer speaks.
    pub(crate) async fn open_stream(
        &self,
        peer: PeerId,
        on: Option<ConnectionId>,
        versions: &'static [Version],
    ) -> Result<Opened, FetchError> {
        let permit = Arc::clone(&self.node.opening).acquire_owned().await.map_err(|_| FetchError::Stopped)?;
        let (reply, answer) = oneshot::channel();
        let order = OpenStream { versions, reply, _permit: permit };
        let command = Command::Open { peer, on, order };
        self.node.commands.send(command).await.map_err(|_| FetchError::Stopped)?;
        let error = match answer.await {
            Ok(Ok(opened)) => return Ok(opened),
            Ok(Err(error)) => error,
            Err(_) if self.node.commands.is_closed() => return Err(FetchError::Stopped),
            Err(_) => return Err(FetchError::Closed { peer: source_id(&peer), source: None }),
        };
        let peer = source_id(&peer);
        Err(match error {
            OpenError::NotConnected => FetchError::Unreachable { peer },
            OpenError::TimedOut => FetchError::Stalled { peer, after: self.node.progress_timeout },
            OpenError::Io(source) => FetchError::Closed { peer, source: Some(Arc::new(source)) },
            OpenError::Unsupported => {
                let offered: Vec<_> = versions.iter().map(|one| one.name().to_owned()).collect();
                FetchError::UnsupportedProtocol { peer, offered: offered.join(", ") }
            }
        })
    }
}

/// A node is fetching. See [`Client::fetching`].
#[derive(Debug)]
pub struct Fetching {
    uploads: Uploads,
}

impl Drop for Fetching {
    fn drop(&mut self) {
        self.uploads.set_fetching(false);
    }
}
