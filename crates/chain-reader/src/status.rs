//! The status of a reader: counted, logged, and shown by `loader status`.

use std::collections::VecDeque;

use manifest::Digest;
use serde::{Deserialize, Serialize};

use crate::ballot::ChainKey;
use crate::block::{Block, BlockRef};
use crate::error::ProofError;
use crate::proof::Proof;
use crate::state::{ChainMemory, unix_now};
use crate::testimony::{Stance, Testimony};

/// How many disagreements are kept.
const KEPT_DISAGREEMENTS: usize = 16;

/// A reader's view of the chain. Names of endpoints are their hosts and ports; times are seconds since 1970.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ChainStatus {
    /// The contract's address.
    pub contract: String,
    /// Which block is read: `latest`, `safe` or `finalized`.
    pub block_tag: String,
    /// The chain, once it was read.
    pub chain_id: Option<u64>,
    /// The block that was last agreed on.
    pub block: Option<BlockStatus>,
    /// The quorum.
    pub quorum: usize,
    /// How many faulty endpoints are tolerated, lying or failing.
    pub liars_tolerated: usize,
    /// The endpoints, in the order of the configuration.
    pub endpoints: Vec<EndpointStatus>,
    /// How many rounds there were.
    pub rounds: u64,
    /// How often there was no quorum.
    pub rounds_without_quorum: u64,
    /// How often endpoints disagreed.
    pub disagreements: u64,
    /// The last disagreements, oldest first.
    pub recent_disagreements: Vec<Disagreement>,
    /// The stored state: the floor, the last model that the contract named, and the last that was loaded.
    pub memory: ChainMemory,
    /// Why the last read gave no model, if it did not.
    pub trouble: Option<String>,
    /// The result of the last storage proof, if any was wanted.
    pub proof: Option<ProofStatus>,
}

/// The newest block under the tag that a quorum has.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct BlockStatus {
    /// Its height.
    pub number: u64,
    /// When it was made, in seconds since 1970.
    pub timestamp: u64,
    /// How old it is by this machine's clock.
    pub age_s: u64,
}

/// The result of a storage proof.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ProofStatus {
    /// The model that the string names.
    pub manifest: String,
    /// The block whose state root it is about.
    pub block: BlockRef,
    /// Whether the string was proven to stand in the contract's storage.
    pub is_proven: bool,
    /// What is proven and what not, or why nothing is.
    pub text: String,
}

/// What a reader knows of one endpoint.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct EndpointStatus {
    /// Host and port.
    pub endpoint: String,
    /// Whether it has a veto.
    pub is_trusted: bool,
    /// The height it last reported under the tag.
    pub height: Option<u64>,
    /// Whether its last vote was part of the decision.
    pub agrees: bool,
    /// Its last vote, or why there was none.
    pub last: Option<String>,
    /// How often it dissented from the quorum, or from the others when there was none.
    pub disagreements: u64,
    /// How often it failed, or did not answer in time.
    pub errors: u64,
}

/// A disagreement of endpoints.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Disagreement {
    /// When.
    pub at: u64,
    /// Each endpoint's vote, beginning with its name.
    pub said: Vec<String>,
}

/// What is counted.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) chain: Option<ChainKey>,
    pub(crate) memory: ChainMemory,
    pub(crate) trouble: Option<String>,
    /// What was last agreed on.
    pub(crate) block: Option<Block>,
    proof: Option<ProofStatus>,
    endpoints: Vec<EndpointStatus>,
    rounds: u64,
    rounds_without_quorum: u64,
    disagreements: u64,
    recent: VecDeque<Disagreement>,
    /// The endpoints that disagreed in the last round, if any.
    standing: Option<Vec<Stance>>,
    /// Whether it was logged that this machine's clock is behind.
    clock_is_told: bool,
}

impl Ledger {
    pub(crate) fn new(endpoints: Vec<EndpointStatus>) -> Self {
        Self {
            chain: None,
            memory: ChainMemory::default(),
            trouble: None,
            block: None,
            proof: None,
            endpoints,
            rounds: 0,
            rounds_without_quorum: 0,
            disagreements: 0,
            recent: VecDeque::new(),
            standing: None,
            clock_is_told: false,
        }
    }

    /// Whether it was logged before that this machine's clock is behind; marks it as logged.
    pub(crate) fn note_clock_told(&mut self) -> bool {
        std::mem::replace(&mut self.clock_is_told, true)
    }

    /// Counts a round, and returns each endpoint's vote, beginning with its name.
    pub(crate) fn record(&mut self, testimonies: &[Testimony], is_won: bool) -> Vec<String> {
        self.rounds += 1;
        self.rounds_without_quorum += u64::from(!is_won);
        let mut said = Vec::new();
        for (endpoint, testimony) in self.endpoints.iter_mut().zip(testimonies) {
            endpoint.height = testimony.height;
            endpoint.agrees = is_won && testimony.stance == Stance::Agreed;
            endpoint.last = Some(testimony.text.clone());
            endpoint.disagreements += u64::from(testimony.stance == Stance::Disagreed);
            endpoint.errors += u64::from(testimony.stance == Stance::Failed);
            said.push(format!("{}: {}", endpoint.endpoint, testimony.text));
        }
        for (line, testimony) in said.iter().zip(testimonies) {
            // Whoever is left out of a decision, and why.
            if matches!(testimony.stance, Stance::Failed | Stance::Behind | Stance::Ahead) {
                tracing::info!("RPC endpoint left out: {line}");
            }
        }
        let stances: Vec<_> = testimonies.iter().map(|testimony| testimony.stance).collect();
        if !stances.contains(&Stance::Disagreed) {
            self.standing = None;
            return said;
        }
        self.disagreements += 1;
        let text = said.join("; ");
        // A liar repeats its lie at every poll: logged once.
        if self.standing.as_ref() == Some(&stances) {
            tracing::info!(quorum = is_won, "RPC endpoints still disagree: {text}");
        } else {
            tracing::warn!(quorum = is_won, "RPC endpoints disagree: {text}");
        }
        self.standing = Some(stances);
        if self.recent.len() == KEPT_DISAGREEMENTS {
            self.recent.pop_front();
        }
        self.recent.push_back(Disagreement { at: unix_now(), said: said.clone() });
        said
    }

    /// Whether the string was proven in just this block.
    pub(crate) fn is_proven(&self, block: Block, manifest: Digest) -> bool {
        let is_it = |proof: &ProofStatus| {
            proof.is_proven && proof.block.hash == block.hash && proof.manifest == manifest.to_string()
        };
        self.proof.as_ref().is_some_and(is_it)
    }

    pub(crate) fn record_proof(&mut self, block: Block, manifest: Digest, proof: &Result<Proof, ProofError>) {
        let (is_proven, text) = match proof {
            Ok(Proof::Proven { slot, endpoint }) => {
                let text = format!(
                    "the string is in storage slot {slot} in the state of block {} ({}), shown by {endpoint}; not proven: \
                     that this block is part of the chain, that the contract returns this slot, nor the price",
                    block.number(),
                    block.hash
                );
                (true, text)
            }
            Ok(Proof::Unprovable { reasons }) => {
                let reasons = reasons.join("; ");
                (
                    false,
                    format!(
                        "no endpoint shows the storage of block {}, which makes nothing false: {reasons}",
                        block.number()
                    ),
                )
            }
            Err(error) => (false, error.to_string()),
        };
        let was_proven = self.proof.as_ref().is_none_or(|proof| proof.is_proven);
        match proof {
            Ok(Proof::Proven { .. }) => tracing::info!("proven: {text}"),
            // Endpoints that never serve proofs are logged once.
            Ok(Proof::Unprovable { .. }) if was_proven => tracing::warn!("not provable: {text}"),
            _ => tracing::info!("not proven: {text}"),
        }
        let block = BlockRef { number: block.number(), hash: block.hash };
        self.proof = Some(ProofStatus { manifest: manifest.to_string(), block, is_proven, text });
    }

    pub(crate) fn status(&self, contract: String, block_tag: String, quorum: usize) -> ChainStatus {
        ChainStatus {
            contract,
            block_tag,
            chain_id: self.chain.map(|chain| chain.chain_id),
            block: self.block.map(|block| {
                let (number, timestamp) = (block.number(), block.timestamp());
                BlockStatus { number, timestamp, age_s: unix_now().saturating_sub(timestamp) }
            }),
            quorum,
            liars_tolerated: liars_tolerated(quorum, self.endpoints.len()),
            endpoints: self.endpoints.clone(),
            rounds: self.rounds,
            rounds_without_quorum: self.rounds_without_quorum,
            disagreements: self.disagreements,
            recent_disagreements: self.recent.iter().cloned().collect(),
            memory: self.memory,
            trouble: self.trouble.clone(),
            proof: self.proof.clone(),
        }
    }
}

/// How many faulty ones of `endpoints` a `quorum` tolerates: too few to win, and to block the others.
pub(crate) fn liars_tolerated(quorum: usize, endpoints: usize) -> usize {
    quorum.saturating_sub(1).min(endpoints.saturating_sub(quorum))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn testimony(stance: Stance) -> Testimony {
        Testimony { height: Some(1), stance, text: format!("{stance:?}") }
    }

    #[test]
    fn a_majority_of_three_tolerates_one_and_of_two_none() {
        let cases = [(1, 1, 0), (2, 2, 0), (2, 3, 1), (3, 4, 1), (3, 5, 2), (1, 5, 0), (5, 5, 0)];
        for (quorum, endpoints, liars) in cases {
            assert_eq!(liars_tolerated(quorum, endpoints), liars, "{quorum} of {endpoints}");
        }
    }

    #[test]
    fn what_endpoints_say_is_counted_and_what_is_kept_is_bounded() {
        let named = |name: &str| EndpointStatus { endpoint: name.to_owned(), ..EndpointStatus::default() };
        let mut ledger = Ledger::new(vec![named("a"), named("b"), named("c")]);
        let round = [Stance::Agreed, Stance::Disagreed, Stance::Failed].map(testimony);
        for _ in 0..100 {
            assert_eq!(ledger.record(&round, true), ["a: Agreed", "b: Disagreed", "c: Failed"]);
        }
        ledger.record(&[Stance::Agreed, Stance::Behind, Stance::Failed].map(testimony), false);
        let status = ledger.status(String::new(), String::new(), 2);
        assert_eq!((status.rounds, status.rounds_without_quorum, status.disagreements), (101, 1, 100));
        assert_eq!(status.recent_disagreements.len(), KEPT_DISAGREEMENTS);
        let counts = status.endpoints.iter().map(|endpoint| (endpoint.disagreements, endpoint.errors));
        assert_eq!(counts.collect::<Vec<_>>(), [(0, 0), (100, 0), (0, 101)]);
        assert!(status.endpoints.iter().all(|endpoint| !endpoint.agrees), "there was no quorum at last");
    }
}
