//! The contract that a node may read: with the feature `chain`.

#[cfg(feature = "chain")]
mod named;

/// What reads the contract, if one is configured.
#[derive(Clone, Default)]
pub(crate) struct Contract(#[cfg(feature = "chain")] Option<chain_reader::ChainReader>);
