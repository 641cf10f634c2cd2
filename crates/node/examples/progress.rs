//! Loads a model by digest, and prints how far it is.
//!
//!     cargo run -p node --example progress -- CACHE DIGEST PEER…
#![expect(clippy::print_stdout, reason = "an example")]

use std::env;

use futures::StreamExt as _;
use node::{Config, Node, loader};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = env::args().skip(1);
    let usage = "usage: progress CACHE DIGEST PEER…";
    let cache = args.next().ok_or(usage)?;
    let digest = args.next().ok_or(usage)?.parse()?;
    let peers = args.map(|peer| peer.parse()).collect::<Result<_, _>>()?;

    let node = Node::start(Config::new(cache).with_peers(peers)).await?;
    // Whoever wants events, such as which peer lies, gives an observer of its own.
    let progress = loader::Progress::new();
    let mut numbers = progress.stream();
    let mut load = Box::pin(node.load(digest, &progress));
    let loaded = loop {
        tokio::select! {
            loaded = &mut load => break loaded?,
            Some(numbers) = numbers.next() => println!("{numbers:?}"),
        }
    };
    for source in &loaded.report.sources {
        println!("{}: {} good bytes, {} bad ones", source.source, source.good_bytes, source.bad_bytes);
    }
    drop(load);
    node.shutdown().await;
    Ok(())
}
