//! Which model is to be fetched.

use anyhow::Result;
use chain_reader::{ChainReader, MatureModel};
use manifest::Digest;
use node::NodeError;

/// The model that was named, or else the one that the contract names.
pub(super) async fn which(
    named: Option<Digest>,
    reader: Option<&ChainReader>,
) -> Result<(Digest, Option<MatureModel>)> {
    match (named, reader) {
        (Some(digest), _) => Ok((digest, None)),
        (None, Some(reader)) => {
            let current = reader.mature_model().await?;
            Ok((current.manifest, Some(current)))
        }
        (None, None) => Err(NodeError::NoContract.into()),
    }
}
