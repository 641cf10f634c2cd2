//! Tells the peers of the existing network which blobs are here, and hears which they have: without having been told, their
//! resolvers ask nobody.

mod handler;
mod stream;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::behaviour::{ConnectionClosed, ConnectionEstablished};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, StreamProtocol, THandler,
    ToSwarm,
};
use libp2p::{Multiaddr, PeerId};
use manifest::Digest;
use tokio::sync::Semaphore;

use self::handler::{Event, Handler};
use crate::wire::Version;
use crate::wire::capability::NAME;

/// Texts that are read at a time, of all peers: bounds the memory. Further streams are left unread.
const MAX_HEARING: usize = 16;

/// A peer has told which blobs it has.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) peer: PeerId,
    pub(crate) blobs: HashSet<Digest>,
}

/// See the module's documentation.
pub(crate) struct Behaviour {
    /// What is told; `None` while there is nothing to tell.
    frame: Option<Arc<[u8]>>,
    peers: HashMap<PeerId, Peer>,
    hearing: Arc<Semaphore>,
    /// One for each peer at most.
    orders: VecDeque<(PeerId, ConnectionId, Arc<[u8]>)>,
    /// Drained at every poll: the connections wait until their events are taken.
    heard: VecDeque<Heard>,
}

#[derive(Default)]
struct Peer {
    connections: Vec<ConnectionId>,
    /// It speaks this, and has no better way to learn what is here.
    listens: bool,
    /// Where it is being told.
    telling: Option<ConnectionId>,
    /// What it is being told has changed meanwhile.
    is_outdated: bool,
}

impl Behaviour {
    pub(crate) fn new() -> Self {
        Self {
            frame: None,
            peers: HashMap::new(),
            hearing: Arc::new(Semaphore::new(MAX_HEARING)),
            orders: VecDeque::new(),
            heard: VecDeque::new(),
        }
    }

    /// Tells this to all peers that listen, and to those that come.
    pub(crate) fn advertise(&mut self, frame: Arc<[u8]>) {
        self.frame = Some(frame);
        let listening: Vec<_> =
            self.peers.iter().filter(|(_, one)| one.listens).map(|(peer, _)| *peer).collect();
        listening.iter().for_each(|peer| self.tell(peer));
    }

    /// A peer has said what it speaks.
    pub(crate) fn identified(&mut self, peer: PeerId, protocols: &[StreamProtocol]) {
        let speaks = |name| protocols.iter().any(|protocol| protocol.as_ref() == name);
        // Nodes like this one learn more by HAVE and PEERS.
        let listens = speaks(NAME) && !speaks(Version::Ranges.name());
        let Some(known) = self.peers.get_mut(&peer) else { return };
        if listens && !std::mem::replace(&mut known.listens, listens) {
            self.tell(&peer);
        }
    }

    fn tell(&mut self, peer: &PeerId) {
        let (Some(frame), Some(known)) = (&self.frame, self.peers.get_mut(peer)) else { return };
        if known.telling.is_some() {
            known.is_outdated = true;
        } else if let Some(connection) = known.connections.first() {
            known.telling = Some(*connection);
            self.orders.push_back((*peer, *connection, Arc::clone(frame)));
        }
    }

    /// A peer has been told on this connection, or was not.
    fn on_told(&mut self, peer: &PeerId, on: ConnectionId) {
        let Some(known) = self.peers.get_mut(peer).filter(|known| known.telling == Some(on)) else { return };
        known.telling = None;
        if std::mem::take(&mut known.is_outdated) {
            self.tell(peer);
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Heard;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::new(Arc::clone(&self.hearing)))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::new(Arc::clone(&self.hearing)))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished { peer_id, connection_id, .. }) => {
                self.peers.entry(peer_id).or_default().connections.push(connection_id);
            }
            FromSwarm::ConnectionClosed(ConnectionClosed { peer_id, connection_id, .. }) => {
                self.orders.retain(|(_, id, _)| *id != connection_id);
                let Some(known) = self.peers.get_mut(&peer_id) else { return };
                known.connections.retain(|id| *id != connection_id);
                if known.connections.is_empty() {
                    self.peers.remove(&peer_id);
                } else if known.telling == Some(connection_id) {
                    // On another one.
                    known.is_outdated = true;
                    self.on_told(&peer_id, connection_id);
                }
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, id: ConnectionId, event: Event) {
        match event {
            Event::Told => self.on_told(&peer, id),
            Event::Heard(blobs) => self.heard.push_back(Heard { peer, blobs }),
        }
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Heard, Arc<[u8]>>> {
        if let Some(heard) = self.heard.pop_front() {
            return Poll::Ready(ToSwarm::GenerateEvent(heard));
        }
        if let Some((peer_id, id, event)) = self.orders.pop_front() {
            return Poll::Ready(ToSwarm::NotifyHandler { peer_id, handler: NotifyHandler::One(id), event });
        }
        // The swarm polls again after every event; `advertise` is followed by a poll of the swarm.
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use libp2p::core::{ConnectedPoint, Endpoint};

    use super::*;

    const LISTENS: &[StreamProtocol] = &[StreamProtocol::new("/ipfs/ping/1.0.0"), StreamProtocol::new(NAME)];
    const LIKE_US: &[StreamProtocol] =
        &[StreamProtocol::new(NAME), StreamProtocol::new("/autonet/blob/2.0.0")];

    fn id(number: usize) -> ConnectionId {
        ConnectionId::new_unchecked(number)
    }

    fn connect(behaviour: &mut Behaviour, peer: PeerId, connection: ConnectionId) {
        let endpoint = ConnectedPoint::Dialer {
            address: Multiaddr::empty(),
            role_override: Endpoint::Dialer,
            port_use: PortUse::Reuse,
        };
        behaviour.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
            peer_id: peer,
            connection_id: connection,
            endpoint: &endpoint,
            failed_addresses: &[],
            other_established: 0,
        }));
    }

    fn close(behaviour: &mut Behaviour, peer: PeerId, connection: ConnectionId) {
        let endpoint = ConnectedPoint::Dialer {
            address: Multiaddr::empty(),
            role_override: Endpoint::Dialer,
            port_use: PortUse::Reuse,
        };
        behaviour.on_swarm_event(FromSwarm::ConnectionClosed(ConnectionClosed {
            peer_id: peer,
            connection_id: connection,
            endpoint: &endpoint,
            cause: None,
            remaining_established: 0,
        }));
    }

    /// Who is told what, on which connection.
    fn orders(behaviour: &mut Behaviour) -> Vec<(PeerId, ConnectionId, u8)> {
        let mut found = Vec::new();
        while let Poll::Ready(order) = behaviour.poll(&mut Context::from_waker(Waker::noop())) {
            let ToSwarm::NotifyHandler { peer_id, handler: NotifyHandler::One(id), event } = order else {
                panic!("{order:?}")
            };
            found.push((peer_id, id, event[0]));
        }
        found
    }

    #[test]
    fn peers_that_listen_are_told_when_they_come_and_when_it_changes() {
        let mut behaviour = Behaviour::new();
        let [theirs, ours, other, stranger] = [(); 4].map(|()| PeerId::random());
        for (number, peer) in [theirs, ours, other].into_iter().enumerate() {
            connect(&mut behaviour, peer, id(number));
        }
        behaviour.identified(theirs, LISTENS);
        behaviour.identified(ours, LIKE_US);
        behaviour.identified(stranger, LISTENS);
        assert_eq!(orders(&mut behaviour), [], "there is nothing to tell");
        behaviour.advertise([1].into());
        assert_eq!(orders(&mut behaviour), [(theirs, id(0), 1)]);
        behaviour.on_connection_handler_event(theirs, id(0), Event::Told);
        // It says so again every few minutes.
        behaviour.identified(theirs, LISTENS);
        assert_eq!(orders(&mut behaviour), []);
        behaviour.identified(other, LISTENS);
        assert_eq!(orders(&mut behaviour), [(other, id(2), 1)]);
    }

    #[test]
    fn one_is_told_one_thing_at_a_time() {
        let (mut behaviour, peer) = (Behaviour::new(), PeerId::random());
        connect(&mut behaviour, peer, id(1));
        connect(&mut behaviour, peer, id(2));
        behaviour.identified(peer, LISTENS);
        (1..=4).for_each(|version| behaviour.advertise([version].into()));
        assert_eq!(orders(&mut behaviour), [(peer, id(1), 1)]);
        behaviour.on_connection_handler_event(peer, id(1), Event::Told);
        assert_eq!(orders(&mut behaviour), [(peer, id(1), 4)]);
        // Its connection is gone in the middle.
        close(&mut behaviour, peer, id(1));
        assert_eq!(orders(&mut behaviour), [(peer, id(2), 4)]);
        close(&mut behaviour, peer, id(2));
        assert!(behaviour.peers.is_empty());
    }
}
