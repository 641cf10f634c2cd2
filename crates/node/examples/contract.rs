//! Loads the model that a contract names now. Two endpoints of different providers must agree.
//!
//!     cargo run -p node --example contract -- CACHE CONTRACT RPC_URL RPC_URL PEER…
#![expect(clippy::print_stdout, reason = "an example")]

use std::env;

use node::{Config, Node, chain_reader, loader};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = env::args().skip(1);
    let mut next = || args.next().ok_or("usage: contract CACHE CONTRACT RPC_URL RPC_URL PEER…");
    let (cache, contract) = (next()?, next()?.parse()?);
    let chain = chain_reader::Config::with_endpoints(vec![next()?.parse()?, next()?.parse()?], contract);
    let peers = args.map(|peer| peer.parse()).collect::<Result<_, _>>()?;
    let config = Config::new(cache).with_chain(chain).with_peers(peers);

    let node = Node::start(config).await?;
    let named = node.mature_model().await?;
    println!("block {} names {}", named.block_number, named.manifest);
    let loaded = node.load(named.manifest, &loader::Silent).await?;
    // While the chain cannot be read, this model will do.
    node.note_loaded(&named).await;
    for file in loaded.model.files().filter(|file| file.path.ends_with(".safetensors")) {
        let mapped = loaded.model.file(file.path)?.ok_or("it is one of its files")?;
        for (name, tensor) in mapped.safetensors()?.iter() {
            println!("{name}: {:?} of {:?}", tensor.shape(), tensor.dtype());
        }
    }
    node.shutdown().await;
    Ok(())
}
