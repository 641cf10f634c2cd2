//! Configuration of a node.

use std::collections::HashSet;
use std::num::NonZeroU64;
use std::time::Duration;

use libp2p::{Multiaddr, PeerId};

use crate::identity::Identity;
use crate::transport::private::NetworkKey;
use crate::wire::Version;

/// How a node behaves. [`Config::new`] has the documented defaults.
#[derive(Debug)]
pub struct Config {
    pub(crate) identity: Identity,
    pub(crate) listen: Vec<Multiaddr>,
    pub(crate) external_addrs: Vec<Multiaddr>,
    pub(crate) network_key: Option<NetworkKey>,
    pub(crate) allowed_peers: Option<HashSet<PeerId>>,
    #[cfg(feature = "mdns")]
    pub(crate) mdns: bool,
    #[cfg(feature = "dht")]
    pub(crate) dht: DhtMode,
    pub(crate) versions: Versions,
    pub(crate) progress_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) drain_timeout: Duration,
    pub(crate) limits: Limits,
}

impl Config {
    /// The defaults, for this identity.
    pub fn new(identity: Identity) -> Self {
        Self {
            identity,
            listen: Vec::new(),
            external_addrs: Vec::new(),
            network_key: None,
            allowed_peers: None,
            #[cfg(feature = "mdns")]
            mdns: false,
            #[cfg(feature = "dht")]
            dht: DhtMode::default(),
            versions: Versions::Both,
            progress_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(120),
            connect_timeout: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(5),
            limits: Limits::default(),
        }
    }

    /// Listen addresses: `/ip4/…/tcp/…` and `/ip4/…/udp/…/quic-v1`. Default: none, it only dials.
    #[must_use]
    pub fn with_listen(self, listen: Vec<Multiaddr>) -> Self {
        Self { listen, ..self }
    }

    /// External addresses, announced to its peers. Default: none.
    #[must_use]
    pub fn with_external_addrs(self, external_addrs: Vec<Multiaddr>) -> Self {
        Self { external_addrs, ..self }
    }

    /// The key of a private network: only peers with it can connect. QUIC, which it does not cover, is off then.
    /// Default: none.
    #[must_use]
    pub fn with_network_key(self, network_key: impl Into<Option<NetworkKey>>) -> Self {
        Self { network_key: network_key.into(), ..self }
    }

    /// Allow list of peers, in both directions. Default: any.
    #[must_use]
    pub fn with_allowed_peers(self, allowed_peers: impl Into<Option<HashSet<PeerId>>>) -> Self {
        Self { allowed_peers: allowed_peers.into(), ..self }
    }

    /// Whether it finds peers in the local network, and is found, by mDNS. Default: no.
    #[cfg(feature = "mdns")]
    #[must_use]
    pub fn with_mdns(self, mdns: bool) -> Self {
        Self { mdns, ..self }
    }

    /// How it takes part in the DHT. Default: by its addresses.
    #[cfg(feature = "dht")]
    #[must_use]
    pub fn with_dht(self, dht: DhtMode) -> Self {
        Self { dht, ..self }
    }

    /// Which versions of the blob protocol it speaks, in both directions. Default: both.
    #[must_use]
    pub fn with_versions(self, versions: Versions) -> Self {
        Self { versions, ..self }
    }

    /// Stall timeout: a stream is given up when no byte that is due moves for this long. Default: 15 s.
    #[must_use]
    pub fn with_progress_timeout(self, progress_timeout: Duration) -> Self {
        Self { progress_timeout, ..self }
    }

    /// An inbound stream without a request for this long is closed. Default: 120 s.
    #[must_use]
    pub fn with_idle_timeout(self, idle_timeout: Duration) -> Self {
        Self { idle_timeout, ..self }
    }

    /// How long [`crate::Client::connect`] may take. Default: 10 s.
    #[must_use]
    pub fn with_connect_timeout(self, connect_timeout: Duration) -> Self {
        Self { connect_timeout, ..self }
    }

    /// How long answers in progress may take when the node stops. Default: 5 s.
    #[must_use]
    pub fn with_drain_timeout(self, drain_timeout: Duration) -> Self {
        Self { drain_timeout, ..self }
    }

    /// Resource limits.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }
}

/// How a node takes part in the DHT.
#[cfg(feature = "dht")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DhtMode {
    /// As a server while an external address is known, else as a client.
    #[default]
    Auto,
    /// As a server, whatever is known of its addresses.
    Server,
}

/// Resource limits of a node. An answer that is being sent costs 256 KiB of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub(crate) streams: usize,
    pub(crate) streams_per_peer: usize,
    pub(crate) uploads: usize,
    pub(crate) uploads_while_fetching: usize,
    pub(crate) upload_bytes_per_s: Option<NonZeroU64>,
    pub(crate) download_bytes_per_s: Option<NonZeroU64>,
    pub(crate) disk_reads: usize,
    pub(crate) connections: u32,
    pub(crate) connections_per_peer: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            streams: 1024,
            streams_per_peer: 32,
            uploads: 128,
            uploads_while_fetching: 8,
            upload_bytes_per_s: None,
            download_bytes_per_s: None,
            disk_reads: 32,
            connections: 512,
            connections_per_peer: 10,
        }
    }
}

impl Limits {
    /// Inbound 2.0.0 streams in all. Default: 1024.
    #[must_use]
    pub fn with_streams(self, streams: usize) -> Self {
        Self { streams, ..self }
    }

    /// Inbound blob streams of one peer. Default: 32.
    #[must_use]
    pub fn with_streams_per_peer(self, streams_per_peer: usize) -> Self {
        Self { streams_per_peer, ..self }
    }

    /// Upload slots, and a quarter more for addresses without one. Further requests wait up to a second, fairly queued by
    /// address and peer, and are answered "busy" then. Default: 128.
    #[must_use]
    pub fn with_uploads(self, uploads: usize) -> Self {
        Self { uploads, ..self }
    }

    /// Upload slots while the node fetches. It then sends at most 3/4 of the bytes it receives, after a burst of 16 MiB;
    /// a fetch that receives nothing for a second, or is answered "busy", lifts that. Default: 8.
    #[must_use]
    pub fn with_uploads_while_fetching(self, uploads_while_fetching: usize) -> Self {
        Self { uploads_while_fetching, ..self }
    }

    /// Upload rate limit, shared equally among the peers that download. Default: none.
    #[must_use]
    pub fn with_upload_bytes_per_s(self, upload_bytes_per_s: impl Into<Option<NonZeroU64>>) -> Self {
        Self { upload_bytes_per_s: upload_bytes_per_s.into(), ..self }
    }

    /// Download rate limit. Default: none.
    #[must_use]
    pub fn with_download_bytes_per_s(self, download_bytes_per_s: impl Into<Option<NonZeroU64>>) -> Self {
        Self { download_bytes_per_s: download_bytes_per_s.into(), ..self }
    }

    /// Concurrent reads of the store. Default: 32.
    #[must_use]
    pub fn with_disk_reads(self, disk_reads: usize) -> Self {
        Self { disk_reads, ..self }
    }

    /// Connections in all; a quarter is reserved for outbound ones. Default: 512.
    #[must_use]
    pub fn with_connections(self, connections: u32) -> Self {
        Self { connections, ..self }
    }

    /// Connections with one peer: over a long way a fetcher opens eight. Default: 10.
    #[must_use]
    pub fn with_connections_per_peer(self, connections_per_peer: u32) -> Self {
        Self { connections_per_peer, ..self }
    }

    /// Upload slots.
    pub fn uploads(&self) -> usize {
        self.uploads
    }

    /// Connections in all.
    pub fn connections(&self) -> u32 {
        self.connections
    }
}

/// Which versions of the blob protocol a node speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Versions {
    /// 2.0.0, and 1.0.0 with peers that do not know it.
    #[default]
    Both,
    /// Only `/autonet/blob/1.0.0`.
    OnlyBlobs,
    /// Only `/autonet/blob/2.0.0`.
    OnlyRanges,
}

impl Versions {
    /// Whether a peer can be sent whole blobs, which is all that those know who are told by capabilities.
    pub(crate) fn has_blobs(self) -> bool {
        self != Self::OnlyRanges
    }

    /// In the order in which they are offered.
    pub(crate) fn offered(self) -> &'static [Version] {
        match self {
            Self::Both => &[Version::Ranges, Version::Blobs],
            Self::OnlyBlobs => &[Version::Blobs],
            Self::OnlyRanges => &[Version::Ranges],
        }
    }
}
