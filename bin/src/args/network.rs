//! How the network is used.

use std::num::NonZeroU64;
use std::path::PathBuf;

use clap::Args;
use p2p_blob::{Multiaddr, PeerId};

use crate::units::{parse_rate, parse_size};

use super::address::parse_address;

/// How the network is used.
#[derive(Debug, Args, Clone)]
#[command(next_help_heading = "Network")]
pub(crate) struct Network {
    /// A peer to connect to, such as /ip4/192.0.2.7/tcp/4201/p2p/12D3…. May be repeated.
    #[arg(long, value_name = "MULTIADDR", value_delimiter = ',', value_parser = parse_address)]
    #[arg(env = "LOADER_PEER", hide_env_values = true)]
    pub(crate) peer: Vec<Multiaddr>,
    /// A peer that knows others, whether or not it holds anything: an address as for --peer. May be repeated.
    #[arg(long, value_name = "MULTIADDR", value_delimiter = ',', value_parser = parse_address)]
    #[arg(env = "LOADER_BOOTSTRAP", hide_env_values = true)]
    pub(crate) bootstrap: Vec<Multiaddr>,
    /// An address to listen at, such as /ip4/0.0.0.0/udp/4201/quic-v1. May be repeated.
    #[arg(long, value_name = "MULTIADDR", value_delimiter = ',', value_parser = parse_address)]
    #[arg(env = "LOADER_LISTEN", hide_env_values = true)]
    pub(crate) listen: Vec<Multiaddr>,
    /// Serve at most so many bytes a second in all, such as 20MiB: shared evenly among peers [default: no limit].
    #[arg(long, value_name = "RATE", value_parser = parse_rate, env = "LOADER_UPLOAD_LIMIT", hide_env_values = true)]
    pub(crate) upload_limit: Option<NonZeroU64>,
    /// Fetch at most so many bytes a second in all, such as 20MiB [default: no limit].
    #[arg(long, value_name = "RATE", value_parser = parse_rate, env = "LOADER_DOWNLOAD_LIMIT", hide_env_values = true)]
    pub(crate) download_limit: Option<NonZeroU64>,
    /// Take at most so much memory for what arrives, such as 128MiB. Half of it may be under way, which over a long way bounds
    /// the speed: 64 MiB are 1.7 Gbit/s over 150 ms. More than 64 MiB are taken only where the way needs it [default: 256MiB].
    #[arg(long, value_name = "SIZE", value_parser = parse_size, env = "LOADER_MEMORY", hide_env_values = true)]
    pub(crate) memory: Option<u64>,
    /// Let the cache take at most so much of the disk, such as 500GiB: before a model is fetched, others are removed, those
    /// first that were used longest ago. What is mapped, pinned, linked to, or the newest of a contract stays; when that leaves
    /// too little, the fetch says so and takes nothing [default: no limit].
    #[arg(long, value_name = "SIZE", value_parser = parse_size, env = "LOADER_MAX_CACHE", hide_env_values = true)]
    #[arg(help_heading = "Cache")]
    pub(crate) max_cache: Option<u64>,
    /// Key file of a private network (the swarm.key of go-libp2p): nobody without the key is talked to. QUIC, which it does
    /// not cover, is off then.
    #[arg(long, value_name = "FILE", env = "LOADER_PSK_FILE", hide_env_values = true)]
    pub(crate) psk_file: Option<PathBuf>,
    /// A peer id: have connections with the peers named so only, in both directions. May be repeated.
    #[arg(long, value_name = "PEERID", value_delimiter = ',')]
    #[arg(env = "LOADER_ALLOW_PEER", hide_env_values = true)]
    pub(crate) allow_peer: Vec<PeerId>,
    /// Do not look for peers in the local network, and do not let them find this node.
    #[arg(long, env = "LOADER_NO_MDNS", hide_env_values = true)]
    pub(crate) no_mdns: bool,
    /// Serve the DHT, though no external address is known: for nodes that others reach all the same, as in a private
    /// network. With an external address a node does that anyway.
    #[arg(long, env = "LOADER_DHT_SERVER", hide_env_values = true)]
    pub(crate) dht_server: bool,
    /// An address that others reach this node at, told to peers. May be repeated.
    #[arg(long, value_name = "MULTIADDR", value_delimiter = ',', value_parser = parse_address)]
    #[arg(env = "LOADER_EXTERNAL_ADDR", hide_env_values = true)]
    pub(crate) external_addr: Vec<Multiaddr>,
}
