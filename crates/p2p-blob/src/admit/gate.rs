//! All connections begin here: whose handshakes may be under way, and whom this node dials.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{Boxed, DialOpts, ListenerId, TransportError, TransportEvent};
use libp2p::{Multiaddr, PeerId, Transport};

use super::door::{Door, Knock};
use super::origin::Origin;
use crate::reach::Reach;

type Connection = (PeerId, StreamMuxerBox);

/// A transport whose inbound handshakes need a place, and which dials what [`Reach`] lets it.
pub(crate) struct Gate {
    inner: Boxed<Connection>,
    door: Arc<Door>,
    reach: Arc<Reach>,
}

impl Gate {
    pub(crate) fn new(inner: Boxed<Connection>, door: Arc<Door>, reach: Arc<Reach>) -> Self {
        Self { inner, door, reach }
    }
}

impl Transport for Gate {
    type Output = Connection;
    type Error = io::Error;
    type ListenerUpgrade = BoxFuture<'static, io::Result<Connection>>;
    type Dial = <Boxed<Connection> as Transport>::Dial;

    fn listen_on(&mut self, id: ListenerId, addr: Multiaddr) -> Result<(), TransportError<io::Error>> {
        self.inner.listen_on(id, addr)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.remove_listener(id)
    }

    fn dial(&mut self, addr: Multiaddr, opts: DialOpts) -> Result<Self::Dial, TransportError<io::Error>> {
        let check = self.reach.begin(&addr).map_err(TransportError::Other)?;
        self.inner.dial(check.mark(addr), opts)
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        loop {
            let event = std::task::ready!(Pin::new(&mut self.inner).poll(cx));
            let knock = match &event {
                TransportEvent::Incoming { send_back_addr, .. } => {
                    match self.door.knock(Origin::of(send_back_addr)) {
                        Some(knock) => Some(knock),
                        // Dropping it closes the socket.
                        None => continue,
                    }
                }
                _ => None,
            };
            return Poll::Ready(event.map_upgrade(|upgrade| handshake(upgrade, knock).boxed()));
        }
    }
}

/// The handshake, until its place is given to another.
async fn handshake(
    upgrade: impl Future<Output = io::Result<Connection>>,
    knock: Option<Knock>,
) -> io::Result<Connection> {
    let Some(knock) = knock else { return upgrade.await };
    tokio::select! {
        done = upgrade => done,
        () = knock.is_over() => Err(io::Error::other("the place of the handshake was given to another")),
    }
}
