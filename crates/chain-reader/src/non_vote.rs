//! Why an endpoint gave no vote.

use crate::block::BlockTag;
use crate::error::{EndpointError, with_causes};

/// The JSON-RPC codes with which nodes answer to a block tag: they do not know such a tag, or have no such block.
///
/// Source: JSON-RPC 2.0, section 5.1; EIP-1474; -39001 of <https://github.com/ethereum/execution-apis>.
const INVALID_PARAMS: i64 = -32602;
const SERVER_ERROR: i64 = -32000;
const RESOURCE_NOT_FOUND: i64 = -32001;
const UNKNOWN_BLOCK: i64 = -39001;

/// Why an endpoint gave no vote.
#[derive(Debug)]
pub(crate) enum NonVote {
    /// It failed.
    Endpoint(EndpointError),
    /// It has no block under the tag; and how it said so, if not by an empty answer.
    NoBlock(Option<EndpointError>),
    /// It does not know the tag.
    UnknownTag(EndpointError),
    /// It has no block at a height that it claims to have passed.
    Lacks { height: u64 },
    /// It answered with the block of another height.
    OtherHeight { asked: u64, answered: u64 },
    /// It has the block, but not its state: it has pruned it, or another node answers.
    NoState { height: u64, source: EndpointError },
}

impl NonVote {
    /// Why there is no head, when the request for the block under the tag has failed.
    pub(crate) fn of_tag(error: EndpointError) -> Self {
        match error.rpc_code() {
            Some(INVALID_PARAMS) => Self::UnknownTag(error),
            Some(SERVER_ERROR | RESOURCE_NOT_FOUND | UNKNOWN_BLOCK) => Self::NoBlock(Some(error)),
            _ => Self::Endpoint(error),
        }
    }

    /// Whether the same may be answered at another block.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(self, Self::Lacks { .. } | Self::NoState { .. })
    }

    pub(crate) fn text(&self, tag: BlockTag) -> String {
        match self {
            Self::Endpoint(error) => with_causes(error),
            Self::NoBlock(None) => format!("has no {tag} block yet"),
            Self::NoBlock(Some(error)) => format!("has no {tag} block yet: {}", with_causes(error)),
            Self::UnknownTag(error) => {
                format!(
                    "does not know the block tag {tag}, try another (--block-tag): {}",
                    with_causes(error)
                )
            }
            Self::Lacks { height } => format!("claims more, but has no block {height}"),
            Self::OtherHeight { asked, answered } => {
                format!("answered with block {answered} when asked for block {asked}")
            }
            Self::NoState { height, source } => {
                format!("no vote: it has block {height}, but not its state (pruned?): {source}")
            }
        }
    }
}
