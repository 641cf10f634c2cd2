//! Following the contract: what `watch` and `serve --contract` have in common.

use std::convert::Infallible;
use std::sync::Arc;

use anyhow::Result;
use chain_reader::{Address, MatureModel};
use loader::Observer;
use node::{Loaded, Node, Update};
use tokio::time::{MissedTickBehavior, interval};

use crate::answer::Answer;
use crate::cmd::fetch;
use crate::output::Output;
use crate::progress::FetchProgress;
use crate::units::show_duration;

/// Loads each model that `contract` names, and keeps the last `keep` of them, if that is said. `on_ready` is told of
/// each, after it was answered. Ends with an error only.
pub(super) async fn follow(
    node: &Node,
    contract: Address,
    keep: Option<u32>,
    output: &Output,
    on_ready: impl Fn(&MatureModel, &Loaded),
) -> Result<Infallible> {
    let progress = Arc::new(FetchProgress::idle(output));
    let mut watch = node.watch(Arc::clone(&progress) as Arc<dyn Observer>)?;
    let mut ticks = interval(fetch::TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let update = tokio::select! {
            update = watch.next() => update,
            _ = ticks.tick() => {
                progress.tick();
                continue;
            }
        };
        progress.finish();
        match update {
            Update::Ready { named, loaded } => {
                output.note(&fetch::summary(&loaded.report, loaded.model.manifest().total_size_bytes()));
                let on_chain = Some(fetch::on_chain(contract, &named));
                output.answer(&Answer::Fetched(fetch::answer(&loaded, on_chain)))?;
                on_ready(&named, &loaded);
                if let Some(keep) = keep {
                    make_room(node, contract, &loaded, keep, output).await;
                }
            }
            Update::NotLoaded { named, error, retry_after } => {
                let error = fetch::explained(named.manifest, error);
                let then = match retry_after {
                    Some(pause) => format!("trying again in {}", show_duration(pause)),
                    None => "it never can be: waiting for the next one".to_owned(),
                };
                output.note(&format!(
                    "model {} cannot be loaded: {error:#}; going on with the one before; {then}",
                    named.manifest
                ));
            }
            Update::Trouble(trouble) => output.note(&trouble.to_string()),
            Update::Recovered => output.note("the contract can be read again, and names the same model"),
            _ => {}
        }
    }
}

/// Removes the models of the contract that are too many. That there is no room is no reason to end.
async fn make_room(node: &Node, contract: Address, loaded: &Loaded, keep: u32, output: &Output) {
    match node.keep_last(&contract.to_string(), *loaded.model.digest(), keep as usize).await {
        Ok(removed) => {
            for digest in removed {
                output.note(&format!("model {digest} is removed from the cache: the last {keep} are kept"));
            }
        }
        Err(error) => output.note(&format!("cannot remove old models: {:#}", anyhow::Error::from(error))),
    }
}
