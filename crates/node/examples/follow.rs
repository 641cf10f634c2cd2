//! Follows a contract, and swaps: each model that it names is loaded beside the one in use, which stays mapped until the
//! new one is there.
//!
//!     cargo run -p node --example follow -- CACHE CONTRACT RPC_URL PEER…
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "an example")]

use std::env;
use std::sync::Arc;

use futures::StreamExt as _;
use node::{Config, Node, Update, chain_reader, loader};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = env::args().skip(1);
    let mut next = || args.next().ok_or("usage: follow CACHE CONTRACT RPC_URL PEER…");
    let (cache, contract) = (next()?, next()?);
    let chain = chain_reader::Config::new(next()?.parse()?, contract.parse()?);
    let peers = args.map(|peer| peer.parse()).collect::<Result<_, _>>()?;

    let node = Node::start(Config::new(cache).with_chain(chain).with_peers(peers)).await?;
    let mut watch = node.watch(Arc::new(loader::Silent))?;
    let mut in_use = None;
    while let Some(update) = watch.next().await {
        match update {
            Update::Ready { named, loaded } => {
                println!("block {}: {}", named.block_number, loaded.model.path().display());
                // The old one can be removed when the last clone of it, or of a file of it, is gone.
                in_use = Some(loaded.model);
                // Two models stay in the cache: this one, and the one before.
                node.keep_last(&contract, named.manifest, 2).await?;
            }
            Update::NotLoaded { named, error, .. } => eprintln!("{} is not loaded: {error}", named.manifest),
            Update::Trouble(trouble) => {
                let state = if in_use.is_some() { "the model in use stays" } else { "there is no model yet" };
                eprintln!("{trouble:?}; {state}");
            }
            _ => {}
        }
    }
    Ok(())
}
