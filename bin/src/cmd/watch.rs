//! `loader watch`.

use anyhow::{Context as _, Result};
use node::Node;

use crate::args;
use crate::cmd::follow::follow;
use crate::cmd::hook::Hook;
use crate::cmd::link::Link;
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
    let chain = settings.following(&flags.named, &flags.following)?;
    let chain =
        chain.ok_or_else(|| Usage::new("which contract? Give --contract ADDRESS and --rpc-url URL"))?;
    let contract = chain.contract();
    let config = settings.fetcher(&flags.network)?.with_fetch(fetch).with_chain(chain);
    let link = Link::new(flags.following.link.as_deref(), &settings.cache_dir)?;
    let http = settings.http(&flags.http)?;
    let node = Node::start(config).await?;
    let panel = panel::start(&node, http, output).await?;
    let supervisor = Supervisor::start(output);
    supervisor.ready("following the contract: nothing is loaded yet");
    node.join();
    let hook =
        flags.exec.clone().map(|line| Hook::new(line, node.clone(), contract.to_string(), output.clone()));
    let keep = flags.following.keep;
    tokio::select! {
        ended = follow(&node, contract, keep, link.as_ref(), hook.as_ref(), output, &supervisor) => match ended? {},
        () = interrupt.next() => {}
    }
    supervisor.stopping();
    drop((hook, panel));
    node.shutdown().await;
    Ok(())
}
