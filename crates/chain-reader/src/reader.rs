//! The one read: which model is current.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use alloy::primitives::{B256, U256};
use manifest::Digest;

use crate::ballot::{Rules, Said, Winner};
use crate::config::{BlockTag, Config, MAX_ENDPOINTS, Staleness};
use crate::endpoint::Endpoint;
use crate::error::{ChainError, NotFinal, excerpt};
use crate::proof::prove;
use crate::round::Question;
use crate::state::{BlockRef, Seen, Store, unix_now};
use crate::status::{ChainStatus, EndpointStatus, Ledger, liars_tolerated};

/// The current model, and the block in which the contract said so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatureModel {
    /// The digest of its manifest.
    pub manifest: Digest,
    /// Its price, in the contract's own unit.
    pub price: U256,
    /// The chain it was read from.
    pub chain_id: u64,
    /// The height it was read at.
    pub block_number: u64,
    /// The block it was read at.
    pub block_hash: B256,
}

/// Reads the RPB contract. A clone shares its connections, memory and counts.
#[derive(Clone)]
pub struct ChainReader(Arc<Inner>);

struct Inner {
    config: Config,
    endpoints: Vec<Endpoint>,
    rules: Rules,
    store: Store,
    ledger: Mutex<Ledger>,
}

impl std::fmt::Debug for ChainReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ChainReader").field(&self.0.config).finish()
    }
}

impl ChainReader {
    /// Checks the configuration; nothing is sent yet.
    ///
    /// # Errors
    /// - [`ChainError::NoEndpoint`], [`ChainError::DuplicateEndpoint`], [`ChainError::TooManyEndpoints`],
    ///   [`ChainError::Quorum`]: the configuration makes no sense.
    /// - [`ChainError::Endpoint`]: TLS cannot be set up on this machine.
    pub fn new(config: Config) -> Result<Self, ChainError> {
        let trusted = config.trusted_rpc.as_ref();
        // When it is one of the others, it is asked once, with the headers that it was given as the trusted one.
        let others =
            config.rpc_urls.iter().filter(|url| trusted.is_none_or(|trusted| url.url() != trusted.url()));
        let urls: Vec<_> = others.chain(trusted).collect();
        let endpoints = urls.iter().map(|url| Endpoint::new(url, config.policy)).collect::<Result<_, _>>()?;
        Self::over(config, endpoints)
    }

    /// The same with endpoints that are there already; the trusted one, if there is one, is the last.
    pub(crate) fn over(config: Config, endpoints: Vec<Endpoint>) -> Result<Self, ChainError> {
        let count = endpoints.len();
        let is_double =
            |i: usize| endpoints[..i].iter().any(|other| other.url().is_beside(endpoints[i].url()));
        let is_offline = config.staleness == Staleness::Offline;
        if count == 0 && !is_offline {
            return Err(ChainError::NoEndpoint);
        }
        if count > MAX_ENDPOINTS {
            return Err(ChainError::TooManyEndpoints { count, max: MAX_ENDPOINTS });
        }
        if let Some(i) = (0..count).find(|i| is_double(*i)) {
            return Err(ChainError::DuplicateEndpoint { endpoint: endpoints[i].name() });
        }
        let quorum = config.quorum.unwrap_or(count / 2 + 1);
        if !is_offline && !(1..=count).contains(&quorum) {
            return Err(ChainError::Quorum { quorum, endpoints: count });
        }
        if !is_offline && liars_tolerated(quorum, count) == 0 {
            tracing::warn!(
                "{quorum} of {count} RPC endpoints must agree: not one of them may lie or fail; three or more endpoints \
                 of different providers (--rpc-url) tolerate that"
            );
        }
        let trusted = config.trusted_rpc.as_ref().map(|_| count - 1);
        let rules = Rules { quorum, trusted, chain_id: config.chain_id };
        let known = |(i, endpoint): (usize, &Endpoint)| EndpointStatus {
            endpoint: endpoint.name(),
            is_trusted: trusted == Some(i),
            ..EndpointStatus::default()
        };
        let ledger = Mutex::new(Ledger::new(endpoints.iter().enumerate().map(known).collect()));
        let store = Store::new(config.state_dir.clone(), config.contract, config.block_tag);
        Ok(Self(Arc::new(Inner { config, endpoints, rules, store, ledger })))
    }

    /// Asks the contract for its current model, at the newest block under the configured tag that a quorum agrees on.
    /// When the chain cannot be reached, the configured [`Staleness`] decides.
    ///
    /// **Time.** Each request is made within the configured [`Policy`](crate::Policy); two round trips when all is well.
    /// An endpoint that stalls holds a quorum of others up by two seconds. While endpoints that answer do not agree, the
    /// read starts again, as often as the policy allows.
    /// **Cancel safety.** Dropping the future stops the read.
    ///
    /// # Errors
    /// Decide with [`ChainError::availability`]. What a quorum says is an error unless it is a digest.
    pub async fn mature_model(&self) -> Result<MatureModel, ChainError> {
        if self.0.config.staleness == Staleness::Offline {
            let (model, _) = self.last_loaded().await?;
            tracing::info!(manifest = %model.manifest, "using the model that was last loaded: the chain is not asked");
            return Ok(model);
        }
        match self.read().await {
            Ok(model) => Ok(model),
            Err(error) => self.stand_in(&error).await.ok_or(error),
        }
    }

    /// Remembers that this model was loaded, and is the one to use while the chain cannot be reached.
    ///
    /// # Errors
    /// [`ChainError::State`].
    pub async fn note_loaded(&self, model: &MatureModel) -> Result<(), ChainError> {
        let chain = self.ledger().chain.filter(|chain| chain.chain_id == model.chain_id);
        // Without a chain the model is the one that was loaded before.
        let Some(chain) = chain else { return Ok(()) };
        let seen = Seen::now(model);
        let memory = self.0.store.update(chain, move |memory| {
            if memory.loaded.is_none_or(|loaded| loaded.manifest != seen.manifest) {
                memory.loaded = Some(seen);
            }
            *memory
        });
        let memory = memory.await?;
        self.ledger().memory = memory;
        Ok(())
    }

    /// What was seen so far.
    pub fn status(&self) -> ChainStatus {
        let Config { contract, block_tag, .. } = &self.0.config;
        self.ledger().status(contract.to_string(), block_tag.to_string(), self.0.rules.quorum)
    }

    /// Asks the chain, whatever the staleness that is configured.
    pub(crate) async fn read(&self) -> Result<MatureModel, ChainError> {
        let read = self.agreed_model().await;
        self.ledger().trouble = read.as_ref().err().map(ToString::to_string);
        read
    }

    pub(crate) fn config(&self) -> &Config {
        &self.0.config
    }

    /// The model that was last loaded, if that will do when the chain was read with this error.
    pub(crate) async fn stand_in(&self, error: &ChainError) -> Option<MatureModel> {
        let Staleness::UpTo(limit) = self.0.config.staleness else { return None };
        if !error.is_unreachable() {
            return None;
        }
        let (model, age) = match self.last_loaded().await {
            Ok(loaded) => loaded,
            Err(why) => {
                tracing::warn!("the chain cannot be read, and nothing can stand in for it: {why}");
                return None;
            }
        };
        let (age_s, limit_s) = (age.as_secs(), limit.as_secs());
        if age > limit {
            tracing::warn!(
                "the model that was last loaded will not do: the contract named it {age_s} s ago, {limit_s} s are allowed"
            );
            return None;
        }
        tracing::warn!(
            manifest = %model.manifest,
            "using the model that was last loaded: the contract named it {age_s} s ago, and now the chain cannot be read: \
             {error}"
        );
        Some(model)
    }

    /// The model that was last loaded, and how long ago the contract is known to have named it.
    async fn last_loaded(&self) -> Result<(MatureModel, Duration), ChainError> {
        let Config { contract, block_tag: tag, chain_id, .. } = self.0.config;
        let mut loaded = self.0.store.loaded().await?;
        loaded.retain(|(chain, _)| chain_id.is_none_or(|id| id == chain.chain_id));
        match loaded.as_slice() {
            [] => Err(ChainError::NothingLoaded { contract, tag }),
            [(chain, seen)] => {
                let age = Duration::from_secs(unix_now().saturating_sub(seen.confirmed_at));
                Ok((seen.model(chain.chain_id), age))
            }
            several => {
                let chain_ids = several.iter().map(|(chain, _)| chain.chain_id).collect();
                Err(ChainError::SeveralChains { contract, chain_ids })
            }
        }
    }

    async fn agreed_model(&self) -> Result<MatureModel, ChainError> {
        let policy = self.0.config.policy;
        let mut attempt = 1;
        loop {
            let winner = self.agree(self.0.config.block_tag, Some(&self.0.store)).await?;
            let model = self.model(&winner);
            if let Ok(model) = &model {
                self.second_opinion(&winner, model).await?;
            }
            if self.settle(&winner, model.as_ref().ok()).await? {
                return match model {
                    Ok(model) => {
                        tracing::debug!(manifest = %model.manifest, block = model.block_number, "read the contract");
                        Ok(model)
                    }
                    Err(error) => Err(self.perhaps_not_final(error, &winner).await),
                };
            }
            tracing::debug!(attempt, "another process has read a newer block meanwhile");
            tokio::time::sleep(policy.pause(attempt)).await;
            attempt = attempt.saturating_add(1);
        }
    }

    /// What a quorum agrees on at the newest possible block under this tag.
    async fn agree(&self, tag: BlockTag, floor: Option<&Store>) -> Result<Winner, ChainError> {
        let Inner { config, endpoints, rules, .. } = &*self.0;
        let question = Question { endpoints, rules: *rules, contract: config.contract, tag, floor };
        let mut attempt = 1;
        loop {
            let (ballot, winner) = question.ask().await?;
            let testimonies = ballot.testimonies(tag, winner.as_ref());
            let said = self.ledger().record(&testimonies, winner.is_some());
            if let Some(winner) = winner {
                return Ok(winner);
            }
            // Blocks may be changing just now, and of several nodes behind one URL one may lack a block.
            if attempt >= config.policy.attempts || !ballot.may_pass() {
                return Err(ballot.into_error(self.endpoint_names(), config.contract, tag, said));
            }
            tracing::debug!(attempt, "reading again at a newer block");
            tokio::time::sleep(config.policy.pause(attempt)).await;
            attempt += 1;
        }
    }

    /// Remembers what was read, and the model in it, if there is one. `false` when another process has read a newer block by now.
    async fn settle(&self, winner: &Winner, model: Option<&MatureModel>) -> Result<bool, ChainError> {
        let block = BlockRef { number: winner.vote.block.number(), hash: winner.vote.block.hash };
        let seen = model.map(Seen::now);
        let must_stay = self.0.config.block_tag == BlockTag::Finalized;
        let settled = self.0.store.update(winner.chain, move |memory| {
            let before = memory.floor;
            let is_other =
                before.is_some_and(|floor| floor.number == block.number && floor.hash != block.hash);
            let is_lower = before.is_some_and(|floor| floor.number > block.number);
            if !(is_lower || is_other && must_stay) {
                memory.note(block, seen);
            }
            (before.filter(|_| is_other), is_lower, *memory)
        });
        let (replaced, is_lower, memory) = settled.await?;
        {
            let mut ledger = self.ledger();
            ledger.chain = Some(winner.chain);
            ledger.memory = memory;
        }
        if let Some(replaced) = replaced {
            let (block_number, before, now) = (block.number, replaced.hash, block.hash);
            if must_stay {
                return Err(ChainError::FinalizedChanged { block_number, before, now });
            }
            tracing::warn!(block_number, %before, %now, "the chain was reorganised");
        }
        Ok(!is_lower)
    }

    /// What the agreed answer means.
    fn model(&self, winner: &Winner) -> Result<MatureModel, ChainError> {
        let contract = self.0.config.contract;
        let block_number = winner.vote.block.number();
        let endpoint = || self.0.endpoints[winner.voters[0]].name();
        let (text, price) = match &winner.vote.said {
            Said::Returned { text, price } if !text.is_empty() => (text, *price),
            Said::Returned { .. } => return Err(ChainError::NoModel { contract, block_number }),
            Said::NoCode => {
                return Err(ChainError::NoContract { endpoint: endpoint(), contract, block_number });
            }
            Said::Reverted { reason } => {
                return Err(ChainError::Reverted { endpoint: endpoint(), contract, reason: reason.clone() });
            }
            Said::Undecodable(data) => {
                let found = if data.is_empty() { String::new() } else { excerpt(&data.to_string(), 80) };
                let found_bytes = data.len();
                return Err(ChainError::NotRpb { endpoint: endpoint(), contract, found, found_bytes });
            }
        };
        let text = String::from_utf8_lossy(text);
        let manifest = text.parse::<Digest>().map_err(|_| ChainError::NotADigest {
            contract,
            block_number,
            found: excerpt(&text, 80),
            found_bytes: text.len(),
        })?;
        let block_hash = winner.vote.block.hash;
        Ok(MatureModel { manifest, price, chain_id: winner.chain.chain_id, block_number, block_hash })
    }

    /// Proves the string, if that is wanted and was not done for this block. That it is unprovable is no error.
    async fn second_opinion(&self, winner: &Winner, model: &MatureModel) -> Result<(), ChainError> {
        let Some(slot) = self.0.config.proof else { return Ok(()) };
        if self.ledger().is_proven(winner.vote.block, model.manifest) {
            return Ok(());
        }
        let (contract, text) = (self.0.config.contract, model.manifest.to_string());
        let proof = prove(&self.0.endpoints, winner, contract, text.as_bytes(), slot).await;
        self.ledger().record_proof(winner.vote.block, model.manifest, &proof);
        proof.map(drop).map_err(|error| ChainError::Proof(Box::new(error)))
    }

    /// Tells what is nowhere from what stands in the newest block already.
    async fn perhaps_not_final(&self, error: ChainError, winner: &Winner) -> ChainError {
        let Config { contract, block_tag: tag, .. } = self.0.config;
        let what = match error {
            ChainError::NoContract { .. } => NotFinal::Contract,
            ChainError::NoModel { .. } => NotFinal::Model,
            _ => return error,
        };
        if tag == BlockTag::Latest {
            return error;
        }
        let Ok(latest) = self.agree(BlockTag::Latest, None).await else { return error };
        let is_there = match (&latest.vote.said, what) {
            (Said::NoCode, _) => false,
            (Said::Returned { text, .. }, NotFinal::Model) => !text.is_empty(),
            _ => true,
        };
        let block_number = winner.vote.block.number();
        let behind_blocks = latest.vote.block.number().saturating_sub(block_number);
        if is_there {
            ChainError::NotFinal { what, contract, tag, block_number, behind_blocks }
        } else {
            error
        }
    }

    fn endpoint_names(&self) -> impl Iterator<Item = String> {
        self.0.endpoints.iter().map(Endpoint::name)
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // Counts are right after each line of code that holds the lock.
        self.0.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
