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

/// Decodes `(string, uint256)`; `None` for anything else. A `string` and `bytes` have the same encoding.
pub(crate) fn decode_get(data: &[u8]) -> Option<Returned> {
    let (text, price) = <(Bytes, U256)>::abi_decode_params(data).ok()?;
    Some(Returned { text, price })
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
    }

    #[test]
    fn lying_lengths_are_refused() {
        let mut encoded = (Bytes::from(vec![1; 64]), U256::ZERO).abi_encode_params();
        assert!(decode_get(&[]).is_none());
        assert!(decode_get(&encoded[..encoded.len() - 32]).is_none());
        encoded[64..96].fill(0xff);
        assert!(decode_get(&encoded).is_none());
    }
}
