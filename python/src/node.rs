//! A node, for as long as Python holds it.

use std::sync::Arc;
use std::time::Duration;

use ::node::{NodeError, Update};
use chain_reader::MatureModel;
use futures::StreamExt as _;
use loader::{Progress, Selection, TensorChoice};
use numpy::{IntoPyArray as _, PyArray1};
use pyo3::prelude::*;
use store::Cache;
use tokio::sync::Mutex;

use crate::errors::{bad_usage, exception, text};
use crate::model::Model;
use crate::runtime::{Cancel, Owned};
use crate::settings::{self, Settings};

/// How long closing a node waits for answers in progress.
const CLOSING: Duration = Duration::from_secs(5);

/// A node. Its threads run while this lives.
#[pyclass(frozen, module = "libp2p_loader._core")]
pub(crate) struct Node {
    node: std::sync::Mutex<Option<::node::Node>>,
    runtime: Owned,
}

/// Name, type, shape, bytes.
type Loose = (String, String, Vec<u64>, Py<PyArray1<u8>>);
/// What the contract says, the model, why there is none.
type Happened = (Option<Named>, Option<Model>, Option<String>);
/// Which model the contract names: digest, price, chain id, block number, block hash, its time.
type Named = (String, String, u64, u64, String, u64);

#[pymethods]
impl Node {
    #[new]
    fn new(py: Python<'_>, settings: Settings) -> PyResult<Self> {
        let (runtime, config) = (Owned::get()?, settings.config()?);
        let node = runtime.wait(py, ::node::Node::start(config), None, None)?;
        let node = node.map_err(|error| exception(&error))?;
        Ok(Self { node: std::sync::Mutex::new(Some(node)), runtime })
    }

    #[getter]
    fn peer_id(&self) -> PyResult<String> {
        Ok(self.get()?.peer_id().to_string())
    }

    /// Where it listens now.
    fn addresses(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        let mut addresses = self.get()?.listen_addrs();
        let now = self.runtime.wait(py, async move { addresses.next().await }, None, None)?;
        Ok(now.unwrap_or_default().iter().map(ToString::to_string).collect())
    }

    fn add_peer(&self, address: &str) -> PyResult<()> {
        self.get()?.add_peer(settings::parse(address, "a peer's address")?);
        Ok(())
    }

    /// Lets others find it.
    fn join(&self, py: Python<'_>) -> PyResult<()> {
        let node = self.get()?;
        self.runtime.wait(py, async move { node.join() }, None, None)
    }

    /// As `loader status --json` has it.
    fn status(&self) -> PyResult<String> {
        serde_json::to_string(&self.get()?.status()).map_err(|error| exception(&error))
    }

    /// Which model the contract names now.
    #[pyo3(signature = (cancel = None))]
    fn named(&self, py: Python<'_>, cancel: Option<&Cancel>) -> PyResult<Named> {
        let node = self.get()?;
        let named = self.runtime.wait(py, async move { node.mature_model().await }, None, cancel)?;
        named.map(|named| facts(&named)).map_err(|error| exception(&error))
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
        let (numbers, cache) = (Progress::new(), node.cache().clone());
        let work = async {
            let named = match manifest {
                Some(_) => None,
                None => Some(node.mature_model().await?),
            };
            let digest =
                manifest.or(named.as_ref().map(|named| named.manifest)).ok_or(NodeError::NoContract)?;
            let loaded = node.load_files(digest, files, &numbers).await?;
            if let Some(named) = &named {
                node.note_loaded(named).await;
            }
            Ok::<_, NodeError>(loaded)
        };
        let loaded =
            self.runtime.wait(py, work, progress.as_ref().map(|progress| (&numbers, progress)), cancel)?;
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
        let names = Selection::new(&names, &[]).map_err(|error| bad_usage(error.to_string()))?;
        let choice = TensorChoice { names, rows: rows.map(|(start, end)| start..end) };
        let manifest = manifest.map(|text| settings::digest(node.cache(), text)).transpose()?;
        let numbers = Progress::new();
        let work = async {
            let digest = match manifest {
                Some(digest) => digest,
                None => node.mature_model().await?.manifest,
            };
            node.load_tensors(digest, &[choice], &numbers).await
        };
        let loaded =
            self.runtime.wait(py, work, progress.as_ref().map(|progress| (&numbers, progress)), cancel)?;
        let (tensors, _) = loaded.map_err(|error| exception(&error))?;
        let loose = |tensor: loader::LoadedTensor| {
            (tensor.name, tensor.dtype, tensor.shape, tensor.bytes.into_pyarray(py).unbind())
        };
        Ok(tensors.into_iter().map(loose).collect())
    }

    /// Hashes a finished model again: whether it is right, and in words. `None` when it is not in the cache.
    fn verify(&self, py: Python<'_>, manifest: &str) -> PyResult<Option<(bool, String)>> {
        let node = self.get()?;
        let digest = settings::digest(node.cache(), manifest)?;
        let report = self.runtime.wait(py, async move { node.verify(digest).await }, None, None)?;
        let report = report.map_err(|error| exception(&error))?;
        Ok(report.map(|report| (report.is_good(), report.to_string())))
    }

    /// Follows the contract.
    fn watch(&self) -> PyResult<Watch> {
        let node = self.get()?;
        let progress = Arc::<Progress>::default();
        let watch = node.watch(progress).map_err(|error| exception(&error))?;
        Ok(Watch { watch: Mutex::new(watch), cache: node.cache().clone(), runtime: self.runtime.clone() })
    }

    /// Ends it. Models stay mapped.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let Some(node) = self.taken() else { return Ok(()) };
        self.runtime.wait(
            py,
            async move { drop(tokio::time::timeout(CLOSING, node.shutdown()).await) },
            None,
            None,
        )
    }
}

impl Node {
    fn get(&self) -> PyResult<::node::Node> {
        let node = self.node.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        node.clone().ok_or_else(|| bad_usage("this node is closed"))
    }

    fn taken(&self) -> Option<::node::Node> {
        self.node.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(node) = self.taken() {
            self.runtime.spawn(async move { node.shutdown().await });
        }
    }
}

/// The models that a contract names, one after the other.
#[pyclass(frozen, module = "libp2p_loader._core")]
pub(crate) struct Watch {
    watch: Mutex<::node::Watch>,
    cache: Cache,
    runtime: Owned,
}

#[pymethods]
impl Watch {
    /// The next thing that happens: a model that is ready, or why there is none, with what the contract says.
    #[pyo3(signature = (cancel = None))]
    fn next(&self, py: Python<'_>, cancel: Option<&Cancel>) -> PyResult<Option<Happened>> {
        let next = async { self.watch.lock().await.next().await };
        let Some(update) = self.runtime.wait(py, next, None, cancel)? else { return Ok(None) };
        Ok(Some(match update {
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
