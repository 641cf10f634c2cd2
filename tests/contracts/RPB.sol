// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.20;

/// A stand-in with the interface of the real RPB contract, for tests and `loader demo`.
/// `RPB.json` beside it is made from this file by `compile.mjs`.
contract RPB {
    address public immutable owner;
    /// The digest of the current model's manifest; empty before the first model.
    string public modelWeightsCid;
    uint256 private price;

    event MatureModelSet(string weightsCid, uint256 price);

    constructor() {
        owner = msg.sender;
    }

    function setMatureModel(string calldata weightsCid, uint256 newPrice) external {
        require(msg.sender == owner, "RPB: caller is not the owner");
        modelWeightsCid = weightsCid;
        price = newPrice;
        emit MatureModelSet(weightsCid, newPrice);
    }

    function getMatureModel() external view returns (string memory, uint256) {
        return (modelWeightsCid, price);
    }
}
