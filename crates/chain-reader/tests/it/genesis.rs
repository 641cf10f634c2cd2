//! What never changes is asked once, and a first block that nobody has any more is done without.

use std::path::Path;

use chain_reader::{BlockTag, ChainError, ChainReader, Config, Devnet, StateError, U256, stored_chains};
use serde_json::{Value, json};

use crate::honest::{config_of, honest, twisted};
use crate::scripted::{Answer, Scripted};
use crate::{devnet, digest};

async fn chain() -> Devnet {
    let devnet = devnet().await;
    devnet.set_text(&digest().to_string(), U256::ZERO).await.unwrap();
    devnet.mine(2).await.unwrap();
    devnet
}

/// Has no first block any more, and says so in this way.
async fn pruned(devnet: &Devnet, answer: fn() -> Answer) -> Scripted {
    let is_it = |method: &str, params: &Value| method == "eth_getBlockByNumber" && params[0] == "0x0";
    twisted(devnet, move |method, params| is_it(method, params).then(answer)).await
}

fn config(devnet: &Devnet, endpoints: &[&Scripted], dir: &Path) -> Config {
    let config = config_of(devnet, BlockTag::Finalized, endpoints);
    config.with_state_dir(dir.to_owned())
}

async fn read(config: &Config) -> Result<u64, ChainError> {
    let model = ChainReader::new(config.clone()).unwrap().mature_model().await?;
    assert_eq!(model.manifest, digest());
    Ok(model.block_number)
}

#[tokio::test]
async fn what_never_changes_is_asked_once() {
    let (devnet, dir) = (chain().await, tempfile::tempdir().unwrap());
    let (a, gone) = (honest(&devnet).await, pruned(&devnet, || Answer::Result(Value::Null)).await);
    let reader = ChainReader::new(config(&devnet, &[&a, &gone], dir.path())).unwrap();
    for _ in 0..5 {
        reader.mature_model().await.unwrap();
    }
    for endpoint in [&a, &gone] {
        let asked = endpoint.asked();
        let count = |wanted: &str| asked.iter().filter(|method| *method == wanted).count();
        // Five heads, five calls, the chain id and the first block.
        assert_eq!(
            (count("eth_chainId"), count("eth_call"), count("eth_getBlockByNumber")),
            (1, 5, 6),
            "{asked:?}"
        );
        assert_eq!(asked.len(), 12);
    }
}

#[tokio::test]
async fn endpoints_without_the_first_block_vote_like_others() {
    let devnet = chain().await;
    for answer in [
        || Answer::Error(4444, "pruned history unavailable"),
        || Answer::Error(-32000, "missing block body"),
        || Answer::Result(Value::Null),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (a, b, c) = (honest(&devnet).await, honest(&devnet).await, pruned(&devnet, answer).await);
        let d = pruned(&devnet, answer).await;
        // With a quorum that has it, with one of three that has it, and with nobody.
        for endpoints in [vec![&a, &b, &c], vec![&a, &c, &d], vec![&c, &d], vec![&c]] {
            read(&config(&devnet, &endpoints, dir.path())).await.unwrap();
        }
        let stored = stored_chains(dir.path()).unwrap();
        assert_eq!(stored.len(), 1, "it is one chain, found by its id");
        assert!(stored[0].genesis.is_some());
    }
}

#[tokio::test]
async fn the_floor_is_found_by_the_chain_id_and_two_of_them_are_refused() {
    let (devnet, dir) = (chain().await, tempfile::tempdir().unwrap());
    let gone = pruned(&devnet, || Answer::Result(Value::Null)).await;
    let config = config(&devnet, &[&gone], dir.path());
    assert_eq!(read(&config).await.unwrap(), 2);
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    let stored = stored_chains(dir.path()).unwrap().remove(0);
    assert!(name(&stored.path).starts_with("31337-unknown-0x"), "{stored:?}");

    let other = name(&stored.path).replace("unknown", &chain_reader::B256::repeat_byte(7).to_string());
    std::fs::copy(&stored.path, dir.path().join(other)).unwrap();
    let error = read(&config).await.unwrap_err();
    assert!(matches!(error, ChainError::State(StateError::Ambiguous { chain_id: 31337, .. })), "{error:?}");
    stored.forget().unwrap();
    devnet.mine(3).await.unwrap();
    assert_eq!(read(&config).await.unwrap(), 5);
    assert_eq!(stored_chains(dir.path()).unwrap().len(), 1);
}

/// One endpoint alone does not choose under which name the floor is looked up.
#[tokio::test]
async fn a_liar_about_the_first_block_opens_no_second_memory() {
    let (devnet, dir) = (chain().await, tempfile::tempdir().unwrap());
    let (a, b) = (honest(&devnet).await, honest(&devnet).await);
    let gone = [
        pruned(&devnet, || Answer::Result(Value::Null)).await,
        pruned(&devnet, || Answer::Result(Value::Null)).await,
    ];
    let lying = pruned(&devnet, || {
        Answer::Result(
            json!({"hash": chain_reader::B256::repeat_byte(9), "number": "0x0", "timestamp": "0x0"}),
        )
    });
    let lying = lying.await;
    read(&config(&devnet, &[&a, &b], dir.path())).await.unwrap();
    read(&config(&devnet, &[&gone[0], &lying, &gone[1]], dir.path())).await.unwrap();
    assert_eq!(stored_chains(dir.path()).unwrap().len(), 1);
}

/// A mistake of a moment does not keep an endpoint out for ever.
#[tokio::test]
async fn an_endpoint_that_once_named_another_chain_is_asked_again() {
    let devnet = chain().await;
    let mut is_first = true;
    let mistaken = twisted(&devnet, move |method, _| {
        (method == "eth_chainId" && std::mem::take(&mut is_first)).then(|| Answer::Result(json!("0x1")))
    });
    let mistaken = mistaken.await;
    let config = config_of(&devnet, BlockTag::Finalized, &[&mistaken]);
    let reader = ChainReader::new(config.with_chain_id(31337)).unwrap();
    assert!(matches!(reader.mature_model().await, Err(ChainError::WrongChain { found: 1, .. })));
    assert_eq!(reader.mature_model().await.unwrap().manifest, digest());
}
