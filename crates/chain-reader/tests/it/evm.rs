//! What the reader makes of every state a contract can be in.

use chain_reader::{
    Address, Availability, BlockTag, ChainError, ChainReader, Devnet, MatureModel, NotFinal, Price, U256,
};
use manifest::Blame;
use serde_json::json;

use crate::{config, devnet, digest};

async fn read(devnet: &Devnet, block_tag: BlockTag) -> Result<MatureModel, ChainError> {
    ChainReader::new(config(devnet, block_tag)).unwrap().mature_model().await
}

async fn put_code(devnet: &Devnet, at: Address, code: &str) {
    devnet.request("anvil_setCode", (at.to_string(), code)).await.unwrap();
}

#[tokio::test]
async fn the_model_is_read_with_its_price_chain_and_block() {
    let devnet = devnet().await;
    devnet.set_text(&digest().to_string(), U256::from(7)).await.unwrap();
    devnet.mine(2).await.unwrap();
    let model = read(&devnet, BlockTag::Finalized).await.unwrap();
    assert_eq!((model.manifest, model.price), (digest(), Price::from(7)));
    assert_eq!((model.chain_id, model.block_number), (31337, 2));
    let block = devnet.request("eth_getBlockByNumber", ("0x2", false)).await.unwrap();
    assert_eq!(block["hash"], model.block_hash.to_string());
}

#[tokio::test]
async fn each_tag_reads_its_own_block() {
    let devnet = devnet().await;
    for text in ["1", "2", "3"].map(|text| manifest::Digest::of(text.as_bytes()).to_string()) {
        devnet.set_text(&text, U256::ZERO).await.unwrap();
    }
    for (tag, text) in [(BlockTag::Latest, "3"), (BlockTag::Safe, "2"), (BlockTag::Finalized, "1")] {
        assert_eq!(
            read(&devnet, tag).await.unwrap().manifest,
            manifest::Digest::of(text.as_bytes()),
            "{tag}"
        );
    }
}

#[tokio::test]
async fn no_contract_is_told_from_one_that_is_not_final() {
    let devnet = devnet().await;
    let error = read(&devnet, BlockTag::Finalized).await.unwrap_err();
    let ChainError::NotFinal { what: NotFinal::Contract, behind_blocks: 1, block_number: 0, .. } = error
    else {
        panic!("{error:?}");
    };
    assert_eq!((error.blame(), error.availability()), (Blame::Network, Availability::NotNow));

    let nobody = Address::from_bytes([9; 20]);
    for tag in [BlockTag::Latest, BlockTag::Finalized] {
        let reader = ChainReader::new(config(&devnet, tag).with_contract(nobody)).unwrap();
        let error = reader.mature_model().await.unwrap_err();
        assert!(matches!(error, ChainError::NoContract { .. }), "{error:?}");
        assert!(error.to_string().contains(&nobody.to_string()));
        assert_eq!((error.blame(), error.availability()), (Blame::Caller, Availability::NotNow));
    }
}

#[tokio::test]
async fn no_model_is_told_from_one_that_is_not_final() {
    let devnet = devnet().await;
    let error = read(&devnet, BlockTag::Latest).await.unwrap_err();
    assert!(matches!(error, ChainError::NoModel { block_number: 1, .. }), "{error:?}");
    devnet.mine(2).await.unwrap();
    let error = read(&devnet, BlockTag::Finalized).await.unwrap_err();
    assert!(matches!(error, ChainError::NoModel { block_number: 1, .. }), "{error:?}");
    assert_eq!(error.availability(), Availability::NotNow);

    devnet.set_text(&digest().to_string(), U256::ZERO).await.unwrap();
    let error = read(&devnet, BlockTag::Finalized).await.unwrap_err();
    let is_model = matches!(error, ChainError::NotFinal { what: NotFinal::Model, behind_blocks: 2, .. });
    assert!(is_model, "{error:?}");
    devnet.mine(2).await.unwrap();
    assert_eq!(read(&devnet, BlockTag::Finalized).await.unwrap().manifest, digest());
}

#[tokio::test]
async fn a_string_that_is_no_digest_is_an_alarm_and_shown_safely() {
    let devnet = devnet().await;
    for text in ["ipfs://\u{1b}[31m\nx", &digest().to_string().to_uppercase(), &"z".repeat(12_000), " "] {
        devnet.set_text(text, U256::ZERO).await.unwrap();
        let error = read(&devnet, BlockTag::Latest).await.unwrap_err();
        let ChainError::NotADigest { found_bytes, ref found, .. } = error else { panic!("{error:?}") };
        assert_eq!(found_bytes, text.len());
        assert!(found.chars().count() <= 100 && !found.contains(char::is_control), "{found}");
        assert_eq!((error.blame(), error.availability()), (Blame::Peer, Availability::Alarm));
    }
}

#[tokio::test]
async fn a_contract_of_another_kind_is_named_as_such() {
    let devnet = devnet().await;
    // Stops at once, returning nothing; returns one word; reverts without a reason.
    for (code, expect_revert) in [("0x00", false), ("0x60206000f3", false), ("0x60006000fd", true)] {
        put_code(&devnet, devnet.contract(), code).await;
        let error = read(&devnet, BlockTag::Latest).await.unwrap_err();
        match error {
            ChainError::NotRpb { .. } if !expect_revert => {}
            ChainError::Reverted { .. } if expect_revert => {}
            _ => panic!("{code}: {error:?}"),
        }
        assert_eq!((error.blame(), error.availability()), (Blame::Caller, Availability::Never));
    }
}

#[tokio::test]
async fn the_chain_id_is_checked_when_given() {
    let devnet = devnet().await;
    devnet.set_text(&digest().to_string(), U256::ZERO).await.unwrap();
    let on = |chain_id| config(&devnet, BlockTag::Latest).with_chain_id(chain_id);
    assert!(ChainReader::new(on(31337)).unwrap().mature_model().await.is_ok());
    let error = ChainReader::new(on(1)).unwrap().mature_model().await.unwrap_err();
    assert!(matches!(error, ChainError::WrongChain { expected: 1, found: 31337, .. }), "{error:?}");
    assert_eq!((error.blame(), error.availability()), (Blame::Caller, Availability::Never));
}

#[tokio::test]
async fn a_reorganisation_is_followed() {
    let devnet = devnet().await;
    devnet.set_text(&digest().to_string(), U256::ZERO).await.unwrap();
    let before = read(&devnet, BlockTag::Latest).await.unwrap();
    devnet.request("anvil_reorg", (1, json!([]))).await.unwrap();
    let error = read(&devnet, BlockTag::Latest).await.unwrap_err();
    assert!(matches!(error, ChainError::NoModel { block_number, .. } if block_number == before.block_number));
}

#[tokio::test]
async fn a_configuration_that_makes_no_sense_is_refused() {
    let config = config(&devnet().await, BlockTag::Latest);
    let urls = |urls: &[&str]| urls.iter().map(|text| crate::url(text)).collect::<Vec<_>>();
    let many: Vec<_> = (0..17).map(|i| crate::url(&format!("http://h{i}"))).collect();
    for (rpc_urls, quorum, expected) in [
        (vec![], None, "NoEndpoint"),
        (urls(&["http://a/secretkey", "http://b", "http://a/other"]), None, "DuplicateEndpoint"),
        (many, None, "TooManyEndpoints"),
        (urls(&["http://a", "http://b"]), Some(3), "Quorum"),
        (urls(&["http://a", "http://b"]), Some(0), "Quorum"),
    ] {
        let error = ChainReader::new(config.clone().with_rpc_urls(rpc_urls).with_quorum(quorum)).unwrap_err();
        assert!(format!("{error:?}").starts_with(expected), "{error:?}");
        assert!(error.is_configuration() && !crate::everything_shown(&error).contains("secretkey"));
        assert_eq!((error.blame(), error.availability()), (Blame::Caller, Availability::Never));
    }
}

#[tokio::test]
async fn a_stopped_node_is_down_and_dropping_a_devnet_stops_it() {
    let devnet = devnet().await;
    let reader = ChainReader::new(config(&devnet, BlockTag::Latest)).unwrap();
    assert!(matches!(reader.mature_model().await, Err(ChainError::NoModel { .. })));
    drop(devnet);
    let error = reader.mature_model().await.unwrap_err();
    assert_eq!((error.blame(), error.availability()), (Blame::Network, Availability::NotNow), "{error:?}");
}
