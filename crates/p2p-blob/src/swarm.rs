//! The libp2p stack: transports and behaviours.

use std::collections::HashSet;

use libp2p::allow_block_list::{self, AllowedPeers};
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{PeerId, Swarm, SwarmBuilder, connection_limits, identify, mdns, ping, tcp};

use crate::behaviour;
use crate::config::Config;
use crate::dht::{self, Kad};
use crate::error::StartError;
use crate::lan;
use crate::private;
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
    allowed: Toggle<allow_block_list::Behaviour<AllowedPeers>>,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    pub(crate) kad: Kad,
    mdns: Toggle<mdns::tokio::Behaviour>,
    #[cfg(feature = "autonat")]
    reached: libp2p::autonat::v2::client::Behaviour,
    #[cfg(feature = "autonat")]
    reaching: libp2p::autonat::v2::server::Behaviour,
    #[cfg(feature = "relay")]
    relay: libp2p::relay::client::Behaviour,
    #[cfg(feature = "dcutr")]
    dcutr: libp2p::dcutr::Behaviour,
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
    #[cfg(feature = "relay")]
    let (through_relay, relay) = libp2p::relay::client::new(local);
    let behaviours = Behaviours {
        limits: connection_limits::Behaviour::new(limits),
        allowed: allowed(config.allowed_peers.as_ref()),
        identify: identify::Behaviour::new(identify),
        ping: ping::Behaviour::default(),
        kad: dht::behaviour(local, config.dht),
        mdns: lan::behaviour(local, config.mdns),
        #[cfg(feature = "autonat")]
        reached: Default::default(),
        #[cfg(feature = "autonat")]
        reaching: Default::default(),
        #[cfg(feature = "relay")]
        relay,
        #[cfg(feature = "dcutr")]
        dcutr: libp2p::dcutr::Behaviour::new(local),
        blob: behaviour::Behaviour::new(config.versions.offered(), config.progress_timeout),
    };
    let failed = |transport| {
        move |source: Box<dyn std::error::Error + Send + Sync>| StartError::Transport { transport, source }
    };
    let tcp = tcp::Config::default().nodelay(true);
    let builder = SwarmBuilder::with_existing_identity(key).with_tokio();
    let idle_timeout = config.idle_timeout;
    Ok(match config.network_key {
        None => {
            let builder = builder
                .with_tcp(tcp, (transport::tls, transport::noise), MuxerConfig::default)
                .map_err(|error| failed("TCP")(error.into()))?
                .with_quic();
            #[cfg(feature = "relay")]
            let builder = builder
                .with_other_transport(|key| Ok(transport::secured(through_relay, key)?))
                .map_err(|error| failed("relayed connections")(error.into()))?;
            builder
                .with_dns()
                .map_err(|error| failed("DNS")(error.into()))?
                .with_behaviour(|_| behaviours)
                .map_err(|error| failed("the behaviours")(error.into()))?
                .with_swarm_config(|swarm| swarm.with_idle_connection_timeout(idle_timeout))
                .with_connection_timeout(config.connect_timeout)
                .build()
        }
        Some(network_key) => {
            let builder = builder
                .with_other_transport(|key| Ok(private::tcp(key, network_key, tcp)?))
                .map_err(|error| failed("TCP")(error.into()))?;
            #[cfg(feature = "relay")]
            let builder = builder
                .with_other_transport(|key| Ok(transport::secured(through_relay, key)?))
                .map_err(|error| failed("relayed connections")(error.into()))?;
            builder
                .with_dns()
                .map_err(|error| failed("DNS")(error.into()))?
                .with_behaviour(|_| behaviours)
                .map_err(|error| failed("the behaviours")(error.into()))?
                .with_swarm_config(|swarm| swarm.with_idle_connection_timeout(idle_timeout))
                .with_connection_timeout(config.connect_timeout)
                .build()
        }
    })
}

/// Denies connections with all others, if there are such.
fn allowed(peers: Option<&HashSet<PeerId>>) -> Toggle<allow_block_list::Behaviour<AllowedPeers>> {
    Toggle::from(peers.map(|peers| {
        let mut behaviour = allow_block_list::Behaviour::<AllowedPeers>::default();
        for peer in peers {
            behaviour.allow_peer(*peer);
        }
        behaviour
    }))
}
