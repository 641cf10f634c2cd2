//! The contract that a node may read: with the feature `chain`.

#[cfg(feature = "chain")]
mod named;

/// The reader of the contract, if one is configured.
#[derive(Clone, Default)]
pub(crate) struct Contract(#[cfg(feature = "chain")] Option<chain_reader::ChainReader>);

impl Contract {
    /// Whether there is one.
    #[cfg_attr(not(feature = "chain"), expect(clippy::unused_self, reason = "there is none"))]
    pub(crate) fn is_configured(&self) -> bool {
        #[cfg(feature = "chain")]
        return self.0.is_some();
        #[cfg(not(feature = "chain"))]
        false
    }
}
