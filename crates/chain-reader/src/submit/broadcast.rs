//! Broadcasting a signed transaction through an endpoint.

use alloy::primitives::{B256, Bytes};
use tokio::time::sleep;

use super::config::SubmitConfig;
use crate::config::Policy;
use crate::endpoint::Endpoint;
use crate::error::{EndpointError, SubmitError};

/// Error texts of nodes, in lower case, that have the transaction, or another one of its nonce, already, or do not know its
/// fate. After such a refusal it may be in the mempool: it is tracked as if it had been accepted.
const WORDS: [&str; 8] = [
    "already",
    "known transaction",
    "nonce",
    "replacement",
    "duplicate",
    "timeout",
    "timed out",
    "internal error",
];

/// The outcome.
#[derive(Debug)]
pub(super) enum Broadcast {
    /// The endpoint has it.
    Taken,
    /// The endpoint may have it.
    Unclear,
    /// The endpoint refused it, and got it only once.
    Refused(EndpointError),
}

/// An endpoint without retries: the outcome of each attempt must be known.
pub(super) fn once(config: &SubmitConfig) -> Result<Endpoint, EndpointError> {
    Endpoint::new(&config.rpc_url, Policy { attempts: 1, ..config.policy })
}

/// Sends it, more than once when that may help.
///
/// # Errors
/// [`SubmitError::NotTaken`]: it did not get there.
pub(super) async fn hand_over(
    endpoint: &Endpoint,
    policy: &Policy,
    raw: &Bytes,
    tx_hash: B256,
) -> Result<Broadcast, SubmitError> {
    let (mut attempt, mut is_unclear) = (1, false);
    loop {
        let Err(error) = send_raw(endpoint, raw).await else { return Ok(Broadcast::Taken) };
        tracing::debug!(%tx_hash, attempt, %error, "the endpoint does not say that it has the transaction");
        is_unclear |= may_have_it(&error);
        if attempt < policy.attempts && error.is_retryable() {
            sleep(policy.pause(attempt)).await;
            attempt += 1;
            continue;
        }
        return match error {
            _ if is_unclear => Ok(Broadcast::Unclear),
            error if error.is_answer() => Ok(Broadcast::Refused(error)),
            source => Err(SubmitError::NotTaken { tx_hash, source }),
        };
    }
}

/// Sends it once.
pub(super) async fn send_raw(endpoint: &Endpoint, raw: &Bytes) -> Result<(), EndpointError> {
    let _: B256 = endpoint.request("eth_sendRawTransaction", (raw,)).await?;
    Ok(())
}

/// Whether the endpoint may have the transaction that it was sent, although it answered like this.
pub(super) fn may_have_it(error: &EndpointError) -> bool {
    match error {
        EndpointError::Broken { .. }
        | EndpointError::Timeout { .. }
        | EndpointError::TooLong { .. }
        | EndpointError::Nonsense { .. }
        // Some nodes say so after they have put it into a block.
        | EndpointError::Reverted { .. } => true,
        EndpointError::Status { status, .. } => matches!(status, 408 | 500..),
        EndpointError::Rpc { message, .. } => {
            let message = message.to_lowercase();
            WORDS.iter().any(|word| message.contains(word))
        }
        EndpointError::Setup { .. }
        | EndpointError::Unreachable { .. }
        | EndpointError::BlockGone { .. }
        | EndpointError::Request { .. } => false,
    }
}
