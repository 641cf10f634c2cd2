//! Which shard and source are on trial.

use super::SourceKey;

/// A shard that comes from one source alone, to be checked as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Trial {
    pub(super) shard: u32,
    pub(super) source: SourceKey,
}

/// The trial that runs, and the failed ones.
#[derive(Debug, Default)]
pub(super) struct Trials {
    pub(super) current: Option<Trial>,
    /// How many failed.
    pub(super) failed: u32,
}

impl Trials {
    pub(super) fn current(&self) -> Option<Trial> {
        self.current
    }

    /// Whether this shard is on trial.
    pub(super) fn is_on(&self, shard: u32) -> bool {
        self.current.is_some_and(|trial| trial.shard == shard)
    }

    /// Whether this source is on trial.
    pub(super) fn is_of(&self, source: SourceKey) -> bool {
        self.current.is_some_and(|trial| trial.source == source)
    }
}
