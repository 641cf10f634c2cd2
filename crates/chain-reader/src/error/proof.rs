//! What a storage proof brings to light.

use alloy::primitives::{B256, U256};
use manifest::Blame;

use super::Availability;
use crate::address::Address;

/// Why a storage proof forbids to use what a quorum says.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProofError {
    /// The storage does not hold the string that the quorum says the contract returns.
    #[error(
        "the storage of contract {contract} contradicts what a quorum of RPC endpoints says it returns at block \
         {block_number}: the string in slot {slot} needs {expected:#066x} at {key}, and proven is {found:#066x}; either \
         {slot} is not the slot of the string (--string-slot), or the endpoints lie about the contract"
    )]
    Contradicted {
        /// The contract.
        contract: Address,
        /// The agreed block.
        block_number: u64,
        /// The slot of the string.
        slot: U256,
        /// The word of its that differs.
        key: B256,
        /// What stands there.
        found: U256,
        /// What the string needs there.
        expected: U256,
    },
    /// The contract has code whose storage layout nobody has told.
    #[error(
        "it is not known in which storage slot contract {contract} keeps the string (its code hash is {code_hash}): give \
         --string-slot, as `solc --storage-layout` tells it"
    )]
    UnknownCode {
        /// The contract.
        contract: Address,
        /// The hash of its code.
        code_hash: B256,
    },
}

impl ProofError {
    /// Who is at fault.
    pub fn blame(&self) -> Blame {
        match self {
            Self::Contradicted { .. } => Blame::Peer,
            Self::UnknownCode { .. } => Blame::Caller,
        }
    }

    /// What may be done about it.
    pub fn availability(&self) -> Availability {
        match self {
            Self::Contradicted { .. } => Availability::Alarm,
            Self::UnknownCode { .. } => Availability::Never,
        }
    }
}
