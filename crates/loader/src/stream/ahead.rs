//! What a reader wants next, told to the fetch.

use std::sync::{Arc, Mutex, PoisonError};

use manifest::ByteRange;

/// Parts of the weights that are fetched sooner than others; shared by who reads them and who fetches. Empty at first.
#[derive(Debug, Clone, Default)]
pub struct Ahead(Arc<Mutex<(u64, Vec<ByteRange>)>>);

impl Ahead {
    pub(super) fn set(&self, ranges: Vec<ByteRange>) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *state = (state.0 + 1, ranges);
    }

    /// The ranges, if they have changed since that version.
    pub(crate) fn since(&self, version: &mut u64) -> Option<Vec<ByteRange>> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (std::mem::replace(version, state.0) != state.0).then(|| state.1.clone())
    }
}
