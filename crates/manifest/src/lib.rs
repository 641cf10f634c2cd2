//! The manifest: parsing, Merkle root, geometry and piece index.
#![forbid(unsafe_code)]

mod digest;
mod ids;

pub use digest::{Digest, ParseDigestError};
pub use ids::{Blame, ByteRange, SourceId};
