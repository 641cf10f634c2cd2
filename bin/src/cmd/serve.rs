//! `loader serve`.

use std::collections::HashSet;

use anyhow::{Context as _, Result};
use node::Node;
use p2p_blob::Multiaddr;
use tokio::sync::watch;

use crate::answer::{Answer, Listening, Text};
use crate::args;
use crate::cmd::node_config;
use crate::config::Settings;
use crate::interrupt::Interrupt;
use crate::output::Output;

pub(crate) async fn run(flags: &args::Serve, settings: &Settings, output: &Output) -> Result<()> {
    let mut interrupt = Interrupt::new().context("cannot listen for signals")?;
    let mut config = node_config(settings, settings.seeder(&flags.network)?);
    config.blob_dirs = settings.blob_dirs(&flags.blob_dir);
    let node = Node::start(config).await?;
    tokio::select! {
        failed = announce(node.listen_addrs(), output) => failed?,
        () = interrupt.next() => {}
    }
    output.note("ending: answers in progress are finished; another signal ends them, too");
    tokio::select! {
        () = node.shutdown() => {}
        () = interrupt.next() => {}
    }
    Ok(())
}

/// Answers with each address as soon as the node listens there. Ends when writing fails, or the node does.
async fn announce(mut addresses: watch::Receiver<Vec<Multiaddr>>, output: &Output) -> Result<()> {
    let mut announced = HashSet::new();
    loop {
        let current = addresses.borrow_and_update().clone();
        announced.retain(|address| current.contains(address));
        for address in current {
            if announced.insert(address.clone()) {
                output.answer(&Answer::Listening(Listening { address: Text::of(address) }))?;
            }
        }
        addresses.changed().await.context("the network task has ended")?;
    }
}
