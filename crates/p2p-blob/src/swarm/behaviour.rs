//! The connections of each peer, and on which one a stream is opened.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::behaviour::{ConnectionClosed, ConnectionEstablished};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, THandler, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};
use tokio_util::sync::CancellationToken;

use crate::admit::{Asker, Origin};
use crate::swarm::handler::{BlobStream, Handler, On, OpenError, OpenStream, Placed};
use crate::transport::SameKind;
use crate::wire::Version;

/// A stream that a peer opened.
#[derive(Debug)]
pub(crate) struct Inbound {
    pub(crate) from: Asker,
    pub(crate) stream: BlobStream,
}

/// One connection, and how many streams were opened on it.
struct Connection {
    id: ConnectionId,
    origin: Origin,
    /// Relays limit data: used only when there is no direct connection.
    is_relayed: bool,
    opened_streams: u64,
    abandoned: CancellationToken,
}

/// Opens blob streams on the connections of a peer, balanced, and reports inbound ones.
pub(crate) struct Behaviour {
    accepted: &'static [Version],
    negotiation_timeout: Duration,
    same_kind: Arc<SameKind>,
    connections: HashMap<PeerId, Vec<Connection>>,
    /// Bounded by the permits of its orders.
    orders: VecDeque<(PeerId, ConnectionId, Placed)>,
    /// Drained at every poll: the connections wait until their events are taken.
    inbound: VecDeque<Inbound>,
}

impl Behaviour {
    pub(crate) fn new(
        accepted: &'static [Version],
        negotiation_timeout: Duration,
        same_kind: Arc<SameKind>,
    ) -> Self {
        Self {
            accepted,
            negotiation_timeout,
            same_kind,
            connections: HashMap::new(),
            orders: VecDeque::new(),
            inbound: VecDeque::new(),
        }
    }

    /// Opens a stream on one connection, or on the direct one that has had the fewest.
    pub(crate) fn open(&mut self, peer: PeerId, on: Option<ConnectionId>, order: OpenStream) {
        let connections = self.connections.get_mut(&peer).into_iter().flatten();
        let suited = connections.filter(|one| on.is_none_or(|id| one.id == id));
        match suited.min_by_key(|one| (one.is_relayed, one.opened_streams)) {
            Some(connection) => {
                connection.opened_streams += 1;
                let on = On { connection: connection.id, abandoned: connection.abandoned.clone() };
                self.orders.push_back((peer, connection.id, Placed { on, order }));
            }
            None => {
                // The caller may be gone.
                let _ = order.reply.send(Err(OpenError::NotConnected));
            }
        }
    }

    pub(crate) fn connection_count(&self, peer: &PeerId) -> usize {
        self.connections.get(peer).map_or(0, Vec::len)
    }

    /// Ends what is under way on the connection; no stream is opened there from now on.
    pub(crate) fn abandon(&mut self, connection: ConnectionId) {
        for connections in self.connections.values_mut() {
            for abandoned in connections.extract_if(.., |one| one.id == connection) {
                abandoned.abandoned.cancel();
            }
        }
    }

    fn handler(&self, peer: &PeerId) -> Handler {
        Handler::new(self.accepted, self.negotiation_timeout, self.same_kind.take(peer))
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Inbound;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(&peer))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(&peer))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                ..
            }) => {
                let connection = Connection {
                    id: connection_id,
                    origin: Origin::of(endpoint.get_remote_address()),
                    is_relayed: endpoint.is_relayed(),
                    opened_streams: 0,
                    abandoned: CancellationToken::new(),
                };
                self.connections.entry(peer_id).or_default().push(connection);
            }
            FromSwarm::ConnectionClosed(ConnectionClosed { peer_id, connection_id, .. }) => {
                if let Some(connections) = self.connections.get_mut(&peer_id) {
                    connections.retain(|connection| connection.id != connection_id);
                    if connections.is_empty() {
                        self.connections.remove(&peer_id);
                    }
                }
                self.orders.retain(|(_, id, _)| *id != connection_id);
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, id: ConnectionId, stream: BlobStream) {
        let mut connections = self.connections.get(&peer).into_iter().flatten();
        // One that is gone takes its streams along.
        if let Some(connection) = connections.find(|connection| connection.id == id) {
            let from = Asker { peer, origin: connection.origin };
            self.inbound.push_back(Inbound { from, stream });
        }
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Inbound, Placed>> {
        if let Some(inbound) = self.inbound.pop_front() {
            return Poll::Ready(ToSwarm::GenerateEvent(inbound));
        }
        if let Some((peer_id, id, event)) = self.orders.pop_front() {
            return Poll::Ready(ToSwarm::NotifyHandler { peer_id, handler: NotifyHandler::One(id), event });
        }
        // The swarm polls again after every event; `open` is followed by a poll of the swarm.
        Poll::Pending
    }
}
