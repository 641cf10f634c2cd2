//! A node as a store of blobs.

use std::time::Duration;

use ::node::NodeError;
use manifest::Digest;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::errors::exception;
use crate::node::Node;
use crate::settings;

/// The blobs of a node.
#[pyclass(frozen, module = "libp2p_loader._core")]
pub(crate) struct BlobStore {
    /// It may be closed meanwhile, and would not end while we held what it holds.
    node: Py<Node>,
    max_bytes: u64,
    timeout: Duration,
}

#[pymethods]
impl BlobStore {
    #[new]
    fn new(node: Py<Node>, max_bytes: u64, timeout_s: f64) -> PyResult<Self> {
        let store = Self { node, max_bytes, timeout: settings::seconds(timeout_s, "timeout")? };
        store.store()?;
        Ok(store)
    }

    /// Keeps a blob, and serves it.
    fn put(&self, py: Python<'_>, blob: &[u8]) -> PyResult<String> {
        let (store, blob) = (self.store()?, blob.to_vec());
        self.wait(py, async move { store.put(blob).await }).map(|digest| digest.to_string())
    }

    /// A blob that is here, or else, unless `here`, at a peer.
    fn get<'py>(&self, py: Python<'py>, cid: &str, here: bool) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let (store, Ok(digest)) = (self.store()?, cid.parse::<Digest>()) else { return Ok(None) };
        let work = async move { if here { store.get_here(digest).await } else { store.get(digest).await } };
        Ok(self.wait(py, work)?.map(|bytes| PyBytes::new(py, &bytes)))
    }

    /// Whether it is here.
    fn has(&self, py: Python<'_>, cid: &str) -> PyResult<bool> {
        let (store, Ok(digest)) = (self.store()?, cid.parse::<Digest>()) else { return Ok(false) };
        self.wait(py, async move { store.has(digest).await })
    }

    /// Whether it was here.
    fn remove(&self, py: Python<'_>, cid: &str) -> PyResult<bool> {
        let (store, Ok(digest)) = (self.store()?, cid.parse::<Digest>()) else { return Ok(false) };
        self.wait(py, async move { store.remove(digest).await })
    }

    /// Those that were put or fetched.
    fn list(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        let store = self.store()?;
        let all = self.wait(py, async move { store.list().await })?;
        Ok(all.iter().map(ToString::to_string).collect())
    }
}

impl BlobStore {
    fn store(&self) -> PyResult<::node::BlobStore> {
        let store = self.node.get().get()?.blob_store(self.max_bytes, self.timeout);
        store.map_err(|error| exception(&error))
    }

    fn wait<T: Send + 'static>(
        &self,
        py: Python<'_>,
        work: impl Future<Output = Result<T, NodeError>> + Send + 'static,
    ) -> PyResult<T> {
        self.node.get().wait(py, work, None, None)?.map_err(|error| exception(&error))
    }
}
