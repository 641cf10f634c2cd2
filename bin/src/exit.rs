//! The exit status, decided by the type of an error and never by its text.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use chain_reader::{Availability, ChainError, SignerError, SubmitError};
use loader::LoadError;
use loader::encode::PublishError;
use manifest::{Blame, ManifestError, ParseDigestError};
use node::NodeError;
use p2p_blob::IdentityError;
use store::CacheError;

/// How the command ended, as its caller sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// All that was asked is done.
    Done = 0,
    /// It failed, and will again.
    Failed = 1,
    /// The command line or the settings are wrong.
    Usage = 2,
    /// Something has the right digest but is not valid, or the cache is corrupt.
    Integrity = 3,
    /// Not available now: worth a retry.
    Unavailable = 4,
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> Self {
        Self::from(status as u8)
    }
}

/// The command line or the settings are wrong, in a way that clap cannot know.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(String);

impl Usage {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

/// What was checked is not what it should be; the answer has said what.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Damaged(pub(crate) String);

/// Nobody uses the cache.
#[derive(Debug, thiserror::Error)]
#[error("no node is running with the cache {}: start one with `loader serve`", cache_dir.display())]
pub(crate) struct NotRunning {
    pub(crate) cache_dir: PathBuf,
}

/// SIGTERM or SIGINT came before the work was done.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub(crate) struct Interrupted;

impl Status {
    /// The status of the first error in the chain that has one.
    pub(crate) fn of(error: &anyhow::Error) -> Self {
        error.chain().find_map(status_of).unwrap_or(Self::Failed)
    }
}

fn status_of(error: &(dyn Error + 'static)) -> Option<Status> {
    if error.is::<Usage>() || error.is::<ParseDigestError>() {
        return Some(Status::Usage);
    }
    if error.is::<Damaged>() || error.is::<ManifestError>() {
        return Some(Status::Integrity);
    }
    if error.is::<NotRunning>() {
        return Some(Status::Unavailable);
    }
    None.or_else(|| error.downcast_ref().map(of_node))
        .or_else(|| error.downcast_ref().map(of_load))
        .or_else(|| error.downcast_ref().map(of_cache))
        .or_else(|| error.downcast_ref().map(of_chain))
        .or_else(|| error.downcast_ref().map(|error: &IdentityError| of_blame(error.blame())))
        .or_else(|| error.downcast_ref().map(|error: &SubmitError| of_availability(error.availability())))
        .or_else(|| error.downcast_ref().map(|error: &SignerError| of_blame(error.blame())))
        .or_else(|| error.downcast_ref().map(of_publish))
}

fn of_node(error: &NodeError) -> Status {
    match error {
        NodeError::Cache(error) => of_cache(error),
        NodeError::Chain(error) => of_chain(error),
        NodeError::Load(error) => of_load(error),
        error => of_blame(error.blame()),
    }
}

fn of_load(error: &LoadError) -> Status {
    match error {
        LoadError::Cache(error) => of_cache(error),
        LoadError::Locked { .. } => Status::Unavailable,
        error if error.is_integrity() => Status::Integrity,
        error => of_blame(error.blame()),
    }
}

fn of_cache(error: &CacheError) -> Status {
    match error {
        CacheError::NotALink { .. } | CacheError::NotEmpty { .. } | CacheError::Ambiguous { .. } => {
            Status::Usage
        }
        CacheError::Corrupt { .. } | CacheError::Manifest { .. } | CacheError::Index { .. } => {
            Status::Integrity
        }
        CacheError::Locked { .. } => Status::Unavailable,
        _ => Status::Failed,
    }
}

fn of_publish(error: &PublishError) -> Status {
    match error {
        PublishError::Cache(error) => of_cache(error),
        PublishError::WrongDigest { .. } => Status::Integrity,
        error => of_blame(error.blame()),
    }
}

fn of_chain(error: &ChainError) -> Status {
    match error {
        error if error.is_configuration() => Status::Usage,
        error => of_availability(error.availability()),
    }
}

fn of_availability(availability: Availability) -> Status {
    match availability {
        Availability::NotNow => Status::Unavailable,
        Availability::Never => Status::Failed,
        Availability::Alarm => Status::Integrity,
    }
}

fn of_blame(blame: Blame) -> Status {
    match blame {
        Blame::Peer => Status::Integrity,
        Blame::Network => Status::Unavailable,
        Blame::Caller => Status::Usage,
        Blame::Us => Status::Failed,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use anyhow::{Context as _, anyhow};
    use manifest::Digest;
    use store::LockHolders;

    use super::*;

    #[test]
    fn the_status_is_that_of_the_first_error_that_has_one() {
        let digest = Digest::ZERO;
        let corrupt = || CacheError::Corrupt { digest, path: PathBuf::new(), damage: String::new() };
        let unavailable = LoadError::ManifestUnavailable { digest, asked: Vec::new() };
        let held = LoadError::Locked { digest, holders: LockHolders::default(), wait: Duration::ZERO };
        let cases = [
            (anyhow!("anything"), Status::Failed),
            (Usage::new("no").into(), Status::Usage),
            (NotRunning { cache_dir: PathBuf::new() }.into(), Status::Unavailable),
            ("zz".parse::<Digest>().unwrap_err().into(), Status::Usage),
            (corrupt().into(), Status::Integrity),
            (LoadError::from(corrupt()).into(), Status::Integrity),
            (CacheError::NotCached { digest, path: PathBuf::new() }.into(), Status::Failed),
            (unavailable.into(), Status::Unavailable),
            (held.into(), Status::Unavailable),
            (ChainError::NoEndpoint.into(), Status::Usage),
            (NodeError::from(LoadError::from(corrupt())).into(), Status::Integrity),
            (NodeError::NoContract.into(), Status::Usage),
            (manifest::Manifest::parse(b"{}").unwrap_err().into(), Status::Integrity),
        ];
        for (error, expected) in cases {
            assert_eq!(Status::of(&error), expected, "{error}");
            let wrapped = Err::<(), _>(error).context("while trying").unwrap_err();
            assert_eq!(Status::of(&wrapped), expected, "{wrapped:#}");
        }
    }
}
