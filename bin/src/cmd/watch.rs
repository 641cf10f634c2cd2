//! `loader watch`.

use anyhow::{Context as _, Result};
use node::Node;

use crate::args;
use crate::cmd::follow::follow_all;
use crate::cmd::followed;
use crate::cmd::panel;
use crate::config::{self, Settings};
use crate::exit::Usage;
use crate::interrupt::Interrupt;
use crate::output::Output;
use crate::supervisor::Supervisor;

pub(crate) async fn run(flags: &args::Watch, settings: &Settings, output: &Output) -> Result<()> {
    let mut interrupt = Interrupt::new().context("cannot listen for signals")?;
    let fetch = config::fetching(&flags.network)
        .with_wait(config::wait(flags.wait))
        .with_single_blob_max_bytes(settings.single_blob_max_bytes(&flags.named.legacy)?);
    let followed = followed::of_watch(flags, settings)?;
    if followed.is_empty() {
        return Err(Usage::new("which contract? Give --contract ADDRESS and --rpc-url URL").into());
    }
    let chains = followed.iter().map(|followed| followed.config.clone()).collect();
    let config = settings.fetcher(&flags.network)?.with_fetch(fetch).with_chains(chains);
    let http = settings.http(&flags.http)?;
    let node = Node::start(config).await?;
    let panel = panel::start(&node, http, output).await?;
    let supervisor = Supervisor::start(output);
    supervisor.ready("following the contract: nothing is loaded yet");
    node.join();
    tokio::select! {
        ended = follow_all(&node, &followed, output, &supervisor) => match ended? {},
        () = interrupt.next() => {}
    }
    supervisor.stopping();
    drop(panel);
    node.shutdown().await;
    Ok(())
}
