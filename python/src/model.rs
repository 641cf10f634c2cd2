//! A model that is mapped.

use std::path::PathBuf;
use std::sync::OnceLock;

use ::node::Loaded;
use loader::Report;
use numpy::PyReadwriteArray1;
use pyo3::prelude::*;
use serde_json::{Value, json};
use store::{Cache, Pages, VerifiedReader};

use crate::errors::{bad_usage, exception};
use crate::settings;

/// A model in the cache. While this lives it is not removed from there, nor is it when it was forked.
#[pyclass(frozen, module = "libp2p_loader._core")]
pub(crate) struct Model {
    model: store::Model,
    cache_dir: PathBuf,
    report: String,
    /// Made when it is first used.
    reader: OnceLock<Option<VerifiedReader>>,
}

/// Path in the model, size in bytes, SHA-256 if known, whether that is proven by what was verified.
type FileFacts = (String, u64, Option<String>, bool);
/// Name, type as safetensors calls it, shape, path of the file, where its bytes begin there, how many there are.
type TensorFacts = (String, String, Vec<usize>, PathBuf, usize, usize);

impl Model {
    pub(crate) fn new(loaded: Loaded, cache: &Cache) -> Self {
        let report = report(&loaded.report).to_string();
        Self { model: loaded.model, cache_dir: cache.dir().to_owned(), report, reader: OnceLock::new() }
    }
}

impl Model {
    fn reader(&self) -> PyResult<&VerifiedReader> {
        let reader = match self.reader.get() {
            Some(reader) => reader,
            None => {
                let made = self.model.verified_reader().map_err(|error| exception(&error))?;
                self.reader.get_or_init(|| made)
            }
        };
        reader.as_ref().ok_or_else(|| {
            bad_usage(format!(
                "the pieces of model {} cannot be checked one by one: it has no piece index, or only some of its files",
                self.model.digest()
            ))
        })
    }
}

#[pymethods]
impl Model {
    #[getter]
    fn digest(&self) -> String {
        self.model.digest().to_string()
    }

    #[getter]
    fn path(&self) -> PathBuf {
        self.model.path()
    }

    #[getter]
    fn cache_dir(&self) -> PathBuf {
        self.cache_dir.clone()
    }

    #[getter]
    fn is_complete(&self) -> bool {
        self.model.is_complete()
    }

    /// What the load did, as JSON.
    #[getter]
    fn report(&self) -> &str {
        &self.report
    }

    fn files(&self) -> Vec<FileFacts> {
        let facts = |file: store::FileInfo<'_>| {
            let sha256 = file.sha256.map(|digest| digest.to_string());
            (file.path.to_owned(), file.size_bytes, sha256, file.is_proven)
        };
        self.model.files().map(facts).collect()
    }

    /// Of the safetensors files in a folder of the model; "" is its top.
    fn tensors(&self, py: Python<'_>, folder: &str) -> PyResult<Vec<TensorFacts>> {
        let tensors = py.detach(|| self.model.tensors_in(folder)).map_err(|error| exception(&error))?;
        let facts = |(name, tensor): (&str, &store::Tensor)| {
            let (range, path) = (tensor.range(), tensor.file().path());
            (
                name.to_owned(),
                tensor.dtype().to_string(),
                tensor.shape().to_vec(),
                path,
                range.start,
                range.len(),
            )
        };
        Ok(tensors.iter().map(facts).collect())
    }

    /// Fills `out`, an array of bytes, with those of a file from `start` on; each piece of them hashed on its way, if asked.
    #[pyo3(signature = (name, start, out, threads, verify))]
    fn read(
        &self,
        py: Python<'_>,
        name: &str,
        start: u64,
        mut out: PyReadwriteArray1<'_, u8>,
        threads: usize,
        verify: bool,
    ) -> PyResult<()> {
        let out = out.as_slice_mut().map_err(|_| bad_usage("the array is not contiguous"))?;
        py.detach(|| {
            let read = match verify {
                true => self.reader()?.read(name, start, out, threads),
                false => self.model.read(name, start, out, threads),
            };
            read.map_err(|error| exception(&error))
        })
    }

    /// Asks the system to read the pages soon, or all of them now.
    fn advise(&self, py: Python<'_>, pages: &str) -> PyResult<()> {
        let pages = match pages {
            "lazy" => Pages::Lazy,
            "prefetched" => Pages::Prefetched,
            "populated" => Pages::Populated,
            _ => return Err(bad_usage(format!("`{pages}` is not one of lazy, prefetched, populated"))),
        };
        py.detach(|| self.model.advise(pages)).map_err(|error| exception(&error))
    }
}

/// Maps a finished model of a cache.
#[pyfunction]
pub(crate) fn open_model(py: Python<'_>, cache_dir: PathBuf, manifest: &str) -> PyResult<Option<Model>> {
    let opened = py.detach(|| -> PyResult<_> {
        let Some(cache) = Cache::open_existing(&cache_dir).map_err(|error| exception(&error))? else {
            return Ok(None);
        };
        let digest = settings::digest(&cache, manifest)?;
        let found = loader::cached(&cache, &digest, &loader::FetchOptions::default());
        Ok(found.map_err(|error| exception(&error))?.map(|model| (model, cache)))
    })?;
    Ok(opened.map(|(model, cache)| Model {
        model,
        cache_dir: cache.dir().to_owned(),
        report: report(&Report::of_cached()).to_string(),
        reader: OnceLock::new(),
    }))
}

fn report(report: &Report) -> Value {
    let source = |source: &loader::SourceReport| {
        json!({
            "source": source.source.to_string(),
            "good_bytes": source.good_bytes,
            "bad_bytes": source.bad_bytes,
            "duplicate_bytes": source.duplicate_bytes,
            "banned": source.banned,
            "last_error": source.last_error,
        })
    };
    json!({
        "from_cache": report.from_cache,
        "fetched_bytes": report.fetched_bytes,
        "resumed_bytes": report.resumed_bytes,
        "reused_bytes": report.reused_bytes,
        "rebuilt_bytes": report.rebuilt_bytes,
        "sources": report.sources.iter().map(source).collect::<Vec<_>>(),
    })
}
