//! Serves what is in a cache, and in a folder of blobs that are named by their digests, until it is interrupted.
//!
//!     cargo run -p node --example serve -- CACHE LISTEN [FOLDER]

use std::env;

use futures::StreamExt as _;
use node::{Config, Node};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = env::args().skip(1);
    let usage = "usage: serve CACHE LISTEN [FOLDER]";
    let cache = args.next().ok_or(usage)?;
    let listen = vec![args.next().ok_or(usage)?.parse()?];
    let config = Config::new(cache).with_listen(listen).with_blob_dirs(args.map(Into::into).collect());

    let node = Node::start(config).await?;
    // Others find it, and are told what it holds.
    node.join();
    let mut addresses = node.listen_addrs();
    loop {
        tokio::select! {
            Some(addresses) = addresses.next() => println!("listens at {addresses:?}"),
            _ = tokio::signal::ctrl_c() => break,
        }
    }
    // Answers that are under way may end.
    node.shutdown().await;
    Ok(())
}
