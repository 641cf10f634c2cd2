//! One connection: tells what it is given, and hears.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use libp2p::swarm::handler::{
    ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound, ListenUpgradeError,
};
use libp2p::swarm::{ConnectionHandler, ConnectionHandlerEvent, SubstreamProtocol};
use manifest::Digest;
use tokio::sync::Semaphore;

use super::stream::{Hear, Tell};

/// How long one may take: a long text over a slow line.
const TIMEOUT: Duration = Duration::from_secs(20);

/// What happened.
#[derive(Debug)]
pub(crate) enum Event {
    /// The peer has been told, or could not be.
    Told,
    /// The peer has told these.
    Heard(HashSet<Digest>),
}

pub(crate) struct Handler {
    hear: Hear,
    /// One at a time: the behaviour waits for its end.
    tell: Option<Tell>,
    events: VecDeque<Event>,
}

impl Handler {
    pub(super) fn new(all: Arc<Semaphore>) -> Self {
        let hear = Hear { all, here: Arc::new(Semaphore::new(1)) };
        Self { hear, tell: None, events: VecDeque::new() }
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Arc<[u8]>;
    type ToBehaviour = Event;
    type InboundProtocol = Hear;
    type OutboundProtocol = Tell;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Hear> {
        SubstreamProtocol::new(self.hear.clone(), ()).with_timeout(TIMEOUT)
    }

    fn on_behaviour_event(&mut self, frame: Arc<[u8]>) {
        self.tell = Some(Tell(frame));
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<Tell, (), Event>> {
        if let Some(event) = self.events.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(event));
        }
        if let Some(tell) = self.tell.take() {
            let protocol = SubstreamProtocol::new(tell, ()).with_timeout(TIMEOUT);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        // The connection polls again after every call of the `on_…` functions.
        Poll::Pending
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<Hear, Tell>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: blobs, .. }) => {
                self.events.push_back(Event::Heard(blobs));
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { .. }) => {
                self.events.push_back(Event::Told);
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { error, .. }) => {
                tracing::debug!(%error, "a peer could not be told what is here");
                self.events.push_back(Event::Told);
            }
            ConnectionEvent::ListenUpgradeError(ListenUpgradeError { error, .. }) => {
                tracing::debug!(%error, "what a peer tells is left unread");
            }
            _ => {}
        }
    }
}
