//! The commands. Each reads its flags, calls a library, and answers.

mod cache;
mod chain;
mod completions;
mod demo;
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

use std::future::Future;

use ::manifest::Digest;
use anyhow::{Context as _, Result};
use loader::cache::{Cache, CacheError, Model};

use crate::args::{Command, CommandLine};
use crate::config::{NetworkSettings, Settings};
use crate::output::Output;

pub(crate) use demo::liar::Liar;

/// Runs what the command line asks for.
pub(crate) fn run(line: CommandLine, output: &Output) -> Result<()> {
    let settings = Settings::load(&line.common)?;
    let open = || Cache::open(&settings.cache_dir);
    match &line.command {
        Command::Fetch(flags) => block_on(fetch::run(flags, &settings, output)),
        Command::Serve(flags) => block_on(serve::run(flags, &settings, output)),
        Command::Watch(flags) => block_on(watch::run(flags, &settings, output)),
        Command::Publish(flags) => publish::run(flags, &settings, &open()?, output),
        Command::Verify(flags) => verify::run(flags, &settings, &open()?, output),
        Command::Key(command) => key::run(command, output),
        Command::Manifest(command) => manifest::run(command, &settings, output),
        Command::Cache(command) => cache::run(command, &open()?, output),
        Command::Id => id::run(&open()?, output),
        Command::Completions { shell } => completions::run(*shell),
        Command::Status => status::run(&settings, output),
        Command::Chain(command) => chain::run(command, &settings, output),
        Command::Demo(flags) => block_on(demo::run(flags, output)),
        Command::DemoLiar(flags) => block_on(demo::liar::run(flags, output)),
    }
}

/// Runs the future on a runtime of its own, and leaves behind what still blocks on a thread: the process ends next.
fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.context("cannot start the threads of the runtime")?;
    let done = runtime.block_on(work);
    runtime.shutdown_background();
    done
}

/// The finished model in the cache.
fn finished(cache: &Cache, digest: &Digest) -> Result<Model> {
    cache.model(digest)?.ok_or_else(|| not_cached(cache, digest).into())
}

fn not_cached(cache: &Cache, digest: &Digest) -> CacheError {
    CacheError::NotCached { digest: *digest, path: cache.dir().to_owned() }
}

/// A node on the user's cache and network.
fn node_config(settings: &Settings, network: NetworkSettings) -> node::Config {
    let mut config = node::Config::new(&settings.cache_dir);
    config.peers = network.peers;
    config.bootstrap = network.bootstrap;
    config.listen = network.listen;
    config.mdns = network.mdns;
    config.dht = network.dht;
    config.limits = network.limits;
    config.network_key = network.network_key;
    config.allowed_peers = network.allowed_peers;
    config.external_addrs = network.external_addrs;
    config
}
