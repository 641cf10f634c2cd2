//! Tensors that come while a model is fetched.

use std::sync::Arc;

use ::node::{StreamOptions, TensorStream};
use loader::{Progress, Selection, TensorChoice};
use manifest::Digest;
use numpy::{IntoPyArray as _, PyArray1};
use pyo3::prelude::*;
use tokio_util::sync::CancellationToken;

use crate::errors::{bad_usage, exception};
use crate::model::Model;
use crate::runtime::{Cancel, Ends, Owned};

/// Name, type, shape, bytes.
pub(crate) type Loose = (String, String, Vec<u64>, Py<PyArray1<u8>>);

/// Tensors of a model, one after the other.
#[pyclass(frozen, module = "libp2p_loader._core")]
pub(crate) struct Stream {
    stream: Arc<tokio::sync::Mutex<Option<TensorStream>>>,
    cache: store::Cache,
    numbers: Arc<Progress>,
    progress: Option<Py<PyAny>>,
    runtime: Owned,
    closed: CancellationToken,
}

impl Stream {
    /// Begins, on the runtime's threads.
    pub(crate) fn start(
        py: Python<'_>,
        node: ::node::Node,
        digest: Digest,
        options: StreamOptions,
        progress: Option<Py<PyAny>>,
        runtime: Owned,
        closed: CancellationToken,
    ) -> PyResult<Self> {
        let (numbers, cache) = (Arc::<Progress>::default(), node.cache().clone());
        let counting = Arc::clone(&numbers);
        let begin = async move { node.stream(digest, options, counting) };
        let stream = runtime.wait(py, begin, None, &Ends { closed: closed.clone(), ..Ends::default() })?;
        let stream = Arc::new(tokio::sync::Mutex::new(Some(stream)));
        Ok(Self { stream, cache, numbers, progress, runtime, closed })
    }
}

#[pymethods]
impl Stream {
    /// The next tensor; `None` after the last one.
    #[pyo3(signature = (cancel = None))]
    fn next(&self, py: Python<'_>, cancel: Option<&Cancel>) -> PyResult<Option<Loose>> {
        let stream = Arc::clone(&self.stream);
        let next = async move {
            match stream.lock().await.as_mut() {
                Some(stream) => stream.next().await,
                None => None,
            }
        };
        let progress = self.progress.as_ref().map(|progress| (&*self.numbers, progress));
        let ends = Ends {
            cancelled: cancel.map(|cancel| cancel.0.clone()).unwrap_or_default(),
            closed: self.closed.clone(),
        };
        let next = self.runtime.wait(py, next, progress, &ends)?;
        let tensor = next.transpose().map_err(|error| exception(&error))?;
        Ok(tensor.map(|tensor| loose(py, tensor)))
    }

    /// The model, after the last tensor, if all of it is in the cache.
    fn model(&self, py: Python<'_>) -> PyResult<Option<Model>> {
        let stream = Arc::clone(&self.stream);
        let loaded = async move { stream.lock().await.as_ref().and_then(|stream| stream.loaded().cloned()) };
        let loaded = self.runtime.wait(py, loaded, None, &Ends::default())?;
        Ok(loaded.map(|loaded| Model::new(loaded, &self.cache)))
    }

    /// Ends it early. What was verified stays in the cache.
    fn close(&self) {
        if !self.runtime.is_here() {
            return;
        }
        let stream = Arc::clone(&self.stream);
        self.runtime.spawn(async move { drop(stream.lock().await.take()) });
    }
}

/// What `loader` gives, for numpy, which takes the bytes as they are.
pub(crate) fn loose(py: Python<'_>, tensor: loader::LoadedTensor) -> Loose {
    (tensor.name, tensor.dtype, tensor.shape, tensor.bytes.into_pyarray(py).unbind())
}

/// What is chosen by names or globs; all, without any.
pub(crate) fn choices(names: &[String], rows: Option<(u64, u64)>) -> PyResult<Vec<TensorChoice>> {
    if names.is_empty() && rows.is_none() {
        return Ok(Vec::new());
    }
    let names = Selection::new(names, &[]).map_err(|error| bad_usage(error.to_string()))?;
    Ok(vec![TensorChoice { names, rows: rows.map(|(start, end)| start..end) }])
}
