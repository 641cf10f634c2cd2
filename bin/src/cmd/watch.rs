//! `loader watch`.

use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use chain_reader::MatureModel;
use loader::cache::Model;
use node::{Loaded, Node};
use tokio::process::Command;
use tokio::sync::Notify;
use tokio::task::JoinSet;

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
    let hook = flags.exec.clone().map(|command| Hook::new(command, output.clone()));
    tokio::select! {
        ended = follow(&node, contract, flags.following.keep, output, |named, loaded| {
            if let Some(hook) = &hook {
                hook.ready(named, loaded);
            }
        }) => {
            ended?;
        }
        () = interrupt.next() => {}
    }
    node.shutdown().await;
    Ok(())
}

/// Runs the command for each model, one at a time, and never holds the following up. A model whose turn has not come when
/// the next one is ready is passed over.
struct Hook {
    next: Arc<Next>,
    output: Output,
    _task: JoinSet<()>,
}

/// The model for which the command is to be run next. While it is here, it cannot be removed from the cache.
#[derive(Default)]
struct Next {
    ready: Mutex<Option<(MatureModel, Model)>>,
    is_set: Notify,
}

impl Next {
    /// Gives what had not been taken.
    fn set(&self, ready: (MatureModel, Model)) -> Option<(MatureModel, Model)> {
        let before = self.ready.lock().unwrap_or_else(PoisonError::into_inner).replace(ready);
        self.is_set.notify_one();
        before
    }

    async fn take(&self) -> (MatureModel, Model) {
        loop {
            let ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner).take();
            match ready {
                Some(ready) => return ready,
                None => self.is_set.notified().await,
            }
        }
    }
}

impl Hook {
    fn new(command: String, output: Output) -> Self {
        let next = Arc::<Next>::default();
        let mut task = JoinSet::new();
        task.spawn(run_for_each(command, Arc::clone(&next), output.clone()));
        Self { next, output, _task: task }
    }

    fn ready(&self, named: &MatureModel, loaded: &Loaded) {
        if let Some((before, _)) = self.next.set((named.clone(), loaded.model.clone())) {
            self.output.note(&format!(
                "the command is not run for model {}: it still ran for the one before when the next one was ready",
                before.manifest
            ));
        }
    }
}

async fn run_for_each(line: String, next: Arc<Next>, output: Output) {
    loop {
        let (named, model) = next.take().await;
        let manifest = named.manifest;
        let mut command = Command::new("sh");
        for variable in args::SECRET_VARIABLES {
            command.env_remove(variable);
        }
        let status = command
            .args(["-c", &line])
            .env("LOADER_WEIGHTS", model.weights().path())
            .env("LOADER_MANIFEST", manifest.to_string())
            .env("LOADER_MODEL_KIND", model.manifest().model_kind())
            .env("LOADER_PRICE", named.price.to_string())
            .env("LOADER_BLOCK_NUMBER", named.block_number.to_string())
            .stdin(Stdio::null())
            // Ours is for answers.
            .stdout(std::io::stderr())
            .status()
            .await;
        match status {
            Ok(status) if status.success() => {}
            Ok(status) => output.note(&format!("the command for model {manifest} failed: {status}")),
            Err(error) => output.note(&format!("the command for model {manifest} cannot be run: {error}")),
        }
    }
}
