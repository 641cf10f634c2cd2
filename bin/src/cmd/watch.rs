//! `loader watch`.

use std::process::Stdio;

use anyhow::{Context as _, Result};
use chain_reader::MatureModel;
use node::{Loaded, Node};
use tokio::process::Command;
use tokio::task::JoinHandle;

use crate::args;
use crate::cmd::follow::follow;
use crate::cmd::node_config;
use crate::config::Settings;
use crate::exit::Usage;
use crate::interrupt::Interrupt;
use crate::output::Output;

pub(crate) async fn run(flags: &args::Watch, settings: &Settings, output: &Output) -> Result<()> {
    let mut interrupt = Interrupt::new().context("cannot listen for signals")?;
    let mut config = node_config(settings, settings.fetcher(&flags.network)?);
    config.fetch.wait = settings.wait(flags.wait);
    config.fetch.single_blob_max_bytes = settings.single_blob_max_bytes(&flags.legacy)?;
    let chain = settings.following(&flags.chain, &flags.reading, &flags.following)?;
    let chain =
        chain.ok_or_else(|| Usage::new("which contract? Give --contract ADDRESS and --rpc-url URL"))?;
    let contract = chain.contract;
    config.chain = Some(chain);
    let node = Node::start(config).await?;
    node.join();
    let mut hook = Hook { command: flags.exec.clone(), running: None, output: output.clone() };
    tokio::select! {
        ended = follow(&node, contract, flags.following.keep, output, async |named, loaded| hook.start(named, loaded).await) => {
            ended?;
        }
        () = interrupt.next() => {}
    }
    node.shutdown().await;
    Ok(())
}

/// The command that is run for each model.
struct Hook {
    command: Option<String>,
    running: Option<JoinHandle<()>>,
    output: Output,
}

impl Hook {
    /// Starts the command for a model, once the one for the model before has ended.
    async fn start(&mut self, named: &MatureModel, loaded: &Loaded) {
        let Some(line) = &self.command else { return };
        if let Some(running) = self.running.take() {
            // A task that failed has said so.
            let _ = running.await;
        }
        let mut command = Command::new("sh");
        command
            .args(["-c", line])
            .env("LOADER_WEIGHTS", loaded.model.weights().path())
            .env("LOADER_MANIFEST", named.manifest.to_string())
            .env("LOADER_MODEL_KIND", loaded.model.manifest().model_kind())
            .env("LOADER_PRICE", named.price.to_string())
            .env("LOADER_BLOCK_NUMBER", named.block_number.to_string())
            .stdin(Stdio::null())
            // Ours is for answers.
            .stdout(std::io::stderr());
        let (output, manifest, model) = (self.output.clone(), named.manifest, loaded.model.clone());
        self.running = Some(tokio::spawn(async move {
            match command.status().await {
                Ok(status) if status.success() => {}
                Ok(status) => output.note(&format!("the command for model {manifest} failed: {status}")),
                Err(error) => {
                    output.note(&format!("the command for model {manifest} cannot be run: {error}"))
                }
            }
            // Until here it cannot be removed.
            drop(model);
        }));
    }
}
