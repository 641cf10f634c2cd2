//! The stored state of a chain: how far it was read, and which models it named.

mod file;
mod memory;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

pub use file::{StoredChain, stored_chains};
pub(crate) use memory::{CLOCK_SKEW_S, unix_now};
pub use memory::{ChainMemory, Replaced, Seen};

use crate::address::Address;
use crate::ballot::ChainKey;
use crate::block::BlockTag;
use crate::error::StateError;

/// The state of one reader: of any chain, but one contract and tag.
#[derive(Debug)]
pub(crate) struct Store {
    dir: Option<PathBuf>,
    contract: Address,
    tag: BlockTag,
    /// Without a directory, or with one that may only be read: of the last chain only.
    kept: Mutex<Option<(ChainKey, ChainMemory)>>,
}

impl Store {
    pub(crate) fn new(dir: Option<PathBuf>, contract: Address, tag: BlockTag) -> Self {
        Self { dir, contract, tag, kept: Mutex::new(None) }
    }

    /// The stored state of this chain; and the chain, with its first block if that is stored.
    pub(crate) async fn load(&self, chain: ChainKey) -> Result<(ChainKey, ChainMemory), StateError> {
        let dir = match self.in_memory(chain) {
            Ok(kept) => return Ok(kept),
            Err(dir) => dir.to_owned(),
        };
        let (contract, tag) = (self.contract, self.tag);
        blocking(move || file::Place::of(&dir, chain, contract, tag)?.load()).await
    }

    /// Changes the stored state, and writes it if it is different then.
    pub(crate) async fn update<T: Send + 'static>(
        &self,
        chain: ChainKey,
        change: impl FnOnce(&mut ChainMemory) -> T + Send + 'static,
    ) -> Result<T, StateError> {
        let dir = match self.in_memory(chain) {
            Ok((chain, mut memory)) => {
                let changed = change(&mut memory);
                self.keep(chain, memory);
                return Ok(changed);
            }
            Err(dir) => dir.to_owned(),
        };
        let (contract, tag) = (self.contract, self.tag);
        let (changed, kept) = blocking(move || {
            let lock = match file::lock(&dir) {
                Err(error) if error.is_denied() => {
                    tracing::warn!(%error, "what is seen of the chain is remembered until this process ends only");
                    None
                }
                lock => Some(lock?),
            };
            let place = file::Place::of(&dir, chain, contract, tag)?;
            if lock.is_some() {
                return Ok((place.update(change)?, None));
            }
            let (chain, mut memory) = place.load()?;
            Ok((change(&mut memory), Some((chain, memory))))
        })
        .await?;
        if let Some((chain, memory)) = kept {
            self.keep(chain, memory);
        }
        Ok(changed)
    }

    /// What was loaded from this contract at this tag, on whatever chain.
    pub(crate) async fn loaded(&self) -> Result<Vec<(ChainKey, Seen)>, StateError> {
        let Some(dir) = self.dir.clone() else {
            let kept = *self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            return Ok(kept.and_then(|(chain, memory)| Some((chain, memory.loaded?))).into_iter().collect());
        };
        let (contract, tag) = (self.contract, self.tag);
        let stored = blocking(move || stored_chains(&dir)).await?;
        let ours = stored.into_iter().filter(|of| of.contract == contract && of.block_tag == tag);
        let mut loaded = Vec::new();
        for StoredChain { chain_id, genesis, memory, .. } in ours {
            loaded.extend(memory?.loaded.map(|seen| (ChainKey { chain_id, genesis }, seen)));
        }
        Ok(loaded)
    }

    /// The state in memory; or its directory.
    fn in_memory(&self, chain: ChainKey) -> Result<(ChainKey, ChainMemory), &Path> {
        let kept = *self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        match &self.dir {
            Some(dir) if kept.is_none_or(|(of, _)| !of.is_compatible(&chain)) => Err(dir),
            _ => Ok(self.kept_of(chain)),
        }
    }

    fn keep(&self, chain: ChainKey, memory: ChainMemory) {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some((chain, memory));
    }

    fn kept_of(&self, chain: ChainKey) -> (ChainKey, ChainMemory) {
        let kept = *self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        match kept.filter(|(of, _)| of.is_compatible(&chain)) {
            Some((of, memory)) => (of.with_genesis_of(chain), memory),
            None => (chain, ChainMemory::default()),
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StateError> + Send + 'static,
) -> Result<T, StateError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| StateError::Worker)?
}

#[cfg(test)]
mod tests;
