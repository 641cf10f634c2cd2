//! A proposal to a contract that owns the RPB contract: OpenZeppelin's Governor, and those that are like it.

use alloy::primitives::{Bytes, U256};
use alloy::sol_types::SolCall;
use manifest::Digest;

use crate::address::Address;
use crate::contract;

mod abi {
    alloy::sol! {
        // IGovernor of OpenZeppelin's contracts, versions 4 and 5.
        function propose(address[] targets, uint256[] values, bytes[] calldatas, string description);
    }
}

/// The arguments of `propose(targets, values, calldatas, description)` that has the RPB contract name a model: one call,
/// without money.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// The only target: the RPB contract.
    pub target: Address,
    /// The input of the only call.
    pub calldata: Vec<u8>,
    /// What is voted on, for people. The same model, price and contract have the same: a Governor takes it once.
    pub description: String,
}

impl Proposal {
    /// To have `contract` name this model. `price` is in the contract's own unit.
    pub fn new(contract: Address, manifest: Digest, price: U256) -> Self {
        Self {
            target: contract,
            calldata: contract::set_mature_model_calldata(manifest, price),
            description: format!("Set the mature model of {contract} to {manifest} at price {price}"),
        }
    }

    /// The input of the call of `propose` itself.
    pub fn propose_calldata(&self) -> Vec<u8> {
        let call = abi::proposeCall {
            targets: vec![self.target.0],
            values: vec![U256::ZERO],
            calldatas: vec![Bytes::from(self.calldata.clone())],
            description: self.description.clone(),
        };
        call.abi_encode()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_a_governor_takes() {
        let (contract, digest) = (Address::from_bytes([9; 20]), Digest::of(b"abc"));
        let proposal = Proposal::new(contract, digest, U256::from(7));
        let data = proposal.propose_calldata();
        // The selector that OpenZeppelin's documentation of IGovernor has.
        assert_eq!(data[..4], [0x7d, 0x5e, 0x81, 0xe2]);
        let call = abi::proposeCall::abi_decode(&data).unwrap();
        assert_eq!((call.targets, call.values), (vec![contract.0], vec![U256::ZERO]));
        assert_eq!(call.calldatas[0].to_vec(), contract::set_mature_model_calldata(digest, U256::from(7)));
        assert!(call.description.contains(&digest.to_string()) && call.description.ends_with("price 7"));
    }
}
