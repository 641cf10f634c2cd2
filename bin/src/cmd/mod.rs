//! The commands. Each reads its flags, calls a library, and answers.

mod cache;
mod chain;
mod completions;
mod fetch;
mod follow;
mod hook;
mod id;
mod key;
mod manifest;
mod publish;
mod serve;
pub(crate) mod status;
mod verify;
mod watch;

use ::manifest::Digest;
use anyhow::Result;
use store::{Cache, CacheError, Model};

use crate::args::{Command, CommandLine};
use crate::config::{NetworkSettings, Settings};
use crate::exit::Usage;
use crate::output::Output;
use crate::system::block_on;

/// Runs what the command line asks for.
pub(crate) fn run(line: CommandLine, output: &Output) -> Result<()> {
    let settings = Settings::load(&line.common)?;
    if output.is_json() && settings.cache_dir.to_str().is_none() {
        return Err(Usage::new(format!(
            "the path of the cache, {}, is not UTF-8, as JSON has to be: leave --json away, or give another --cache-dir",
            settings.cache_dir.display()
        ))
        .into());
    }
    let open = || Cache::open(&settings.cache_dir);
    let look = || Cache::open_existing(&settings.cache_dir);
    match &line.command {
        Command::Fetch(flags) => block_on(fetch::run(flags, &settings, output)),
        Command::Serve(flags) => block_on(serve::run(flags, &settings, output)),
        Command::Watch(flags) => block_on(watch::run(flags, &settings, output)),
        Command::Publish(flags) => publish::run(flags, &settings, &open()?, output),
        Command::Verify(flags) => match look()? {
            Some(cache) => verify::run(flags, &settings, &cache, output),
            None => not_there(&flags.manifests, &settings, output),
        },
        Command::Key(command) => key::run(command, output),
        Command::Manifest(command) => manifest::run(command, &settings, output),
        Command::Cache(command) => cache::run(command, look()?.as_ref(), &settings, output),
        Command::Id => id::run(&settings, output),
        Command::Completions { shell } => completions::run(*shell),
        Command::Status => status::run(&settings, output),
        Command::Chain(command) => chain::run(command, &settings, output),
    }
}

/// The finished model in the cache.
fn finished(cache: &Cache, digest: &Digest) -> Result<Model> {
    cache.model(digest)?.ok_or_else(|| not_cached(cache, digest).into())
}

fn not_cached(cache: &Cache, digest: &Digest) -> CacheError {
    CacheError::NotCached { digest: *digest, path: cache.dir().to_owned() }
}

/// Says that there is no cache, which is no error unless models of it are asked for.
fn not_there(asked: &[Digest], settings: &Settings, output: &Output) -> Result<()> {
    let path = settings.cache_dir.clone();
    if let Some(digest) = asked.first() {
        return Err(CacheError::NotCached { digest: *digest, path }.into());
    }
    output.note(&format!("there is no cache {} yet", path.display()));
    Ok(())
}

/// A node on the user's cache and network.
fn node_config(settings: &Settings, network: NetworkSettings) -> node::Config {
    node::Config::new(&settings.cache_dir)
        .with_peers(network.peers)
        .with_bootstrap(network.bootstrap)
        .with_listen(network.listen)
        .with_mdns(network.mdns)
        .with_dht(network.dht)
        .with_limits(network.limits)
        .with_network_key(network.network_key)
        .with_allowed_peers(network.allowed_peers)
        .with_external_addrs(network.external_addrs)
}
