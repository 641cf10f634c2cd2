//! The values of the stored state, and their transitions.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use alloy::primitives::{B256, U256};
use manifest::Digest;
use serde::{Deserialize, Serialize};

use crate::block::BlockRef;
use crate::model::{BlockHash, MatureModel, Price};

/// A file is not written again for the time alone when that is younger than this.
const FRESH_S: u64 = 60;
/// How far clocks, those of chains and of machines, may be apart.
pub(crate) const CLOCK_SKEW_S: u64 = 600;

/// A model that the contract named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The digest of its manifest.
    #[serde(with = "as_text")]
    pub manifest: Digest,
    /// Its price, in the contract's own unit.
    #[serde(with = "as_text")]
    pub price: U256,
    /// The block in which the contract was last read to name it.
    pub block: BlockRef,
    /// When that block was made, in seconds since 1970; 0 where an earlier version did not write it down.
    #[serde(default)]
    pub block_timestamp: u64,
    /// When it was read, in seconds since 1970.
    pub confirmed_at: u64,
}

impl Seen {
    pub(crate) fn now(model: &MatureModel) -> Self {
        let block = BlockRef { number: model.block_number, hash: model.block_hash.0 };
        let MatureModel { manifest, price, block_timestamp, .. } = *model;
        Self { manifest, price: price.0, block, block_timestamp, confirmed_at: unix_now() }
    }

    /// How old the chain's word is at `now`, in seconds since 1970: counted from the block, as an old block may be read
    /// at any time. `None` when a clock was wrong, then or now: the word is from the future.
    pub(crate) fn age(&self, now: u64) -> Option<Duration> {
        let is_from_the_future = |at: u64| at > now.saturating_add(CLOCK_SKEW_S);
        if is_from_the_future(self.confirmed_at) || is_from_the_future(self.block_timestamp) {
            return None;
        }
        Some(Duration::from_secs(now.saturating_sub(self.block_timestamp)))
    }

    pub(crate) fn model(&self, chain_id: u64) -> MatureModel {
        MatureModel {
            manifest: self.manifest,
            price: Price(self.price),
            chain_id,
            block_number: self.block.number,
            block_hash: BlockHash(self.block.hash),
            block_timestamp: self.block_timestamp,
        }
    }

    /// Whether the file need not be written for the time alone.
    fn is_fresh(&self, later: &Self) -> bool {
        // A clock that was set back is no reason to keep a time in the future.
        let passed_s = later.confirmed_at.checked_sub(self.confirmed_at);
        Self { confirmed_at: later.confirmed_at, ..*self } == *later && passed_s.is_some_and(|s| s < FRESH_S)
    }
}

/// The stored state of one chain, contract and block tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ChainMemory {
    /// The highest block that was read: no lower one is read again.
    pub floor: Option<BlockRef>,
    /// The model that the contract last named.
    pub last_good: Option<Seen>,
    /// The model that was last loaded: see [`ChainReader::note_loaded`](crate::ChainReader::note_loaded).
    pub loaded: Option<Seen>,
    /// A final block that was replaced, by quorum: nothing is loaded from the chain until it is forgotten.
    #[serde(default)]
    pub alarm: Option<Replaced>,
}

/// A final block that was replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replaced {
    /// The block that was read.
    pub before: BlockRef,
    /// The hash of the one that stands at its height now.
    pub now: B256,
}

impl ChainMemory {
    /// Takes in a block in which the contract names `model`, if it names one.
    pub(crate) fn note(&mut self, block: BlockRef, model: Option<Seen>) {
        self.floor = Some(block);
        let Some(model) = model else { return };
        if !self.last_good.is_some_and(|old| old.is_fresh(&model)) {
            self.last_good = Some(model);
        }
        let is_loaded = |loaded: &Seen| loaded.manifest == model.manifest && !loaded.is_fresh(&model);
        if self.loaded.as_ref().is_some_and(is_loaded) {
            self.loaded = Some(model);
        }
    }
}

pub(crate) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Values as their text form.
mod as_text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize as _, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(value: &impl Display, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>, T: FromStr<Err: Display>>(
        deserializer: D,
    ) -> Result<T, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}
