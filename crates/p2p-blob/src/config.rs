//! What a node can be told.

use std::collections::HashSet;
use std::num::NonZeroU64;
use std::time::Duration;

use libp2p::{Multiaddr, PeerId};

use crate::discovery::dht::DhtMode;
use crate::identity::Identity;
use crate::transport::private::NetworkKey;
use crate::wire::Version;

/// How a node behaves. [`Config::new`] has the documented defaults.
#[derive(Debug)]
pub struct Config {
    /// Who the node is.
    pub identity: Identity,
    /// Where it listens: `/ip4/…/tcp/…` and `/ip4/…/udp/…/quic-v1`. Default: nowhere, it only dials.
    pub listen: Vec<Multiaddr>,
    /// Addresses others reach it at, told to its peers. Default: none.
    pub external_addrs: Vec<Multiaddr>,
    /// The key of a private network; nobody without it is talked to. QUIC, which it does not cover, is off then. Default:
    /// none.
    pub network_key: Option<NetworkKey>,
    /// The only peers that it has connections with, in both directions. Default: any.
    pub allowed_peers: Option<HashSet<PeerId>>,
    /// Whether it finds peers in the local network, and lets them find it. Default: no.
    pub mdns: bool,
    /// How it takes part in the DHT. Default: by its addresses.
    pub dht: DhtMode,
    /// Which versions of the blob protocol it speaks, in both directions. Default: both.
    pub versions: Versions,
    /// A stream on which no byte moves for this long while one is due is given up. Default: 15 s.
    pub progress_timeout: Duration,
    /// An inbound stream without a request for this long is closed. Default: 120 s.
    pub idle_timeout: Duration,
    /// How long [`crate::Client::connect`] may take. Default: 10 s.
    pub connect_timeout: Duration,
    /// How long answers in progress may take when the node stops. Default: 5 s.
    pub drain_timeout: Duration,
    /// What the node takes on at most.
    pub limits: Limits,
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
            mdns: false,
            dht: DhtMode::default(),
            versions: Versions::Both,
            progress_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(120),
            connect_timeout: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(5),
            limits: Limits::default(),
        }
    }
}

/// What a node takes on at most. An answer that is being sent costs 256 KiB of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Inbound 2.0.0 streams in all. Default: 1024.
    pub streams: usize,
    /// Inbound blob streams of one peer. Default: 16.
    pub streams_per_peer: usize,
    /// Answers with pieces that are sent at one time, and a quarter more to addresses that are being sent none. Further
    /// requests wait for a second, in turn among addresses and their peers, and are told "busy" then. Default: 128.
    pub uploads: usize,
    /// The same while the node fetches. In bytes it then sends three quarters of what it receives at most, after a start
    /// of 16 MiB; a fetch that gets nothing for a second, or is told "busy", holds nothing back. Default: 8.
    pub uploads_while_fetching: usize,
    /// How fast blobs are sent, in equal shares for the peers that want some. Default: as fast as it goes.
    pub upload_bytes_per_s: Option<NonZeroU64>,
    /// How fast blobs are received. Default: as fast as they come.
    pub download_bytes_per_s: Option<NonZeroU64>,
    /// Reads of the store at one time. Default: 32.
    pub disk_reads: usize,
    /// Connections in all; a quarter of them is kept for those that this node makes. Default: 512.
    pub connections: u32,
    /// Connections with one peer: two from each side. Default: 4.
    pub connections_per_peer: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            streams: 1024,
            streams_per_peer: 16,
            uploads: 128,
            uploads_while_fetching: 8,
            upload_bytes_per_s: None,
            download_bytes_per_s: None,
            disk_reads: 32,
            connections: 512,
            connections_per_peer: 4,
        }
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
    /// In the order in which they are offered.
    pub(crate) fn offered(self) -> &'static [Version] {
        match self {
            Self::Both => &[Version::Ranges, Version::Blobs],
            Self::OnlyBlobs => &[Version::Blobs],
            Self::OnlyRanges => &[Version::Ranges],
        }
    }
}
