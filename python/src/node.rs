//! A node, for as long as Python holds it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::node::{NodeError, StreamOptions, Update};
use chain_reader::MatureModel;
use futures::StreamExt as _;
use loader::{Progress, Selection};
use pyo3::prelude::*;
use store::Cache;
use tokio_util::sync::CancellationToken;

use crate::errors::{bad_usage, exception, text};
use crate::model::Model;
use crate::runtime::{Cancel, Ends, Owned};
use crate::settings::{self, Settings};
use crate::stream::{Loose, Stream, choices, loose};

/// How long closing a node waits for answers in progress.
const CLOSING: Duration = Duration::from_secs(5);

/// A node. Its threads run while this lives.
#[pyclass(frozen, module = "libp2p_loader._core")]
pub(crate) struct Node {
    node: Mutex<Option<::node::Node>>,
    runtime: Owned,
    closed: CancellationToken,
}

/// What the contract says, the model, why there is none.
type Happened = (Option<Named>, Option<Model>, Option<String>);
/// Which model the contract names: digest, price, chain id, block number, block hash, its time.
type Named = (String, String, u64, u64, String, u64);

#[pymethods]
impl Node {
    #[new]
    fn new(py: Python<'_>, settings: &Bound<'_, PyAny>) -> PyResult<Self> {
        let settings: Settings = settings.extract().map_err(|error| bad_usage(told(py, &error)))?;
        let (runtime, config) = (Owned::get()?, settings.config()?);
        let node = runtime.wait(py, ::node::Node::start(config), None, &Ends::default())?;
        let node = node.map_err(|error| exception(&error))?;
        Ok(Self { node: Mutex::new(Some(node)), runtime, closed: CancellationToken::new() })
    }

    #[getter]
    fn peer_id(&self) -> PyResult<String> {
        Ok(self.get()?.peer_id().to_string())
    }

    /// Where it listens now.
    fn addresses(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        let mut addresses = self.get()?.listen_addrs();
        let now = self.wait(py, async move { addresses.next().await }, None, None)?;
        Ok(now.unwrap_or_default().iter().map(ToString::to_string).collect())
    }

    fn add_peer(&self, py: Python<'_>, address: &str) -> PyResult<()> {
        let (node, address) = (self.get()?, settings::parse(address, "a peer's address")?);
        py.detach(|| node.add_peer(address));
        Ok(())
    }

    /// Lets others find it.
    fn join(&self, py: Python<'_>) -> PyResult<()> {
        let node = self.get()?;
        self.wait(py, async move { node.join() }, None, None)
    }

    /// As `loader status --json` has it.
    fn status(&self, py: Python<'_>) -> PyResult<String> {
        let node = self.get()?;
        py.detach(|| serde_json::to_string(&node.status())).map_err(|error| exception(&error))
    }

    /// Which model the contract names now.
    #[pyo3(signature = (cancel = None))]
    fn named(&self, py: Python<'_>, cancel: Option<&Cancel>) -> PyResult<Named> {
        self.named_now(py, cancel).map(|named| facts(&named))
    }

    /// Loads a model by its digest, or the one that the contract names.
    #[pyo3(signature = (manifest, files, exclude, progress = None, cancel = None))]
    fn load(
        &self,
        py: Python<'_>,
        manifest: Option<&str>,
        files: Vec<String>,
        exclude: Vec<String>,
        progress: Option<Py<PyAny>>,
        cancel: Option<&Cancel>,
    ) -> PyResult<Model> {
        let node = self.get()?;
        let files = Selection::new(&files, &exclude).map_err(|error| bad_usage(error.to_string()))?;
        let manifest = manifest.map(|text| settings::digest(node.cache(), text)).transpose()?;
        let (numbers, cache) = (Arc::<Progress>::default(), node.cache().clone());
        let counting = Arc::clone(&numbers);
        let work = async move {
            let named = match manifest {
                Some(_) => None,
                None => Some(node.mature_model().await?),
            };
            let digest =
                manifest.or(named.as_ref().map(|named| named.manifest)).ok_or(NodeError::NoContract)?;
            let loaded = node.load_files(digest, files, &*counting).await?;
            if let Some(named) = &named {
                node.note_loaded(named).await;
            }
            Ok::<_, NodeError>(loaded)
        };
        let loaded = self.wait(py, work, progress.as_ref().map(|progress| (&*numbers, progress)), cancel)?;
        loaded.map(|loaded| Model::new(loaded, &cache)).map_err(|error| exception(&error))
    }

    /// Loads tensors, or rows of them, into memory.
    #[pyo3(signature = (manifest, names, rows = None, progress = None, cancel = None))]
    fn load_tensors(
        &self,
        py: Python<'_>,
        manifest: Option<&str>,
        names: Vec<String>,
        rows: Option<(u64, u64)>,
        progress: Option<Py<PyAny>>,
        cancel: Option<&Cancel>,
    ) -> PyResult<Vec<Loose>> {
        let node = self.get()?;
        let choices = choices(&names, rows)?;
        let manifest = manifest.map(|text| settings::digest(node.cache(), text)).transpose()?;
        let numbers = Arc::<Progress>::default();
        let counting = Arc::clone(&numbers);
        let work = async move {
            let digest = match manifest {
                Some(digest) => digest,
                None => node.mature_model().await?.manifest,
            };
            node.load_tensors(digest, &choices, &*counting).await
        };
        let loaded = self.wait(py, work, progress.as_ref().map(|progress| (&*numbers, progress)), cancel)?;
        let (tensors, _) = loaded.map_err(|error| exception(&error))?;
        Ok(tensors.into_iter().map(|tensor| loose(py, tensor)).collect())
    }

    /// Tensors, or rows of them, while the model that they are of arrives.
    #[pyo3(signature = (manifest, names, rows = None, verify = false, progress = None, cancel = None))]
    #[expect(clippy::too_many_arguments, reason = "they are Python's")]
    fn stream(
        &self,
        py: Python<'_>,
        manifest: Option<&str>,
        names: Vec<String>,
        rows: Option<(u64, u64)>,
        verify: bool,
        progress: Option<Py<PyAny>>,
        cancel: Option<&Cancel>,
    ) -> PyResult<Stream> {
        let node = self.get()?;
        let options = StreamOptions::default().with_choices(choices(&names, rows)?).with_verify(verify);
        let digest = match manifest {
            Some(text) => settings::digest(node.cache(), text)?,
            None => self.named_now(py, cancel)?.manifest,
        };
        Stream::start(py, node, digest, options, progress, self.runtime.clone(), self.closed.clone())
    }

    /// Hashes a finished model again: whether it is right, and in words. `None` when it is not in the cache.
    fn verify(&self, py: Python<'_>, manifest: &str) -> PyResult<Option<(bool, String)>> {
        let node = self.get()?;
        let digest = settings::digest(node.cache(), manifest)?;
        let report = self.wait(py, async move { node.verify(digest).await }, None, None)?;
        let report = report.map_err(|error| exception(&error))?;
        Ok(report.map(|report| (report.is_good(), report.to_string())))
    }

    /// Follows the contract.
    fn watch(&self, py: Python<'_>) -> PyResult<Watch> {
        let node = self.get()?;
        let watch =
            py.detach(|| node.watch(Arc::<Progress>::default())).map_err(|error| exception(&error))?;
        Ok(Watch {
            watch: Arc::new(tokio::sync::Mutex::new(watch)),
            cache: node.cache().clone(),
            runtime: self.runtime.clone(),
            closed: self.closed.clone(),
        })
    }

    /// Ends it, and calls that wait for it. Models stay mapped.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let Some(node) = self.taken() else { return Ok(()) };
        self.closed.cancel();
        let closing = async move { drop(tokio::time::timeout(CLOSING, node.shutdown()).await) };
        self.runtime.wait(py, closing, None, &Ends::default())
    }
}

impl Node {
    pub(crate) fn wait<T: Send + 'static>(
        &self,
        py: Python<'_>,
        work: impl Future<Output = T> + Send + 'static,
        progress: Option<(&Progress, &Py<PyAny>)>,
        cancel: Option<&Cancel>,
    ) -> PyResult<T> {
        self.runtime.wait(py, work, progress, &ends(cancel, &self.closed))
    }

    fn named_now(&self, py: Python<'_>, cancel: Option<&Cancel>) -> PyResult<MatureModel> {
        let node = self.get()?;
        let named = self.wait(py, async move { node.mature_model().await }, None, cancel)?;
        named.map_err(|error| exception(&error))
    }

    /// The node, unless it is closed.
    pub(crate) fn get(&self) -> PyResult<::node::Node> {
        let node = self.node.lock().unwrap_or_else(PoisonError::into_inner);
        node.clone().ok_or_else(|| bad_usage("this node is closed"))
    }

    /// The node, the first time. A fork leaves the parent's alone: its files and sockets are not ours.
    fn taken(&self) -> Option<::node::Node> {
        let node = self.node.lock().unwrap_or_else(PoisonError::into_inner).take();
        if self.runtime.is_here() {
            return node;
        }
        std::mem::forget(node);
        None
    }
}

/// What is wrong with an argument, and with which.
fn told(py: Python<'_>, error: &PyErr) -> String {
    let causes = std::iter::successors(Some(error.clone_ref(py)), |error| error.cause(py));
    causes.map(|error| error.value(py).to_string()).collect::<Vec<_>>().join(": ")
}

fn ends(cancel: Option<&Cancel>, closed: &CancellationToken) -> Ends {
    Ends { cancelled: cancel.map(|cancel| cancel.0.clone()).unwrap_or_default(), closed: closed.clone() }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(node) = self.taken() {
            self.closed.cancel();
            self.runtime.spawn(async move { node.shutdown().await });
        }
    }
}

/// The models that a contract names, one after the other.
#[pyclass(frozen, module = "libp2p_loader._core")]
pub(crate) struct Watch {
    watch: Arc<tokio::sync::Mutex<::node::Watch>>,
    cache: Cache,
    runtime: Owned,
    closed: CancellationToken,
}

#[pymethods]
impl Watch {
    /// The next thing that happens: a model that is ready, or why there is none, with what the contract says. `None` once the
    /// node is closed.
    #[pyo3(signature = (cancel = None))]
    fn next(&self, py: Python<'_>, cancel: Option<&Cancel>) -> PyResult<Option<Happened>> {
        let watch = Arc::clone(&self.watch);
        let next = async move { watch.lock().await.next().await };
        let update = match self.runtime.wait(py, next, None, &ends(cancel, &self.closed)) {
            Err(_) if self.closed.is_cancelled() => return Ok(None),
            update => update?,
        };
        Ok(update.map(|update| match update {
            Update::Ready { named, loaded } => {
                (Some(facts(&named)), Some(Model::new(*loaded, &self.cache)), None)
            }
            Update::NotLoaded { named, error, .. } => (Some(facts(&named)), None, Some(text(&error))),
            Update::Trouble(trouble) => (None, None, Some(trouble.to_string())),
            _ => (None, None, None),
        }))
    }
}

fn facts(named: &MatureModel) -> Named {
    (
        named.manifest.to_string(),
        named.price.to_string(),
        named.chain_id,
        named.block_number,
        named.block_hash.to_string(),
        named.block_timestamp,
    )
}
