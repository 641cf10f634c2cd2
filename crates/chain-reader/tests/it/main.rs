//! The crate against a real EVM node (anvil), and against a scripted endpoint for the faults that anvil never makes.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::error::Error;
use std::path::PathBuf;

use chain_reader::{
    Address, BlockTag, Call, Config, Devnet, Done, Policy, Receipt, RpcUrl, SubmitConfig, SubmitError, U256,
};
use manifest::Digest;

mod age;
mod client;
mod evm;
mod faults;
mod finality;
mod follow;
mod genesis;
mod honest;
mod memory;
mod mined;
mod money;
mod outage;
mod patience;
mod prepare;
mod proof;
mod quorum;
mod rollback;
mod scripted;
mod secrets;
mod submit;

/// A fresh chain with the contract in its first block.
async fn devnet() -> Devnet {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let installed = here.join("../../tests/evm/node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil");
    let anvil = std::env::var_os("LOADER_ANVIL").map_or(installed, PathBuf::from);
    assert!(
        anvil.is_file(),
        "{} is missing: run `npm ci` in tests/evm, or set LOADER_ANVIL",
        anvil.display()
    );
    let json = std::fs::read_to_string(here.join("../../tests/contracts/RPB.json")).unwrap();
    Devnet::start(&anvil, &json).await.unwrap()
}

/// Retries that take no time.
fn policy() -> Policy {
    Policy::default().with_backoff(std::time::Duration::from_millis(1))
}

fn config(devnet: &Devnet, block_tag: BlockTag) -> Config {
    Config::new(devnet.rpc_url().clone(), devnet.contract()).with_block_tag(block_tag).with_policy(policy())
}

fn submit_config(devnet: &Devnet) -> SubmitConfig {
    SubmitConfig::new(devnet.rpc_url().clone(), devnet.contract()).with_policy(policy())
}

/// The call that sets [`digest`], which is not set yet.
async fn prepare(config: &SubmitConfig, sender: Address, price: U256) -> Result<Call, SubmitError> {
    match chain_reader::prepare(config, sender, digest(), price).await? {
        chain_reader::Plan::Send(call) => Ok(*call),
        plan => panic!("{plan:?}"),
    }
}

/// The receipt of what was not set yet.
fn mined(done: Done) -> Receipt {
    let Done::Mined(receipt) = done else { panic!("{done:?}") };
    receipt
}

fn digest() -> Digest {
    Digest::of(b"a manifest")
}

fn url(text: &str) -> RpcUrl {
    text.parse().unwrap()
}

/// All that a person or a log may see of an error.
fn everything_shown(error: &dyn Error) -> String {
    let mut shown = format!("{error:?}");
    let mut next = Some(error);
    while let Some(error) = next {
        shown += &format!("\n{error}");
        next = error.source();
    }
    shown
}
