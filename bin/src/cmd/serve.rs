//! `loader serve`.

use anyhow::{Context as _, Result};
use node::Node;

use crate::answer::{Answer, Listening, Text};
use crate::args;
use crate::cmd::node_config;
use crate::config::Settings;
use crate::interrupt::Interrupt;
use crate::output::Output;

pub(crate) async fn run(flags: &args::Serve, settings: &Settings, output: &Output) -> Result<()> {
    let mut interrupt = Interrupt::new().context("cannot listen for signals")?;
    let config = node_config(settings, settings.seeder(&flags.network)?, settings.blob_dirs(&flags.blob_dir));
    let node = Node::start(config).await?;
    for address in node.listen_addrs() {
        output.answer(&Answer::Listening(Listening { address: Text::of(address) }))?;
    }
    interrupt.next().await;
    output.note("ending: answers in progress are finished; again to end at once");
    tokio::select! {
        () = node.shutdown() => {}
        () = interrupt.next() => {}
    }
    Ok(())
}
