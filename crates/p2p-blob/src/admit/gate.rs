//! The connection gater: limits inbound handshakes, and checks what is dialed.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{Boxed, DialOpts, ListenerId, TransportError, TransportEvent};
use libp2p::{Multiaddr, PeerId, Transport};

use super::door::{ConnectionSlots, HandshakeSlot};
use super::origin::Origin;
use crate::reach::Reach;

type Connection = (PeerId, StreamMuxerBox);

/// A transport whose inbound handshakes need a slot, and whose dials [`Reach`] allows.
pub(crate) struct Gate {
    inner: Boxed<Connection>,
    slots: Arc<ConnectionSlots>,
    reach: Arc<Reach>,
}

impl Gate {
    pub(crate) fn new(inner: Boxed<Connection>, slots: Arc<ConnectionSlots>, reach: Arc<Reach>) -> Self {
        Self { inner, slots, reach }
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
            let slot = match &event {
                TransportEvent::Incoming { send_back_addr, .. } => {
                    match self.slots.handshake_slot(Origin::of(send_back_addr)) {
                        Some(slot) => Some(slot),
                        // Dropping it closes the socket.
                        None => continue,
                    }
                }
                _ => None,
            };
            return Poll::Ready(event.map_upgrade(|upgrade| handshake(upgrade, slot).boxed()));
        }
    }
}

/// The handshake, until it is evicted.
async fn handshake(
    upgrade: impl Future<Output = io::Result<Connection>>,
    slot: Option<HandshakeSlot>,
) -> io::Result<Connection> {
    let Some(slot) = slot else { return upgrade.await };
    tokio::select! {
        done = upgrade => done,
        () = slot.is_over() => Err(io::Error::other("the place of the handshake was given to another")),
    }
}
