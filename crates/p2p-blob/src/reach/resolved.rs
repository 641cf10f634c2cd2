//! The transport below the resolver of names: it sees what is really dialled.

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
    /// Puts it at the end of an address. The resolver leaves what is there as it is.
    pub(crate) fn mark(self, addr: Multiaddr) -> Multiaddr {
        match self {
            Self::Nothing => addr,
            Self::Pace => addr.with(Protocol::Memory(1)),
            Self::Global => addr.with(Protocol::Memory(2)),
        }
    }

    /// Takes it off again.
    fn unmark(addr: &mut Multiaddr) -> Self {
        let check = match addr.iter().last() {
            Some(Protocol::Memory(1)) => Self::Pace,
            Some(Protocol::Memory(_)) => Self::Global,
            _ => return Self::Nothing,
        };
        addr.pop();
        check
    }
}

/// Checks addresses that are resolved, as they are marked.
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
