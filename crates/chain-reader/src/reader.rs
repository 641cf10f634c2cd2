//! The one read: which model is current.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use manifest::Digest;
use tokio::time::Instant;

use crate::ballot::{Rules, Said, Winner};
use crate::block::{BlockRef, BlockTag};
use crate::config::{Config, MAX_ENDPOINTS, Staleness};
use crate::endpoint::Endpoint;
use crate::error::{ChainError, NotFinal, excerpt};
use crate::model::{BlockHash, MatureModel, Price};
use crate::proof::prove;
use crate::round::{Question, denials};
use crate::state::{CLOCK_SKEW_S, Replaced, Seen, Store, unix_now};
use crate::status::{ChainStatus, EndpointStatus, Ledger, liars_tolerated};
use crate::testimony::Prospect;

/// Whether the newest final block that was read before was reorganised away.
#[derive(Debug, Clone, Copy)]
enum Floor {
    /// Too few endpoints deny it to matter, or none.
    Stands,
    /// Some deny it, and it is not clear who is right.
    Disputed,
    /// A quorum denies it.
    Replaced(Replaced),
}

impl Floor {
    fn replaced(self) -> Option<Replaced> {
        match self {
            Self::Replaced(replaced) => Some(replaced),
            Self::Stands | Self::Disputed => None,
        }
    }
}

/// The longest backoff before a round without a quorum is repeated.
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// Reads the RPB contract. A clone shares its connections, state and counts.
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
    /// When the chain cannot be read, the configured [`Staleness`] decides.
    ///
    /// **Time.** Each request is made within the configured [`Policy`](crate::Policy); two round trips when all is well.
    /// An endpoint that stalls holds a quorum of others up by a second, and by one more when a newer block is final. While
    /// endpoints that answer do not agree, the read starts again, as often as the policy allows; while one lacks a block
    /// that it should have, for as long as two requests may take.
    /// **Cancel safety.** Dropping the future stops the read.
    ///
    /// # Errors
    /// Decide with [`ChainError::availability`]. An answer of a quorum is an error unless it is a digest.
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

    /// Records that this model was loaded: the fallback while the chain is unreachable.
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

    /// The status.
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

    /// The model that was last loaded, if the staleness allows it as a fallback after this error.
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
        let limit_s = limit.as_secs();
        let Some(age) = age else {
            tracing::warn!(
                "the model that was last loaded will not do: it was read at a time that is yet to come, so a clock is or \
                 was wrong, and nobody knows how old it is"
            );
            return None;
        };
        let (age_s, block_number) = (age.as_secs(), model.block_number);
        if age > limit {
            tracing::warn!(
                "the model that was last loaded will not do: block {block_number}, which names it, is {age_s} s old, \
                 {limit_s} s are allowed"
            );
            return None;
        }
        tracing::warn!(
            manifest = %model.manifest,
            "using the model that was last loaded: block {block_number}, which names it, is {age_s} s old, and now the \
             chain cannot be read: {error}"
        );
        Some(model)
    }

    /// The model that was last loaded, and how old the newest block is that is known to name it; `None` when a clock was
    /// wrong.
    async fn last_loaded(&self) -> Result<(MatureModel, Option<Duration>), ChainError> {
        let Config { contract, block_tag: tag, chain_id, .. } = self.0.config;
        let mut loaded = self.0.store.loaded().await?;
        loaded.retain(|(chain, _)| chain_id.is_none_or(|id| id == chain.chain_id));
        match loaded.as_slice() {
            [] => Err(ChainError::NothingLoaded { contract, tag }),
            [(chain, seen)] => Ok((seen.model(chain.chain_id), seen.age(unix_now()))),
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
            self.ledger().block = Some(winner.vote.block);
            let floor = self.last_floor(&winner).await?;
            let model = self.check_age(&winner).and_then(|()| self.model(&winner));
            if let Ok(model) = &model {
                self.second_opinion(&winner, model).await?;
            }
            if self.settle(&winner, model.as_ref().ok(), floor).await? {
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

    /// The quorum's answer at the newest possible block under this tag.
    async fn agree(&self, tag: BlockTag, floor: Option<&Store>) -> Result<Winner, ChainError> {
        let Inner { config, endpoints, rules, .. } = &*self.0;
        let question = Question { endpoints, rules: *rules, contract: config.contract, tag, floor };
        let started_at = Instant::now();
        let mut attempt = 1;
        loop {
            let (ballot, winner) = question.ask().await?;
            let mut testimonies = ballot.testimonies(tag, winner.as_ref());
            for (testimony, endpoint) in testimonies.iter_mut().zip(endpoints) {
                testimony.text = endpoint.url().blot(&testimony.text);
            }
            let said = self.ledger().record(&testimonies, winner.is_some());
            if let Some(winner) = winner {
                return Ok(winner);
            }
            // Stalled endpoints may hold each round up for longer than that: then there is no further one.
            let is_late = started_at.elapsed() >= config.policy.request_timeout * 2;
            let is_over = match ballot.prospect() {
                Prospect::None => true,
                Prospect::Split => is_late || attempt >= config.policy.attempts,
                // Of several nodes behind one URL the next one may have what this one lacks.
                Prospect::Lag => is_late,
            };
            if is_over {
                return Err(ballot.into_error(self.endpoint_names(), config.contract, tag, said));
            }
            tracing::debug!(attempt, "reading again at a newer block");
            tokio::time::sleep(config.policy.pause(attempt).min(MAX_PAUSE)).await;
            attempt = attempt.saturating_add(1);
        }
    }

    /// Whether the newest final block that was read before is still part of the chain that the winner's block ends. A
    /// quorum must deny it: one endpoint alone could lock every reader out. Endpoints that do not have it any more deny
    /// nothing.
    async fn last_floor(&self, winner: &Winner) -> Result<Floor, ChainError> {
        let Inner { config, endpoints, rules, store, .. } = &*self.0;
        if config.block_tag != BlockTag::Finalized {
            return Ok(Floor::Stands);
        }
        let (_, memory) = store.load(winner.chain).await?;
        let Some(floor) = memory.floor.filter(|floor| floor.number < winner.vote.block.number()) else {
            return Ok(Floor::Stands);
        };
        let denials = denials(endpoints, *rules, &winner.voters, floor, config.policy.request_timeout).await;
        let is_enough = rules.is_quorum(&denials.iter().map(|(who, _)| *who).collect::<Vec<_>>());
        for (who, now) in &denials {
            let (endpoint, number, before) = (endpoints[*who].name(), floor.number, floor.hash);
            tracing::warn!(endpoint, number, %before, %now, "another block stands where a final one was read");
        }
        Ok(match denials.first() {
            None => Floor::Stands,
            Some((_, now)) if is_enough => Floor::Replaced(Replaced { before: floor, now: *now }),
            Some(_) => Floor::Disputed,
        })
    }

    /// Refuses a block that is too old to be current.
    fn check_age(&self, winner: &Winner) -> Result<(), ChainError> {
        let block = winner.vote.block;
        if unix_now().saturating_add(CLOCK_SKEW_S) < block.timestamp() && !self.ledger().note_clock_told() {
            let (number, timestamp) = (block.number(), block.timestamp());
            tracing::warn!(
                number,
                timestamp,
                "this machine's clock is behind the chain's: nobody can tell whether the chain stands still"
            );
        }
        let Some(limit) = self.0.config.age_limit(winner.chain.chain_id) else { return Ok(()) };
        let age = Duration::from_secs(unix_now().saturating_sub(block.timestamp()));
        if age <= limit {
            return Ok(());
        }
        Err(ChainError::StaleBlock {
            tag: self.0.config.block_tag,
            agreeing: winner.voters.len(),
            endpoints: self.0.endpoints.len(),
            block_number: block.number(),
            age,
            limit,
        })
    }

    /// Stores the block that was read, and its model, if there is one; or that a final block was replaced. `false` when
    /// another process has read a newer block by now.
    async fn settle(
        &self,
        winner: &Winner,
        model: Option<&MatureModel>,
        last_floor: Floor,
    ) -> Result<bool, ChainError> {
        let block = BlockRef { number: winner.vote.block.number(), hash: winner.vote.block.hash };
        let seen = model.map(Seen::now);
        let must_stay = self.0.config.block_tag == BlockTag::Finalized;
        let settled = self.0.store.update(winner.chain, move |memory| {
            let floor = memory.floor;
            let is_lower = floor.is_some_and(|floor| floor.number > block.number);
            let other = floor.filter(|floor| floor.number == block.number && floor.hash != block.hash);
            let other = other.map(|before| Replaced { before, now: block.hash });
            if must_stay {
                memory.alarm = memory.alarm.or(other).or(last_floor.replaced());
            }
            if !is_lower && memory.alarm.is_none() {
                memory.note(block, seen);
                // It is checked again, until it is clear which block is there.
                memory.floor = floor.filter(|_| matches!(last_floor, Floor::Disputed)).or(memory.floor);
            }
            (other, is_lower, *memory)
        });
        let (other, is_lower, memory) = settled.await?;
        {
            let mut ledger = self.ledger();
            ledger.chain = Some(winner.chain);
            ledger.memory = memory;
        }
        if let Some(Replaced { before, now }) = memory.alarm {
            return Err(ChainError::FinalizedChanged {
                block_number: before.number,
                before: before.hash,
                now,
            });
        }
        if let Some(Replaced { before, now }) = other {
            let (block_number, before) = (before.number, before.hash);
            tracing::warn!(block_number, %before, %now, "the chain was reorganised");
        }
        Ok(!is_lower)
    }

    /// The start of an answer of the quorum, without any key.
    fn shown(&self, said: &str) -> String {
        let blotted = self.0.endpoints.iter().fold(excerpt(said, 160), |text, one| one.url().blot(&text));
        if blotted.chars().count() > 80 { blotted.chars().take(79).chain(['…']).collect() } else { blotted }
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
                let found = if data.is_empty() { String::new() } else { self.shown(&data.to_string()) };
                let found_bytes = data.len();
                return Err(ChainError::NotRpb { endpoint: endpoint(), contract, found, found_bytes });
            }
        };
        let text = String::from_utf8_lossy(text);
        let manifest = text.parse::<Digest>().map_err(|_| ChainError::NotADigest {
            contract,
            block_number,
            found: self.shown(&text),
            found_bytes: text.len(),
        })?;
        let (block_hash, block_timestamp) = (winner.vote.block.hash, winner.vote.block.timestamp());
        let chain_id = winner.chain.chain_id;
        let (price, block_hash) = (Price(price), BlockHash(block_hash));
        Ok(MatureModel { manifest, price, chain_id, block_number, block_hash, block_timestamp })
    }

    /// Proves the string, if that is wanted and was not done for this block. That it is unprovable is no error.
    async fn second_opinion(&self, winner: &Winner, model: &MatureModel) -> Result<(), ChainError> {
        let Some(slot) = self.0.config.proof else { return Ok(()) };
        if self.ledger().is_proven(winner.vote.block, model.manifest) {
            return Ok(());
        }
        let (contract, text) = (self.0.config.contract, model.manifest.to_string());
        let proof = prove(
            &self.0.endpoints,
            winner,
            contract,
            text.as_bytes(),
            slot,
            self.0.config.policy.request_timeout,
        )
        .await;
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
