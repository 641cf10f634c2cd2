//! What goes wrong between us and an RPC endpoint.

use std::error::Error;
use std::time::Duration;

use manifest::Blame;

use super::Availability;
use crate::excerpt::Excerpt;

/// JSON-RPC codes for what passes. EIP-1474: -32005 (limit exceeded), -32603 (internal error). The others are what
/// providers put there: 429, -32007 (QuickNode), -32016 (Alchemy, Base), -32029 and -32090 (too many requests).
const PASSING_CODES: [i64; 7] = [-32005, -32603, 429, -32007, -32016, -32029, -32090];
/// Words for what passes, where the code (-32000, or one of a provider's own) says nothing.
const PASSING_WORDS: [&str; 14] = [
    "timeout",
    "timed out",
    "time out",
    "deadline",
    "rate limit",
    "ratelimit",
    "rate exceeded",
    "request limit",
    "too many",
    "try again",
    "temporarily",
    "overloaded",
    "unavailable",
    "busy",
];
/// Words of a node that has no such block, or not its state: another block may be there.
const LACKING_WORDS: [&str; 7] = [
    "header not found",
    "unknown block",
    "block not found",
    "missing trie node",
    "not available",
    "pruned",
    "not currently canonical",
];
/// Words of a node that does not take a block as it was named.
const PINNING_WORDS: [&str; 9] = [
    "requirecanonical",
    "unmarshal",
    "blockhash",
    "unknown field",
    "invalid argument",
    "invalid block",
    "invalid param",
    "deserializ",
    "not supported",
];

/// Whether an endpoint says with this JSON-RPC code that it does not know such a request at all.
///
/// Source: JSON-RPC 2.0, section 5.1.
fn is_refusal(code: i64) -> bool {
    matches!(code, -32602..=-32600)
}

/// Whether the text has one of these words, which are in lower case.
fn has(text: &str, words: &[&str]) -> bool {
    let text = text.to_ascii_lowercase();
    words.iter().any(|word| text.contains(word))
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
        source: Excerpt,
    },
    /// The connection ended before the answer did.
    #[error("the connection to RPC endpoint {endpoint} broke during {method}")]
    Broken {
        /// Host and port.
        endpoint: String,
        /// What was asked.
        method: String,
        /// What the network said.
        source: Excerpt,
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
        found: Excerpt,
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
        found: Excerpt,
        /// Where reading it failed.
        source: Option<Excerpt>,
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
        message: Excerpt,
    },
    /// The contract reverted the call.
    #[error("RPC endpoint {endpoint} says that the call reverts: \"{reason}\"")]
    Reverted {
        /// Host and port.
        endpoint: String,
        /// The start of the contract's or the node's reason: an [`Excerpt`] as well.
        reason: String,
    },
    /// The block that was asked about is no longer part of the chain there.
    #[error("RPC endpoint {endpoint} does not have the block any more about which {method} was asked")]
    BlockGone {
        /// Host and port.
        endpoint: String,
        /// What was asked.
        method: String,
    },
    /// The request could not be made.
    #[error("cannot make the request {method} for RPC endpoint {endpoint}")]
    Request {
        /// Host and port.
        endpoint: String,
        /// What was to be asked.
        method: String,
        /// Why not.
        source: Excerpt,
    },
}

impl EndpointError {
    /// Whether asking the same endpoint the same again soon may help.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Broken { .. } | Self::Timeout { .. } => true,
            // 402 and 403 are what some providers say of too many requests, 400 of a node that is behind.
            Self::Status { status, .. } => matches!(status, 400 | 402 | 403 | 408 | 425 | 429 | 500..),
            Self::Rpc { code, message, .. } => {
                !is_refusal(*code)
                    && !has(message, &LACKING_WORDS)
                    && (PASSING_CODES.contains(code) || has(message, &PASSING_WORDS))
            }
            Self::Setup { .. }
            | Self::TooLong { .. }
            | Self::Nonsense { .. }
            | Self::Reverted { .. }
            | Self::BlockGone { .. }
            | Self::Request { .. } => false,
        }
    }

    /// Whether the endpoint has answered, if not with what was asked for: asking it again does not help, asking for
    /// something else may.
    pub(crate) fn is_answer(&self) -> bool {
        let is_answer = matches!(
            self,
            Self::Rpc { .. }
                | Self::Reverted { .. }
                | Self::Status { .. }
                | Self::Nonsense { .. }
                | Self::TooLong { .. }
        );
        is_answer && !self.is_retryable()
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
        match self {
            Self::BlockGone { .. } => true,
            Self::Rpc { code, .. } => !self.is_retryable() && !is_refusal(*code),
            Self::Status { found, .. } => has(found, &LACKING_WORDS),
            _ => false,
        }
    }

    /// Whether this may mean that the endpoint does not take a block as it was named (EIP-1898).
    pub(crate) fn may_refuse_the_pin(&self) -> bool {
        match self {
            Self::Rpc { code, message, .. } => {
                matches!(code, -32602 | -32600)
                    || has(message, &PINNING_WORDS) && !has(message, &LACKING_WORDS)
            }
            Self::Status { status: 400, found, .. } => {
                has(found, &PINNING_WORDS) && !has(found, &LACKING_WORDS)
            }
            _ => false,
        }
    }

    /// Who is at fault.
    pub fn blame(&self) -> Blame {
        match self {
            Self::Unreachable { .. }
            | Self::Broken { .. }
            | Self::Timeout { .. }
            | Self::BlockGone { .. } => Blame::Network,
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
            | Self::BlockGone { .. }
            | Self::Rpc { .. } => Availability::NotNow,
            Self::Reverted { .. } | Self::Setup { .. } | Self::Request { .. } => Availability::Never,
        }
    }
}
