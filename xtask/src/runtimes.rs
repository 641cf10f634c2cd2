//! `cargo xtask runtimes`: opens fetched folders with the runtimes that people open them with. Too heavy for each change, and it
//! takes what is newest, so it is no part of CI.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::{recipes, setup, tool};

/// Writes docs/runtimes.md.
pub(crate) fn run(root: &Path) -> Result<()> {
    let python = setup::python(root)?;
    let loader = recipes::release_loader(root)?;
    let mut run = Command::new(python);
    run.arg(root.join("tests/python/runtimes/run.py")).arg("--loader").arg(loader);
    run.arg("--work").arg(root.join("target/runtimes")).arg("--out").arg(root.join("docs/runtimes.md"));
    tool::run(&mut run).context("cannot try the runtimes")
}
