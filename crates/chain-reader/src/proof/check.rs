//! Verifies an endpoint's proof. Nothing in it is trusted.

use alloy::consensus::Header;
use alloy::primitives::{B256, Bytes, U256, keccak256};
use alloy::rlp;
use alloy::rpc::types::EIP1186AccountProofResponse;
use alloy::trie::proof::verify_proof;
use alloy::trie::{Nibbles, TrieAccount};

use crate::address::Address;

/// What stands in the storage.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Evidence {
    /// Just what was expected.
    Same,
    /// Something else, for sure.
    Other { key: B256, found: U256, expected: U256 },
}

/// Why what an endpoint shows proves nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoEvidence {
    /// The header is of another block, or of a chain that makes hashes in another way.
    #[error("the header it gives hashes to {found}, not to that of the agreed block {expected}")]
    Header { found: B256, expected: B256 },
    /// The account's proof is none.
    #[error("its proof of the account leads nowhere")]
    Account,
    /// The proof of a storage slot is none.
    #[error("its proof of storage slot {key} leads nowhere")]
    Storage { key: B256 },
    /// There are more or fewer proofs than were asked for.
    #[error("it gave {found} storage proofs, {expected} were asked for")]
    Count { found: usize, expected: usize },
}

/// The state root of the block with this hash: the one in its header.
pub(super) fn state_root(header: &Header, expected: B256) -> Result<B256, NoEvidence> {
    let found = header.hash_slow();
    if found == expected { Ok(header.state_root) } else { Err(NoEvidence::Header { found, expected }) }
}

/// The contract's account under this state root.
pub(super) fn account(
    state_root: B256,
    contract: Address,
    shown: &EIP1186AccountProofResponse,
) -> Result<TrieAccount, NoEvidence> {
    let account = TrieAccount {
        nonce: shown.nonce,
        balance: shown.balance,
        storage_root: shown.storage_hash,
        code_hash: shown.code_hash,
    };
    let is_there =
        is_proven(state_root, keccak256(contract.0), Some(rlp::encode(account)), &shown.account_proof);
    if is_there { Ok(account) } else { Err(NoEvidence::Account) }
}

/// Whether these words stand under this storage root. The proofs are in the order of the words.
pub(super) fn storage(
    storage_root: B256,
    words: &[(B256, U256)],
    shown: &EIP1186AccountProofResponse,
) -> Result<Evidence, NoEvidence> {
    let (found, expected) = (shown.storage_proof.len(), words.len());
    if found != expected {
        return Err(NoEvidence::Count { found, expected });
    }
    for ((key, expected), shown) in words.iter().zip(&shown.storage_proof) {
        // A word of zero is one that is not there.
        let is = |value: U256| {
            let value = (!value.is_zero()).then(|| rlp::encode(value));
            is_proven(storage_root, keccak256(key), value, &shown.proof)
        };
        if is(*expected) {
            continue;
        }
        if shown.value != *expected && is(shown.value) {
            return Ok(Evidence::Other { key: *key, found: shown.value, expected: *expected });
        }
        return Err(NoEvidence::Storage { key: *key });
    }
    Ok(Evidence::Same)
}

fn is_proven(root: B256, hashed_key: B256, value: Option<Vec<u8>>, proof: &[Bytes]) -> bool {
    verify_proof(root, Nibbles::unpack(hashed_key), value, proof).is_ok()
}
