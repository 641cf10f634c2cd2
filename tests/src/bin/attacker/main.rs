//! A peer that attacks a node, in ways that have names. All that it sends is its own: raw sockets, or libp2p without any of
//! our crates.
//!
//! - `attacker ATTACK TARGET FROM [BLOB SIZE]` takes the [`places`] of the node at the multiaddress TARGET.
//! - `attacker ATTACK TARGET FROM VICTIM...` has it dial [`victims`], which are IP addresses.
//! - `attacker ATTACK MANIFEST FROM FOLDER COUNT HUB...` is so many [`sources`] of a model, whose blobs are in the folder.
//!
//! FROM is the IP address that it comes from, or is found at.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a tool of the tests: it fails by panicking")]

mod places;
mod sources;
mod victims;
mod wire;

use std::time::Duration;

use libp2p::identity::Keypair;
use libp2p::swarm::NetworkBehaviour;
use libp2p::{Swarm, SwarmBuilder, noise, tcp, yamux};

#[tokio::main]
async fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [attack, target, from, more @ ..] = &words[..] else { panic!("{words:?}") };
    let from = from.parse().unwrap();
    match attack.as_str() {
        "peers-flood" | "peers-nearby" | "dht-nearby" | "autonat-nearby" => {
            victims::run(attack, target, from, more).await;
        }
        "equal-lies" | "one-byte-each" | "one-piece-each" | "silent-manifests" | "slow-manifests" => {
            sources::run(attack, target, from, more).await;
        }
        _ => places::run(attack, target, from, more).await,
    }
}

/// A peer with a new name.
fn swarm<B: NetworkBehaviour>(behaviour: impl FnOnce(&Keypair) -> B) -> Swarm<B> {
    SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|key| behaviour(key))
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(3600)))
        .build()
}
