//! All sources: which are ready for a request, how full the memory is, when the next timeout is.
//!
//! With many sources most have no needed piece, or no free capacity: they are not looked at before they change.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Index, Range};
use std::time::Instant;

use manifest::{Manifest, PieceId};

use super::source::Source;
use super::{PlanConfig, SourceKey};

/// With no more sources than this windows grow faster.
const FEW_SOURCES: usize = 4;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Roster {
    config: PlanConfig,
    /// The size of the largest piece.
    piece_bytes: u64,
    /// The parity shards.
    parity: Range<u32>,
    sources: BTreeMap<SourceKey, Source>,
    /// Those that have changed since they were last found without free capacity or a needed piece.
    ready: BTreeSet<SourceKey>,
    load: Load,
    /// No timeout or pause of a source ends before.
    check_at: Option<Instant>,
}

/// Bytes in flight and windows of the sources.
#[derive(Debug, Clone, Copy, Default)]
struct Load {
    owed: u64,
    /// Part of `owed`: of sources that are unproven and not stalled.
    unproven: u64,
    /// Windows of the proven ones.
    windows: u64,
    /// What the way to them takes.
    pipes: u64,
    /// Sources that are connected.
    up: usize,
    /// How many are overdue.
    overdue: usize,
}

/// Rule 2: what the memory allows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    /// One more piece of any source.
    pub(super) allows_any: bool,
    /// One more piece of an unproven source: together they fill a quarter at most.
    pub(super) allows_unproven: bool,
    /// What part of its window a source may use, so that all windows together fit.
    pub(super) share: f64,
    /// There are few sources: together they cannot ask for much more than the line takes.
    pub(super) rush: bool,
}

impl Roster {
    pub(super) fn new(config: PlanConfig, manifest: &Manifest) -> Self {
        let data = manifest.data_shard_count();
        Self {
            config,
            piece_bytes: largest_piece_bytes(manifest),
            parity: data..data + manifest.parity(),
            sources: BTreeMap::new(),
            ready: BTreeSet::new(),
            load: Load::default(),
            check_at: None,
        }
    }

    pub(super) fn add(&mut self, key: SourceKey, now: Instant) {
        self.sources.entry(key).or_insert_with(|| Source::new(now));
    }

    pub(super) fn get(&self, key: SourceKey) -> Option<&Source> {
        self.sources.get(&key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (SourceKey, &Source)> {
        self.sources.iter().map(|(key, source)| (*key, source))
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = SourceKey> {
        self.sources.keys().copied()
    }

    /// Changes a source, and marks it ready.
    pub(super) fn update<T>(&mut self, key: SourceKey, change: impl FnOnce(&mut Source) -> T) -> Option<T> {
        let source = self.sources.get_mut(&key)?;
        let before = Load::of(source, self.piece_bytes);
        let result = change(source);
        let after = Load::of(source, self.piece_bytes);
        self.load.owed = self.load.owed - before.owed + after.owed;
        self.load.unproven = self.load.unproven - before.unproven + after.unproven;
        self.load.windows = self.load.windows - before.windows + after.windows;
        self.load.pipes = self.load.pipes - before.pipes + after.pipes;
        self.load.up = self.load.up - before.up + after.up;
        self.load.overdue = self.load.overdue - before.overdue + after.overdue;
        self.check_at =
            self.check_at.into_iter().chain(source.next_wakeup(&self.config, self.piece_bytes)).min();
        self.ready.insert(key);
        Some(result)
    }

    /// Something has changed that may matter to all.
    pub(super) fn mark_all_ready(&mut self) {
        self.ready.extend(self.sources.keys());
        self.sources.values_mut().for_each(|source| source.stripes_done = 0);
    }

    /// A piece may be requested of its holders again.
    pub(super) fn mark_holders_ready(&mut self, piece: PieceId) {
        let holders = self.sources.iter().filter(|(_, source)| source.holds(piece));
        self.ready.extend(holders.map(|(key, _)| *key));
    }

    /// Data may be lost: holders of parity may be needed.
    pub(super) fn mark_parity_ready(&mut self) {
        for (key, source) in &mut self.sources {
            if self.parity.clone().any(|shard| !source.holdings.has_none(shard)) {
                source.stripes_done = 0;
                self.ready.insert(*key);
            }
        }
    }

    /// A source has no free capacity, or no needed piece.
    pub(super) fn unmark_ready(&mut self, key: SourceKey) {
        self.ready.remove(&key);
    }

    /// The sources to look at, round robin from `first`.
    pub(super) fn ready(&self, first: SourceKey) -> Vec<SourceKey> {
        self.ready.range(first..).chain(self.ready.range(..first)).copied().collect()
    }

    #[cfg(test)]
    pub(super) fn is_ready(&self, key: SourceKey) -> bool {
        self.ready.contains(&key)
    }

    /// See [`Source::stripes_done`].
    pub(super) fn set_stripes_done(&mut self, key: SourceKey, count: usize) {
        if let Some(source) = self.sources.get_mut(&key) {
            source.stripes_done = count;
        }
    }

    /// What the memory allows beside so many pieces that have arrived.
    pub(super) fn budget(&self, arrived: usize) -> Budget {
        let most = self.config.max_in_flight_bytes;
        let usual = self.config.usual_in_flight_bytes();
        let rush = self.load.up <= FEW_SOURCES;
        let pipes = if rush { 2 * self.load.pipes } else { self.load.pipes };
        let max_bytes = pipes.clamp(usual, most);
        let filled_bytes = self.load.owed + arrived as u64 * self.piece_bytes;
        #[expect(clippy::cast_precision_loss, reason = "a share")]
        let share = max_bytes as f64 / self.load.windows.max(max_bytes) as f64;
        Budget {
            allows_any: filled_bytes + self.piece_bytes <= max_bytes,
            allows_unproven: self.load.unproven == 0 || self.load.unproven + self.piece_bytes <= usual / 4,
            share,
            rush,
        }
    }

    /// Whether a source may be asked for one more piece now.
    pub(super) fn has_capacity(&self, key: SourceKey, budget: Budget) -> bool {
        let source = &self[&key];
        source.is_live() && source.has_capacity(self.piece_bytes, budget.share, budget.rush)
    }

    /// Whether a source that stalls now may keep its probe: those of all stalled sources hold at most a quarter of the
    /// memory.
    pub(super) fn may_keep_probe(&self, key: SourceKey) -> bool {
        let others = self.iter().filter(|(other, source)| *other != key && source.is_stalled());
        let held: u64 = others.map(|(_, source)| source.owed_in_memory(self.piece_bytes)).sum();
        held + self.piece_bytes <= self.config.usual_in_flight_bytes() / 4
    }

    /// When a source will be overdue.
    pub(super) fn overdue_at(&self, key: SourceKey) -> Option<Instant> {
        self[&key].overdue_at(&self.config, self.piece_bytes)
    }

    /// Whether any source is overdue.
    pub(super) fn has_overdue(&self) -> bool {
        self.load.overdue > 0
    }

    /// The overdue source whose last piece is longest ago. Without `proven`, of the unproven ones.
    pub(super) fn longest_overdue(&self, proven: bool) -> Option<SourceKey> {
        let is_meant =
            |source: &Source| source.is_overdue() && (proven || !source.is_proven() && !source.is_stalled());
        let overdue = self.iter().filter(|(_, source)| is_meant(source));
        overdue.min_by_key(|(_, source)| source.last_arrival()).map(|(key, _)| key)
    }

    /// The sources with a timeout or pause that has ended.
    pub(super) fn due(&self, now: Instant) -> Vec<SourceKey> {
        if self.check_at.is_none_or(|at| now < at) {
            return Vec::new();
        }
        let is_due =
            |source: &Source| source.next_wakeup(&self.config, self.piece_bytes).is_some_and(|at| now >= at);
        self.iter().filter(|(_, source)| is_due(source)).map(|(key, _)| key).collect()
    }

    /// The sources that were due are handled.
    pub(super) fn done(&mut self, now: Instant) {
        if self.check_at.is_some_and(|at| now >= at) {
            self.check_at = self
                .iter()
                .filter_map(|(_, source)| source.next_wakeup(&self.config, self.piece_bytes))
                .min();
        }
    }

    /// No source is due before.
    pub(super) fn check_at(&self) -> Option<Instant> {
        self.check_at
    }
}

/// Of all pieces: shards may be smaller than one.
fn largest_piece_bytes(manifest: &Manifest) -> u64 {
    let largest = manifest.shards().iter().map(|shard| shard.size_bytes).max();
    u64::from(manifest.piece_size_bytes()).min(largest.unwrap_or(u64::MAX))
}

impl Index<&SourceKey> for Roster {
    type Output = Source;

    fn index(&self, key: &SourceKey) -> &Source {
        &self.sources[key]
    }
}

impl Load {
    fn of(source: &Source, piece_bytes: u64) -> Self {
        let owed = source.owed_in_memory(piece_bytes);
        let (overdue, up) = (usize::from(source.is_overdue()), usize::from(source.is_up()));
        if source.is_proven() {
            let (windows, pipes) = (source.window_bytes(piece_bytes), source.pipe_bytes());
            Self { owed, unproven: 0, windows, pipes, up, overdue }
        } else {
            let unproven = if source.is_stalled() { 0 } else { owed };
            Self { owed, unproven, windows: 0, pipes: 0, up, overdue }
        }
    }
}
