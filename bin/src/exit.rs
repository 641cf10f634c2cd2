//! The exit status, decided by the type of an error and never by its text.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use chain_reader::{SignerError, SubmitError};
use loader::encode::PublishError;
use manifest::Digest;
use node::Cause;

use crate::units::show_duration;

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

/// The process that fetches has not put the model into the cache.
#[derive(Debug, thiserror::Error)]
#[error("{} at {} after {}: does another process fetch there?", what(*.digest), cache_dir.display(), show_duration(*.within))]
pub(crate) struct NotPutThere {
    pub(crate) digest: Option<Digest>,
    pub(crate) cache_dir: PathBuf,
    pub(crate) within: Duration,
}

fn what(digest: Option<Digest>) -> String {
    digest.map_or_else(
        || "there is no cache".to_owned(),
        |digest| format!("model {digest} is not in the cache"),
    )
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
    if error.is::<Usage>() {
        return Some(Status::Usage);
    }
    if error.is::<Damaged>() {
        return Some(Status::Integrity);
    }
    if error.is::<NotRunning>() || error.is::<NotPutThere>() {
        return Some(Status::Unavailable);
    }
    let cause = Cause::of(error)
        .or_else(|| error.downcast_ref().map(|error: &SubmitError| error.availability().into()))
        .or_else(|| error.downcast_ref().map(|error: &SignerError| error.blame().into()))
        .or_else(|| error.downcast_ref().map(of_publish));
    cause.map(Status::from)
}

fn of_publish(error: &PublishError) -> Cause {
    match error {
        PublishError::Cache(error) => Cause::of(error).unwrap_or(Cause::Failed),
        PublishError::WrongDigest { .. } => Cause::Integrity,
        error => error.blame().into(),
    }
}

impl From<Cause> for Status {
    fn from(cause: Cause) -> Self {
        match cause {
            Cause::Failed => Self::Failed,
            Cause::Usage => Self::Usage,
            Cause::Integrity => Self::Integrity,
            Cause::Unavailable => Self::Unavailable,
        }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::{Context as _, anyhow};
    use chain_reader::ChainError;
    use loader::LoadError;
    use node::NodeError;
    use store::{CacheError, LockHolders};

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
