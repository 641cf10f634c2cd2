//! What is checked.

use clap::Args;

use super::{Http, Named, Network};

/// Check what a node needs, and say what to do where something is wrong.
///
/// A line for each check, which begins with `ok`, `warning` or `bad`: the cache and its disk, key files, descriptors, the ports
/// to listen at, the clock, each RPC endpoint, the contract, and each peer. It takes the flags that the node is to have, or
/// the settings file. Status 1 when something is bad. Nothing is fetched; while it runs, it listens where the node will.
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    #[command(flatten)]
    pub(crate) named: Named,
    #[command(flatten)]
    pub(crate) network: Network,
    #[command(flatten)]
    pub(crate) http: Http,
}
