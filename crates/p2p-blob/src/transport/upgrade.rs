//! From a socket to streams: which security, who is there, and how streams share the connection.
//!
//! Each agreement costs a round trip. That on the streams is made within the TLS handshake (ALPN) where the other end is a
//! node of this kind; elsewhere, and with noise, it comes after.
//!
//! Source: <https://github.com/libp2p/specs/blob/master/connections/inlined-muxer-negotiation.md>.

use std::io;
use std::sync::Arc;

use futures::{AsyncRead, AsyncWrite};
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::Boxed;
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade};
use libp2p::core::{ConnectedPoint, Endpoint};
use libp2p::{PeerId, Transport, noise};
use multistream_select::{Version, dialer_select_proto, listener_select_proto};
use yamux::Mode;

use super::buffered::Buffered;
use super::muxer::{self, Frames};
use super::same_kind::SameKind;
use super::tls;

const TLS: &str = "/tls/1.0.0";
const NOISE: &str = "/noise";

/// How the connections of a node are secured, best first.
#[derive(Clone)]
pub(crate) struct Security {
    pub(crate) tls: tls::Config,
    pub(crate) noise: Buffered<noise::Config>,
}

/// Connections of `transport`, with TLS or noise, and with streams. Peers that show to be nodes of this kind are noted.
pub(crate) fn upgraded<T>(
    transport: T,
    security: Security,
    same_kind: Arc<SameKind>,
) -> Boxed<(PeerId, StreamMuxerBox)>
where
    T: Transport + Send + Unpin + 'static,
    T::Output: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    T::Error: Send + Sync,
    T::Dial: Send,
    T::ListenerUpgrade: Send,
{
    let upgrade = move |socket: T::Output, point: ConnectedPoint| async move {
        let (peer, streams, shown) = security.upgrade(socket, role(&point)).await?;
        same_kind.note(peer, shown.is_same_kind, shown.is_tls);
        Ok::<_, io::Error>((peer, streams))
    };
    transport.and_then(upgrade).boxed()
}

/// Who speaks first. Two nodes that dial each other through NATs have agreed on that.
fn role(point: &ConnectedPoint) -> Endpoint {
    match point {
        ConnectedPoint::Dialer { role_override, .. } => *role_override,
        ConnectedPoint::Listener { .. } => Endpoint::Listener,
    }
}

/// What a handshake has shown.
struct Shown {
    /// The other end is a node of this kind.
    is_same_kind: bool,
    is_tls: bool,
}

impl Security {
    async fn upgrade<C>(self, socket: C, role: Endpoint) -> io::Result<(PeerId, StreamMuxerBox, Shown)>
    where
        C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (name, socket) = agree(socket, role, [TLS, NOISE]).await?;
        if name == TLS {
            let (peer, connection) = match role {
                Endpoint::Dialer => self.tls.upgrade_outbound(socket, TLS).await?,
                Endpoint::Listener => self.tls.upgrade_inbound(socket, TLS).await?,
            };
            let frames = tls::agreed_frames(&connection);
            let shown = Shown { is_same_kind: frames.is_some(), is_tls: true };
            return Ok((peer, share(connection, role, frames).await?, shown));
        }
        let (peer, connection) = match role {
            Endpoint::Dialer => self.noise.upgrade_outbound(socket, NOISE).await,
            Endpoint::Listener => self.noise.upgrade_inbound(socket, NOISE).await,
        }
        .map_err(io::Error::other)?;
        Ok((peer, share(connection, role, None).await?, Shown { is_same_kind: false, is_tls: false }))
    }
}

/// Streams over a secured connection. Without `frames`, their size is agreed on first.
async fn share<C>(connection: C, role: Endpoint, frames: Option<Frames>) -> io::Result<StreamMuxerBox>
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mode = match role {
        Endpoint::Dialer => Mode::Client,
        Endpoint::Listener => Mode::Server,
    };
    if let Some(frames) = frames {
        return Ok(StreamMuxerBox::new(muxer::muxer(connection, frames, mode)));
    }
    let (frames, connection) = agree(connection, role, Frames::ALL).await?;
    Ok(StreamMuxerBox::new(muxer::muxer(connection, frames, mode)))
}

/// Agrees on the first of `names` that both ends know.
async fn agree<C, N, const COUNT: usize>(
    connection: C,
    role: Endpoint,
    names: [N; COUNT],
) -> io::Result<(N, multistream_select::Negotiated<C>)>
where
    C: AsyncRead + AsyncWrite + Send + Unpin,
    N: AsRef<str> + Clone + Send,
{
    match role {
        Endpoint::Dialer => dialer_select_proto(connection, names, Version::V1).await,
        Endpoint::Listener => listener_select_proto(connection, names).await,
    }
    .map_err(io::Error::from)
}
