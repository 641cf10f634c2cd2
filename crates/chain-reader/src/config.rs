//! Configuration of the chain reader: endpoints, contract, block tag, timeouts.

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

/// Timeout and retries of one RPC request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    pub(crate) request_timeout: Duration,
    pub(crate) attempts: u32,
    pub(crate) backoff: Duration,
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

    /// Longest time for one attempt, connecting and reading the whole answer included.
    #[must_use]
    pub fn with_request_timeout(self, request_timeout: Duration) -> Self {
        Self { request_timeout, ..self }
    }

    /// Attempts in all when the endpoint is down, overloaded or silent; 0 counts as 1.
    #[must_use]
    pub fn with_attempts(self, attempts: u32) -> Self {
        Self { attempts, ..self }
    }

    /// The pause after the first failed attempt. It doubles with each, up to 30 s, and is shortened at random by up
    /// to half, so that many nodes do not come back at once.
    #[must_use]
    pub fn with_backoff(self, backoff: Duration) -> Self {
        Self { backoff, ..self }
    }
}

/// The most RPC endpoints that are asked: a round asks each of them at each height that one of them reports.
pub(crate) const MAX_ENDPOINTS: usize = 16;

/// Default maximum age of a block, and the chain without one.
const MAX_BLOCK_AGE: Duration = Duration::from_secs(6 * 3600);
const DEVELOPMENT_CHAIN: u64 = 31337;

/// What [`ChainReader`](crate::ChainReader) reads, and from where.
#[derive(Debug, Clone)]
pub struct Config {
    pub(crate) rpc_urls: Vec<RpcUrl>,
    pub(crate) trusted_rpc: Option<RpcUrl>,
    pub(crate) quorum: Option<usize>,
    pub(crate) contract: Address,
    pub(crate) block_tag: BlockTag,
    pub(crate) chain_id: Option<u64>,
    pub(crate) proof: Option<StringSlot>,
    pub(crate) policy: Policy,
    pub(crate) state_dir: Option<PathBuf>,
    pub(crate) staleness: Staleness,
    pub(crate) max_block_age: Option<Duration>,
    pub(crate) poll_interval: Duration,
    pub(crate) hints: Vec<HintUrl>,
}

impl Config {
    /// Reads `contract` at the finalized block of whatever chain `rpc_url` is on, with the default [`Policy`].
    pub fn new(rpc_url: RpcUrl, contract: Address) -> Self {
        Self::with_endpoints(vec![rpc_url], contract)
    }

    /// The same with any number of endpoints, also none for [`Staleness::Offline`].
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

    /// The RPC endpoints.
    pub fn rpc_urls(&self) -> &[RpcUrl] {
        &self.rpc_urls
    }

    /// The contract that is read.
    pub fn contract(&self) -> Address {
        self.contract
    }

    /// The chain that the endpoints must be on, if that matters.
    pub fn chain_id(&self) -> Option<u64> {
        self.chain_id
    }

    /// Which block is read.
    pub fn block_tag(&self) -> BlockTag {
        self.block_tag
    }

    /// What is done when the chain cannot be read.
    pub fn staleness(&self) -> Staleness {
        self.staleness
    }

    /// The endpoint that has a veto, if there is one.
    pub fn trusted_rpc(&self) -> Option<&RpcUrl> {
        self.trusted_rpc.as_ref()
    }

    /// The quorum, if it was set.
    pub fn quorum(&self) -> Option<usize> {
        self.quorum
    }

    /// Whether the string is proven, and for which slot.
    pub fn proof(&self) -> Option<StringSlot> {
        self.proof
    }

    /// The maximum age of the newest block, if it was set.
    pub fn max_block_age(&self) -> Option<Duration> {
        self.max_block_age
    }

    /// WebSocket endpoints for events.
    pub fn hints(&self) -> &[HintUrl] {
        &self.hints
    }

    /// How old a block of this chain may be; `None` for any age.
    pub(crate) fn age_limit(&self, chain_id: u64) -> Option<Duration> {
        self.max_block_age.or((chain_id != DEVELOPMENT_CHAIN).then_some(MAX_BLOCK_AGE))
    }

    /// The RPC endpoints, each of another provider, at most 16 with the trusted one.
    #[must_use]
    pub fn with_rpc_urls(self, rpc_urls: Vec<RpcUrl>) -> Self {
        Self { rpc_urls, ..self }
    }

    /// A trusted endpoint, which has a veto: every quorum must include it. It is asked like the others, and may be one of
    /// them.
    #[must_use]
    pub fn with_trusted_rpc(self, trusted_rpc: impl Into<Option<RpcUrl>>) -> Self {
        Self { trusted_rpc: trusted_rpc.into(), ..self }
    }

    /// The quorum: how many endpoints must agree. Default: a strict majority of all.
    #[must_use]
    pub fn with_quorum(self, quorum: impl Into<Option<usize>>) -> Self {
        Self { quorum: quorum.into(), ..self }
    }

    /// The RPB contract.
    #[must_use]
    pub fn with_contract(self, contract: Address) -> Self {
        Self { contract, ..self }
    }

    /// Which block is read.
    #[must_use]
    pub fn with_block_tag(self, block_tag: BlockTag) -> Self {
        Self { block_tag, ..self }
    }

    /// The chain the endpoints must be on; `None` accepts the one that a quorum is on.
    #[must_use]
    pub fn with_chain_id(self, chain_id: impl Into<Option<u64>>) -> Self {
        Self { chain_id: chain_id.into(), ..self }
    }

    /// Whether, and for which storage slot, the string is proven against the state root of the agreed block: see
    /// [`StringSlot`]. That no endpoint can show a proof is logged, and makes nothing false; a proof of something else is an
    /// alarm. Default: `None`, no proof is asked for.
    #[must_use]
    pub fn with_proof(self, proof: impl Into<Option<StringSlot>>) -> Self {
        Self { proof: proof.into(), ..self }
    }

    /// Timeout and retries for each endpoint.
    #[must_use]
    pub fn with_policy(self, policy: Policy) -> Self {
        Self { policy, ..self }
    }

    /// Directory for the state, so that the chain is never read at a lower block than before, also by other processes. `None`
    /// keeps it in this process only.
    #[must_use]
    pub fn with_state_dir(self, state_dir: impl Into<Option<PathBuf>>) -> Self {
        Self { state_dir: state_dir.into(), ..self }
    }

    /// The same, unless it was set.
    #[must_use]
    pub fn with_default_state_dir(self, dir: impl Into<PathBuf>) -> Self {
        Self { state_dir: self.state_dir.or_else(|| Some(dir.into())), ..self }
    }

    /// What to do when the chain cannot be read.
    #[must_use]
    pub fn with_staleness(self, staleness: Staleness) -> Self {
        Self { staleness, ..self }
    }

    /// How old the newest block that a quorum has may be, by this machine's clock: an older one shows that the chain
    /// stands still, or that the endpoints do not follow it. Default: `None`, which is six hours, and any age on chain id
    /// 31337, where development nodes make blocks for transactions only.
    #[must_use]
    pub fn with_max_block_age(self, max_block_age: impl Into<Option<Duration>>) -> Self {
        Self { max_block_age: max_block_age.into(), ..self }
    }

    /// Poll interval of a [`Follower`](crate::Follower), with a jitter of a fifth; up to eight times as long while the chain
    /// is unreachable. Default: 12 s, the time between two blocks.
    #[must_use]
    pub fn with_poll_interval(self, poll_interval: Duration) -> Self {
        Self { poll_interval, ..self }
    }

    /// WebSocket endpoints whose events make a [`Follower`](crate::Follower) poll sooner. Their content is never trusted.
    /// Default: none.
    #[must_use]
    pub fn with_hints(self, hints: Vec<HintUrl>) -> Self {
        Self { hints, ..self }
    }
}

/// Whether to fall back to an older answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Staleness {
    /// No: without the chain there is no model.
    #[default]
    Refuse,
    /// When the chain cannot be read, the model that was last loaded is used, if the newest block known to name it is no older
    /// than this.
    UpTo(Duration),
    /// The chain is not read at all: the model that was last loaded is used, however old.
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
