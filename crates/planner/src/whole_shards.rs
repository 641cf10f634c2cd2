//! Shards that are checked as a whole: which sources contributed, and which must have lied when one is wrong.
//!
//! A wrong shard with one contributor convicts it, as soon as the shard is right without it. After a wrong one with several
//! contributors each shard is fetched from one source alone, so that a liar that goes on is the only contributor.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use super::SourceKey;

/// What the check of a whole shard says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is right, and these sources had sent other bytes for it.
    Right(Vec<SourceKey>),
    /// It is wrong, and this source is the only contributor, beside rebuilt pieces.
    Alone(SourceKey),
    /// It is wrong, and any of several contributors may have lied.
    Mixed,
    /// It is wrong, and has no contributor.
    Rebuilt,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct WholeShards {
    /// By incomplete shard, its contributors.
    contributors: BTreeMap<u32, BTreeSet<SourceKey>>,
    /// Shards with pieces that were rebuilt.
    rebuilt: HashSet<u32>,
    suspects: HashMap<u32, Vec<SourceKey>>,
    /// Whether shards are fetched from one source each.
    one_source_per_shard: bool,
    full: VecDeque<u32>,
    checking: usize,
}

impl WholeShards {
    /// A piece is there. `source` is `None` for a rebuilt one.
    pub(super) fn add(&mut self, shard: u32, source: Option<SourceKey>) {
        match source {
            Some(source) => {
                self.contributors.entry(shard).or_default().insert(source);
            }
            None => {
                self.rebuilt.insert(shard);
            }
        }
    }

    /// All pieces of a shard are there.
    pub(super) fn complete(&mut self, shard: u32) {
        self.full.push_back(shard);
    }

    pub(super) fn next_full(&mut self) -> Option<u32> {
        let shard = self.full.pop_front()?;
        self.checking += 1;
        Some(shard)
    }

    /// Whether no shard is being checked, or about to be.
    pub(super) fn is_quiet(&self) -> bool {
        self.checking == 0 && self.full.is_empty()
    }

    /// The pieces of a shard are dropped.
    pub(super) fn forget(&mut self, shard: u32) {
        self.contributors.remove(&shard);
        self.rebuilt.remove(&shard);
    }

    /// A shard was checked. `resumed`: it has pieces that an earlier run left.
    pub(super) fn checked(&mut self, shard: u32, good: bool, resumed: bool) -> Verdict {
        self.checking = self.checking.saturating_sub(1);
        let contributors = self.contributors.remove(&shard).unwrap_or_default();
        let is_pure = !self.rebuilt.remove(&shard) && !resumed;
        if good {
            let mut liars = self.suspects.remove(&shard).unwrap_or_default();
            liars.retain(|liar| !contributors.contains(liar));
            return Verdict::Right(liars);
        }
        match contributors.iter().copied().collect::<Vec<_>>()[..] {
            [] => {
                self.suspects.remove(&shard);
                Verdict::Rebuilt
            }
            [source] => {
                // Its own bytes may be right beside those of an earlier run: it is avoided, not convicted.
                if is_pure {
                    self.suspects.entry(shard).or_default().push(source);
                }
                Verdict::Alone(source)
            }
            _ => {
                self.one_source_per_shard = true;
                Verdict::Mixed
            }
        }
    }

    /// Whether shards are fetched from one source each.
    pub(super) fn is_one_source_per_shard(&self) -> bool {
        self.one_source_per_shard
    }

    /// The shards with one contributor.
    pub(super) fn owned(&self) -> impl Iterator<Item = (u32, SourceKey)> {
        self.contributors
            .iter()
            .filter(|(_, sources)| sources.len() == 1)
            .filter_map(|(shard, sources)| sources.first().map(|source| (*shard, *source)))
    }

    /// Whether a shard has several contributors.
    pub(super) fn is_mixed(&self, shard: u32) -> bool {
        self.contributors.get(&shard).is_some_and(|sources| sources.len() > 1)
    }

    /// Whether a source is a shard's contributor, or it has none.
    pub(super) fn may_own(&self, shard: u32, source: SourceKey) -> bool {
        self.contributors.get(&shard).is_none_or(|sources| sources.contains(&source))
    }
}
