//! One connection: negotiates blob streams, both ways.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use libp2p::StreamProtocol;
use libp2p::core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo};
use libp2p::swarm::handler::{
    ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
};
use libp2p::swarm::{
    ConnectionHandler, ConnectionHandlerEvent, Stream, StreamUpgradeError, SubstreamProtocol,
};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::wire::Version;

/// A stream and the version that was agreed for it.
#[derive(Debug)]
pub(crate) struct BlobStream {
    pub(crate) io: Stream,
    pub(crate) version: Version,
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
    pub(crate) reply: oneshot::Sender<Result<BlobStream, OpenError>>,
    /// Bounds how many orders there are, wherever they wait.
    pub(crate) _permit: OwnedSemaphorePermit,
}

/// Opens the streams that the behaviour orders, and reports inbound ones.
pub(crate) struct Handler {
    accepted: &'static [Version],
    negotiation_timeout: Duration,
    orders: VecDeque<OpenStream>,
    inbound: VecDeque<BlobStream>,
}

impl Handler {
    pub(crate) fn new(accepted: &'static [Version], negotiation_timeout: Duration) -> Self {
        Self { accepted, negotiation_timeout, orders: VecDeque::new(), inbound: VecDeque::new() }
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = OpenStream;
    type ToBehaviour = BlobStream;
    type InboundProtocol = Negotiation;
    type OutboundProtocol = Negotiation;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = OpenStream;

    fn listen_protocol(&self) -> SubstreamProtocol<Negotiation> {
        SubstreamProtocol::new(Negotiation { versions: self.accepted }, ())
            .with_timeout(self.negotiation_timeout)
    }

    fn on_behaviour_event(&mut self, order: OpenStream) {
        self.orders.push_back(order);
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Negotiation, OpenStream, BlobStream>> {
        if let Some(stream) = self.inbound.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(stream));
        }
        while let Some(order) = self.orders.pop_front() {
            if order.reply.is_closed() {
                continue;
            }
            let upgrade = Negotiation { versions: order.versions };
            let protocol = SubstreamProtocol::new(upgrade, order).with_timeout(self.negotiation_timeout);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        // The connection polls again after every call of the `on_…` functions.
        Poll::Pending
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<Negotiation, Negotiation, (), OpenStream>) {
        let (order, result) = match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, .. }) => {
                self.inbound.push_back(protocol);
                return;
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, info }) => {
                (info, Ok(protocol))
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
        let _ = order.reply.send(result);
    }
}

/// Agrees on a version and takes the stream as it is.
pub(crate) struct Negotiation {
    versions: &'static [Version],
}

impl UpgradeInfo for Negotiation {
    type Info = Offer;
    type InfoIter = std::iter::Map<std::slice::Iter<'static, Version>, fn(&Version) -> Offer>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.versions.iter().map(|version| Offer { version: *version, protocol: version.protocol() })
    }
}

/// A version under its name on the wire.
#[derive(Clone)]
pub(crate) struct Offer {
    version: Version,
    protocol: StreamProtocol,
}

impl AsRef<str> for Offer {
    fn as_ref(&self) -> &str {
        self.protocol.as_ref()
    }
}

impl InboundUpgrade<Stream> for Negotiation {
    type Output = BlobStream;
    type Error = Infallible;
    type Future = Ready<Result<BlobStream, Infallible>>;

    fn upgrade_inbound(self, io: Stream, offer: Offer) -> Self::Future {
        ready(Ok(BlobStream { io, version: offer.version }))
    }
}

impl OutboundUpgrade<Stream> for Negotiation {
    type Output = BlobStream;
    type Error = Infallible;
    type Future = Ready<Result<BlobStream, Infallible>>;

    fn upgrade_outbound(self, io: Stream, offer: Offer) -> Self::Future {
        ready(Ok(BlobStream { io, version: offer.version }))
    }
}
