//! What the contract has named, by block.

use std::collections::HashSet;

/// What was named in which block, through reorganisations.
pub(super) struct Chronicle {
    /// By height.
    now: Vec<String>,
    /// On whatever branch.
    ever: HashSet<(u64, String)>,
}

impl Chronicle {
    /// Nothing was named up to this height.
    pub(super) fn new(height: u64) -> Self {
        let mut chronicle = Self { now: vec![String::new()], ever: HashSet::new() };
        chronicle.grow(height);
        chronicle
    }

    pub(super) fn height(&self) -> u64 {
        self.now.len() as u64 - 1
    }

    /// What the newest block names.
    pub(super) fn named(&self) -> &str {
        self.now.last().map_or("", String::as_str)
    }

    /// The next block names this.
    pub(super) fn name(&mut self, model: &str) {
        self.now.push(model.to_owned());
        self.ever.insert((self.height(), model.to_owned()));
    }

    /// So many blocks come that change nothing.
    pub(super) fn grow(&mut self, blocks: u64) {
        let named = self.named().to_owned();
        (0..blocks).for_each(|_| self.name(&named));
    }

    /// So many of the newest blocks become others that change nothing.
    pub(super) fn reorganise(&mut self, blocks: u64) {
        self.now.truncate(self.now.len() - usize::try_from(blocks).unwrap());
        self.grow(blocks);
    }

    /// Whether this block names the model.
    pub(super) fn names(&self, block: u64, model: &str) -> bool {
        usize::try_from(block).is_ok_and(|block| self.now.get(block).is_some_and(|named| named == model))
    }

    /// Whether a block at this height ever named it.
    pub(super) fn has_named(&self, block: u64, model: &str) -> bool {
        self.ever.contains(&(block, model.to_owned()))
    }
}
