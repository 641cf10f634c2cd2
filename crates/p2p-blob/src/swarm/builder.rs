//! The libp2p stack: transports and behaviours.

use std::collections::HashSet;
use std::sync::Arc;

use libp2p::allow_block_list::{self, AllowedPeers};
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::Boxed;
use libp2p::core::upgrade::Version;
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{PeerId, Swarm, SwarmBuilder, Transport as _, connection_limits, dns, identify, ping};

use crate::admit::{ConnectionLimiter, ConnectionSlots, Gate};
use crate::capability;
use crate::config::{Config, Versions};
use crate::error::StartError;
use crate::reach::{Reach, Resolved};
use crate::swarm::behaviour;
use crate::transport::private;
use crate::transport::{self, SameKind, Security, Tcp};

/// The protocol family, told to peers by identify.
const IDENTIFY_PROTOCOL: &str = "/autonet/id/1.0.0";
const AGENT: &str = concat!("p2p-blob/", env!("CARGO_PKG_VERSION"));
/// Outbound connections in progress.
const MAX_PENDING_CONNECTIONS: u32 = 128;

/// Everything that runs on a connection.
#[derive(NetworkBehaviour)]
pub(crate) struct Behaviours {
    limits: connection_limits::Behaviour,
    connection_slots: ConnectionLimiter,
    allowed: Toggle<allow_block_list::Behaviour<AllowedPeers>>,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    #[cfg(feature = "dht")]
    pub(crate) kad: crate::discovery::dht::Kad,
    #[cfg(feature = "mdns")]
    mdns: Toggle<libp2p::mdns::tokio::Behaviour>,
    #[cfg(feature = "nat")]
    reached: libp2p::autonat::v2::client::Behaviour,
    #[cfg(feature = "nat")]
    reaching: libp2p::autonat::v2::server::Behaviour,
    #[cfg(feature = "nat")]
    relay: libp2p::relay::client::Behaviour,
    #[cfg(feature = "nat")]
    dcutr: libp2p::dcutr::Behaviour,
    pub(crate) capability: Toggle<capability::Behaviour>,
    pub(crate) blob: behaviour::Behaviour,
}

/// A swarm with TCP (TLS or noise, yamux), QUIC and DNS, not listening yet.
pub(crate) fn build(
    config: &Config,
    connection_slots: &Arc<ConnectionSlots>,
    reach: &Arc<Reach>,
    same_kind: Arc<SameKind>,
) -> Result<Swarm<Behaviours>, StartError> {
    transport::keep_freed_frames();
    let key = config.identity.keypair().clone();
    #[cfg(any(feature = "dht", feature = "mdns", feature = "nat"))]
    let local = config.identity.peer_id();
    let limits = connection_limits::ConnectionLimits::default()
        .with_max_pending_outgoing(Some(MAX_PENDING_CONNECTIONS))
        .with_max_established_per_peer(Some(config.limits.connections_per_peer));
    // Signed, so that peers can pass it on.
    let identify = identify::Config::new_with_signed_peer_record(IDENTIFY_PROTOCOL.to_owned(), &key)
        .with_agent_version(AGENT.to_owned());
    #[cfg(feature = "nat")]
    let (through_relay, relay) = libp2p::relay::client::new(local);
    let behaviours = Behaviours {
        limits: connection_limits::Behaviour::new(limits),
        connection_slots: ConnectionLimiter::new(Arc::clone(connection_slots)),
        allowed: allowed(config.allowed_peers.as_ref()),
        identify: identify::Behaviour::new(identify),
        ping: ping::Behaviour::default(),
        #[cfg(feature = "dht")]
        kad: crate::discovery::dht::behaviour(local, config.dht),
        #[cfg(feature = "mdns")]
        mdns: crate::discovery::lan::behaviour(local, config.mdns),
        #[cfg(feature = "nat")]
        reached: Default::default(),
        #[cfg(feature = "nat")]
        reaching: Default::default(),
        #[cfg(feature = "nat")]
        relay,
        #[cfg(feature = "nat")]
        dcutr: libp2p::dcutr::Behaviour::new(local),
        capability: Toggle::from(config.versions.has_blobs().then(capability::Behaviour::new)),
        blob: behaviour::Behaviour::new(
            config.versions.offered(),
            config.progress_timeout,
            Arc::clone(&same_kind),
        ),
    };
    let idle_timeout = config.idle_timeout;
    let transport = tcp_and_quic(config, same_kind)?;
    #[cfg(feature = "nat")]
    let transport = {
        let relayed = transport::secured(through_relay, &key).map_err(failed("relayed connections"))?;
        relayed.or_transport(transport).map(|either, _| either.into_inner()).boxed()
    };
    let transport = Resolved::new(transport, Arc::clone(reach));
    let transport = dns::tokio::Transport::system(transport).map_err(failed("DNS"))?;
    let transport = Gate::new(transport.boxed(), Arc::clone(connection_slots), Arc::clone(reach));
    let built = SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_other_transport(|_| Ok(transport))
        .map_err(failed("the transports"))?
        .with_behaviour(|_| behaviours)
        .map_err(failed("the behaviours"))?
        // A protocol without alternatives is not waited for: the first request goes with its name.
        .with_swarm_config(|swarm| {
            swarm
                .with_idle_connection_timeout(idle_timeout)
                .with_substream_upgrade_protocol_override(Version::V1Lazy)
        })
        .with_connection_timeout(config.connect_timeout)
        .build();
    Ok(built)
}

/// The direct connections: in a private network TCP only.
fn tcp_and_quic(
    config: &Config,
    same_kind: Arc<SameKind>,
) -> Result<Boxed<(PeerId, StreamMuxerBox)>, StartError> {
    let key = config.identity.keypair();
    if let Some(network_key) = config.network_key {
        return private::tcp(key, network_key).map_err(failed("TCP"));
    }
    let security = Security {
        tls: transport::tls_config(key, config.versions == Versions::Both).map_err(failed("TLS"))?,
        noise: transport::noise_config(key).map_err(failed("noise"))?,
    };
    let tcp = transport::upgraded(Tcp::new(), security, same_kind);
    #[cfg(feature = "quic")]
    let tcp = {
        let quic = libp2p::quic::tokio::Transport::new(libp2p::quic::Config::new(key))
            .map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)));
        tcp.or_transport(quic).map(|either, _| either.into_inner())
    };
    Ok(tcp.boxed())
}

fn failed<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    transport: &'static str,
) -> impl FnOnce(E) -> StartError {
    move |source| StartError::Transport { transport, source: source.into() }
}

/// The allow list: denies connections with all others.
fn allowed(peers: Option<&HashSet<PeerId>>) -> Toggle<allow_block_list::Behaviour<AllowedPeers>> {
    Toggle::from(peers.map(|peers| {
        let mut behaviour = allow_block_list::Behaviour::<AllowedPeers>::default();
        for peer in peers {
            behaviour.allow_peer(*peer);
        }
        behaviour
    }))
}
