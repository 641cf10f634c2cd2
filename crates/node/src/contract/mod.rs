//! The contracts that a node may read: with the feature `chain`.

#[cfg(feature = "chain")]
mod named;

/// The readers of the contracts that are configured.
#[derive(Clone, Default)]
pub(crate) struct Contracts(#[cfg(feature = "chain")] std::sync::Arc<[chain_reader::ChainReader]>);

impl Contracts {
    /// Whether there is one.
    #[cfg_attr(not(feature = "chain"), expect(clippy::unused_self, reason = "there is none"))]
    pub(crate) fn is_configured(&self) -> bool {
        #[cfg(feature = "chain")]
        return !self.0.is_empty();
        #[cfg(not(feature = "chain"))]
        false
    }
}
