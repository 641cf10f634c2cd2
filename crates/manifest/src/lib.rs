//! The manifest: parsing, Merkle root, geometry and piece index.
#![forbid(unsafe_code)]

mod digest;
mod error;
mod files;
mod geometry;
mod ids;
mod json;
mod limits;
mod manifest;
pub mod merkle;
mod parse;
mod parts;
mod path;
pub mod piece_index;
mod piece_set;
mod shard_hasher;
mod single_blob;
mod write;

pub use digest::{Digest, ParseDigestError};
pub use error::{IndexError, ManifestError};
pub use files::{FileEntry, MAX_FILES, ModelFile, check_paths};
pub use geometry::{Cell, Geometry, PieceId, PieceSlice};
pub use ids::{Blame, ByteRange, SourceId};
pub use limits::{
    MAX_MANIFEST_BYTES, MAX_PIECE_BYTES, MAX_PIECES, MAX_ROWS, MAX_SHARDS, MAX_SIZE_BYTES,
    TRANSFER_PIECE_BYTES,
};
pub use manifest::{Layout, MODEL_KINDS, Manifest};
pub use parts::{Codec, Pieces, Shard};
pub use path::{FilePath, MAX_PART_BYTES, MAX_PATH_BYTES, MAX_PATH_PARTS, PathError};
pub use piece_set::{Have, HaveChange, PieceSet};
