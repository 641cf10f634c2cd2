//! TLS 1.3 as `libp2p-tls` speaks it, with AES-GCM before ChaCha20 where the CPU has AES instructions.
//!
//! Source: <https://github.com/libp2p/specs/blob/master/tls/tls.md>.

use std::io;
use std::iter::{self, Once};
use std::net::Ipv4Addr;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::io::{AsyncRead, AsyncWrite, BufReader};
use futures_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use libp2p::PeerId;
use libp2p::core::UpgradeInfo;
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade};
use libp2p::identity::Keypair;
use libp2p::tls::certificate::{self, GenError};
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::cipher_suite::{
    TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
};
use rustls::crypto::aws_lc_rs::{default_provider, sign::any_ecdsa_type};
use rustls::pki_types::ServerName;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, CommonState, ServerConfig, SupportedCipherSuite, SupportedProtocolVersion};

use super::buffered::READ_BUFFER_BYTES;
use super::muxer::Frames;
use super::verifier::{self, Verifier};

/// What may wait to be sent: enough for one system call to take a whole frame of the muxer.
const SEND_BUFFER_BYTES: usize = 512 << 10;

const PROTOCOL: &str = "/tls/1.0.0";
/// A peer that names none of the muxers agrees on one afterwards.
const ALPN: &[u8] = b"libp2p";
static TLS_VERSIONS: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetUpError {
    /// There is no certificate.
    #[error("cannot make a certificate for the identity")]
    Certificate(#[source] GenError),
    /// The TLS library refuses its part.
    #[error("cannot configure TLS 1.3")]
    Tls(#[from] rustls::Error),
}

/// Secures connections, with one certificate for all of them.
#[derive(Clone)]
pub(crate) struct Config {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

impl Config {
    /// `is_early`: streams are agreed on within the handshake, which tells the peer that this node speaks all versions.
    pub(super) fn new(key: &Keypair, is_early: bool) -> Result<Self, SetUpError> {
        let (certificate, private_key) = certificate::generate(key).map_err(SetUpError::Certificate)?;
        let signing_key = any_ecdsa_type(&private_key)?;
        let own = Arc::new(SingleCertAndKey::from(CertifiedKey::new(vec![certificate], signing_key)));
        let provider = Arc::new(CryptoProvider { cipher_suites: cipher_suites(), ..default_provider() });
        let verifier = Arc::new(Verifier);

        let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(TLS_VERSIONS)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&verifier) as _)
            .with_client_cert_resolver(Arc::clone(&own) as _);
        client.alpn_protocols = alpn(is_early);
        client.enable_sni = false;
        // Tickets are kept per server name, and libp2p peers have none.
        client.resumption = Resumption::disabled();

        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(TLS_VERSIONS)?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(own);
        server.alpn_protocols = alpn(is_early);
        server.send_tls13_tickets = 0;

        Ok(Self { client: Arc::new(client), server: Arc::new(server) })
    }
}

/// The muxer that only nodes of this kind know, or none. Others' muxers are not offered: not all who name them here begin
/// with them at once.
fn alpn(is_early: bool) -> Vec<Vec<u8>> {
    let frames = is_early.then(|| Frames::Large.as_ref().as_bytes());
    frames.into_iter().chain([ALPN]).map(<[u8]>::to_vec).collect()
}

/// The frames that both ends agreed on within the handshake.
pub(super) fn agreed_frames<C>(connection: &Secured<C>) -> Option<Frames> {
    let state: &CommonState = connection.get_ref().1;
    let agreed = state.alpn_protocol()?;
    (agreed == Frames::Large.as_ref().as_bytes()).then_some(Frames::Large)
}

/// What a client offers, best first; a server takes the client's first that it has.
fn cipher_suites() -> Vec<SupportedCipherSuite> {
    match has_aes_instructions() {
        true => vec![TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256],
        false => vec![TLS13_CHACHA20_POLY1305_SHA256, TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384],
    }
}

#[cfg(target_arch = "x86_64")]
fn has_aes_instructions() -> bool {
    std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq")
}

#[cfg(target_arch = "aarch64")]
fn has_aes_instructions() -> bool {
    std::arch::is_aarch64_feature_detected!("aes")
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn has_aes_instructions() -> bool {
    false
}

impl UpgradeInfo for Config {
    type Info = &'static str;
    type InfoIter = Once<&'static str>;

    fn protocol_info(&self) -> Self::InfoIter {
        iter::once(PROTOCOL)
    }
}

/// A connection that TLS protects. What TLS reads is buffered: by itself it reads 4 KiB at a time.
pub(super) type Secured<C> = TlsStream<BufReader<C>>;

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> InboundConnectionUpgrade<C> for Config {
    type Output = (PeerId, Secured<C>);
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Output>>;

    fn upgrade_inbound(self, connection: C, _: &'static str) -> Self::Future {
        let connection = BufReader::with_capacity(READ_BUFFER_BYTES, connection);
        let accepted = TlsAcceptor::from(self.server).accept(connection);
        async move {
            let mut stream = accepted.await?;
            stream.get_mut().1.set_buffer_limit(Some(SEND_BUFFER_BYTES));
            identified(stream.into())
        }
        .boxed()
    }
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> OutboundConnectionUpgrade<C> for Config {
    type Output = (PeerId, Secured<C>);
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Output>>;

    fn upgrade_outbound(self, connection: C, _: &'static str) -> Self::Future {
        let connection = BufReader::with_capacity(READ_BUFFER_BYTES, connection);
        // An address is never sent as a server name, which libp2p forbids.
        let nobody = ServerName::IpAddress(Ipv4Addr::UNSPECIFIED.into());
        let connected = TlsConnector::from(self.client).connect(nobody, connection);
        async move {
            let mut stream = connected.await?;
            stream.get_mut().1.set_buffer_limit(Some(SEND_BUFFER_BYTES));
            identified(stream.into())
        }
        .boxed()
    }
}

/// Tells whose certificate the peer has shown.
fn identified<C>(stream: Secured<C>) -> io::Result<(PeerId, Secured<C>)> {
    let state: &CommonState = stream.get_ref().1;
    let certificate = match state.peer_certificates() {
        Some([certificate]) => verifier::parse(certificate).map_err(io::Error::other)?,
        _ => return Err(io::Error::other("the peer has not shown one certificate")),
    };
    Ok((certificate.peer_id(), stream))
}

#[cfg(test)]
mod tests {
    use futures::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::io::DuplexStream;
    use tokio_util::compat::{Compat, TokioAsyncReadCompatExt as _};

    use super::*;

    type Pipe = Compat<DuplexStream>;

    /// Secures a pipe, sends a word each way, and gives who the client and the server found at the other end.
    async fn meet<CS, SS>(
        client: impl OutboundConnectionUpgrade<Pipe, Output = (PeerId, CS), Info = &'static str>,
        server: impl InboundConnectionUpgrade<Pipe, Output = (PeerId, SS), Info = &'static str>,
    ) -> ((PeerId, CS), (PeerId, SS))
    where
        CS: AsyncRead + AsyncWrite + Unpin,
        SS: AsyncRead + AsyncWrite + Unpin,
    {
        let (near, far) = tokio::io::duplex(4096);
        let (client, server) = futures::join!(
            client.upgrade_outbound(near.compat(), PROTOCOL),
            server.upgrade_inbound(far.compat(), PROTOCOL),
        );
        let (mut client, mut server) = (client.ok().unwrap(), server.ok().unwrap());
        for word in [b"there", b"again"] {
            let mut found = [0; 5];
            client.1.write_all(word).await.unwrap();
            client.1.flush().await.unwrap();
            server.1.read_exact(&mut found).await.unwrap();
            assert_eq!(&found, word);
            server.1.write_all(word).await.unwrap();
            server.1.flush().await.unwrap();
            client.1.read_exact(&mut found).await.unwrap();
            assert_eq!(&found, word);
        }
        (client, server)
    }

    #[tokio::test]
    async fn both_ends_learn_who_the_other_is_and_use_aes_where_the_cpu_has_it() {
        let (near, far) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
        let (client, server) =
            meet(Config::new(&near, true).unwrap(), Config::new(&far, true).unwrap()).await;
        assert_eq!(client.0, far.public().to_peer_id());
        assert_eq!(server.0, near.public().to_peer_id());
        let state: &CommonState = client.1.get_ref().1;
        let expected = match has_aes_instructions() {
            true => TLS13_AES_128_GCM_SHA256,
            false => TLS13_CHACHA20_POLY1305_SHA256,
        };
        assert_eq!(state.negotiated_cipher_suite(), Some(expected));
        assert_eq!(agreed_frames(&client.1), Some(Frames::Large));
        assert_eq!(agreed_frames(&server.1), Some(Frames::Large));
    }

    #[tokio::test]
    async fn the_tls_of_other_libp2p_nodes_is_understood_in_both_roles() {
        let (near, far) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
        let others = |key| libp2p::tls::Config::new(key).unwrap();
        let (client, server) = meet(Config::new(&near, true).unwrap(), others(&far)).await;
        assert_eq!((client.0, server.0), (far.public().to_peer_id(), near.public().to_peer_id()));
        assert_eq!(agreed_frames(&client.1), None);
        let (client, server) = meet(others(&near), Config::new(&far, true).unwrap()).await;
        assert_eq!((client.0, server.0), (far.public().to_peer_id(), near.public().to_peer_id()));
    }

    #[tokio::test]
    async fn somebody_who_does_not_speak_tls_is_an_error() {
        let config = Config::new(&Keypair::generate_ed25519(), true).unwrap();
        let (near, far) = tokio::io::duplex(4096);
        let mut far = far.compat();
        let (secured, _) = futures::join!(
            config.upgrade_inbound(near.compat(), PROTOCOL),
            far.write_all(b"GET / HTTP/1.1\r\n\r\n"),
        );
        assert!(secured.is_err());
    }
}
