//! Following contracts: what `watch` and `serve --contract` have in common.

use std::convert::Infallible;
use std::sync::Arc;

use anyhow::Result;
use chain_reader::ChainReader;
use futures::StreamExt as _;
use futures::future::select_all;
use loader::Observer;
use manifest::Digest;
use node::{Node, NodeError, Update};
use tokio::time::{MissedTickBehavior, interval};

use crate::answer::{self, Answer};
use crate::cmd::fetch;
use crate::cmd::followed::Followed;
use crate::cmd::hook::Hook;
use crate::output::Output;
use crate::progress::FetchProgress;
use crate::supervisor::Supervisor;
use crate::units::show_duration;

/// Follows all of them at once, each as if it were alone. Ends with an error only.
pub(super) async fn follow_all(
    node: &Node,
    followed: &[Followed],
    output: &Output,
    supervisor: &Supervisor,
) -> Result<Infallible> {
    let is_alone = followed.len() == 1;
    let following = node.chains().iter().zip(followed).map(|(chain, followed)| {
        let output = if is_alone { output.clone() } else { output.about(&followed.name) };
        Box::pin(async move { follow(node, chain, followed, is_alone, &output, supervisor).await })
    });
    let following: Vec<_> = following.collect();
    match following.is_empty() {
        true => std::future::pending().await,
        false => select_all(following).await.0,
    }
}

/// Loads each model that the contract names, has its command run for it, and keeps the last of them, if that is said.
async fn follow(
    node: &Node,
    chain: &ChainReader,
    followed: &Followed,
    is_alone: bool,
    output: &Output,
    supervisor: &Supervisor,
) -> Result<Infallible> {
    let Followed { name, config, keep, link, exec } = followed;
    let hook = exec.clone().map(|line| Hook::new(line, node.clone(), name.clone(), output.clone()));
    let hook = hook.as_ref();
    let room = keep.map(|keep| Room { node, series: name.clone(), keep, has_hook: hook.is_some(), output });
    let tell_supervisor = |status: &str| match is_alone {
        true => supervisor.status(status),
        false => supervisor.status(&format!("{name}: {status}")),
    };
    let mut newest = None;
    let progress = Arc::new(FetchProgress::idle(output));
    let mut watch = node.watch_chain(chain, Arc::clone(&progress) as Arc<dyn Observer>);
    let mut ticks = interval(fetch::TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let update = tokio::select! {
            Some(update) = watch.next() => update,
            () = released(hook) => {
                if let (Some(room), Some(newest)) = (&room, newest) {
                    room.make(newest).await;
                }
                continue;
            }
            _ = ticks.tick() => {
                progress.tick();
                continue;
            }
        };
        progress.finish();
        match update {
            Update::Ready { named, loaded } => {
                fetch::tell(&loaded, output);
                // Before it is told, and before anything is removed.
                if let Some(link) = link
                    && let Err(error) = link.set(&loaded.model).await
                {
                    output.trouble(&format!("the link stays as it was: {error:#}"));
                }
                let on_chain = Some(fetch::on_chain(config.contract(), &named));
                let fetched = fetch::answer(&loaded, on_chain, output).await?;
                let of = (!is_alone).then(|| name.clone());
                output.answer(&Answer::Fetched(answer::Fetched { of, ..fetched }))?;
                newest = Some(*loaded.model.digest());
                tell_supervisor(&format!("model {} of block {} is here", named.manifest, named.block_number));
                if let Some(hook) = hook {
                    hook.ready(&named, &loaded);
                }
                if let Some(room) = &room {
                    room.make(*loaded.model.digest()).await;
                }
            }
            Update::NotLoaded { named, error, retry_after } => {
                let error = fetch::explained(named.manifest, error);
                let then = match retry_after {
                    Some(pause) => format!("trying again in {}", show_duration(pause)),
                    None => "it never can be: waiting for the next one".to_owned(),
                };
                let trouble = format!(
                    "model {} cannot be loaded: {error:#}; going on with the one before; {then}",
                    named.manifest
                );
                tell_supervisor(&trouble);
                output.trouble(&trouble);
            }
            Update::Trouble(trouble) => {
                tell_supervisor(&trouble.to_string());
                output.trouble(&trouble.to_string());
            }
            Update::Recovered => {
                let recovered = "the contract can be read again, and names the same model";
                tell_supervisor(recovered);
                output.note(recovered);
            }
            _ => {}
        }
    }
}

async fn released(hook: Option<&Hook>) {
    match hook {
        Some(hook) => hook.released().await,
        None => std::future::pending().await,
    }
}

/// What makes room for new models.
struct Room<'a> {
    node: &'a Node,
    /// The contract's models.
    series: String,
    keep: u32,
    has_hook: bool,
    output: &'a Output,
}

impl Room<'_> {
    /// Removes the models of the contract that are too many. That there is no room is no reason to end.
    async fn make(&self, newest: Digest) {
        match self.removed(newest).await {
            Ok(removed) => {
                for digest in removed {
                    self.output.note(&format!(
                        "model {digest} is removed from the cache: the last {} are kept",
                        self.keep
                    ));
                }
            }
            Err(error) => {
                self.output.trouble(&format!("cannot remove old models: {:#}", anyhow::Error::from(error)));
            }
        }
    }

    async fn removed(&self, newest: Digest) -> Result<Vec<Digest>, NodeError> {
        // Before a command has succeeded, any of the old models may be the one in use.
        let keeps_all = self.has_hook && self.node.live(&self.series).await?.is_none();
        let keep = if keeps_all { usize::MAX } else { self.keep as usize };
        self.node.keep_last(&self.series, newest, keep).await
    }
}
