//! The loader for embedding: reads the chain, fetches, maps, serves.
//!
//! A [`Node`] runs on the caller's tokio runtime and installs no global logger, panic hook or TLS provider.
//!
//! ```no_run
//! # async fn demo() -> Result<(), Box<dyn std::error::Error>> {
//! let seeder = "/dns/seed.example/tcp/4201/p2p/12D3KooWGzxzKZYveHXtpG6AsrUJBcWxHBFS2HsEoGTxrMLvKXtf";
//! let contract = node::chain_reader::Config::new(
//!     "https://rpc.example".parse()?,
//!     "0x5FbDB2315678afecb367f032d93F642f64180aa3".parse()?,
//! );
//! let config = node::Config::new("/var/cache/loader").with_peers(vec![seeder.parse()?]).with_chain(contract);
//! let node = node::Node::start(config).await?;
//! let loaded = node.load_mature(&node::loader::Silent).await?;
//! println!("a runtime opens {}", loaded.model.path().display());
//! if let Some(config) = loaded.model.file("config.json")? {
//!     println!("{}", String::from_utf8_lossy(config.as_ref()));
//! }
//! # Ok(()) }
//! ```
#![forbid(unsafe_code)]

mod address_book;
mod blob_store;
mod cause;
mod config;
mod contract;
mod crowd;
mod dial;
mod error;
mod hosted;
mod join;
mod lane;
mod maintenance;
mod peer;
mod serving;
pub mod status;
mod tensor_stream;
#[cfg(feature = "chain")]
mod watch;

use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use loader::{FetchOptions, LoadError, LoadedTensor, Observer, Report, Selection, TensorChoice, TensorFeed};
use manifest::Digest;
use p2p_blob::{Client, Identity};
use store::{BlobDir, Blobs, Cache, CacheError, Model, OwnBlobs, RecheckReport};

use status::{Board, Numbers, Pieces, Readiness, Socket, Swarm};

use address_book::AddressBook;
use contract::Contracts;
use crowd::Crowd;
use join::Membership;
use maintenance::Maintenance;

pub use blob_store::BlobStore;
pub use cause::Cause;
#[cfg(feature = "chain")]
pub use chain_reader;
#[cfg(feature = "chain")]
pub use config::CHAIN_DIR;
pub use config::Config;
pub use error::NodeError;
pub use p2p_blob::{Multiaddr, PeerId};
pub use status::Status;
pub use tensor_stream::{StreamOptions, TensorStream};
#[cfg(feature = "chain")]
pub use watch::{Update, Watch};
pub use {loader, manifest, p2p_blob, store};

#[cfg(all(doctest, feature = "chain"))]
#[doc = include_str!("../../../README.md")]
struct Readme;

/// A model that is ready to use, and how it got here.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Loaded {
    /// The model: its weights are mapped.
    pub model: Model,
    /// What was fetched, from which sources.
    pub report: Report,
}

/// A running node: a cache, a network task that serves it, and fetches into it. Clones are the same node.
#[derive(Clone)]
pub struct Node {
    cache: Cache,
    blobs: Arc<Blobs>,
    client: Client,
    known: dial::Known,
    fetch: loader::FetchOptions,
    pages: store::Pages,
    #[cfg_attr(not(feature = "chain"), expect(dead_code, reason = "there is none"))]
    contracts: Contracts,
    board: Arc<Board>,
    /// Answers `loader status`; `None` where the system has no socket for it.
    _socket: Option<Arc<Socket>>,
    membership: Arc<Membership>,
    own_blobs: Option<Arc<OwnBlobs>>,
    _maintenance: Arc<Maintenance>,
}

impl Node {
    /// Opens the cache and starts the network task, on the caller's tokio runtime. No peer is dialed yet.
    ///
    /// # Errors
    /// When the cache, the identity in it, a listen address or the contract's configuration is invalid.
    pub async fn start(config: Config) -> Result<Self, NodeError> {
        #[cfg(feature = "chain")]
        let contracts = config.readers()?.into();
        #[cfg(not(feature = "chain"))]
        let contracts = Contracts::default();
        Self::start_with(config, contracts).await
    }

    async fn start_with(config: Config, contracts: Contracts) -> Result<Self, NodeError> {
        let (cache_dir, mut blob_dirs) = (config.cache_dir.clone(), config.blob_dirs.clone());
        let (own, fetch) = (config.own_blobs.clone(), config.fetch.clone());
        let (pages, max_cache_bytes) = (config.pages, config.max_cache_bytes);
        let open = move || -> Result<_, NodeError> {
            let cache = Cache::open(&cache_dir)?;
            cache.limit(max_cache_bytes.unwrap_or(u64::MAX));
            let is_kept = !cache.is_read_only();
            let identity = match is_kept {
                true => Identity::load_or_create(&cache.identity_path())?,
                // Machines that mount the same file system must not share a peer id.
                false => {
                    tracing::warn!(
                        cache = %cache.dir().display(),
                        "the cache is read-only: this node has a name for its lifetime only, `loader status` does not see \
                         it, and it remembers no peers"
                    );
                    Identity::ephemeral()
                }
            };
            let own_blobs =
                own.map(|(dir, max_bytes)| OwnBlobs::open(&dir, max_bytes)).transpose()?.map(Arc::new);
            blob_dirs.extend(own_blobs.iter().map(|own| own.dir().to_owned()));
            let dirs = blob_dirs.iter().map(|dir| BlobDir::open(dir)).collect::<Result<_, _>>()?;
            let blobs = Blobs::open(cache.clone(), dirs)?;
            let book = AddressBook::open(cache.dir(), is_kept);
            Ok((cache, identity, Arc::new(blobs), book, own_blobs, blob_dirs.into()))
        };
        let (cache, identity, blobs, book, own_blobs, blob_dirs) =
            tokio::task::spawn_blocking(open).await.map_err(|_| NodeError::Worker)??;
        let network = config.network(identity);
        let store = Arc::new(serving::CacheStore(Arc::clone(&blobs)));
        let (client, _task) = p2p_blob::start(network, store)?;
        let crowd = Crowd::default();
        let board =
            Arc::new(Board::new(&client, &cache, Arc::clone(&blobs), crowd.clone(), contracts.clone()));
        tokio::spawn(status::note_rates(Arc::downgrade(&board)));
        let open = || Socket::open(cache.dir(), Arc::clone(&board));
        let socket = (!cache.is_read_only()).then(open).transpose();
        // A node works without it.
        let socket =
            socket.inspect_err(|error| tracing::warn!(%error, "`loader status` will not see this node"));
        let _socket = socket.ok().flatten().map(Arc::new);
        let book = Arc::new(book);
        let peers = dial::Peers::new(config.peers);
        #[cfg(feature = "mdns")]
        let mdns = config.mdns;
        #[cfg(not(feature = "mdns"))]
        let mdns = false;
        let known = dial::Known { peers, bootstrap: config.bootstrap, book, crowd, mdns };
        let membership = Arc::new(Membership::new(client.clone(), Arc::clone(&blobs), blob_dirs));
        if own_blobs.is_some() {
            membership.tell();
        }
        let _maintenance = Arc::new(Maintenance::start(&blobs).map_err(NodeError::Thread)?);
        Ok(Self {
            cache,
            blobs,
            client,
            known,
            fetch,
            pages,
            contracts,
            board,
            _socket,
            membership,
            own_blobs,
            _maintenance,
        })
    }

    /// What the node is doing now.
    pub fn status(&self) -> Status {
        self.board.status()
    }

    /// What it has counted since it started, for monitoring. Looks at the cache, on a blocking thread, but not more often than
    /// every few seconds.
    ///
    /// # Errors
    /// [`NodeError::Worker`].
    pub async fn numbers(&self) -> Result<Numbers, NodeError> {
        let board = Arc::clone(&self.board);
        tokio::task::spawn_blocking(move || board.numbers()).await.map_err(|_| NodeError::Worker)
    }

    /// What it loads, from whom, and what was checked.
    pub fn swarm(&self) -> Swarm {
        self.board.swarm()
    }

    /// The pieces of one of the loads that [`Node::swarm`] names: what has changed since change number `since`, or all of them.
    /// `None` while there are none, and for other loads.
    pub fn pieces(&self, load: u64, since: Option<u64>) -> Option<Pieces> {
        self.board.pieces(load, since)
    }

    /// Whether the model that is wanted can be used.
    pub fn readiness(&self) -> Readiness {
        self.board.readiness()
    }

    /// The node's cache.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// The node's peer id.
    pub fn peer_id(&self) -> PeerId {
        self.client.peer_id()
    }

    /// The listen addresses, each with its `/p2p/…`: now, and after each change. Ends with the node.
    pub fn listen_addrs(&self) -> BoxStream<'static, Vec<Multiaddr>> {
        let addresses = self.client.listen_addrs();
        let first = Some(addresses.borrow().clone());
        let addresses = stream::unfold((addresses, first), async |(mut addresses, first)| {
            let current = match first {
                Some(current) => current,
                None => {
                    addresses.changed().await.ok()?;
                    addresses.borrow_and_update().clone()
                }
            };
            Some((current, (addresses, None)))
        });
        addresses.boxed()
    }

    /// Adds a named peer, as by [`Config::with_peers`]: also for loads in progress.
    pub fn add_peer(&self, address: Multiaddr) {
        self.known.peers.add(address);
    }

    /// Hashes all of a finished model again, its parity too; `None` when it is not in the cache. The result is recorded: a
    /// corrupt model is not served any more, and [`Node::load`] heals it.
    ///
    /// # Errors
    /// [`NodeError::Cache`] when a file cannot be read.
    pub async fn verify(&self, manifest: Digest) -> Result<Option<RecheckReport>, NodeError> {
        let cache = self.cache.clone();
        let threads = self.fetch.threads();
        blocking(move || cache.verify(&manifest, threads, &|_, _| ())).await
    }

    /// Lets others find this node: from now on it stays connected to [`Config::with_bootstrap`] and [`Config::with_peers`], or
    /// else to some peers of the address book; it announces its models to them every minute or so, and publishes provider
    /// records in the DHT. A second call changes nothing.
    pub fn join(&self) {
        self.membership.join(&self.known);
    }

    /// Loads a model: maps it when it is in the cache, else fetches it from peers first. Each piece is served once it is
    /// verified. Its pages are as [`Config::with_pages`] says. The digest may be that of the weights themselves if
    /// [`FetchOptions::with_single_blob_max_bytes`](loader::FetchOptions) allows that.
    ///
    /// **Cancel safety.** After dropping the future, the next call resumes from what was verified.
    ///
    /// # Errors
    /// [`NodeError::Load`].
    pub async fn load(&self, manifest: Digest, observer: &dyn Observer) -> Result<Loaded, NodeError> {
        self.load_as(manifest, &self.fetch, observer).await
    }

    /// Loads some files of a model: the pieces that hold them are fetched, and just they are put in place. Loading others later
    /// goes on from there. The model of the result is complete or not, as `Model::is_complete` says.
    ///
    /// **Cancel safety.** That of [`Self::load`].
    ///
    /// # Errors
    /// [`NodeError::Load`].
    pub async fn load_files(
        &self,
        manifest: Digest,
        files: Selection,
        observer: &dyn Observer,
    ) -> Result<Loaded, NodeError> {
        self.load_as(manifest, &self.fetch.clone().with_files(files), observer).await
    }

    /// Loads tensors of a model, or some rows of them, into memory: the headers of its safetensors files are fetched first,
    /// then only the pieces that hold what is wanted, which stay in the cache.
    ///
    /// **Cancel safety.** That of [`Self::load`].
    ///
    /// # Errors
    /// [`NodeError::Load`].
    pub async fn load_tensors(
        &self,
        manifest: Digest,
        choices: &[TensorChoice],
        observer: &dyn Observer,
    ) -> Result<(Vec<LoadedTensor>, Report), NodeError> {
        let (sender, mut tensors) = loader::tensor_channel();
        let feed = TensorFeed::new(choices.to_vec(), false, &self.fetch, observer, sender);
        let take = async {
            let mut taken = Vec::new();
            while let Some(tensor) = tensors.recv().await {
                taken.push(tensor?);
            }
            Ok::<_, LoadError>(taken)
        };
        let (fed, taken) = tokio::join!(self.feed(manifest, feed), take);
        let (_, report) = fed?;
        Ok((taken?, report))
    }

    /// Fetches what a feed wants, and gives the model if all of it is in the cache.
    async fn feed(
        &self,
        manifest: Digest,
        feed: TensorFeed<'_>,
    ) -> Result<(Option<Model>, Report), NodeError> {
        let fetch = self.fetch.clone().with_ahead(feed.ahead());
        let (model, report) = match feed.choices() {
            [] => {
                let loaded = self.load_as(manifest, &fetch, &feed).await?;
                (Some(loaded.model), loaded.report)
            }
            choices => self.fetch_tensors(manifest, choices, &fetch, &feed).await?,
        };
        feed.complete(model.as_ref());
        Ok((model, report))
    }

    async fn fetch_tensors(
        &self,
        manifest: Digest,
        choices: &[TensorChoice],
        fetch: &FetchOptions,
        observer: &dyn Observer,
    ) -> Result<(Option<Model>, Report), NodeError> {
        let offering = serving::Offering::new(&self.blobs, observer);
        let _fetching = self.client.fetching();
        let (_dialer, sources) = dial::dial(&self.client, manifest, &self.known, offering.progress());
        let watched = self.board.watch(manifest, &offering);
        let fetched = loader::fetch_tensors(&self.cache, manifest, choices, sources, fetch, &watched).await;
        watched.ended(&fetched);
        join::save(&self.known.book).await;
        let fetched = fetched?;
        offering.keep();
        Ok(fetched)
    }

    async fn load_as(
        &self,
        manifest: Digest,
        fetch: &FetchOptions,
        observer: &dyn Observer,
    ) -> Result<Loaded, NodeError> {
        self.board.wants(manifest);
        let cached = {
            let (cache, fetch) = (self.cache.clone(), fetch.clone());
            blocking(move || loader::cached(&cache, &manifest, &fetch)).await?
        };
        let offering = serving::Offering::new(&self.blobs, observer);
        let (model, report) = match cached {
            Some(model) => (model, Report::of_cached()),
            None => {
                // Fetching has priority over serving.
                let _fetching = self.client.fetching();
                // Dials as soon as it is made: not for a model that is here.
                let (_dialer, sources) = dial::dial(&self.client, manifest, &self.known, offering.progress());
                let watched = self.board.watch(manifest, &offering);
                let loaded = loader::load(&self.cache, manifest, sources, fetch, &watched).await;
                watched.ended(&loaded);
                join::save(&self.known.book).await;
                loaded?
            }
        };
        if model.is_complete() {
            // Replaces the offer without a gap in serving.
            self.blobs.add(&model);
        } else {
            offering.keep();
        }
        self.membership.on_new_model();
        let (mapped, pages) = (model.clone(), self.pages);
        let cache = self.cache.clone();
        let use_it = move || {
            cache.note_used(mapped.digest());
            mapped.advise(pages)
        };
        blocking(use_it).await?;
        self.board.has_mapped(manifest);
        Ok(Loaded { model, report })
    }

    /// Notes that the model was loaded for `series`, a word such as a contract's address, and removes from the cache
    /// the models that were loaded for it before the last `keep`: unless they are mapped, live, or of another series.
    /// Returns what was removed.
    ///
    /// # Errors
    /// [`NodeError::Cache`].
    pub async fn keep_last(
        &self,
        series: &str,
        manifest: Digest,
        keep: usize,
    ) -> Result<Vec<Digest>, NodeError> {
        let (cache, blobs, series) = (self.cache.clone(), Arc::clone(&self.blobs), series.to_owned());
        blocking(move || cache.keep_last(&series, &manifest, keep, &|old| blobs.remove(old))).await
    }

    /// The model of a series that was noted as live; `None` while none ever was.
    ///
    /// # Errors
    /// [`NodeError::Cache`].
    pub async fn live(&self, series: &str) -> Result<Option<Digest>, NodeError> {
        let (cache, series) = (self.cache.clone(), series.to_owned());
        blocking(move || cache.live(&series)).await
    }

    /// Notes that this model of a series is in use, and that the one before is no more: [`Node::keep_last`] never removes
    /// it.
    ///
    /// # Errors
    /// [`NodeError::Cache`].
    pub async fn set_live(&self, series: &str, manifest: Digest) -> Result<(), NodeError> {
        let (cache, series) = (self.cache.clone(), series.to_owned());
        blocking(move || cache.set_live(&series, &manifest)).await
    }

    /// Stops: answers in progress may end, then all connections close.
    pub async fn shutdown(self) {
        self.client.shutdown().await;
    }
}

/// The model, if it is in the cache of this configuration: without network, without starting a node, and without creating
/// a cache. `None` also for a corrupt one: a node heals it.
///
/// # Errors
/// [`NodeError::Cache`].
pub async fn cached(config: &Config, manifest: Digest) -> Result<Option<Loaded>, NodeError> {
    let (cache_dir, fetch, pages) = (config.cache_dir.clone(), config.fetch.clone(), config.pages);
    blocking(move || {
        let Some(cache) = Cache::open_existing(&cache_dir)? else { return Ok(None) };
        let Some(model) = loader::cached(&cache, &manifest, &fetch)? else { return Ok(None) };
        cache.note_used(&manifest);
        model.advise(pages)?;
        Ok(Some(Loaded { model, report: Report::of_cached() }))
    })
    .await
}

/// Runs disk work on a blocking thread.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CacheError> + Send + 'static,
) -> Result<T, NodeError> {
    Ok(tokio::task::spawn_blocking(work).await.map_err(|_| NodeError::Worker)??)
}
