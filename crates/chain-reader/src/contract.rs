//! The calls of the RPB contract, in bytes.

use alloy::primitives::{Bytes, U256};
use alloy::sol_types::{SolCall, SolValue};
use manifest::Digest;

mod abi {
    alloy::sol! {
        function setMatureModel(string weightsCid, uint256 price);
        function getMatureModel();
        event MatureModelSet(string weightsCid, uint256 price);
    }
}

pub(crate) use abi::MatureModelSet;

/// The input of `setMatureModel(manifest, price)`, as a proposal to the contract's owner carries it: 4 bytes of
/// selector, then the arguments. `price` is in the contract's own unit.
pub fn set_mature_model_calldata(manifest: Digest, price: U256) -> Vec<u8> {
    encode_set(&manifest.to_string(), price)
}

/// The same for any text.
pub(crate) fn encode_set(text: &str, price: U256) -> Vec<u8> {
    abi::setMatureModelCall { weightsCid: text.to_owned(), price }.abi_encode()
}

/// The input of `getMatureModel()`.
pub(crate) fn encode_get() -> Bytes {
    abi::getMatureModelCall {}.abi_encode().into()
}

/// What `getMatureModel()` returned. The string is kept as bytes: nothing makes a contract hold UTF-8.
pub(crate) struct Returned {
    pub(crate) text: Bytes,
    pub(crate) price: U256,
}

/// Decodes `(string, uint256)`; `None` for anything else. A `string` and `bytes` have the same encoding. Only what a
/// contract of that type returns is of it, byte for byte: another type's values can be read as these, too.
pub(crate) fn decode_get(data: &[u8]) -> Option<Returned> {
    let returned = <(Bytes, U256)>::abi_decode_params(data).ok()?;
    let is_canonical = returned.abi_encode_params() == data;
    let (text, price) = returned;
    is_canonical.then_some(Returned { text, price })
}

#[cfg(test)]
mod tests {
    use alloy::primitives::hex;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn calldata_is_what_the_abi_says() {
        // The selectors are solc's `evm.methodIdentifiers` of tests/contracts/RPB.sol.
        assert_eq!(hex::encode(encode_get()), "86ced9fa");
        let data = hex::encode(set_mature_model_calldata(Digest::of(b"abc"), U256::from(258)));
        assert_eq!(data[..8], *"41ceb952");
        let word = |number: u32| format!("{number:064x}");
        let text = hex::encode("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(data[8..], [word(64), word(258), word(64), text].concat());
    }

    proptest! {
        #[test]
        fn what_a_contract_returns_round_trips(text in proptest::collection::vec(any::<u8>(), 0..200), price: u64) {
            let encoded = (Bytes::from(text.clone()), U256::from(price)).abi_encode_params();
            let returned = decode_get(&encoded).unwrap();
            prop_assert_eq!(returned.text.to_vec(), text);
            prop_assert_eq!(returned.price, U256::from(price));
        }

        #[test]
        fn garbage_never_panics(data in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_get(&data);
        }

        #[test]
        fn no_two_encodings_mean_the_same(
            text in proptest::collection::vec(any::<u8>(), 0..100),
            price: u64,
            at: proptest::sample::Index,
            flip in 1..=u8::MAX,
        ) {
            let mut encoded = (Bytes::from(text.clone()), U256::from(price)).abi_encode_params();
            let at = at.index(encoded.len());
            encoded[at] ^= flip;
            if let Some(Returned { text: other, price: other_price }) = decode_get(&encoded) {
                prop_assert!(other != text || other_price != U256::from(price));
                prop_assert_eq!((other, other_price).abi_encode_params(), encoded);
            }
        }

        #[test]
        fn other_types_are_none_of_ours(text in "[0-9a-f]{64}|.{0,80}", price: u64) {
            let (bytes, price) = (Bytes::from(text.clone().into_bytes()), U256::from(price));
            for other in [
                text.abi_encode(),
                (price, bytes.clone()).abi_encode_params(),
                (bytes.clone(), price, price).abi_encode_params(),
                (bytes.clone(), bytes.clone()).abi_encode_params(),
                ((bytes.clone(), price),).abi_encode_params(),
                (price, price).abi_encode_params(),
                (vec![bytes.clone()], price).abi_encode_params(),
                [(bytes.clone(), price).abi_encode_params(), vec![0; 32]].concat(),
            ] {
                prop_assert!(decode_get(&other).is_none(), "{}", hex::encode(other));
            }
        }
    }

    #[test]
    fn lying_lengths_are_refused() {
        let mut encoded = (Bytes::from(vec![1; 64]), U256::ZERO).abi_encode_params();
        assert!(decode_get(&[]).is_none());
        assert!(decode_get(&encoded[..encoded.len() - 32]).is_none());
        encoded[64..96].fill(0xff);
        assert!(decode_get(&encoded).is_none());
    }

    #[test]
    fn an_offset_or_padding_of_its_own_is_refused() {
        let word = |number: u32| format!("{number:064x}");
        let text = hex::encode([b'a'; 32]);
        let decode = |hex: String| decode_get(&hex::decode(hex).unwrap()).is_some();
        assert!(decode([word(64), word(7), word(32), text.clone()].concat()));
        assert!(!decode([word(96), word(7), word(0), word(32), text.clone()].concat()));
        let padded = |last: &str| decode([&word(64), &word(7), &word(31), &text[..62], last].concat());
        assert!(padded("00") && !padded("01"));
    }
}
