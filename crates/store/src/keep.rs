//! What is never evicted.

use std::fmt;
use std::path::PathBuf;

/// Why a model is not evicted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keep {
    /// It is pinned.
    Pinned,
    /// A link leads to it, or led to it before.
    Linked(PathBuf),
    /// It is the newest of a series, such as that of a contract, or the live one.
    Followed(String),
    /// A process has it mapped, serves it or fills it.
    InUse,
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pinned => f.write_str("pinned"),
            Self::Linked(path) => write!(f, "linked to by {}", path.display()),
            Self::Followed(series) => write!(f, "the one of {series}"),
            Self::InUse => f.write_str("in use"),
        }
    }
}
