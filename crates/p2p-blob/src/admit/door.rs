//! The slots for handshakes and connections, and the behaviour that grants and evicts those of connections.

use std::collections::{HashMap, HashSet, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::behaviour::{ConnectionClosed, ConnectionEstablished};
use libp2p::swarm::{
    CloseConnection, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm, dummy,
};
use libp2p::{Multiaddr, PeerId};
use tokio_util::sync::CancellationToken;

use super::{Decision, Origin, Quota, Slot};
use crate::config::Limits;

/// Inbound handshakes in progress.
const MAX_HANDSHAKES: usize = 128;
/// Age at which a handshake is evicted for another one.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(2);
/// Idle time after which a connection is evicted for another one.
const IDLE_PATIENCE: Duration = Duration::from_secs(10);
/// This part of the connections is reserved for outbound ones.
const OUTBOUND_SHARE: usize = 4;

/// The slots for handshakes and connections.
#[derive(Debug)]
pub(crate) struct ConnectionSlots(Mutex<State>);

#[derive(Debug)]
struct State {
    handshakes: Quota<u64>,
    /// Cancels handshakes that are evicted.
    over: HashMap<u64, CancellationToken>,
    next_handshake: u64,
    inbound: Quota<ConnectionId>,
    outbound: HashSet<ConnectionId>,
    most: usize,
}

/// The slot of one handshake. Freed on drop.
#[derive(Debug)]
pub(super) struct HandshakeSlot {
    slots: Arc<ConnectionSlots>,
    number: u64,
    over: CancellationToken,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[error("all places for connections are taken")]
struct Full;

impl ConnectionSlots {
    pub(crate) fn new(limits: &Limits) -> Arc<Self> {
        let most = usize::try_from(limits.connections).unwrap_or(usize::MAX);
        Arc::new(Self(Mutex::new(State {
            handshakes: Quota::new(MAX_HANDSHAKES, HANDSHAKE_PATIENCE),
            over: HashMap::new(),
            next_handshake: 0,
            inbound: Quota::new(most - most / OUTBOUND_SHARE, IDLE_PATIENCE),
            outbound: HashSet::new(),
            most,
        })))
    }

    /// The peer was served, or served this node.
    pub(crate) fn mark_useful(&self, peer: &PeerId) {
        let now = Instant::now();
        self.state().inbound.change_all_of(peer, |slot| {
            slot.active = now;
            slot.was_useful = true;
        });
    }

    /// A slot for a handshake with a peer from there.
    pub(super) fn handshake_slot(self: &Arc<Self>, origin: Origin) -> Option<HandshakeSlot> {
        let now = Instant::now();
        let newcomer = Slot::new(origin, None, now);
        let mut state = self.state();
        // Without a slot for the connection, the handshake is pointless.
        let answer = match state.inbound.ask(&newcomer, now) {
            Decision::Refuse => Decision::Refuse,
            _ => state.handshakes.ask(&newcomer, now),
        };
        match answer {
            Decision::Admit => {}
            Decision::Evict(other) => state.end_handshake(other),
            Decision::Refuse => {
                tracing::debug!(?origin, "no place for a handshake");
                return None;
            }
        }
        let (number, over) = (state.next_handshake, CancellationToken::new());
        state.next_handshake += 1;
        state.handshakes.insert(number, newcomer);
        state.over.insert(number, over.clone());
        Some(HandshakeSlot { slots: Arc::clone(self), number, over })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn end_handshake(&mut self, number: u64) {
        self.handshakes.remove(&number);
        if let Some(over) = self.over.remove(&number) {
            over.cancel();
        }
    }
}

impl HandshakeSlot {
    /// Waits until the handshake is evicted.
    pub(super) async fn is_over(&self) {
        self.over.cancelled().await;
    }
}

impl Drop for HandshakeSlot {
    fn drop(&mut self) {
        self.slots.state().end_handshake(self.number);
    }
}

/// Grants slots to connections, and closes evicted ones.
#[derive(Debug)]
pub(crate) struct ConnectionLimiter {
    slots: Arc<ConnectionSlots>,
    /// The peer of each connection.
    peers: HashMap<ConnectionId, PeerId>,
    /// Bounded by the connections.
    closing: VecDeque<(PeerId, ConnectionId)>,
}

impl ConnectionLimiter {
    pub(crate) fn new(slots: Arc<ConnectionSlots>) -> Self {
        Self { slots, peers: HashMap::new(), closing: VecDeque::new() }
    }
}

impl NetworkBehaviour for ConnectionLimiter {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let now = Instant::now();
        let newcomer = Slot::new(Origin::of(remote), Some(peer), now);
        let mut state = self.slots.state();
        match state.inbound.ask(&newcomer, now) {
            Decision::Admit => {}
            Decision::Evict(other) => {
                state.inbound.remove(&other);
                if let Some(peer) = self.peers.get(&other) {
                    tracing::debug!(%peer, "loses its connection to one from another address");
                    self.closing.push_back((*peer, other));
                }
            }
            Decision::Refuse => return Err(ConnectionDenied::new(Full)),
        }
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let state = self.slots.state();
        match state.outbound.len() + state.inbound.len() < state.most {
            true => Ok(dummy::ConnectionHandler),
            false => Err(ConnectionDenied::new(Full)),
        }
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                ..
            }) => {
                self.peers.insert(connection_id, peer_id);
                let mut state = self.slots.state();
                if endpoint.is_dialer() {
                    state.outbound.insert(connection_id);
                } else {
                    let origin = Origin::of(endpoint.get_remote_address());
                    let slot = Slot::new(origin, Some(peer_id), Instant::now());
                    state.inbound.insert(connection_id, slot);
                }
            }
            FromSwarm::ConnectionClosed(ConnectionClosed { connection_id, .. }) => {
                self.peers.remove(&connection_id);
                let mut state = self.slots.state();
                state.inbound.remove(&connection_id);
                state.outbound.remove(&connection_id);
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        match self.closing.pop_front() {
            Some((peer_id, connection)) => Poll::Ready(ToSwarm::CloseConnection {
                peer_id,
                connection: CloseConnection::One(connection),
            }),
            // The swarm polls again after every connection.
            None => Poll::Pending,
        }
    }
}
