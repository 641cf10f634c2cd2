//! Loads a model from sources into the store, and publishes one.
//!
//! The way of the bytes: a [`Source`] fills a piece buffer; a worker thread hashes it, several pieces at once, and
//! writes it to its place in the weights file; the [`planner`] decides what is asked of whom, and when lost
//! pieces are rebuilt from the others. When all weights are there the file is made durable and mapped.
#![forbid(unsafe_code)]

pub mod encode;
mod error;
mod fetch;
mod observer;
mod progress;
mod reconstruct;
mod reuse;
mod source;

pub use error::LoadError;
pub use fetch::{FetchOptions, cached, load};
pub use observer::{Event, Observer, Report, Silent, SourceReport};
pub use progress::{Numbers, Progress};
pub use reuse::{Overlap, overlap};
pub use source::{BlobStream, RangeRead, Source, SourceError, SourceEvent};
