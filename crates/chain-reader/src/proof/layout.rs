//! Where Solidity keeps a string in storage.

use alloy::primitives::{B256, U256, b256, keccak256};

/// Which storage slot of the contract holds the string that is to be proven.
///
/// A proof shows that the string stands in that slot, in the state whose root the agreed block names; it need not be
/// trusted to whoever shows it. It does not show that this block is part of the chain, which is the quorum's word, that
/// `getMatureModel()` returns what stands in the slot, which is the contract's code, nor the price.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StringSlot {
    /// The one that is known for the contract's code. Only the stand-in of the demo is.
    OfKnownCode,
    /// This one, as `solc --storage-layout` tells.
    At(U256),
}

/// Code whose layout is known, by its hash in the state: `tests/contracts/RPB.sol` as the first account of a development
/// chain deploys it (the owner is part of the code).
const KNOWN: [(B256, U256); 1] =
    [(b256!("3403116db4d20b16d5ce74067bc332d2cb2bc0ac2142272dbf077216cd1ff5c7"), U256::ZERO)];

/// The slot of the string in a contract with this code.
pub(super) fn known_slot(code_hash: B256) -> Option<U256> {
    KNOWN.iter().find(|(known, _)| *known == code_hash).map(|(_, slot)| *slot)
}

/// The storage words of a `string` at `slot`: keys, and the values there.
///
/// Up to 31 bytes stand in the slot itself, left-aligned, with twice the length in the lowest byte. Of a longer one the
/// slot holds twice the length plus one, and the bytes stand from slot `keccak256(slot)` on, 32 in each.
///
/// Source: Solidity documentation, "Layout of State Variables in Storage", `bytes` and `string`.
pub(super) fn string_words(slot: U256, text: &[u8]) -> Vec<(B256, U256)> {
    let length = U256::from(text.len());
    let word = |bytes: &[u8]| U256::from_be_bytes(B256::right_padding_from(bytes).0);
    let key = B256::from(slot);
    if text.len() < 32 {
        return vec![(key, word(text) | (length << 1))];
    }
    let first = U256::from_be_bytes(keccak256(key).0);
    let data = text.chunks(32).zip(0_u64..).map(|(chunk, i)| {
        // Slots are counted modulo 2^256.
        (B256::from(first.wrapping_add(U256::from(i))), word(chunk))
    });
    [(key, (length << 1) | U256::ONE)].into_iter().chain(data).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_of_up_to_31_bytes_is_one_word_and_a_longer_one_has_words_of_its_own() {
        let slot = U256::from(5);
        assert_eq!(string_words(slot, b""), [(B256::from(slot), U256::ZERO)]);
        let short = string_words(slot, b"abc");
        assert_eq!(short.len(), 1);
        assert_eq!(B256::from(short[0].1).as_slice()[..3], *b"abc");
        assert_eq!(short[0].1.byte(0), 6);
        let edge = string_words(slot, &[0xff; 31]);
        assert_eq!((edge.len(), edge[0].1.byte(0), edge[0].1.byte(31)), (1, 62, 0xff));
        for (length, words) in [(32, 2), (33, 3), (64, 3), (65, 4)] {
            let long = string_words(slot, &vec![b'x'; length]);
            assert_eq!((long.len(), long[0].1), (words, U256::from(2 * length + 1)), "{length}");
            assert_eq!(long[1].0, keccak256(B256::from(slot)));
            assert_eq!(long[words - 1].1.byte(31), b'x');
        }
    }

    #[tokio::test]
    async fn a_real_contract_keeps_strings_of_every_length_there() {
        let here = std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests");
        let installed = here.join("evm/node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil");
        let anvil = std::env::var_os("LOADER_ANVIL").map_or(installed, std::path::PathBuf::from);
        let json = std::fs::read_to_string(here.join("contracts/RPB.json")).unwrap();
        let devnet = crate::Devnet::start(&anvil, &json).await.unwrap();
        for length in [1, 31, 32, 33, 64, 100, 0] {
            let text = "x".repeat(length);
            devnet.set_text(&text, U256::ZERO).await.unwrap();
            for (key, value) in string_words(U256::ZERO, text.as_bytes()) {
                let at = (devnet.contract().to_string(), key, "latest");
                let found = devnet.request("eth_getStorageAt", at).await.unwrap();
                assert_eq!(found, B256::from(value).to_string(), "{length} bytes, {key}");
            }
        }
    }

    #[test]
    fn other_code_has_no_known_slot() {
        assert!(known_slot(B256::ZERO).is_none());
    }
}
