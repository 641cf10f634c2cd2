//! The one write, on a real chain.

use std::time::Duration;

use chain_reader::{
    Address, Availability, BlockTag, ChainReader, Price, Signer, SubmitError, U256, set_mature_model,
    set_mature_model_calldata,
};
use manifest::Blame;
use serde_json::json;

use crate::{config, devnet, digest, mined, submit_config};

fn signer(key: &str) -> Signer {
    Signer::from_private_key(key).unwrap()
}

#[tokio::test]
async fn the_owner_sets_a_model_again_and_again() {
    let devnet = devnet().await;
    let owner = signer(devnet.owner_key());
    let reader = ChainReader::new(config(&devnet, BlockTag::Latest)).unwrap();
    for price in [0, 5] {
        let price = U256::from(price);
        let receipt =
            mined(set_mature_model(&submit_config(&devnet), &owner, digest(), price).await.unwrap());
        let model = reader.mature_model().await.unwrap();
        assert_eq!((model.manifest, model.price.to_be_bytes()), (digest(), price.to_be_bytes()));
        assert_eq!(model.block_number, receipt.block_number);
        assert_eq!(model.block_hash, receipt.block_hash);
        let hash = receipt.tx_hash.to_string();
        let told = devnet.request("eth_getTransactionReceipt", (hash,)).await.unwrap();
        assert_eq!(told["gasUsed"], format!("{:#x}", receipt.gas_used.unwrap()));
        assert_eq!(
            told["logs"][0]["address"].as_str(),
            Some(devnet.contract().to_string().to_lowercase().as_str())
        );
    }
}

#[tokio::test]
async fn calldata_sent_by_somebody_else_does_the_same() {
    let devnet = devnet().await;
    let data: String =
        set_mature_model_calldata(digest(), U256::from(3)).iter().map(|b| format!("{b:02x}")).collect();
    let from = signer(devnet.owner_key()).address().to_string();
    let call = json!({"from": from, "to": devnet.contract().to_string(), "data": format!("0x{data}")});
    devnet.request("eth_sendTransaction", (call,)).await.unwrap();
    devnet.mine(1).await.unwrap();
    let model = ChainReader::new(config(&devnet, BlockTag::Latest)).unwrap().mature_model().await.unwrap();
    assert_eq!((model.manifest, model.price), (digest(), Price::from(3)));
}

#[tokio::test]
async fn a_stranger_is_refused_with_the_reason_before_paying() {
    let devnet = devnet().await;
    let stranger = signer(devnet.stranger_key());
    let error = set_mature_model(&submit_config(&devnet), &stranger, digest(), U256::ZERO).await.unwrap_err();
    let SubmitError::Refused { ref reason, sender, .. } = error else { panic!("{error:?}") };
    assert!(reason.contains("RPB: caller is not the owner"), "{reason}");
    assert_eq!(sender, stranger.address());
    assert_eq!((error.blame(), error.availability()), (Blame::Caller, Availability::Never));
}

#[tokio::test]
async fn nothing_is_sent_to_the_wrong_chain_or_to_no_contract() {
    let devnet = devnet().await;
    let owner = signer(devnet.owner_key());
    let wrong_chain = submit_config(&devnet).with_chain_id(1);
    let error = set_mature_model(&wrong_chain, &owner, digest(), U256::ZERO).await.unwrap_err();
    assert!(matches!(error, SubmitError::WrongChain { expected: 1, found: 31337, .. }), "{error:?}");
    let nowhere = submit_config(&devnet).with_contract(Address::from_bytes([9; 20]));
    let error = set_mature_model(&nowhere, &owner, digest(), U256::ZERO).await.unwrap_err();
    assert!(matches!(error, SubmitError::NoContract { chain_id: 31337, .. }), "{error:?}");
    let sent = devnet.request("eth_blockNumber", ()).await.unwrap();
    assert_eq!(sent, "0x1", "only the deployment is on the chain");
}

#[tokio::test]
async fn a_transaction_that_is_never_mined_is_given_up_and_named() {
    let devnet = devnet().await;
    devnet.request("evm_setAutomine", (false,)).await.unwrap();
    let config = submit_config(&devnet).with_timeout(Duration::from_millis(100));
    let error =
        set_mature_model(&config, &signer(devnet.owner_key()), digest(), U256::ZERO).await.unwrap_err();
    let SubmitError::NotMined { tx_hash, .. } = error else { panic!("{error:?}") };
    assert_eq!((error.blame(), error.availability()), (Blame::Network, Availability::NotNow));
    let known = devnet.request("eth_getTransactionByHash", (tx_hash.to_string(),)).await.unwrap();
    assert!(known["blockHash"].is_null() && known["hash"] == tx_hash.to_string());
}

#[tokio::test]
async fn a_transaction_that_fails_in_its_block_is_told_with_the_reason() {
    let devnet = devnet().await;
    devnet.request("evm_setAutomine", (false,)).await.unwrap();
    let (config, owner) = (submit_config(&devnet), signer(devnet.owner_key()));
    let sending = set_mature_model(&config, &owner, digest(), U256::ZERO);
    let spoiling = async {
        loop {
            let status = devnet.request("txpool_status", ()).await.unwrap();
            if status["pending"] == "0x1" {
                break;
            }
            tokio::task::yield_now().await;
        }
        // Another owner, before the block: then the contract refuses what it would have taken.
        devnet.request("anvil_setCode", (devnet.contract().to_string(), REVERTS_NO)).await.unwrap();
        devnet.mine(1).await.unwrap();
    };
    let (sent, ()) = tokio::join!(sending, spoiling);
    let error = sent.unwrap_err();
    let SubmitError::Reverted { block_number: 2, ref reason, .. } = error else { panic!("{error:?}") };
    assert!(reason.contains("no!"), "{reason}");
    assert_eq!((error.blame(), error.availability()), (Blame::Caller, Availability::Never));
}

/// Copies what follows its first 12 bytes, the encoding of Error("no!"), to memory and reverts with it.
const REVERTS_NO: &str = concat!(
    "0x6064600c60003960646000fd",
    "08c379a0",
    "0000000000000000000000000000000000000000000000000000000000000020",
    "0000000000000000000000000000000000000000000000000000000000000003",
    "6e6f210000000000000000000000000000000000000000000000000000000000",
);
