//! TCP connections that begin at the port this node listens on, for the sake of NAT, or else at any other.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use libp2p::core::transport::{DialOpts, ListenerId, PortUse, TransportError, TransportEvent};
use libp2p::tcp::{Config, tokio};
use libp2p::{Multiaddr, Transport};

/// libp2p's TCP, whose dials do not fail when their own port cannot be had: another program may listen on it, on an address
/// that this node does not use.
pub(crate) struct Tcp {
    inner: tokio::Transport,
    config: Config,
}

impl Tcp {
    pub(crate) fn new() -> Self {
        let config = Config::default().nodelay(true);
        Self { inner: tokio::Transport::new(config.clone()), config }
    }
}

impl Transport for Tcp {
    type Output = <tokio::Transport as Transport>::Output;
    type Error = io::Error;
    type ListenerUpgrade = <tokio::Transport as Transport>::ListenerUpgrade;
    type Dial = BoxFuture<'static, io::Result<Self::Output>>;

    fn listen_on(&mut self, id: ListenerId, addr: Multiaddr) -> Result<(), TransportError<io::Error>> {
        self.inner.listen_on(id, addr)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.remove_listener(id)
    }

    fn dial(&mut self, addr: Multiaddr, opts: DialOpts) -> Result<Self::Dial, TransportError<io::Error>> {
        let reusing = self.inner.dial(addr.clone(), opts)?;
        let config = self.config.clone();
        let dial = async move {
            match reusing.await {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    tracing::debug!(%addr, "the port that this node listens on cannot be dialled from");
                    let opts = DialOpts { port_use: PortUse::New, ..opts };
                    let dial = tokio::Transport::new(config).dial(addr, opts);
                    dial.map_err(|refused| match refused {
                        TransportError::Other(error) => error,
                        TransportError::MultiaddrNotSupported(_) => error,
                    })?
                    .await
                }
                dialled => dialled,
            }
        };
        Ok(dial.boxed())
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        Pin::new(&mut self.inner).poll(cx)
    }
}
