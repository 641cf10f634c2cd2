//! Loads a model by digest, and prints what goes on: an observer is told of each piece, and of each peer that lies.
//!
//!     cargo run -p node --example progress -- CACHE DIGEST PEER…
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "an example")]

use std::env;
use std::sync::atomic::{AtomicU64, Ordering};

use node::loader::{Event, Observer};
use node::{Config, Node};

/// Counts. It is called on the tasks of the fetch, and must be quick.
#[derive(Default)]
struct Progress {
    total_bytes: AtomicU64,
    here_bytes: AtomicU64,
}

impl Observer for Progress {
    fn on_event(&self, event: &Event<'_>) {
        match event {
            Event::Manifest { manifest, .. } => {
                self.total_bytes.store(manifest.total_size_bytes(), Ordering::Relaxed);
            }
            Event::PieceFetched { bytes, .. }
            | Event::PieceRebuilt { bytes, .. }
            | Event::Reused { bytes }
            | Event::Resumed { bytes } => {
                let here_bytes = self.here_bytes.fetch_add(*bytes, Ordering::Relaxed) + bytes;
                // Parity counts as well, so that it may end above the total.
                println!("{here_bytes} of {} bytes", self.total_bytes.load(Ordering::Relaxed));
            }
            Event::WrongBytes { source, bytes, .. } => eprintln!("{source} sent {bytes} wrong bytes"),
            _ => {}
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = env::args().skip(1);
    let usage = "usage: progress CACHE DIGEST PEER…";
    let mut config = Config::new(args.next().ok_or(usage)?);
    let digest = args.next().ok_or(usage)?.parse()?;
    config.peers = args.map(|peer| peer.parse()).collect::<Result<_, _>>()?;

    let node = Node::start(config).await?;
    let loaded = node.load(digest, &Progress::default()).await?;
    for source in &loaded.report.sources {
        println!("{}: {} good bytes, {} bad ones", source.source, source.good_bytes, source.bad_bytes);
    }
    node.shutdown().await;
    Ok(())
}
