//! `loader completions`.

use std::io::{self, Write as _};

use anyhow::{Context as _, Result};
use clap::CommandFactory as _;
use clap_complete::{Shell, generate};

use crate::args::CommandLine;

pub(crate) fn run(shell: Shell) -> Result<()> {
    let mut script = Vec::new();
    generate(shell, &mut CommandLine::command(), "loader", &mut script);
    io::stdout().lock().write_all(&script).context("cannot write to stdout")
}
