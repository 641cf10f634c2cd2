//! The command of `watch --exec`.

use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chain_reader::MatureModel;
use node::{Loaded, Node};
use store::Model;
use tokio::process::Command;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::config::secret::SECRET_VARIABLES;
use crate::output::Output;
use crate::supervisor;
use crate::units::show_duration;

/// Pauses after failures for one model: from the first to the last, doubling.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(300);

/// Runs the command for each model, one at a time, until it succeeds or there is a newer model, and never holds the
/// following up. A model whose turn has not come when the next one is ready is passed over.
pub(super) struct Hook {
    next: Arc<Next>,
    released: Arc<Notify>,
    output: Output,
    _task: JoinSet<()>,
}

/// The model for which the command is to be run next. While it is here, it cannot be removed from the cache.
#[derive(Default)]
struct Next {
    ready: Mutex<Option<Ready>>,
    is_set: Notify,
}

type Ready = (MatureModel, Model);

impl Next {
    /// Gives what had not been taken.
    fn set(&self, ready: Ready) -> Option<Ready> {
        let before = self.ready.lock().unwrap_or_else(PoisonError::into_inner).replace(ready);
        self.is_set.notify_one();
        before
    }

    /// Cancel safe.
    async fn take(&self) -> Ready {
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
    /// Runs `line` in a shell; `series` are the models of the contract, which begins with its address.
    pub(super) fn new(line: String, node: Node, series: String, output: Output) -> Self {
        let (next, released) = (Arc::<Next>::default(), Arc::<Notify>::default());
        let runner = Runner {
            line,
            node,
            series,
            output: output.clone(),
            next: Arc::clone(&next),
            released: Arc::clone(&released),
        };
        let mut task = JoinSet::new();
        task.spawn(runner.run());
        Self { next, released, output, _task: task }
    }

    /// The command is run for this model when that for the one before has ended.
    pub(super) fn ready(&self, named: &MatureModel, loaded: &Loaded) {
        if let Some((before, _)) = self.next.set((named.clone(), loaded.model.clone())) {
            self.output.note(&format!(
                "the command is not run for model {}: it still ran for the one before when the next one was ready",
                before.manifest
            ));
        }
    }

    /// Waits until a model for which the command was run may be removed, since this was last asked. Cancel safe.
    pub(super) async fn released(&self) {
        self.released.notified().await;
    }
}

struct Runner {
    line: String,
    node: Node,
    series: String,
    output: Output,
    next: Arc<Next>,
    released: Arc<Notify>,
}

impl Runner {
    async fn run(self) {
        let mut ready = self.next.take().await;
        loop {
            let newer = self.until_success(&ready).await;
            drop(ready);
            self.released.notify_one();
            ready = match newer {
                Some(newer) => newer,
                None => self.next.take().await,
            };
        }
    }

    /// Runs the command for a model until it succeeds. A newer model, if one came before that.
    async fn until_success(&self, (named, model): &Ready) -> Option<Ready> {
        let manifest = named.manifest;
        let (mut failures, mut told) = (0, String::new());
        loop {
            let Err(why) = self.attempt(named, model).await else { break };
            let pause = pause(failures);
            if told != why {
                let pause = show_duration(pause);
                self.output.trouble(&format!(
                    "the command for model {manifest} {why}; trying again, first in {pause}"
                ));
                told = why;
            }
            failures += 1;
            tokio::select! {
                newer = self.next.take() => return Some(newer),
                () = sleep(pause) => {}
            }
        }
        if failures > 0 {
            self.output
                .note(&format!("the command for model {manifest} succeeded, after {failures} that failed"));
        }
        if let Err(error) = self.node.set_live(&self.series, manifest).await {
            let error = anyhow::Error::from(error);
            self.output.trouble(&format!("cannot note that model {manifest} is in use: {error:#}"));
        }
        None
    }

    /// Runs the command once, to its end. Tells why it was no success.
    async fn attempt(&self, named: &MatureModel, model: &Model) -> Result<(), String> {
        let mut command = Command::new("sh");
        for variable in SECRET_VARIABLES.iter().chain(&supervisor::VARIABLES) {
            command.env_remove(variable);
        }
        let status = command
            .args(["-c", &self.line])
            .env("LOADER_CONTRACT", self.series.split('@').next().unwrap_or_default())
            .env("LOADER_PATH", model.path())
            // As it was called before models could be folders.
            .env("LOADER_WEIGHTS", model.path())
            .env("LOADER_MANIFEST", named.manifest.to_string())
            .env("LOADER_MODEL_KIND", model.manifest().model_kind())
            .env("LOADER_PRICE", named.price.to_string())
            .env("LOADER_BLOCK_NUMBER", named.block_number.to_string())
            .stdin(Stdio::null())
            // Ours is for answers.
            .stdout(std::io::stderr())
            .status()
            .await;
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("failed: {status}")),
            Err(error) => Err(format!("cannot be run: {error}")),
        }
    }
}

fn pause(failures: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << failures.min(16)).min(LAST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_five_minutes() {
        let seconds = [0, 1, 2, 8, 9, u32::MAX].map(|failures| pause(failures).as_secs());
        assert_eq!(seconds, [1, 2, 4, 256, 300, 300]);
    }
}
