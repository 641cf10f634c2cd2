//! Loads a model from sources into the store, and publishes one.
//!
//! Data flow: a [`Source`] fills a piece buffer; a worker thread hashes it, several pieces at once, and writes it in
//! place in the weights file; the [`planner`] decides which piece to request from which source, and when to rebuild
//! from parity. When all weights are there the file is synced and mapped.
#![forbid(unsafe_code)]

pub mod encode;
mod error;
mod fetch;
mod inspect;
mod observer;
mod progress;
mod reconstruct;
mod reuse;
mod selection;
mod source;
mod stream;
mod tensors;

pub use error::LoadError;
pub use fetch::{FetchOptions, LoadedTensor, TensorChoice, cached, fetch_tensors, load};
pub use inspect::{Executable, ExecutableKind, ModelFolder, executable, troubles};
pub use observer::{Event, Observer, Report, Silent, SourceReport};
pub use progress::{Numbers, Progress};
pub use reuse::{Overlap, overlap};
pub use selection::{PatternError, Selection};
pub use source::{BlobStream, RangeRead, Source, SourceError, SourceEvent};
pub use stream::{Ahead, TensorFeed, TensorReceiver, TensorSender, tensor_channel};
