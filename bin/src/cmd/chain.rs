//! Which model is meant: what the contract says.

use anyhow::Result;
use chain_reader::{ChainReader, Config};
use manifest::Digest;

use crate::answer::{OnChain, Text};

/// Reads the contract.
pub(crate) async fn current(config: Config) -> Result<(Digest, OnChain)> {
    let contract = config.contract;
    let model = ChainReader::new(config)?.mature_model().await?;
    let on_chain = OnChain {
        contract: Text::of(contract),
        chain_id: model.chain_id,
        block_number: model.block_number,
        block_hash: Text::of(model.block_hash),
        price: Text::of(model.price),
    };
    Ok((model.manifest, on_chain))
}
