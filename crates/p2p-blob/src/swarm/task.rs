//! The network task: it owns the swarm. Its handlers never wait.

use std::collections::HashMap;
#[cfg(feature = "dht")]
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, dns, identify, ping};
#[cfg(feature = "dht")]
use manifest::Digest;
use tokio::sync::{OwnedSemaphorePermit, broadcast, mpsc, oneshot, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::discovery::address;
#[cfg(feature = "dht")]
use crate::discovery::dht::Dht;
#[cfg(feature = "mdns")]
use crate::discovery::lan::Nearby;
#[cfg(feature = "dht")]
use crate::discovery::record::Contact;
use crate::discovery::record::SignedRecord;
use crate::discovery::tracker::Tracker;
use crate::error::ConnectError;
use crate::identity::{Identity, source_id};
use crate::reach::{AddrSource, Reach};
use crate::serve::Servers;
use crate::swarm::builder::{Behaviours, BehavioursEvent};
use crate::swarm::handler::OpenStream;

/// How long connections may take to close.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);

/// A peer connected or disconnected.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerEvent {
    /// The first connection with the peer is up, inbound or outbound.
    Connected {
        /// The peer.
        peer: PeerId,
    },
    /// The last connection with the peer is gone.
    Disconnected {
        /// The peer.
        peer: PeerId,
        /// What the connection says, when it did not just close.
        reason: Option<String>,
    },
}

/// What a [`crate::Client`] asks of the task.
pub(crate) enum Command {
    Connect(Dial),
    Open {
        peer: PeerId,
        /// Only there.
        on: Option<ConnectionId>,
        order: OpenStream,
    },
    /// Tell peers of the existing network what is here: a frame.
    Advertise(Arc<[u8]>),
    /// Close one connection.
    Abandon(ConnectionId),
    /// Close all connections with a peer.
    Disconnect(PeerId),
    /// Look for providers in the DHT.
    #[cfg(feature = "dht")]
    Search {
        manifest: Digest,
        found: mpsc::Sender<Contact>,
    },
    /// Provide these in the DHT.
    #[cfg(feature = "dht")]
    Provide(HashSet<Digest>),
}

/// A dial that a caller waits for.
pub(crate) struct Dial {
    pub(crate) addr: Multiaddr,
    /// Further addresses of the peer in `addr`.
    pub(crate) others: Vec<Multiaddr>,
    /// Where the addresses come from.
    pub(crate) source: AddrSource,
    /// With so many connections to the peer, none is made.
    pub(crate) enough: usize,
    pub(crate) reply: oneshot::Sender<Result<PeerId, ConnectError>>,
    /// Bounds how many there are, waiting and under way.
    pub(crate) _permit: OwnedSemaphorePermit,
}

/// The task's state.
pub(crate) struct NetworkTask {
    pub(crate) swarm: Swarm<Behaviours>,
    pub(crate) servers: Servers,
    pub(crate) holders: Arc<Tracker>,
    #[cfg(feature = "mdns")]
    pub(crate) nearby: Arc<Nearby>,
    #[cfg(feature = "dht")]
    pub(crate) dht: Dht,
    pub(crate) reach: Arc<Reach>,
    pub(crate) commands: mpsc::Receiver<Command>,
    /// Dials in progress.
    pub(crate) dials: HashMap<ConnectionId, Dial>,
    /// Connected peers by the address, without a peer id, at which they were dialed.
    pub(crate) found: HashMap<Multiaddr, PeerId>,
    pub(crate) stop: CancellationToken,
    pub(crate) drain_timeout: Duration,
    pub(crate) listen_addrs: watch::Sender<Vec<Multiaddr>>,
    pub(crate) peer_events: broadcast::Sender<PeerEvent>,
    /// Keeps the key file locked while the task runs.
    pub(crate) identity: Identity,
    /// Cancelled when the task is gone, however it went.
    pub(crate) ended: DropGuard,
}

impl NetworkTask {
    /// Runs until `stop` is cancelled or the last client is gone, then drains.
    pub(crate) async fn run(mut self) {
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                () = self.servers.reap(), if !self.servers.is_empty() => {}
                command = self.commands.recv() => match command {
                    Some(command) => self.on_command(command),
                    None => break,
                },
                event = self.swarm.select_next_some() => self.on_swarm_event(event),
            }
        }
        // Commands that wait, and those to come, end as `Stopped`.
        self.commands.close();
        while self.commands.try_recv().is_ok() {}
        self.dials.clear();
        self.drain().await;
        tracing::debug!(identity = ?self.identity, "stopped");
        drop(self.ended);
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Open { peer, on, order } => self.swarm.behaviour_mut().blob.open(peer, on, order),
            Command::Abandon(connection) => {
                self.swarm.behaviour_mut().blob.abandon(connection);
                self.swarm.close_connection(connection);
            }
            Command::Disconnect(peer) => {
                // An error says that there is none.
                let _ = self.swarm.disconnect_peer_id(peer);
            }
            Command::Advertise(frame) => {
                if let Some(capability) = self.swarm.behaviour_mut().capability.as_mut() {
                    capability.advertise(frame);
                }
            }
            #[cfg(feature = "dht")]
            Command::Search { manifest, found } => {
                self.dht.search(&mut self.swarm.behaviour_mut().kad, &manifest, found);
            }
            #[cfg(feature = "dht")]
            Command::Provide(held) => {
                self.dht.set_provided(held);
                self.dht.publish(&mut self.swarm.behaviour_mut().kad);
            }
            Command::Connect(dial) if dial.reply.is_closed() => {}
            Command::Connect(dial) => self.on_connect(dial),
        }
    }

    fn on_connect(&mut self, dial: Dial) {
        let addr = dial.addr.clone();
        let named = address::peer_of(&addr);
        if let Some(peer) = named.or_else(|| self.found.get(&addr).copied())
            && self.swarm.behaviour().blob.connection_count(&peer) >= dial.enough
        {
            return dial.end(Ok(peer));
        }
        // After that: a peer that has connected to us may have no address of its own.
        if !address::is_dialable(&addr) {
            return dial.end(Err(ConnectError::UnsupportedAddress { addr }));
        }
        let options = match named {
            Some(peer) if peer == *self.swarm.local_peer_id() => {
                return dial.end(Err(ConnectError::OwnAddress { addr }));
            }
            Some(peer) => {
                let addrs = [addr].into_iter().chain(dial.others.iter().cloned()).collect();
                DialOpts::peer_id(peer).addresses(addrs).condition(PeerCondition::Always).build()
            }
            None => DialOpts::unknown_peer_id().address(addr).build(),
        };
        let connection = options.connection_id();
        if dial.source == AddrSource::User {
            self.reach.named(&dial.addr);
        }
        match self.reach.during(dial.source, || self.swarm.dial(options)) {
            Ok(()) => {
                self.dials.insert(connection, dial);
            }
            Err(error) => dial.fail(error),
        }
    }

    fn on_swarm_event(&mut self, event: SwarmEvent<BehavioursEvent>) {
        match event {
            SwarmEvent::Behaviour(BehavioursEvent::Blob(inbound)) => {
                self.servers.admit(inbound.from, inbound.stream);
            }
            SwarmEvent::Behaviour(BehavioursEvent::Capability(heard)) => {
                self.holders.heard(&heard.peer, heard.blobs);
            }
            SwarmEvent::Behaviour(BehavioursEvent::Identify(identify::Event::Received {
                info,
                peer_id,
                ..
            })) => self.on_identified(peer_id, info),
            SwarmEvent::Behaviour(BehavioursEvent::Ping(ping::Event {
                peer,
                result: Ok(round_trip),
                ..
            })) => self.holders.answered(&peer, round_trip),
            #[cfg(feature = "nat")]
            SwarmEvent::Behaviour(BehavioursEvent::Reached(event)) => {
                tracing::debug!(address = %event.tested_addr, by = %event.server, result = ?event.result, "tried");
                self.holders.note_tried(event.tested_addr, event.result.is_ok());
            }
            #[cfg(feature = "dht")]
            SwarmEvent::Behaviour(BehavioursEvent::Kad(event)) => {
                let scope = self.reach.widest();
                self.dht.on_event(&mut self.swarm.behaviour_mut().kad, event, scope);
            }
            #[cfg(feature = "mdns")]
            SwarmEvent::Behaviour(BehavioursEvent::Mdns(event)) => self.nearby.on_event(event),
            SwarmEvent::ConnectionEstablished {
                peer_id, connection_id, num_established, endpoint, ..
            } => {
                self.reach.connected(endpoint.get_remote_address());
                self.holders.connected(peer_id, endpoint.get_remote_address(), endpoint.is_dialer());
                if let Some(dial) = self.dials.remove(&connection_id) {
                    if address::peer_of(&dial.addr).is_none() {
                        self.found.insert(dial.addr.clone(), peer_id);
                    }
                    dial.end(Ok(peer_id));
                }
                if num_established.get() == 1 {
                    tracing::debug!(peer = %peer_id, "connected");
                    // There may be no subscriber.
                    let _ = self.peer_events.send(PeerEvent::Connected { peer: peer_id });
                }
            }
            SwarmEvent::ConnectionClosed { peer_id, num_established: 0, cause, .. } => {
                self.found.retain(|_, peer| *peer != peer_id);
                self.holders.disconnected(&peer_id);
                let reason = cause.map(|cause| cause.to_string());
                tracing::debug!(peer = %peer_id, reason, "disconnected");
                let _ = self.peer_events.send(PeerEvent::Disconnected { peer: peer_id, reason });
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                if let Some(dial) = self.dials.remove(&connection_id) {
                    dial.fail(error);
                }
            }
            SwarmEvent::NewListenAddr { address, .. } => {
                let full = address::with_peer(address, *self.swarm.local_peer_id());
                tracing::info!(address = %full, "listening");
                self.listen_addrs.send_modify(|all| all.push(full));
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                let full = address::with_peer(address, *self.swarm.local_peer_id());
                self.listen_addrs.send_modify(|all| all.retain(|one| *one != full));
            }
            SwarmEvent::ListenerClosed { addresses, reason, .. } => {
                tracing::warn!(?addresses, ?reason, "a listener has closed");
                let peer = *self.swarm.local_peer_id();
                let gone: Vec<_> =
                    addresses.into_iter().map(|address| address::with_peer(address, peer)).collect();
                self.listen_addrs.send_modify(|all| all.retain(|one| !gone.contains(one)));
            }
            other => tracing::trace!(event = ?other, "swarm"),
        }
    }

    fn on_identified(&mut self, peer: PeerId, info: identify::Info) {
        #[cfg(feature = "dht")]
        if let Some(scope) = self.holders.scope_of(&peer) {
            self.dht.on_identified(&mut self.swarm.behaviour_mut().kad, peer, &info, scope);
        }
        if let Some(capability) = self.swarm.behaviour_mut().capability.as_mut() {
            capability.identified(peer, &info.protocols);
        }
        self.holders.told(&peer, info.agent_version, &info.protocols);
        let record = info.signed_peer_record.and_then(SignedRecord::of);
        if let Some(record) = record.filter(|record| record.contact().peer == peer) {
            self.holders.identified(record);
        }
    }

    /// Lets the answers in progress end, then closes the connections, each within its time.
    async fn drain(&mut self) {
        self.servers.stop();
        let deadline = tokio::time::Instant::now() + self.drain_timeout;
        while !self.servers.is_empty() {
            tokio::select! {
                biased;
                () = self.servers.reap() => {}
                () = tokio::time::sleep_until(deadline) => break,
                // Streams that are opened now are dropped: that resets them.
                _ = self.swarm.select_next_some() => {}
            }
        }
        let peers: Vec<_> = self.swarm.connected_peers().copied().collect();
        for peer in peers {
            // An error says that it is disconnected already.
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        let deadline = tokio::time::Instant::now() + GOODBYE_TIMEOUT;
        while self.swarm.network_info().num_peers() > 0 {
            tokio::select! {
                () = tokio::time::sleep_until(deadline) => break,
                _ = self.swarm.select_next_some() => {}
            }
        }
    }
}

impl Dial {
    /// Reports the result, if the caller still waits.
    fn end(self, result: Result<PeerId, ConnectError>) {
        let _ = self.reply.send(result);
    }

    fn fail(self, error: DialError) {
        let addr = self.addr.clone();
        let error = match (error, address::peer_of(&addr)) {
            (DialError::WrongPeerId { obtained, .. }, Some(expected)) => {
                let (expected, found) = (source_id(&expected), source_id(&obtained));
                ConnectError::WrongPeer { addr, expected, found }
            }
            // The swarm leaves out the addresses that it listens on, and there was just one.
            (DialError::LocalPeerId { .. } | DialError::NoAddresses, _) => ConnectError::OwnAddress { addr },
            (error, _) => match address::family(&addr).filter(|_| is_unresolved(&error)) {
                Some(family) => ConnectError::Unresolved { addr, family, source: Box::new(error) },
                None => ConnectError::Dial { addr, source: Box::new(error) },
            },
        };
        self.end(Err(error));
    }
}

/// Whether a name could not be turned into an address.
fn is_unresolved(error: &DialError) -> bool {
    let DialError::Transport(tried) = error else { return false };
    tried.iter().any(|(_, error)| {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
        while let Some(error) = cause {
            if error.is::<dns::ResolveError>() {
                return true;
            }
            cause = error.source();
        }
        false
    })
}
