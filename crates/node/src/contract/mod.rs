//! The contract that a node may read: with the feature `chain`.

#[cfg(feature = "chain")]
mod named;

/// The reader of the contract, if one is configured.
#[derive(Clone, Default)]
pub(crate) struct Contract(#[cfg(feature = "chain")] Option<chain_reader::ChainReader>);
