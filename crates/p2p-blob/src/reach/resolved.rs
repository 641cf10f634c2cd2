//! The transport below the name resolver: it sees resolved addresses.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{Boxed, DialOpts, ListenerId, TransportError, TransportEvent};
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId, Transport};

use super::{Check, Reach};

type Inner = Boxed<(PeerId, StreamMuxerBox)>;

impl Check {
    /// Appends it to an address; the resolver keeps the end of an address as it is.
    pub(crate) fn mark(self, addr: Multiaddr) -> Multiaddr {
        match self {
            Self::Nothing => addr,
            Self::Rate => addr.with(Protocol::Memory(1)),
            Self::Global => addr.with(Protocol::Memory(2)),
        }
    }

    /// Removes it again.
    fn unmark(addr: &mut Multiaddr) -> Self {
        let check = match addr.iter().last() {
            Some(Protocol::Memory(1)) => Self::Rate,
            Some(Protocol::Memory(_)) => Self::Global,
            _ => return Self::Nothing,
        };
        addr.pop();
        check
    }
}

/// Checks resolved addresses, as marked.
pub(crate) struct Resolved {
    inner: Inner,
    reach: Arc<Reach>,
}

impl Resolved {
    pub(crate) fn new(inner: Inner, reach: Arc<Reach>) -> Self {
        Self { inner, reach }
    }
}

impl Transport for Resolved {
    type Output = <Inner as Transport>::Output;
    type Error = io::Error;
    type ListenerUpgrade = <Inner as Transport>::ListenerUpgrade;
    type Dial = <Inner as Transport>::Dial;

    fn listen_on(&mut self, id: ListenerId, addr: Multiaddr) -> Result<(), TransportError<io::Error>> {
        self.inner.listen_on(id, addr)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.remove_listener(id)
    }

    fn dial(&mut self, mut addr: Multiaddr, opts: DialOpts) -> Result<Self::Dial, TransportError<io::Error>> {
        let check = Check::unmark(&mut addr);
        self.reach.check(&addr, check).map_err(TransportError::Other)?;
        self.inner.dial(addr, opts)
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        Pin::new(&mut self.inner).poll(cx)
    }
}
