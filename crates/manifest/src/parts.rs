//! What a manifest is made of.

use std::fmt;
use std::str::FromStr;

use crate::{Digest, ManifestError, limits};

/// One of the blobs that make a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shard {
    /// The SHA-256 of its bytes.
    pub digest: Digest,
    /// How many bytes it has, padding included.
    pub size_bytes: u64,
    /// Whether it holds redundancy instead of weights.
    pub is_parity: bool,
}

/// How parity shards are made from rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Codec {
    /// Parity shard *j* is a copy of row *j* mod `data`.
    Replica,
    /// Reed-Solomon over GF(2^8): any `data` of the rows and parity shards rebuild all.
    #[default]
    Rs,
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Replica => "replica",
            Self::Rs => "rs",
        })
    }
}

impl FromStr for Codec {
    type Err = ManifestError;

    fn from_str(text: &str) -> Result<Self, ManifestError> {
        match text {
            "replica" => Ok(Self::Replica),
            "rs" => Ok(Self::Rs),
            _ => Err(ManifestError::UnknownCodec { found: limits::excerpt(text) }),
        }
    }
}

/// The piece index that a manifest names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pieces {
    /// Bytes in a piece, a multiple of 64; the last piece of a shard may be shorter.
    pub size_bytes: u32,
    /// The SHA-256 of the piece index blob.
    pub index: Digest,
}
