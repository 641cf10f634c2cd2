//! One connection: negotiates blob streams, both ways.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use libp2p::core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo};
use libp2p::swarm::handler::{
    ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
};
use libp2p::swarm::{
    ConnectionHandler, ConnectionHandlerEvent, ConnectionId, Stream, StreamUpgradeError, SubstreamProtocol,
};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio_util::sync::CancellationToken;

use crate::wire::Version;

/// A stream and the version that was agreed for it.
#[derive(Debug)]
pub(crate) struct BlobStream {
    pub(crate) io: Stream,
    pub(crate) version: Version,
}

/// One of the connections with a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Connection(pub(crate) ConnectionId);

/// The connection that an order was given to.
#[derive(Debug, Clone)]
pub(crate) struct On {
    pub(crate) connection: ConnectionId,
    /// The connection is closed without waiting for what is under way: it is dead.
    pub(crate) abandoned: CancellationToken,
}

/// A stream that was ordered.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) stream: BlobStream,
    pub(crate) on: On,
}

/// Why a stream did not open.
#[derive(Debug)]
pub(crate) enum OpenError {
    NotConnected,
    Unsupported,
    TimedOut,
    Io(io::Error),
}

/// An order to open a stream. Dropping it tells the caller that the connection is gone.
#[derive(Debug)]
pub(crate) struct OpenStream {
    /// In the order in which they are offered.
    pub(crate) versions: &'static [Version],
    pub(crate) reply: oneshot::Sender<Result<Opened, OpenError>>,
    /// Bounds how many orders there are, wherever they wait.
    pub(crate) _permit: OwnedSemaphorePermit,
}

/// An order, and where.
#[derive(Debug)]
pub(crate) struct Placed {
    pub(crate) on: On,
    pub(crate) order: OpenStream,
}

/// Opens the streams that the behaviour orders, and reports inbound ones.
pub(crate) struct Handler {
    accepted: &'static [Version],
    negotiation_timeout: Duration,
    /// Whether the peer speaks all versions for sure: streams are used before it has agreed.
    is_same_kind: bool,
    orders: VecDeque<Placed>,
    inbound: VecDeque<BlobStream>,
}

impl Handler {
    pub(crate) fn new(
        accepted: &'static [Version],
        negotiation_timeout: Duration,
        is_same_kind: bool,
    ) -> Self {
        let (orders, inbound) = (VecDeque::new(), VecDeque::new());
        Self { accepted, negotiation_timeout, is_same_kind, orders, inbound }
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Placed;
    type ToBehaviour = BlobStream;
    type InboundProtocol = Negotiation;
    type OutboundProtocol = Negotiation;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Placed;

    fn listen_protocol(&self) -> SubstreamProtocol<Negotiation> {
        SubstreamProtocol::new(Negotiation { versions: self.accepted, ends_with: None }, ())
            .with_timeout(self.negotiation_timeout)
    }

    fn on_behaviour_event(&mut self, order: Placed) {
        self.orders.push_back(order);
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<Negotiation, Placed, BlobStream>> {
        if let Some(stream) = self.inbound.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(stream));
        }
        while let Some(order) = self.orders.pop_front() {
            if order.order.reply.is_closed() {
                continue;
            }
            // The last name that is offered is not waited for.
            let upgrade = match (self.is_same_kind, order.order.versions) {
                (true, [best, ..]) => Negotiation { versions: std::slice::from_ref(best), ends_with: None },
                (_, versions) => Negotiation { versions, ends_with: Some(Offer::NONE) },
            };
            let protocol = SubstreamProtocol::new(upgrade, order).with_timeout(self.negotiation_timeout);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        // The connection polls again after every call of the `on_…` functions.
        Poll::Pending
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<Negotiation, Negotiation, (), Placed>) {
        let (order, result) = match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, .. }) => {
                self.inbound.extend(protocol);
                return;
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, info }) => {
                (info, protocol.ok_or(OpenError::Unsupported))
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { error, info }) => {
                let error = match error {
                    StreamUpgradeError::Timeout => OpenError::TimedOut,
                    StreamUpgradeError::NegotiationFailed => OpenError::Unsupported,
                    StreamUpgradeError::Io(error) => OpenError::Io(error),
                    StreamUpgradeError::Apply(never) => match never {},
                };
                (info, Err(error))
            }
            _ => return,
        };
        // A caller that went away drops the stream.
        let Placed { on, order } = order;
        let _ = order.reply.send(result.map(|stream| Opened { stream, on }));
    }
}

/// Agrees on a version and takes the stream as it is. `None`: the peer speaks none of them.
pub(crate) struct Negotiation {
    versions: &'static [Version],
    /// Offered after them.
    ends_with: Option<Offer>,
}

impl UpgradeInfo for Negotiation {
    type Info = Offer;
    type InfoIter = std::vec::IntoIter<Offer>;

    fn protocol_info(&self) -> Self::InfoIter {
        let versions = self.versions.iter().map(|version| Offer(Some(*version)));
        versions.chain(self.ends_with).collect::<Vec<_>>().into_iter()
    }
}

/// A version under its name on the wire.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Offer(Option<Version>);

impl Offer {
    /// A name that no peer knows.
    const NONE: Self = Self(None);
}

impl AsRef<str> for Offer {
    fn as_ref(&self) -> &str {
        self.0.map_or("/autonet/none", Version::name)
    }
}

impl InboundUpgrade<Stream> for Negotiation {
    type Output = Option<BlobStream>;
    type Error = Infallible;
    type Future = Ready<Result<Option<BlobStream>, Infallible>>;

    fn upgrade_inbound(self, io: Stream, offer: Offer) -> Self::Future {
        ready(Ok(offer.0.map(|version| BlobStream { io, version })))
    }
}

impl OutboundUpgrade<Stream> for Negotiation {
    type Output = Option<BlobStream>;
    type Error = Infallible;
    type Future = Ready<Result<Option<BlobStream>, Infallible>>;

    fn upgrade_outbound(self, io: Stream, offer: Offer) -> Self::Future {
        ready(Ok(offer.0.map(|version| BlobStream { io, version })))
    }
}
