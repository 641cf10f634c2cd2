//! Configuration of a node.

use std::collections::HashSet;
use std::path::PathBuf;

use loader::FetchOptions;
use p2p_blob::{Limits, Multiaddr, NetworkKey, PeerId};
use store::Pages;

/// Where in the cache the state of chains is kept, unless [`chain_reader::Config::with_state_dir`] says otherwise.
#[cfg(feature = "chain")]
pub const CHAIN_DIR: &str = "chain";

/// How a node behaves. [`Config::new`] has the defaults.
#[derive(Debug, Clone)]
pub struct Config {
    pub(crate) cache_dir: PathBuf,
    pub(crate) blob_dirs: Vec<PathBuf>,
    pub(crate) own_blobs: Option<(PathBuf, u64)>,
    pub(crate) listen: Vec<Multiaddr>,
    pub(crate) external_addrs: Vec<Multiaddr>,
    pub(crate) peers: Vec<Multiaddr>,
    pub(crate) bootstrap: Vec<Multiaddr>,
    pub(crate) network_key: Option<NetworkKey>,
    pub(crate) allowed_peers: Option<HashSet<PeerId>>,
    #[cfg(feature = "mdns")]
    pub(crate) mdns: bool,
    #[cfg(feature = "dht")]
    pub(crate) dht: p2p_blob::DhtMode,
    pub(crate) limits: Limits,
    pub(crate) max_cache_bytes: Option<u64>,
    #[cfg(feature = "chain")]
    pub(crate) chains: Vec<chain_reader::Config>,
    pub(crate) fetch: FetchOptions,
    pub(crate) pages: Pages,
}

impl Config {
    /// The reader of the contract, the first one if there are several; `None` when none is configured. Its state is kept in the cache, unless configured
    /// otherwise.
    ///
    /// # Errors
    /// [`NodeError::Chain`](crate::NodeError::Chain) when the contract's configuration is invalid.
    #[cfg(feature = "chain")]
    pub fn reader(&self) -> Result<Option<chain_reader::ChainReader>, crate::NodeError> {
        Ok(self.readers()?.into_iter().next())
    }

    /// The same for all contracts.
    #[cfg(feature = "chain")]
    pub(crate) fn readers(&self) -> Result<Vec<chain_reader::ChainReader>, crate::NodeError> {
        let reader = |chain: &chain_reader::Config| {
            let chain = chain.clone().with_default_state_dir(self.cache_dir.join(CHAIN_DIR));
            Ok(chain_reader::ChainReader::new(chain)?)
        };
        self.chains.iter().map(reader).collect()
    }

    /// The network part of it, for a node of this name.
    pub fn network(&self, identity: p2p_blob::Identity) -> p2p_blob::Config {
        let network = p2p_blob::Config::new(identity)
            .with_listen(self.listen.clone())
            .with_external_addrs(self.external_addrs.clone())
            .with_network_key(self.network_key)
            .with_allowed_peers(self.allowed_peers.clone())
            .with_limits(self.limits);
        #[cfg(feature = "mdns")]
        let network = network.with_mdns(self.mdns);
        #[cfg(feature = "dht")]
        let network = network.with_dht(self.dht);
        network
    }

    /// The defaults, with this cache.
    pub fn new(cache_dir: impl Into<PathBuf>) -> Self {
        Self {
            cache_dir: cache_dir.into(),
            blob_dirs: Vec::new(),
            own_blobs: None,
            listen: Vec::new(),
            external_addrs: Vec::new(),
            peers: Vec::new(),
            bootstrap: Vec::new(),
            network_key: None,
            allowed_peers: None,
            #[cfg(feature = "mdns")]
            mdns: true,
            #[cfg(feature = "dht")]
            dht: p2p_blob::DhtMode::default(),
            limits: Limits::default(),
            max_cache_bytes: None,
            #[cfg(feature = "chain")]
            chains: Vec::new(),
            fetch: FetchOptions::default(),
            pages: Pages::default(),
        }
    }

    /// Listen addresses.
    pub fn listen(&self) -> &[Multiaddr] {
        &self.listen
    }

    /// Bootstrap peers.
    pub fn bootstrap(&self) -> &[Multiaddr] {
        &self.bootstrap
    }

    /// Peers to fetch from.
    pub fn peers(&self) -> &[Multiaddr] {
        &self.peers
    }

    /// Folders of files named by their digests, which are served as well. Default: none.
    #[must_use]
    pub fn with_blob_dirs(self, blob_dirs: Vec<PathBuf>) -> Self {
        Self { blob_dirs, ..self }
    }

    /// A folder of blobs that the node writes, with `max_bytes` in it, and serves: see
    /// [`Node::blob_store`](crate::Node::blob_store). It is created. Default: none.
    #[must_use]
    pub fn with_own_blobs(self, dir: impl Into<PathBuf>, max_bytes: u64) -> Self {
        Self { own_blobs: Some((dir.into(), max_bytes)), ..self }
    }

    /// Listen addresses. Default: none, it only dials.
    #[must_use]
    pub fn with_listen(self, listen: Vec<Multiaddr>) -> Self {
        Self { listen, ..self }
    }

    /// External addresses. Default: none.
    #[must_use]
    pub fn with_external_addrs(self, external_addrs: Vec<Multiaddr>) -> Self {
        Self { external_addrs, ..self }
    }

    /// Peers to fetch from. Each has a task that reconnects for as long as the node runs. Default: none.
    #[must_use]
    pub fn with_peers(self, peers: Vec<Multiaddr>) -> Self {
        Self { peers, ..self }
    }

    /// Bootstrap peers: they need not hold anything, but know others. Default: none.
    #[must_use]
    pub fn with_bootstrap(self, bootstrap: Vec<Multiaddr>) -> Self {
        Self { bootstrap, ..self }
    }

    /// The key of a private network. Default: none.
    #[must_use]
    pub fn with_network_key(self, network_key: impl Into<Option<NetworkKey>>) -> Self {
        Self { network_key: network_key.into(), ..self }
    }

    /// Allow list of peers. Default: any.
    #[must_use]
    pub fn with_allowed_peers(self, allowed_peers: impl Into<Option<HashSet<PeerId>>>) -> Self {
        Self { allowed_peers: allowed_peers.into(), ..self }
    }

    /// Whether it finds peers in the local network, and is found, by mDNS: a multicast every few minutes. Default: yes.
    #[cfg(feature = "mdns")]
    #[must_use]
    pub fn with_mdns(self, mdns: bool) -> Self {
        Self { mdns, ..self }
    }

    /// How it takes part in the DHT. Default: as a server while it has an external address.
    #[cfg(feature = "dht")]
    #[must_use]
    pub fn with_dht(self, dht: p2p_blob::DhtMode) -> Self {
        Self { dht, ..self }
    }

    /// Resource and rate limits. Default: those of the network.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// What the cache may take of the disk: other models are removed before one is begun, those first that were used longest
    /// ago (`store::Cache::limit`). What is mapped, linked, pinned or followed stays. Default: no limit.
    #[must_use]
    pub fn with_max_cache_bytes(self, max_cache_bytes: impl Into<Option<u64>>) -> Self {
        Self { max_cache_bytes: max_cache_bytes.into(), ..self }
    }

    /// The contract to read. Default: none, models are loaded by digest.
    #[cfg(feature = "chain")]
    #[must_use]
    pub fn with_chain(self, chain: impl Into<Option<chain_reader::Config>>) -> Self {
        Self { chains: Vec::from_iter(chain.into()), ..self }
    }

    /// Several contracts to read, each by its own endpoints: [`Node::chains`](crate::Node::chains) has their readers.
    #[cfg(feature = "chain")]
    #[must_use]
    pub fn with_chains(self, chains: Vec<chain_reader::Config>) -> Self {
        Self { chains, ..self }
    }

    /// How models are fetched: memory, threads, timeouts. Default: those of [`FetchOptions::default`].
    #[must_use]
    pub fn with_fetch(self, fetch: FetchOptions) -> Self {
        Self { fetch, ..self }
    }

    /// How the pages of loaded weights are mapped. Default: lazily, so that a cached model is there at once; otherwise
    /// [`Node::load`](crate::Node::load) takes the time to read them.
    #[must_use]
    pub fn with_pages(self, pages: Pages) -> Self {
        Self { pages, ..self }
    }
}
