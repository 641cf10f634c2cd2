//! Storage proofs of a real chain's state.

use std::time::Duration;

use chain_reader::{
    Availability, B256, BlockTag, ChainError, ChainReader, Devnet, MatureModel, ProofError, ProofStatus,
    StringSlot, U256,
};
use serde_json::json;

use crate::honest::{answers, changes, config_of, honest, lie};
use crate::scripted::{Answer, Scripted};
use crate::{devnet, digest};

/// A chain whose model is final, and no longer in the newest block.
async fn chain() -> Devnet {
    let devnet = devnet().await;
    devnet.set_text(&digest().to_string(), U256::from(7)).await.unwrap();
    devnet.mine(4).await.unwrap();
    devnet
}

async fn read(
    devnet: &Devnet,
    endpoints: &[&Scripted],
    slot: StringSlot,
) -> (Result<MatureModel, ChainError>, Option<ProofStatus>) {
    let config = config_of(devnet, BlockTag::Finalized, endpoints).with_proof(slot);
    let reader = ChainReader::new(config).unwrap();
    (reader.mature_model().await, reader.status().proof)
}

/// Reads the model, and returns why it could not be proven.
async fn unprovable(devnet: &Devnet, endpoints: &[&Scripted]) -> String {
    let (model, proof) = read(devnet, endpoints, StringSlot::At(U256::ZERO)).await;
    assert_eq!(model.unwrap().manifest, digest(), "unprovable is not false");
    let proof = proof.unwrap();
    assert!(!proof.is_proven && proof.text.contains("makes nothing false"), "{proof:?}");
    proof.text
}

#[tokio::test]
async fn the_string_is_proven_and_it_is_said_what_that_means() {
    let devnet = chain().await;
    let a = honest(&devnet).await;
    for slot in [StringSlot::OfKnownCode, StringSlot::At(U256::ZERO)] {
        let (model, proof) = read(&devnet, &[&a], slot).await;
        let (model, proof) = (model.unwrap(), proof.unwrap());
        assert!(proof.is_proven, "{proof:?}");
        assert_eq!(proof.block.number, model.block_number);
        assert_eq!(model.block_hash, proof.block.hash);
        for part in
            ["storage slot 0", "not proven", "part of the chain", "price", &model.block_hash.to_string()]
        {
            assert!(proof.text.contains(part), "{proof:?}");
        }
    }
    // Once is enough for a block.
    let config = config_of(&devnet, BlockTag::Finalized, &[&a]).with_proof(StringSlot::OfKnownCode);
    let reader = ChainReader::new(config).unwrap();
    let proofs = || a.asked().iter().filter(|method| *method == "eth_getProof").count();
    let before = proofs();
    for _ in 0..3 {
        reader.mature_model().await.unwrap();
    }
    assert_eq!(proofs() - before, 2, "one for the code, one for the slots");
}

#[tokio::test]
async fn endpoints_that_all_lie_about_the_contract_are_caught() {
    let devnet = chain().await;
    let (a, b) = (changes(&devnet, "eth_call", lie).await, changes(&devnet, "eth_call", lie).await);
    let (model, proof) = read(&devnet, &[&a, &b], StringSlot::OfKnownCode).await;
    let error = model.unwrap_err();
    assert!(
        matches!(&error, ChainError::Proof(error) if matches!(**error, ProofError::Contradicted { .. })),
        "{error:?}"
    );
    assert_eq!(error.availability(), Availability::Alarm);
    assert!(!proof.unwrap().is_proven);
}

#[tokio::test]
async fn a_slot_that_is_not_the_strings_contradicts_and_the_error_says_so() {
    let devnet = chain().await;
    let a = honest(&devnet).await;
    // The price, and nothing at all.
    for slot in [1, 5] {
        let error = read(&devnet, &[&a], StringSlot::At(U256::from(slot))).await.0.unwrap_err();
        assert!(
            matches!(&error, ChainError::Proof(error) if matches!(**error, ProofError::Contradicted { .. })),
            "{error:?}"
        );
        assert!(error.to_string().contains("--string-slot"), "{error}");
    }
}

#[tokio::test]
async fn unknown_code_needs_a_slot() {
    let devnet = devnet().await;
    let contract = devnet.contract().to_string();
    let code = devnet.request("eth_getCode", (&contract, "latest")).await.unwrap();
    devnet.request("anvil_setCode", (&contract, format!("{}00", code.as_str().unwrap()))).await.unwrap();
    devnet.set_text(&digest().to_string(), U256::ZERO).await.unwrap();
    devnet.mine(2).await.unwrap();
    let a = honest(&devnet).await;
    let error = read(&devnet, &[&a], StringSlot::OfKnownCode).await.0.unwrap_err();
    assert!(
        matches!(&error, ChainError::Proof(error) if matches!(**error, ProofError::UnknownCode { .. })),
        "{error:?}"
    );
    assert!(error.is_configuration() && error.to_string().contains("--string-slot"), "{error}");
    assert!(read(&devnet, &[&a], StringSlot::At(U256::ZERO)).await.1.unwrap().is_proven);
}

#[tokio::test]
async fn what_proves_nothing_makes_it_unprovable_and_another_endpoint_may_prove_it() {
    let devnet = chain().await;
    let a = honest(&devnet).await;
    let wrong_root = changes(&devnet, "eth_getBlockByHash", |block| {
        block["stateRoot"] = json!(B256::repeat_byte(9));
    });
    let wrong_value = changes(&devnet, "eth_getProof", |proof| {
        proof["storageProof"][1]["value"] = json!("0x1");
        proof["storageProof"][1]["proof"][0] = json!("0x00");
    });
    let wrong_account = changes(&devnet, "eth_getProof", |proof| {
        proof["storageHash"] = json!(B256::repeat_byte(9));
    });
    let no_slots = changes(&devnet, "eth_getProof", |proof| proof["storageProof"] = json!([]));
    let no_block = answers(&devnet, "eth_getBlockByHash", || Answer::Result(json!(null)));
    let pruned = answers(&devnet, "eth_getProof", || Answer::Error(-32000, "missing trie node"));
    let not_served = answers(&devnet, "eth_getProof", || Answer::Error(-32601, "the method does not exist"));
    let nonsense = answers(&devnet, "eth_getProof", || Answer::Result(json!({"accountProof": 5})));
    for (endpoint, reason) in [
        (wrong_root.await, "hashes to"),
        (wrong_value.await, "storage slot"),
        (wrong_account.await, "account"),
        (no_slots.await, "0 storage proofs"),
        (no_block.await, "does not have the block"),
        (pruned.await, "missing trie node"),
        (not_served.await, "does not exist"),
        (nonsense.await, "nonsense"),
    ] {
        let text = unprovable(&devnet, &[&endpoint]).await;
        assert!(text.contains(reason) && text.contains(&endpoint.url.to_string()), "{reason}: {text}");
        let (model, proof) = read(&devnet, &[&endpoint, &a], StringSlot::At(U256::ZERO)).await;
        assert!(model.is_ok() && proof.unwrap().is_proven, "{reason}");
    }
}

/// The silent one comes first; the test's own deadline is that of the test runner.
#[tokio::test]
async fn whoever_is_silent_about_the_proof_holds_up_nobody_who_shows_it() {
    let devnet = chain().await;
    let silent = answers(&devnet, "eth_getBlockByHash", || Answer::Silence).await;
    let a = honest(&devnet).await;
    let (model, proof) = read(&devnet, &[&silent, &a], StringSlot::At(U256::ZERO)).await;
    assert_eq!(model.unwrap().manifest, digest());
    assert!(proof.unwrap().is_proven);
    assert!(
        silent.asked().iter().filter(|method| *method == "eth_getBlockByHash").count() <= 1,
        "once is enough"
    );
    let config = config_of(&devnet, BlockTag::Finalized, &[&silent]);
    let hasty = crate::policy().with_request_timeout(Duration::from_millis(500));
    let reader = ChainReader::new(config.with_proof(StringSlot::At(U256::ZERO)).with_policy(hasty));
    let reader = reader.unwrap();
    assert_eq!(reader.mature_model().await.unwrap().manifest, digest());
    assert!(reader.status().proof.unwrap().text.contains("has not answered in time"));
}
