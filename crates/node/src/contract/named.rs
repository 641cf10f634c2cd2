//! What a node does with contracts.

use std::sync::Arc;

use chain_reader::{ChainReader, ChainStatus, MatureModel};
use futures::{FutureExt as _, StreamExt as _, stream};
use loader::Observer;

use super::Contracts;
use crate::watch::Watch;
use crate::{Config, Loaded, Node, NodeError};

impl From<Vec<ChainReader>> for Contracts {
    fn from(readers: Vec<ChainReader>) -> Self {
        Self(readers.into())
    }
}

impl Contracts {
    fn first(&self) -> Option<&ChainReader> {
        self.0.first()
    }

    /// The states of all readers.
    pub(crate) fn status(&self) -> Vec<ChainStatus> {
        self.0.iter().map(ChainReader::status).collect()
    }
}

impl Node {
    /// Like [`Node::start`], with a reader that exists already: [`Config::reader`].
    ///
    /// # Errors
    /// Those of [`Node::start`].
    pub async fn start_reading(config: Config, chain: Option<ChainReader>) -> Result<Self, NodeError> {
        Self::start_with(config, Vec::from_iter(chain).into()).await
    }

    /// Which model the contract names now; the first one, if there are several.
    ///
    /// # Errors
    /// [`NodeError::NoContract`] when none is configured, [`NodeError::Chain`].
    pub async fn mature_model(&self) -> Result<MatureModel, NodeError> {
        let chain = self.contracts.first().ok_or(NodeError::NoContract)?;
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
        if let Some(chain) = self.contracts.first() {
            note_loaded(chain, mature).await;
        }
    }

    /// The reader of the chain; `None` when no contract is configured. The first one, if there are several.
    pub fn chain(&self) -> Option<&ChainReader> {
        self.contracts.first()
    }

    /// The readers of all contracts, as [`Config::with_chains`] has them.
    pub fn chains(&self) -> &[ChainReader] {
        &self.contracts.0
    }

    /// Follows the contract, the first one if there are several: see [`Node::watch_chain`].
    ///
    /// # Errors
    /// [`NodeError::NoContract`].
    pub fn watch(&self, observer: Arc<dyn Observer>) -> Result<Watch, NodeError> {
        Ok(self.watch_chain(self.contracts.first().ok_or(NodeError::NoContract)?, observer))
    }

    /// Follows a contract: each model that it names is loaded as by [`Node::load`], beside the one before, and yielded
    /// once. `observer` gets the events of all those loads.
    pub fn watch_chain(&self, chain: &ChainReader, observer: Arc<dyn Observer>) -> Watch {
        let follower = chain.follow(None);
        let events = stream::unfold(follower, async |mut follower| Some((follower.next().await, follower)));
        let (node, chain) = (self.clone(), chain.clone());
        let load = move |named: MatureModel| {
            let (node, chain, observer) = (node.clone(), chain.clone(), Arc::clone(&observer));
            async move {
                let loaded = node.load(named.manifest, &*observer).await?;
                note_loaded(&chain, &named).await;
                Ok(loaded)
            }
            .boxed()
        };
        Watch::new(events.boxed(), load)
    }
}

/// A failure is only logged.
async fn note_loaded(chain: &ChainReader, mature: &MatureModel) {
    if let Err(error) = chain.note_loaded(mature).await {
        tracing::warn!(%error, "cannot remember which model was loaded");
    }
}
