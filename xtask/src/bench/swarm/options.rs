//! What can be said after `cargo xtask bench swarm` and `sharing`.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use crate::bench::compare::options::{parse_rounds, parse_size};

/// What to measure, and where.
#[derive(Debug, PartialEq)]
pub(super) struct Options {
    pub(super) size_bytes: u64,
    pub(super) rounds: usize,
    /// `None` is the directory of the build.
    pub(super) dir: Option<PathBuf>,
}

impl Options {
    pub(super) fn parse(args: &[OsString]) -> Result<Self> {
        let mut options = Self { size_bytes: 512 << 20, rounds: 3, dir: None };
        let mut args = args.iter();
        while let Some(flag) = args.next() {
            let flag = flag.to_string_lossy();
            let value = args.next().with_context(|| format!("{flag} needs a value"))?;
            match &*flag {
                "--size" => options.size_bytes = parse_size(&value.to_string_lossy())?,
                "--rounds" => options.rounds = parse_rounds(&value.to_string_lossy())?,
                "--dir" => options.dir = Some(value.into()),
                _ => bail!("it takes --size, --rounds and --dir, not `{flag}`"),
            }
        }
        Ok(options)
    }
}
