//! What a caller says about the chain: endpoints, contract, block tag, patience.

use std::path::PathBuf;
use std::time::Duration;

use crate::address::Address;
use crate::block::BlockTag;
use crate::proof::StringSlot;
use crate::rpc_url::{HintUrl, RpcUrl};

/// The longest pause between two attempts.
const MAX_BACKOFF: Duration = Duration::from_secs(30);
/// The longest pause that an endpoint may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(10);

/// How long and how often one RPC request is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Longest time for one attempt, connecting and reading the whole answer included.
    pub request_timeout: Duration,
    /// Attempts in all when the endpoint is down, overloaded or silent; 0 counts as 1.
    pub attempts: u32,
    /// The pause after the first failed attempt. It doubles with each, up to 30 s, and is shortened at random by up
    /// to half, so that many nodes do not come back at once.
    pub backoff: Duration,
}

impl Default for Policy {
    /// 5 s, 4 attempts, 250 ms.
    fn default() -> Self {
        Self { request_timeout: Duration::from_secs(5), attempts: 4, backoff: Duration::from_millis(250) }
    }
}

impl Policy {
    /// The pause after the failed attempt number `attempt`, counted from 1.
    pub(crate) fn pause(&self, attempt: u32) -> Duration {
        let doublings = attempt.saturating_sub(1).min(31);
        self.backoff.saturating_mul(1 << doublings).min(MAX_BACKOFF).mul_f64(1.0 - fastrand::f64() / 2.0)
    }

    /// The same when the endpoint asks for a pause: that long, but no longer than its answers would be waited for, nor
    /// than 10 s.
    pub(crate) fn pause_of(&self, attempt: u32, retry_after: Option<Duration>) -> Duration {
        let patience = self.request_timeout.saturating_mul(self.attempts).min(MAX_RETRY_AFTER);
        self.pause(attempt).max(retry_after.unwrap_or_default().min(patience))
    }
}

/// The most RPC endpoints that are asked: a round asks each of them at each height that one of them reports.
pub(crate) const MAX_ENDPOINTS: usize = 16;

/// How old a block may be unless said otherwise, and on which chain that does not count.
const MAX_BLOCK_AGE: Duration = Duration::from_secs(6 * 3600);
const DEVELOPMENT_CHAIN: u64 = 31337;

/// What [`ChainReader`](crate::ChainReader) reads, and from where.
#[derive(Debug, Clone)]
pub struct Config {
    /// The RPC endpoints, each of another provider, at most 16 with the trusted one.
    pub rpc_urls: Vec<RpcUrl>,
    /// An endpoint that has a veto: nothing counts that it does not say, too. It is asked like the others, and may be
    /// one of them.
    pub trusted_rpc: Option<RpcUrl>,
    /// How many endpoints must say the same. Default: a strict majority of all.
    pub quorum: Option<usize>,
    /// The RPB contract.
    pub contract: Address,
    /// Which block is read.
    pub block_tag: BlockTag,
    /// The chain the endpoints must be on; `None` accepts the one that a quorum is on.
    pub chain_id: Option<u64>,
    /// Whether, and for which storage slot, the string is proven against the state root of the agreed block: see
    /// [`StringSlot`]. That no endpoint can show a proof is logged, and makes nothing false; a proof of something else is an
    /// alarm. Default: `None`, no proof is asked for.
    pub proof: Option<StringSlot>,
    /// Patience with each endpoint.
    pub policy: Policy,
    /// Where to remember what was read, so that the chain is never read at a lower block than before, also by other
    /// processes. `None` remembers it in this process only.
    pub state_dir: Option<PathBuf>,
    /// What to do when the chain cannot be read.
    pub staleness: Staleness,
    /// How old the newest block that a quorum has may be, by this machine's clock: an older one shows that the chain
    /// stands still, or that the endpoints do not follow it. Default: `None`, which is six hours, and any age on chain id
    /// 31337, where development nodes make blocks for transactions only.
    pub max_block_age: Option<Duration>,
    /// When the contract is followed: how long after one look the next one begins, give or take a fifth at random, so
    /// that many nodes do not look at once; up to eight times as long while the chain cannot be reached. Default: 12 s,
    /// the time between two blocks.
    pub poll_interval: Duration,
    /// When the contract is followed: WebSocket endpoints that tell of its events, so that it is looked sooner. What
    /// they say is never believed. Default: none.
    pub hints: Vec<HintUrl>,
}

impl Config {
    /// Reads `contract` at the finalized block of whatever chain `rpc_url` is on, with the default [`Policy`].
    pub fn new(rpc_url: RpcUrl, contract: Address) -> Self {
        Self::with_endpoints(vec![rpc_url], contract)
    }

    /// The same with any number of endpoints: none is enough for [`Staleness::Offline`].
    pub fn with_endpoints(rpc_urls: Vec<RpcUrl>, contract: Address) -> Self {
        Self {
            rpc_urls,
            trusted_rpc: None,
            quorum: None,
            contract,
            block_tag: BlockTag::default(),
            chain_id: None,
            proof: None,
            policy: Policy::default(),
            state_dir: None,
            staleness: Staleness::default(),
            max_block_age: None,
            poll_interval: Duration::from_secs(12),
            hints: Vec::new(),
        }
    }

    /// How old a block of this chain may be; `None` for any age.
    pub(crate) fn max_block_age(&self, chain_id: u64) -> Option<Duration> {
        self.max_block_age.or((chain_id != DEVELOPMENT_CHAIN).then_some(MAX_BLOCK_AGE))
    }
}

/// Whether an older answer will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Staleness {
    /// No: without the chain there is no model.
    #[default]
    Refuse,
    /// When the chain cannot be read, the model that was last loaded will do, if the newest block that is known to name it
    /// is no older than this.
    UpTo(Duration),
    /// The chain is not asked at all: the model that was last loaded will do, however old.
    Offline,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_are_jittered_and_bounded() {
        let policy = Policy { backoff: Duration::from_millis(100), ..Policy::default() };
        for (attempt, full_ms) in [(0, 100), (1, 100), (2, 200), (5, 1_600), (20, 30_000), (u32::MAX, 30_000)]
        {
            let pause = policy.pause(attempt);
            let full = Duration::from_millis(full_ms);
            assert!(pause <= full && pause >= full / 2, "attempt {attempt}: {pause:?}");
        }
    }

    #[test]
    fn a_pause_that_is_asked_for_is_kept_up_to_a_bound() {
        let ms = Duration::from_millis;
        let policy = Policy { backoff: ms(100), ..Policy::default() };
        assert!(policy.pause_of(1, None) <= ms(100) && policy.pause_of(1, Some(ms(1))) >= ms(50));
        assert_eq!(policy.pause_of(1, Some(ms(3_000))), ms(3_000));
        assert_eq!(policy.pause_of(1, Some(Duration::MAX)), ms(10_000));
        let hasty = Policy { request_timeout: ms(50), attempts: 2, ..policy };
        assert_eq!(hasty.pause_of(1, Some(Duration::MAX)), ms(100));
    }
}
