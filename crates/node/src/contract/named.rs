//! What a node does with a contract.

use std::sync::Arc;

use chain_reader::{ChainReader, MatureModel};
use futures::{FutureExt as _, StreamExt as _, stream};
use loader::Observer;

use super::Contract;
use crate::watch::Watch;
use crate::{Config, Loaded, Node, NodeError};

impl From<Option<ChainReader>> for Contract {
    fn from(reader: Option<ChainReader>) -> Self {
        Self(reader)
    }
}

impl Contract {
    pub(crate) fn reader(&self) -> Option<&ChainReader> {
        self.0.as_ref()
    }
}

impl Node {
    /// Like [`Node::start`], with a reader that exists already: [`Config::reader`].
    ///
    /// # Errors
    /// Those of [`Node::start`].
    pub async fn start_reading(config: Config, chain: Option<ChainReader>) -> Result<Self, NodeError> {
        Self::start_with(config, chain.into()).await
    }

    /// Which model the contract names now.
    ///
    /// # Errors
    /// [`NodeError::NoContract`] when none is configured, [`NodeError::Chain`].
    pub async fn mature_model(&self) -> Result<MatureModel, NodeError> {
        let chain = self.contract.reader().ok_or(NodeError::NoContract)?;
        Ok(chain.mature_model().await?)
    }

    /// Loads the model that the contract names now: [`Node::mature_model`], then [`Node::load`].
    ///
    /// # Errors
    /// Those of both.
    pub async fn load_mature(&self, observer: &dyn Observer) -> Result<Loaded, NodeError> {
        let mature = self.mature_model().await?;
        let loaded = self.load(mature.manifest, observer).await?;
        self.note_loaded(&mature).await;
        Ok(loaded)
    }

    /// Records that the model which the contract names is loaded: while the chain is unreachable, it is the fallback that
    /// [`Staleness`](chain_reader::Staleness) allows. A failure is only logged.
    pub async fn note_loaded(&self, mature: &MatureModel) {
        if let Some(chain) = self.contract.reader()
            && let Err(error) = chain.note_loaded(mature).await
        {
            tracing::warn!(%error, "cannot remember which model was loaded");
        }
    }

    /// The reader of the chain; `None` when no contract is configured.
    pub fn chain(&self) -> Option<&ChainReader> {
        self.contract.reader()
    }

    /// Follows the contract: each model that it names is loaded as by [`Node::load`], beside the one before, and yielded
    /// once. `observer` gets the events of all those loads.
    ///
    /// # Errors
    /// [`NodeError::NoContract`].
    pub fn watch(&self, observer: Arc<dyn Observer>) -> Result<Watch, NodeError> {
        let follower = self.contract.reader().ok_or(NodeError::NoContract)?.follow(None);
        let events = stream::unfold(follower, async |mut follower| Some((follower.next().await, follower)));
        let node = self.clone();
        let load = move |named: MatureModel| {
            let (node, observer) = (node.clone(), Arc::clone(&observer));
            async move {
                let loaded = node.load(named.manifest, &*observer).await?;
                node.note_loaded(&named).await;
                Ok(loaded)
            }
            .boxed()
        };
        Ok(Watch::new(events.boxed(), load))
    }
}
