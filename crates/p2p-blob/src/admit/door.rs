//! The places of a node, and the behaviour that gives and takes those of connections.

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

use super::{Answer, Guest, Origin, Quota};
use crate::config::Limits;

/// Handshakes under way that others began.
const MAX_HANDSHAKES: usize = 128;
/// How long one may take when another one waits for its place.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(2);
/// How long a connection may be idle when another one waits for its place.
const IDLE_PATIENCE: Duration = Duration::from_secs(10);
/// This part of the connections is kept for those that this node makes.
const OUTBOUND_SHARE: usize = 4;

/// The places for handshakes and connections.
#[derive(Debug)]
pub(crate) struct Door(Mutex<Places>);

#[derive(Debug)]
struct Places {
    handshakes: Quota<u64>,
    /// What tells a handshake that it is over.
    over: HashMap<u64, CancellationToken>,
    next_handshake: u64,
    /// Connections that others made.
    inbound: Quota<ConnectionId>,
    outbound: HashSet<ConnectionId>,
    most: usize,
}

/// The place of one handshake. Given back when it is dropped.
#[derive(Debug)]
pub(super) struct Knock {
    door: Arc<Door>,
    number: u64,
    over: CancellationToken,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[error("all places for connections are taken")]
struct Full;

impl Door {
    pub(crate) fn new(limits: &Limits) -> Arc<Self> {
        let most = usize::try_from(limits.connections).unwrap_or(usize::MAX);
        Arc::new(Self(Mutex::new(Places {
            handshakes: Quota::new(MAX_HANDSHAKES, HANDSHAKE_PATIENCE),
            over: HashMap::new(),
            next_handshake: 0,
            inbound: Quota::new(most - most / OUTBOUND_SHARE, IDLE_PATIENCE),
            outbound: HashSet::new(),
            most,
        })))
    }

    /// The peer was served, or gave something.
    pub(crate) fn was_of_use(&self, peer: &PeerId) {
        let now = Instant::now();
        self.places().inbound.change_all_of(peer, |guest| {
            guest.active = now;
            guest.was_of_use = true;
        });
    }

    /// A place for a handshake with somebody from there.
    pub(super) fn knock(self: &Arc<Self>, origin: Origin) -> Option<Knock> {
        let now = Instant::now();
        let newcomer = Guest::new(origin, None, now);
        let mut places = self.places();
        // Whoever would find no place afterwards need not begin.
        let answer = match places.inbound.ask(&newcomer, now) {
            Answer::Refused => Answer::Refused,
            _ => places.handshakes.ask(&newcomer, now),
        };
        match answer {
            Answer::Enter => {}
            Answer::InPlaceOf(other) => places.end_handshake(other),
            Answer::Refused => {
                tracing::debug!(?origin, "no place for a handshake");
                return None;
            }
        }
        let (number, over) = (places.next_handshake, CancellationToken::new());
        places.next_handshake += 1;
        places.handshakes.enter(number, newcomer);
        places.over.insert(number, over.clone());
        Some(Knock { door: Arc::clone(self), number, over })
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Places {
    fn end_handshake(&mut self, number: u64) {
        self.handshakes.leave(&number);
        if let Some(over) = self.over.remove(&number) {
            over.cancel();
        }
    }
}

impl Knock {
    /// Waits until the place is given to another.
    pub(super) async fn is_over(&self) {
        self.over.cancelled().await;
    }
}

impl Drop for Knock {
    fn drop(&mut self) {
        self.door.places().end_handshake(self.number);
    }
}

/// Gives connections their places, and closes those that lose theirs.
#[derive(Debug)]
pub(crate) struct Doorkeeper {
    door: Arc<Door>,
    /// Of peers that are connected.
    peers: HashMap<ConnectionId, PeerId>,
    /// Bounded by the connections.
    closing: VecDeque<(PeerId, ConnectionId)>,
}

impl Doorkeeper {
    pub(crate) fn new(door: Arc<Door>) -> Self {
        Self { door, peers: HashMap::new(), closing: VecDeque::new() }
    }
}

impl NetworkBehaviour for Doorkeeper {
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
        let newcomer = Guest::new(Origin::of(remote), Some(peer), now);
        let mut places = self.door.places();
        match places.inbound.ask(&newcomer, now) {
            Answer::Enter => {}
            Answer::InPlaceOf(other) => {
                places.inbound.leave(&other);
                if let Some(peer) = self.peers.get(&other) {
                    tracing::debug!(%peer, "loses its connection to one from another address");
                    self.closing.push_back((*peer, other));
                }
            }
            Answer::Refused => return Err(ConnectionDenied::new(Full)),
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
        let places = self.door.places();
        match places.outbound.len() + places.inbound.len() < places.most {
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
                let mut places = self.door.places();
                if endpoint.is_dialer() {
                    places.outbound.insert(connection_id);
                } else {
                    let origin = Origin::of(endpoint.get_remote_address());
                    let guest = Guest::new(origin, Some(peer_id), Instant::now());
                    places.inbound.enter(connection_id, guest);
                }
            }
            FromSwarm::ConnectionClosed(ConnectionClosed { connection_id, .. }) => {
                self.peers.remove(&connection_id);
                let mut places = self.door.places();
                places.inbound.leave(&connection_id);
                places.outbound.remove(&connection_id);
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
