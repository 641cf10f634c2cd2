//! `loader serve`.

use std::collections::HashSet;
use std::convert::Infallible;

use anyhow::{Context as _, Result};
use futures::{Stream, StreamExt as _};
use node::Node;
use p2p_blob::Multiaddr;

use crate::answer::{Answer, Listening, Text};
use crate::args;
use crate::cmd::follow::follow_all;
use crate::cmd::followed;
use crate::cmd::panel;
use crate::config::{self, Settings};
use crate::exit::Usage;
use crate::interrupt::Interrupt;
use crate::output::Output;
use crate::supervisor::Supervisor;

pub(crate) async fn run(flags: &args::Serve, settings: &Settings, output: &Output) -> Result<()> {
    let single_blob_max_bytes = settings.single_blob_max_bytes(&flags.named.legacy)?;
    let followed = followed::of_serve(flags, settings)?;
    let config = settings
        .seeder(&flags.network)?
        .with_fetch(config::fetching(&flags.network).with_single_blob_max_bytes(single_blob_max_bytes))
        .with_blob_dirs(flags.blob_dir.clone())
        .with_chains(followed.iter().map(|followed| followed.config.clone()).collect());
    if settings.is_given("keep") && followed.is_empty() {
        return Err(Usage::new("--keep counts the models of a contract: give --contract, too").into());
    }
    if settings.is_given("link") && followed.is_empty() {
        return Err(Usage::new("--link leads to the model of a contract: give --contract, too").into());
    }
    let http = settings.http(&flags.http)?;
    // What is loaded is served.
    let work =
        async |node: &Node, supervisor: &Supervisor| follow_all(node, &followed, output, supervisor).await;
    seed(config, http, output, work).await
}

/// Seeds what the cache holds, and does `work` meanwhile, until a signal comes or that fails.
pub(super) async fn seed(
    config: node::Config,
    http: Option<::panel::Config>,
    output: &Output,
    work: impl AsyncFnOnce(&Node, &Supervisor) -> Result<Infallible>,
) -> Result<()> {
    let mut interrupt = Interrupt::new().context("cannot listen for signals")?;
    let node = Node::start(config).await?;
    let panel = panel::start(&node, http, output).await?;
    let supervisor = Supervisor::start(output);
    supervisor.ready("seeding");
    node.join();
    tokio::select! {
        biased;
        failed = work(&node, &supervisor) => match failed? {},
        failed = announce(node.listen_addrs(), output) => match failed? {},
        () = interrupt.next() => {}
    }
    supervisor.stopping();
    drop(panel);
    output.note("ending: answers in progress are finished; another signal ends them, too");
    tokio::select! {
        () = node.shutdown() => {}
        () = interrupt.next() => {}
    }
    Ok(())
}

/// Answers with each address as soon as the node listens there. Ends when writing fails, or the node does.
async fn announce(
    mut addresses: impl Stream<Item = Vec<Multiaddr>> + Unpin,
    output: &Output,
) -> Result<Infallible> {
    let mut announced = HashSet::new();
    loop {
        let current = addresses.next().await.context("the network task has ended")?;
        announced.retain(|address| current.contains(address));
        for address in current {
            if announced.insert(address.clone()) {
                output.answer(&Answer::Listening(Listening { address: Text::of(address) }))?;
            }
        }
    }
}
