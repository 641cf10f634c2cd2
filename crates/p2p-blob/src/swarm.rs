//! The libp2p stack: transports and behaviours.

use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{Swarm, SwarmBuilder, connection_limits, identify, mdns, ping, tcp};

use crate::behaviour;
use crate::config::Config;
use crate::dht::{self, Kad};
use crate::error::StartError;
use crate::lan;
use crate::transport::{self, MuxerConfig};

/// The protocol family, told to peers by identify.
const IDENTIFY_PROTOCOL: &str = "/autonet/id/1.0.0";
const AGENT: &str = concat!("p2p-blob/", env!("CARGO_PKG_VERSION"));
/// Connections that are still being made, each way.
const MAX_PENDING_CONNECTIONS: u32 = 128;

/// Everything that runs on a connection.
#[derive(NetworkBehaviour)]
pub(crate) struct Behaviours {
    limits: connection_limits::Behaviour,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    pub(crate) kad: Kad,
    mdns: Toggle<mdns::tokio::Behaviour>,
    pub(crate) blob: behaviour::Behaviour,
}

/// A swarm with TCP (TLS or noise, yamux), QUIC and DNS, not listening yet.
pub(crate) fn build(config: &Config) -> Result<Swarm<Behaviours>, StartError> {
    transport::keep_freed_frames();
    let key = config.identity.keypair().clone();
    let local = config.identity.peer_id();
    let limits = connection_limits::ConnectionLimits::default()
        .with_max_pending_incoming(Some(MAX_PENDING_CONNECTIONS))
        .with_max_pending_outgoing(Some(MAX_PENDING_CONNECTIONS))
        .with_max_established(Some(config.limits.connections))
        .with_max_established_per_peer(Some(config.limits.connections_per_peer));
    // Signed, so that whoever gets it can pass it on.
    let identify = identify::Config::new_with_signed_peer_record(IDENTIFY_PROTOCOL.to_owned(), &key)
        .with_agent_version(AGENT.to_owned());
    let behaviours = Behaviours {
        limits: connection_limits::Behaviour::new(limits),
        identify: identify::Behaviour::new(identify),
        ping: ping::Behaviour::default(),
        kad: dht::behaviour(local, config.dht),
        mdns: lan::behaviour(local, config.mdns),
        blob: behaviour::Behaviour::new(config.versions.offered(), config.progress_timeout),
    };
    let failed = |transport| {
        move |source: Box<dyn std::error::Error + Send + Sync>| StartError::Transport { transport, source }
    };
    let swarm = SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_tcp(
            tcp::Config::default().nodelay(true),
            (transport::tls, transport::noise),
            MuxerConfig::default,
        )
        .map_err(|error| failed("TCP")(error.into()))?
        .with_quic()
        .with_dns()
        .map_err(|error| failed("DNS")(error.into()))?
        .with_behaviour(|_| behaviours)
        .map_err(|error| failed("the behaviours")(error.into()))?
        .with_swarm_config(|swarm| swarm.with_idle_connection_timeout(config.idle_timeout))
        .with_connection_timeout(config.connect_timeout)
        .build();
    Ok(swarm)
}
