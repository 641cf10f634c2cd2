//! What whoever called can do about an error.

use std::error::Error;

#[cfg(feature = "chain")]
use chain_reader::{Availability, ChainError};
use loader::LoadError;
use manifest::{Blame, ManifestError, ParseDigestError};
use p2p_blob::IdentityError;
use store::CacheError;

use crate::NodeError;

/// What whoever called can do about an error: the exit status of the command, the class of the exception in Python.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// It will fail again, until somebody looks at it.
    Failed,
    /// The arguments or the settings are wrong.
    Usage,
    /// Something has the right digest but is not valid, or the cache is corrupt, or the chain tells different things.
    Integrity,
    /// Not available now: worth a retry.
    Unavailable,
}

impl Cause {
    /// That of an error of these crates; `None` for others, whose source may have one.
    pub fn of(error: &(dyn Error + 'static)) -> Option<Self> {
        if error.is::<ParseDigestError>() {
            return Some(Self::Usage);
        }
        if error.is::<ManifestError>() {
            return Some(Self::Integrity);
        }
        let known = None
            .or_else(|| error.downcast_ref().map(of_node))
            .or_else(|| error.downcast_ref().map(of_load))
            .or_else(|| error.downcast_ref().map(of_cache))
            .or_else(|| error.downcast_ref().map(|error: &IdentityError| error.blame().into()));
        #[cfg(feature = "chain")]
        let known = known.or_else(|| error.downcast_ref().map(of_chain));
        known
    }
}

fn of_node(error: &NodeError) -> Cause {
    match error {
        NodeError::Cache(error) => of_cache(error),
        #[cfg(feature = "chain")]
        NodeError::Chain(error) => of_chain(error),
        NodeError::Load(error) => of_load(error),
        error => error.blame().into(),
    }
}

fn of_load(error: &LoadError) -> Cause {
    match error {
        LoadError::Cache(error) => of_cache(error),
        LoadError::Locked { .. } => Cause::Unavailable,
        error if error.is_integrity() => Cause::Integrity,
        error => error.blame().into(),
    }
}

fn of_cache(error: &CacheError) -> Cause {
    match error {
        CacheError::NotALink { .. } | CacheError::NotEmpty { .. } | CacheError::Ambiguous { .. } => {
            Cause::Usage
        }
        CacheError::Corrupt { .. } | CacheError::Manifest { .. } | CacheError::Index { .. } => {
            Cause::Integrity
        }
        CacheError::Locked { .. } => Cause::Unavailable,
        _ => Cause::Failed,
    }
}

#[cfg(feature = "chain")]
fn of_chain(error: &ChainError) -> Cause {
    if error.is_configuration() { Cause::Usage } else { error.availability().into() }
}

#[cfg(feature = "chain")]
impl From<Availability> for Cause {
    fn from(availability: Availability) -> Self {
        match availability {
            Availability::NotNow => Self::Unavailable,
            Availability::Never => Self::Failed,
            Availability::Alarm => Self::Integrity,
        }
    }
}

impl From<Blame> for Cause {
    fn from(blame: Blame) -> Self {
        match blame {
            Blame::Peer => Self::Integrity,
            Blame::Network => Self::Unavailable,
            Blame::Caller => Self::Usage,
            Blame::Us => Self::Failed,
        }
    }
}
