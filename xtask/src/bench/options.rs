//! What can be said after `cargo xtask bench swarm`, `sharing` and `crowd`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::bench::compare::options::{parse_rounds, parse_size};
use crate::recipes;

/// What to measure, and where.
#[derive(Debug, PartialEq)]
pub(super) struct Options {
    pub(super) size_bytes: u64,
    pub(super) rounds: usize,
    /// `None` is the directory of the build.
    dir: Option<PathBuf>,
    /// `None` is built.
    loader: Option<PathBuf>,
}

impl Options {
    /// `size_bytes` is what is fetched unless the arguments say something else.
    pub(super) fn parse(args: &[OsString], size_bytes: u64) -> Result<Self> {
        let mut options = Self { size_bytes, rounds: 3, dir: None, loader: None };
        let mut args = args.iter();
        while let Some(flag) = args.next() {
            let flag = flag.to_string_lossy();
            let value = args.next().with_context(|| format!("{flag} needs a value"))?;
            match &*flag {
                "--size" => options.size_bytes = parse_size(&value.to_string_lossy())?,
                "--rounds" => options.rounds = parse_rounds(&value.to_string_lossy())?,
                "--dir" => options.dir = Some(value.into()),
                "--loader" => options.loader = Some(value.into()),
                _ => bail!("it takes --size, --rounds, --dir and --loader, not `{flag}`"),
            }
        }
        Ok(options)
    }

    /// Where the results are left.
    pub(super) fn results(&self, root: &Path) -> Result<PathBuf> {
        match &self.dir {
            Some(dir) => std::path::absolute(dir).context("there is no current directory"),
            None => Ok(root.join("target/bench")),
        }
    }

    /// The program that is measured.
    pub(super) fn loader(&self, root: &Path) -> Result<PathBuf> {
        match &self.loader {
            Some(loader) => {
                loader.canonicalize().with_context(|| format!("cannot find {}", loader.display()))
            }
            None => recipes::release_loader(root),
        }
    }
}
