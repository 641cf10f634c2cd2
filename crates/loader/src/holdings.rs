//! What somebody holds of a model, told in full or as what was added.

use crate::plan::Holding;

/// Which pieces of a manifest's shards somebody holds, or has come to hold since it was last asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holdings {
    /// Grows with every change; to be given back when asking again. 0: what is held has no versions.
    pub version: u64,
    /// Whether this is all that is held; else it is what was added after the version asked about.
    pub is_full: bool,
    /// One entry per shard of the manifest, in index order.
    pub shards: Vec<Holding>,
}

impl Holdings {
    /// Of somebody who does not say what it holds of so many shards.
    pub fn unknown(shards: usize) -> Self {
        Self { version: 0, is_full: true, shards: vec![Holding::Unknown; shards] }
    }

    /// Of somebody who holds nothing of so many shards.
    pub fn none(shards: usize) -> Self {
        Self { version: 0, is_full: true, shards: vec![Holding::None; shards] }
    }

    /// Whether every piece is held: nothing can be added.
    pub fn is_everything(&self) -> bool {
        self.shards.iter().all(|shard| *shard == Holding::All)
    }

    /// Takes in the answer to asking for what was added after [`Self::version`]. Returns whether anything is different.
    pub fn update(&mut self, answer: Self) -> bool {
        self.version = answer.version;
        let shards = if answer.is_full {
            answer.shards
        } else {
            let known = self.shards.iter().cloned();
            known.zip(answer.shards).map(|(known, added)| known.or(added)).collect()
        };
        let is_different = shards != self.shards;
        self.shards = shards;
        is_different
    }
}
