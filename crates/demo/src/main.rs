//! The whole story on one machine, told as it happens: publish, chain, seeders, failures, fetch, verify, map.
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command")]

mod bar;
mod liar;
mod memory;
mod model;
mod seeder;
mod story;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use bytesize::ByteSize;
use clap::{Args, Parser, Subcommand};
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};

use liar::Liar;

/// Show the whole story on this machine: publish, chain, seeders, failures, fetch, verify, map.
///
/// Starts a real EVM node (anvil), deploys a stand-in for the RPB contract, publishes a made-up safetensors model, starts
/// seeders that hold different shards, kills one, has one lie, and fetches. All of it is in one directory in the system's
/// temporary one (TMPDIR), takes about five times --size there, and is removed at the end.
#[derive(Debug, Parser)]
#[command(name = "loader-demo", version, args_conflicts_with_subcommands = true)]
struct CommandLine {
    #[command(flatten)]
    demo: Demo,
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(Debug, Args)]
struct Demo {
    /// Size of the model.
    #[arg(long, value_name = "SIZE", default_value = "256MiB")]
    size: ByteSize,
    /// The EVM node, Foundry's anvil [default: the one on the PATH]; `cargo xtask demo` brings one.
    #[arg(long, value_name = "FILE", env = "LOADER_ANVIL", hide_env_values = true, default_value = "anvil")]
    anvil: PathBuf,
    /// The `loader` command [default: the one beside this program].
    #[arg(long, value_name = "FILE")]
    loader: Option<PathBuf>,
    /// Leave the directory there, and say where it is.
    #[arg(long)]
    keep: bool,
}

/// What this program is for the demo, which runs it again.
#[derive(Debug, Subcommand)]
enum Role {
    #[command(hide = true)]
    Liar(Liar),
}

#[tokio::main]
async fn main() -> ExitCode {
    let line = CommandLine::parse();
    let done = match &line.role {
        Some(Role::Liar(flags)) => liar::run(flags).await,
        None => run(&line.demo).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("loader-demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(flags: &Demo) -> Result<()> {
    if flags.size < model::MIN_SIZE {
        bail!("--size is at least {}", model::MIN_SIZE);
    }
    let loader = match &flags.loader {
        Some(loader) => loader.clone(),
        None => std::env::current_exe().context("cannot find this program")?.with_file_name("loader"),
    };
    if !loader.exists() {
        bail!("there is no {}: `cargo xtask demo` builds it, or give --loader", loader.display());
    }
    let dir = tempfile::Builder::new().prefix("loader-demo-").tempdir().context("cannot make a directory")?;
    let story = story::Story { dir: dir.path(), loader: &loader, size_bytes: flags.size.as_u64() };
    // Whatever happens, processes end with the story and the directory after them.
    tokio::select! {
        told = story.tell(&flags.anvil) => told?,
        interrupted = interrupted() => {
            interrupted?;
            bail!("interrupted");
        }
    }
    tidy_up(dir, flags.keep)
}

fn tidy_up(dir: TempDir, keep: bool) -> Result<()> {
    if keep {
        eprintln!("kept {}", dir.keep().display());
        return Ok(());
    }
    dir.close().context("cannot remove the demo's directory")
}

/// Waits for SIGTERM or SIGINT (Ctrl-C).
async fn interrupted() -> Result<()> {
    let listen = |kind| signal(kind).context("cannot listen for signals");
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
