//! Loading some tensors of a model, or some rows of them: what one of several machines needs.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use manifest::{ByteRange, Digest, Geometry, Manifest, PieceId};
use store::{Cache, Model, Partial};
use tokio::sync::mpsc;

use super::blocking::blocking;
use super::options::FetchOptions;
use super::source_table::{Arrivals, SourceTable};
use super::{Event, Fetch, close, fill_wait, headers, index};
use crate::error::LoadError;
use crate::observer::{Observer, Report};
use crate::selection::Selection;
use crate::source::SourceEvent;
use crate::tensors::Tensor;

/// Tensors that are wanted.
#[derive(Debug, Clone)]
pub struct TensorChoice {
    /// Their names.
    pub names: Selection,
    /// Which part of the first dimension, from its start up to its end; `None` for all of it. What does not divide into
    /// whole bytes there, and scalars, are loaded whole.
    pub rows: Option<Range<u64>>,
}

/// A tensor, or some rows of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoadedTensor {
    /// Its name.
    pub name: String,
    /// The type of its elements, as safetensors calls it, such as `BF16`.
    pub dtype: String,
    /// Its lengths, the outermost first; the first is that of the rows that were loaded.
    pub shape: Vec<u64>,
    /// Little-endian elements, the last dimension innermost.
    pub bytes: Vec<u8>,
}

/// A tensor that is loaded, and which bytes of the weights.
pub(crate) struct Wanted {
    tensor: Tensor,
    shape: Vec<u64>,
    range: ByteRange,
}

/// Fetches tensors of the safetensors files of a model, all folders included: the headers first, then only the pieces that hold
/// what is wanted. They stay in the cache, as part of a model that can be completed later; a
/// [`TensorFeed`](crate::TensorFeed) as the observer reads them. Gives the model if all of it is in the cache.
///
/// # Errors
/// Those of [`super::load`]; [`LoadError::NoSuchTensors`] when a choice chooses nothing.
pub async fn fetch_tensors(
    cache: &Cache,
    digest: Digest,
    choices: &[TensorChoice],
    sources: mpsc::Receiver<SourceEvent>,
    options: &FetchOptions,
    observer: &dyn Observer,
) -> Result<(Option<Model>, Report), LoadError> {
    let (started, mut report) = (Instant::now(), Report::default());
    let found = {
        let (cache, options) = (cache.clone(), options.clone());
        blocking(move || super::cached(&cache, &digest, &options)).await??
    };
    let model = found.filter(Model::is_complete);
    report.from_cache = model.is_some();
    if model.is_none() {
        let mut fetch =
            Fetch { cache, digest, wait: options.wait, options, observer, known: SourceTable::default() };
        fetch.tensors(choices, &mut Arrivals::new(sources), &mut report).await?;
        report.sources = fetch.known.reports();
    }
    report.elapsed = started.elapsed();
    Ok((model, report))
}

impl Fetch<'_> {
    async fn tensors(
        &mut self,
        choices: &[TensorChoice],
        events: &mut Arrivals,
        report: &mut Report,
    ) -> Result<(), LoadError> {
        self.cache.check_writable()?;
        self.known.connecting = true;
        let manifest = self.manifest(events).await?;
        self.observer.on_event(&Event::Manifest { digest: self.digest, manifest: &manifest });
        let lock = fill_wait::fill(self.cache, self.digest, self.options.wait, self.observer).await?;
        let store = {
            let (cache, manifest, durable) =
                (self.cache.clone(), Arc::clone(&manifest), self.options.durable);
            let open = move || {
                let geometry = Geometry::new(manifest);
                cache.heal(&lock, &geometry)?;
                // No whole file is wanted: nothing is reserved.
                cache.partial_of(lock, geometry, &BTreeSet::new(), durable)
            };
            Arc::new(blocking(open).await??)
        };
        self.observer.on_event(&Event::Filling { offer: store.offer() });
        match self.fill_tensors(&store, &manifest, choices, events, report).await {
            Ok(()) => {
                blocking(move || Arc::into_inner(store).map(Partial::close)).await?;
                Ok(())
            }
            Err(error) => {
                let error = blocking(move || close(store, error)).await?;
                if error.is_integrity() {
                    self.discard().await;
                }
                Err(error)
            }
        }
    }

    async fn fill_tensors(
        &mut self,
        store: &Arc<Partial>,
        manifest: &Arc<Manifest>,
        choices: &[TensorChoice],
        events: &mut Arrivals,
        report: &mut Report,
    ) -> Result<(), LoadError> {
        self.index(store, manifest, events).await?;
        let index = index(store).await?;
        while let Some(pieces) = headers::missing(store, None).await? {
            self.drive(Arc::clone(store), Some(pieces), index.clone(), None, events, report).await?;
        }
        let mut chosen = vec![false; choices.len()];
        let wanted = choose(headers::tensors(store).await?, choices, &mut chosen);
        if let Some(number) = chosen.iter().position(|chosen| !chosen) {
            let selection = choices[number].names.clone();
            return Err(LoadError::NoSuchTensors { digest: self.digest, selection });
        }
        let geometry = store.geometry().clone();
        let pieces: BTreeSet<PieceId> = wanted
            .iter()
            .flat_map(|wanted| geometry.pieces_of(wanted.range))
            .map(|slice| PieceId { shard: geometry.canonical(slice.piece.shard), ..slice.piece })
            .collect();
        let bytes = pieces.iter().map(|piece| geometry.piece_bytes(*piece)).sum();
        self.observer.on_event(&Event::Wanted { bytes });
        self.drive(Arc::clone(store), Some(pieces), index, None, events, report).await
    }
}

impl Wanted {
    /// Which bytes of the weights.
    pub(crate) fn range(&self) -> ByteRange {
        self.range
    }

    pub(crate) fn loaded(self, bytes: Vec<u8>) -> LoadedTensor {
        let kind = self.tensor.kind;
        LoadedTensor { name: kind.name, dtype: kind.dtype, shape: self.shape, bytes }
    }
}

/// What is wanted of these tensors, each once: the first choice that names one decides, and without a choice all are. Notes
/// in `chosen` which choices have chosen something.
pub(crate) fn choose(
    tensors: impl IntoIterator<Item = Tensor>,
    choices: &[TensorChoice],
    chosen: &mut [bool],
) -> Vec<Wanted> {
    let mut wanted = Vec::new();
    for tensor in tensors {
        let mut first = None;
        for (choice, chosen) in choices.iter().zip(&mut *chosen) {
            if choice.names.has(&tensor.kind.name) {
                *chosen = true;
                first = first.or(Some(choice));
            }
        }
        if choices.is_empty() || first.is_some() {
            wanted.push(rows(tensor, first.and_then(|choice| choice.rows.as_ref())));
        }
    }
    wanted
}

/// Some rows of a tensor, as far as it has them.
fn rows(tensor: Tensor, rows: Option<&Range<u64>>) -> Wanted {
    let (shape, range) = (tensor.kind.shape.clone(), tensor.range);
    let whole = Wanted { shape: shape.clone(), range, tensor };
    let (Some(rows), Some(count)) = (rows, shape.first().copied().filter(|count| *count > 0)) else {
        return whole;
    };
    if !range.len().is_multiple_of(count) {
        return whole;
    }
    let row_bytes = range.len() / count;
    let end = rows.end.min(count);
    let start = rows.start.min(end);
    let range = ByteRange::new(range.start + start * row_bytes, range.start + end * row_bytes);
    let shape = std::iter::once(end - start).chain(shape.into_iter().skip(1)).collect();
    Wanted { shape, range, ..whole }
}
