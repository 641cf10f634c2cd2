//! `loader man`.

use std::path::Path;

use anyhow::{Context as _, Result};
use clap::CommandFactory as _;

use crate::args::CommandLine;

pub(crate) fn run(dir: &Path) -> Result<()> {
    clap_mangen::generate_to(CommandLine::command(), dir)
        .with_context(|| format!("cannot write man pages into {}", dir.display()))
}
