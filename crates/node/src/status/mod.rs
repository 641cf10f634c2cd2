//! The status of a node: [`crate::Node::status`], and `loader status` through a socket.

mod socket;

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use loader::{Event, Observer};
use manifest::{Digest, Manifest};
use p2p_blob::Client;
use serde::{Deserialize, Serialize};
use store::Blobs;

use crate::contract::Contract;

pub(crate) use socket::Socket;
pub use socket::{QueryError, Running, running};

/// A snapshot of a node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// Its process.
    pub pid: u32,
    /// The version of this library.
    pub version: String,
    /// Its peer id.
    pub peer_id: String,
    /// For how long it has been running.
    pub uptime_s: u64,
    /// Its listen addresses.
    pub listen: Vec<String>,
    /// The manifests of the models that it serves.
    pub models: Vec<String>,
    /// Bytes of blobs sent to peers so far.
    pub uploaded_bytes: u64,
    /// What is being loaded.
    pub loading: Vec<Loading>,
    /// The state of the chain reader; `None` without a contract.
    #[cfg(feature = "chain")]
    pub chain: Option<chain_reader::ChainStatus>,
}

/// A model that is being loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loading {
    /// Its manifest.
    pub manifest: String,
    /// How long its weights are, once the manifest is known.
    pub total_size_bytes: Option<u64>,
    /// How much of them is here.
    pub done_bytes: u64,
    /// How many sources are connected.
    pub sources: usize,
}

/// Collects the status.
pub(crate) struct Board {
    client: Client,
    started: Instant,
    blobs: Arc<Blobs>,
    #[cfg_attr(not(feature = "chain"), expect(dead_code, reason = "there is none"))]
    contract: Contract,
    loads: Mutex<BTreeMap<Digest, Load>>,
}

/// The progress of a load.
#[derive(Debug, Default)]
struct Load {
    total_size_bytes: Option<u64>,
    done_bytes: u64,
    sources: HashSet<String>,
    /// Callers that wait for it.
    callers: usize,
}

impl Board {
    pub(crate) fn new(client: &Client, blobs: Arc<Blobs>, contract: Contract) -> Self {
        Self { client: client.clone(), started: Instant::now(), blobs, contract, loads: Mutex::default() }
    }

    pub(crate) fn status(&self) -> Status {
        let loading = |(manifest, load): (&Digest, &Load)| Loading {
            manifest: manifest.to_string(),
            total_size_bytes: load.total_size_bytes,
            done_bytes: load.done_bytes.min(load.total_size_bytes.unwrap_or(u64::MAX)),
            sources: load.sources.len(),
        };
        let mut models: Vec<String> = self.blobs.models().iter().map(Digest::to_string).collect();
        models.sort_unstable();
        Status {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            peer_id: self.client.peer_id().to_string(),
            uptime_s: self.started.elapsed().as_secs(),
            listen: self.client.listen_addrs().borrow().iter().map(ToString::to_string).collect(),
            models,
            uploaded_bytes: self.client.sent_bytes(),
            loading: self.loads().iter().map(loading).collect(),
            #[cfg(feature = "chain")]
            chain: self.contract.reader().map(chain_reader::ChainReader::status),
        }
    }

    /// Counts the events of a load of `manifest`, and forwards them to `observer`.
    pub(crate) fn watch<'a>(&'a self, manifest: Digest, observer: &'a dyn Observer) -> Observed<'a> {
        self.loads().entry(manifest).or_default().callers += 1;
        Observed { board: self, manifest, observer }
    }

    fn loads(&self) -> MutexGuard<'_, BTreeMap<Digest, Load>> {
        self.loads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A load that is on the board until this is dropped.
pub(crate) struct Observed<'a> {
    board: &'a Board,
    manifest: Digest,
    observer: &'a dyn Observer,
}

impl Observer for Observed<'_> {
    fn on_event(&self, event: &Event<'_>) {
        if let Some(load) = self.board.loads().get_mut(&self.manifest) {
            load.on_event(event);
        }
        self.observer.on_event(event);
    }
}

impl Drop for Observed<'_> {
    fn drop(&mut self) {
        let mut loads = self.board.loads();
        if let Some(load) = loads.get_mut(&self.manifest) {
            load.callers -= 1;
            if load.callers == 0 {
                loads.remove(&self.manifest);
            }
        }
    }
}

impl Load {
    fn on_event(&mut self, event: &Event<'_>) {
        match event {
            Event::Manifest { manifest, .. } => {
                self.total_size_bytes = Some(Manifest::total_size_bytes(manifest))
            }
            Event::Wanted { bytes } => self.total_size_bytes = Some(*bytes),
            Event::Resumed { bytes }
            | Event::Reused { bytes }
            | Event::PieceFetched { bytes, .. }
            | Event::PieceRebuilt { bytes, .. } => self.done_bytes += bytes,
            Event::SourceUp { source } => {
                self.sources.insert(source.to_string());
            }
            Event::SourceDown { source, .. } => {
                self.sources.remove(source.as_str());
            }
            _ => {}
        }
    }
}
