//! Loads a model by the digest of its manifest, and maps it.
//!
//!     cargo run -p node --example digest -- CACHE DIGEST PEER…
#![expect(clippy::print_stdout, reason = "an example")]

use std::env;

use node::{Config, Node, loader};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = env::args().skip(1);
    let usage = "usage: digest CACHE DIGEST PEER…";
    let cache = args.next().ok_or(usage)?;
    let digest = args.next().ok_or(usage)?.parse()?;
    let peers = args.map(|peer| peer.parse()).collect::<Result<_, _>>()?;

    let node = Node::start(Config::new(cache).with_peers(peers)).await?;
    let loaded = node.load(digest, &loader::Silent).await?;
    println!("a runtime opens {}", loaded.model.path().display());
    for file in loaded.model.files() {
        // Read-only, and shared with every process that maps the same file.
        let mapped = loaded.model.file(file.path)?.ok_or("it is one of its files")?;
        println!("{}: {} bytes", file.path, mapped.len());
    }
    node.shutdown().await;
    Ok(())
}
