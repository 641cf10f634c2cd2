//! How bytes travel on a TCP connection: security, then streams. Where a peer speaks them, the fast variants.

mod buffered;
mod muxer;
pub(crate) mod private;
mod same_kind;
mod tcp;
mod tls;
mod upgrade;
mod verifier;

use futures::{AsyncRead, AsyncWrite};
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::Boxed;
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::{PeerId, Transport, noise};

use self::buffered::Buffered;

pub(crate) use self::same_kind::SameKind;
pub(crate) use self::tcp::Tcp;
pub(crate) use self::upgrade::{Security, upgraded};

/// TLS 1.3, `/tls/1.0.0`. `is_early`: it shows nodes of this kind that this one speaks all versions.
pub(crate) fn tls_config(key: &Keypair, is_early: bool) -> Result<tls::Config, tls::SetUpError> {
    tls::Config::new(key, is_early)
}

/// Noise, `/noise`.
pub(crate) fn noise_config(key: &Keypair) -> Result<Buffered<noise::Config>, noise::Error> {
    noise::Config::new(key).map(Buffered)
}

/// Connections of another transport, with noise and the same streams.
pub(crate) fn secured<T>(transport: T, key: &Keypair) -> Result<Boxed<(PeerId, StreamMuxerBox)>, noise::Error>
where
    T: Transport + Send + Unpin + 'static,
    T::Output: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    T::Error: Send + Sync,
    T::Dial: Send,
    T::ListenerUpgrade: Send,
{
    let noise = noise_config(key)?;
    let upgraded = transport.upgrade(Version::V1Lazy).authenticate(noise).multiplex(muxer::Config);
    Ok(upgraded.boxed())
}

/// Makes glibc keep the memory of freed frames for the next ones, instead of giving it back to the system: at the speed
/// of a local network every byte would otherwise arrive in a page that was just faulted in and cleared.
///
/// glibc takes the size of a block that is freed as the size of blocks to keep (`mallopt(3)`, "dynamic mmap threshold").
pub(crate) fn keep_freed_frames() {
    /// Some ten times the frames that a connection has under way.
    const KEPT_BYTES: usize = 8 << 20;
    drop(std::hint::black_box(Vec::<u8>::with_capacity(KEPT_BYTES)));
}
