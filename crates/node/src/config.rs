//! What a node can be told.

use std::collections::HashSet;
use std::path::PathBuf;

use loader::FetchOptions;
use p2p_blob::{DhtMode, Limits, Multiaddr, NetworkKey, PeerId};
use store::Pages;

/// Where in the cache the state of chains is kept, unless [`chain_reader::Config::state_dir`] says otherwise.
#[cfg(feature = "chain")]
pub const CHAIN_DIR: &str = "chain";

/// How a node behaves. [`Config::new`] has the defaults.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where models are kept.
    pub cache_dir: PathBuf,
    /// Folders of files named by their digests, which are served as well. Default: none.
    pub blob_dirs: Vec<PathBuf>,
    /// Where it listens for peers. Default: nowhere, it only dials.
    pub listen: Vec<Multiaddr>,
    /// Addresses others reach it at. Default: none.
    pub external_addrs: Vec<Multiaddr>,
    /// Peers to fetch from. Default: none.
    pub peers: Vec<Multiaddr>,
    /// Peers that need not hold anything, but know others. Default: none.
    pub bootstrap: Vec<Multiaddr>,
    /// The key of a private network. Default: none.
    pub network_key: Option<NetworkKey>,
    /// The only peers that it has connections with. Default: any.
    pub allowed_peers: Option<HashSet<PeerId>>,
    /// Whether it finds peers in the local network, and lets them find it (mDNS). Default: yes.
    pub mdns: bool,
    /// How it takes part in the DHT. Default: as a server while it has an external address.
    pub dht: DhtMode,
    /// What it takes on at most, and at which rates. Default: those of the network.
    pub limits: Limits,
    /// The contract to read. Default: none, models are loaded by digest.
    #[cfg(feature = "chain")]
    pub chain: Option<chain_reader::Config>,
    /// How models are fetched.
    pub fetch: FetchOptions,
    /// How the pages of loaded weights are wanted. Default: lazily, so that a cached model is there at once.
    pub pages: Pages,
}

impl Config {
    /// What reads the contract; `None` when none is configured. What it sees is remembered in the cache, unless the
    /// configuration says otherwise.
    ///
    /// # Errors
    /// [`NodeError::Chain`](crate::NodeError::Chain) when the contract's configuration is no good.
    #[cfg(feature = "chain")]
    pub fn reader(&self) -> Result<Option<chain_reader::ChainReader>, crate::NodeError> {
        let Some(mut chain) = self.chain.clone() else { return Ok(None) };
        chain.state_dir.get_or_insert_with(|| self.cache_dir.join(CHAIN_DIR));
        Ok(Some(chain_reader::ChainReader::new(chain)?))
    }

    /// The defaults, with this cache.
    pub fn new(cache_dir: impl Into<PathBuf>) -> Self {
        Self {
            cache_dir: cache_dir.into(),
            blob_dirs: Vec::new(),
            listen: Vec::new(),
            external_addrs: Vec::new(),
            peers: Vec::new(),
            bootstrap: Vec::new(),
            network_key: None,
            allowed_peers: None,
            mdns: true,
            dht: DhtMode::default(),
            limits: Limits::default(),
            #[cfg(feature = "chain")]
            chain: None,
            fetch: FetchOptions::default(),
            pages: Pages::default(),
        }
    }
}
