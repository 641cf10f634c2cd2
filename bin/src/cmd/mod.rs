//! The commands. Each reads its flags, calls a library, and answers.

mod cache;
mod chain;
mod code;
mod completions;
mod config;
mod doctor;
mod fetch;
mod follow;
mod followed;
mod from_cache;
mod hook;
mod id;
mod key;
mod link;
mod man;
mod manifest;
mod panel;
mod publish;
mod serve;
mod status;
mod verify;
mod watch;
mod which;

use anyhow::Result;
use store::Cache;

use crate::args::{Command, Name};
use crate::config::{Line, Settings};
use crate::exit::Usage;
use crate::output::Output;
use crate::system::block_on;

/// Runs what the command line asks for.
pub(crate) fn run(line: Line, output: &Output) -> Result<()> {
    let (command, settings) = Settings::new(line)?;
    if output.is_json() && settings.cache_dir.to_str().is_none() {
        return Err(Usage::new(format!(
            "the path of the cache, {}, is not UTF-8, as JSON has to be: leave --json away, or give another --cache-dir",
            settings.cache_dir.display()
        ))
        .into());
    }
    let open = || Cache::open(&settings.cache_dir);
    let look = || Cache::open_existing(&settings.cache_dir);
    match &command {
        Command::Fetch(flags) => block_on(fetch::run(flags, &settings, output)),
        Command::Serve(flags) => block_on(serve::run(flags, &settings, output)),
        Command::Watch(flags) => block_on(watch::run(flags, &settings, output)),
        Command::Publish(flags) => publish::run(flags, &settings, &open()?, output),
        Command::Verify(flags) => match look()? {
            Some(cache) => verify::run(flags, &settings, &cache, output),
            None => cache::not_there(&Name::find_all(&flags.manifests, None)?, &settings, output),
        },
        Command::Key(command) => key::run(command, output),
        Command::Manifest(command) => manifest::run(command, &settings, output),
        Command::Cache(command) => cache::run(command, look()?.as_ref(), &settings, output),
        Command::Id => id::run(&settings, output),
        Command::Completions { shell } => completions::run(*shell),
        Command::Man { dir } => man::run(dir),
        Command::Status => status::run(&settings, output),
        Command::Doctor(flags) => block_on(doctor::run(flags, &settings, output)),
        Command::Config(command) => config::run(command, output),
        Command::Chain(command) => chain::run(command, &settings, output),
    }
}
