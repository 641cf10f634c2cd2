//! Tensors of a model, handed out while it is fetched.

use std::sync::Arc;

use loader::{LoadedTensor, Observer, TensorChoice, TensorFeed, TensorReceiver};
use manifest::Digest;
use tokio::task::JoinHandle;

use crate::{Loaded, Node, NodeError};

/// What a stream hands out, and how.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct StreamOptions {
    choices: Vec<TensorChoice>,
    verify: bool,
}

impl StreamOptions {
    /// Only these tensors, or rows of them, and only the pieces that hold them are fetched. Default: all of the model.
    #[must_use]
    pub fn with_choices(self, choices: Vec<TensorChoice>) -> Self {
        Self { choices, ..self }
    }

    /// Whether each piece is hashed again while its bytes are copied out, so that neither the disk nor whoever wrote to it
    /// meanwhile is trusted. Default: no, what arrives is hashed before it is written.
    #[must_use]
    pub fn with_verify(self, verify: bool) -> Self {
        Self { verify, ..self }
    }
}

/// The tensors of a model's safetensors files, in the order of the files: each as soon as its pieces are verified, while the
/// rest is fetched. What is next is fetched first; who takes them slowly does not slow the fetch down.
///
/// At most three tensors are in memory: one that was taken, one that waits, and one that is being read. Dropping it ends the
/// fetch; what was verified stays for the next one.
///
/// **When the load fails later.** Every tensor was verified against the manifest before it was handed out. Where a manifest
/// contradicts itself, which only its publisher can bring about, the end is an error by which nothing of the model is to be
/// used, tensors that were handed out included ([`Cause::Integrity`](crate::Cause)).
pub struct TensorStream {
    tensors: TensorReceiver,
    load: Option<JoinHandle<Result<Option<Loaded>, NodeError>>>,
    loaded: Option<Loaded>,
}

impl Node {
    /// Loads a model, and hands out its tensors while it arrives: [`TensorStream`] says how.
    pub fn stream(
        &self,
        manifest: Digest,
        options: StreamOptions,
        observer: Arc<dyn Observer>,
    ) -> TensorStream {
        TensorStream::start(self.clone(), manifest, options, observer)
    }
}

impl TensorStream {
    fn start(node: Node, manifest: Digest, options: StreamOptions, observer: Arc<dyn Observer>) -> Self {
        let (sender, tensors) = loader::tensor_channel();
        let load = async move {
            let StreamOptions { choices, verify } = options;
            let feed = TensorFeed::new(choices, verify, &node.fetch, &*observer, sender);
            let (model, report) = node.feed(manifest, feed).await?;
            Ok(model.map(|model| Loaded { model, report }))
        };
        Self { tensors, load: Some(tokio::spawn(load)), loaded: None }
    }

    /// The next tensor; `None` after the last one, once all that is wanted is in the cache. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`NodeError::Load`]. Nothing comes after it.
    pub async fn next(&mut self) -> Option<Result<LoadedTensor, NodeError>> {
        if let Some(tensor) = self.tensors.recv().await {
            return Some(tensor.map_err(NodeError::from));
        }
        let load = self.load.as_mut()?;
        let loaded = load.await;
        self.load = None;
        match loaded.unwrap_or(Err(NodeError::Worker)) {
            Ok(loaded) => {
                self.loaded = loaded;
                None
            }
            Err(error) => Some(Err(error)),
        }
    }

    /// The model, after the last tensor, if all of it is in the cache.
    pub fn loaded(&self) -> Option<&Loaded> {
        self.loaded.as_ref()
    }
}

impl Drop for TensorStream {
    fn drop(&mut self) {
        if let Some(load) = &self.load {
            load.abort();
        }
    }
}
