//! What goes wrong between us and an RPC endpoint.

use std::error::Error;
use std::time::Duration;

use manifest::Blame;

use super::Availability;

/// Whether an endpoint says with this JSON-RPC code that it was asked too often.
///
/// Source: EIP-1474 (-32005, limit exceeded); 429 is what several providers put there.
pub(crate) fn is_rate_limit(code: i64) -> bool {
    matches!(code, -32005 | 429)
}

/// Whether an endpoint says with this JSON-RPC code that it does not know such a request at all.
///
/// Source: JSON-RPC 2.0, section 5.1.
fn is_refusal(code: i64) -> bool {
    matches!(code, -32602..=-32600)
}

/// What went wrong between us and an RPC endpoint.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// The HTTP client cannot be made.
    #[error(
        "cannot set up a connection to RPC endpoint {endpoint}: this machine's TLS or HTTP set-up is at fault"
    )]
    Setup {
        /// Host and port.
        endpoint: String,
        /// What is missing.
        source: Box<dyn Error + Send + Sync>,
    },
    /// No connection.
    #[error("cannot reach RPC endpoint {endpoint}")]
    Unreachable {
        /// Host and port.
        endpoint: String,
        /// What the network said.
        source: reqwest::Error,
    },
    /// The connection ended before the answer did.
    #[error("the connection to RPC endpoint {endpoint} broke during {method}")]
    Broken {
        /// Host and port.
        endpoint: String,
        /// What was asked.
        method: String,
        /// What the network said.
        source: reqwest::Error,
    },
    /// No answer in time.
    #[error("RPC endpoint {endpoint} did not answer {method} within {after:?}")]
    Timeout {
        /// Host and port.
        endpoint: String,
        /// What was asked.
        method: String,
        /// The limit for one attempt.
        after: Duration,
    },
    /// An HTTP status other than 200.
    #[error("RPC endpoint {endpoint} answered {method} with HTTP status {status}, expected 200: \"{found}\"")]
    Status {
        /// Host and port.
        endpoint: String,
        /// What was asked.
        method: String,
        /// The HTTP status.
        status: u16,
        /// The start of the body.
        found: String,
    },
    /// A longer answer than any right one.
    #[error("RPC endpoint {endpoint} answered {method} with more than {max_bytes} bytes")]
    TooLong {
        /// Host and port.
        endpoint: String,
        /// What was asked.
        method: String,
        /// The limit.
        max_bytes: usize,
    },
    /// An answer that is not JSON-RPC, or not of the type asked for.
    #[error(
        "RPC endpoint {endpoint} answered {method} with nonsense: \"{found}\"; is it an Ethereum RPC endpoint?"
    )]
    Nonsense {
        /// Host and port.
        endpoint: String,
        /// What was asked.
        method: String,
        /// The start of the answer.
        found: String,
        /// Where reading it failed.
        source: Option<serde_json::Error>,
    },
    /// A JSON-RPC error.
    #[error("RPC endpoint {endpoint} answered {method} with error {code}: \"{message}\"")]
    Rpc {
        /// Host and port.
        endpoint: String,
        /// What was asked.
        method: String,
        /// The JSON-RPC error code.
        code: i64,
        /// The start of what the endpoint says.
        message: String,
    },
    /// The contract reverted the call.
    #[error("RPC endpoint {endpoint} says that the call reverts: \"{reason}\"")]
    Reverted {
        /// Host and port.
        endpoint: String,
        /// The start of the contract's or the node's reason.
        reason: String,
    },
    /// The request could not be made.
    #[error("cannot make the request {method} for RPC endpoint {endpoint}")]
    Request {
        /// Host and port.
        endpoint: String,
        /// What was to be asked.
        method: String,
        /// Why not.
        source: Box<dyn Error + Send + Sync>,
    },
}

impl EndpointError {
    /// Whether asking the same endpoint the same again soon may help.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Broken { .. } | Self::Timeout { .. } => true,
            Self::Status { status, .. } => matches!(status, 408 | 429 | 500..),
            Self::Rpc { code, .. } => is_rate_limit(*code),
            Self::Setup { .. }
            | Self::TooLong { .. }
            | Self::Nonsense { .. }
            | Self::Reverted { .. }
            | Self::Request { .. } => false,
        }
    }

    /// The JSON-RPC error code that it answered with, if it did.
    pub(crate) fn rpc_code(&self) -> Option<i64> {
        match self {
            Self::Rpc { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Whether this may mean that the node behind the endpoint does not have the block that was asked about.
    pub(crate) fn may_lack_the_block(&self) -> bool {
        matches!(self, Self::Rpc { code, .. } if !is_rate_limit(*code) && !is_refusal(*code))
    }

    /// Who is at fault.
    pub fn blame(&self) -> Blame {
        match self {
            Self::Unreachable { .. } | Self::Broken { .. } | Self::Timeout { .. } => Blame::Network,
            Self::Status { .. } | Self::Rpc { .. } if self.is_retryable() => Blame::Network,
            Self::Status { .. } | Self::Rpc { .. } | Self::TooLong { .. } | Self::Nonsense { .. } => {
                Blame::Peer
            }
            Self::Reverted { .. } => Blame::Caller,
            Self::Setup { .. } | Self::Request { .. } => Blame::Us,
        }
    }

    /// What may be done about it.
    pub fn availability(&self) -> Availability {
        match self {
            Self::Rpc { code, .. } if is_refusal(*code) => Availability::Never,
            Self::Status { .. } if !self.is_retryable() => Availability::Never,
            Self::Unreachable { .. }
            | Self::Broken { .. }
            | Self::Timeout { .. }
            | Self::Status { .. }
            | Self::TooLong { .. }
            | Self::Nonsense { .. }
            | Self::Rpc { .. } => Availability::NotNow,
            Self::Reverted { .. } | Self::Setup { .. } | Self::Request { .. } => Availability::Never,
        }
    }
}
