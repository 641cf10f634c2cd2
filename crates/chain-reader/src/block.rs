//! Blocks: the tag that is read, headers, and stored blocks.

use std::fmt;
use std::str::FromStr;

use alloy::eips::BlockId;
use alloy::primitives::{B256, U64};
use serde::{Deserialize, Serialize};

use crate::error::{ParseBlockTagError, excerpt};

/// How settled a block must be to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum BlockTag {
    /// The newest block: may be reorganised away.
    Latest,
    /// Unlikely to be reorganised away.
    Safe,
    /// Cannot be reorganised away without a third of all validators losing their stake.
    #[default]
    Finalized,
}

impl BlockTag {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Latest => "latest",
            Self::Safe => "safe",
            Self::Finalized => "finalized",
        }
    }
}

impl fmt::Display for BlockTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for BlockTag {
    type Err = ParseBlockTagError;

    fn from_str(text: &str) -> Result<Self, ParseBlockTagError> {
        [Self::Latest, Self::Safe, Self::Finalized]
            .into_iter()
            .find(|tag| tag.as_str() == text)
            .ok_or_else(|| ParseBlockTagError { found: excerpt(text, 40) })
    }
}

/// The three fields we need of a block header: other chains' headers differ in the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) struct Block {
    pub(crate) hash: B256,
    number: U64,
    timestamp: U64,
}

impl Block {
    #[cfg(test)]
    pub(crate) fn new(number: u64, hash: B256) -> Self {
        Self { hash, number: U64::from(number), timestamp: U64::from(number) }
    }

    pub(crate) fn number(&self) -> u64 {
        self.number.to()
    }

    /// The timestamp in its header, in seconds since 1970.
    pub(crate) fn timestamp(&self) -> u64 {
        self.timestamp.to()
    }

    /// Pins a read to exactly this block, and makes it fail when the block is no longer part of the chain.
    pub(crate) fn id(&self) -> BlockId {
        BlockId::hash_canonical(self.hash)
    }
}

/// A block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockRef {
    /// Its height.
    pub number: u64,
    /// Its hash.
    pub hash: B256,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_round_trip_and_default_to_finalized() {
        for tag in [BlockTag::Latest, BlockTag::Safe, BlockTag::Finalized] {
            assert_eq!(tag.to_string().parse(), Ok(tag));
        }
        assert_eq!(BlockTag::default(), BlockTag::Finalized);
        assert!("pending".parse::<BlockTag>().is_err());
    }
}
