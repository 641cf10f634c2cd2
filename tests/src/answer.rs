//! What `loader fetch --json` answers, as `docs/cli.md` has it.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;

use crate::Outcome;

/// The answer of a fetch.
#[derive(Debug, Deserialize)]
#[expect(missing_docs, reason = "docs/cli.md has the fields")]
pub struct Fetched {
    pub manifest: String,
    pub path: PathBuf,
    pub weights: Option<PathBuf>,
    pub complete: bool,
    pub total_size_bytes: u64,
    pub from_cache: bool,
    pub fetched_bytes: u64,
    pub resumed_bytes: u64,
    pub reused_bytes: u64,
    pub rebuilt_bytes: u64,
    pub wasted_bytes: u64,
    pub elapsed_ms: u64,
    pub sources: Vec<Source>,
    pub chain: Option<Value>,
}

/// What one source contributed.
#[derive(Debug, Deserialize)]
#[expect(missing_docs, reason = "docs/cli.md has the fields")]
pub struct Source {
    pub source: String,
    pub good_bytes: u64,
    pub bad_bytes: u64,
    pub duplicate_bytes: u64,
    pub banned: bool,
    pub last_error: Option<String>,
}

impl Fetched {
    /// Reads the answer of a successful fetch.
    ///
    /// # Panics
    /// When it failed.
    #[track_caller]
    pub fn of(outcome: Outcome) -> Self {
        serde_json::from_value(outcome.answer()).unwrap()
    }

    /// What a source contributed.
    ///
    /// # Panics
    /// When it is not in the report.
    #[track_caller]
    pub fn source(&self, id: &str) -> &Source {
        let found = self.sources.iter().find(|source| source.source == id);
        found.unwrap_or_else(|| panic!("{id} is not in {:?}", self.sources))
    }
}
