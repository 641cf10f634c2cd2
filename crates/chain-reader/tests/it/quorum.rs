//! Several endpoints: some lie, some are dead, some are elsewhere.

use std::time::Duration;

use chain_reader::{Availability, BlockTag, ChainError, ChainReader, Devnet, Price, U256};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::honest::{
    answers, at_height, changes, config_of, exaggerate, honest, lie, pass, port, reader_of, twisted,
};
use crate::scripted::{Answer, Scripted};
use crate::{devnet, digest, policy};

/// A chain on which the model is final, and is read at its block `3 + more`.
async fn chain(more: u64) -> Devnet {
    let devnet = devnet().await;
    devnet.set_text(&digest().to_string(), U256::from(7)).await.unwrap();
    devnet.mine(3 + more).await.unwrap();
    devnet
}

/// Reads through these at `finalized`, expects the model, and returns the status.
async fn read(devnet: &Devnet, endpoints: &[&Scripted], block_number: u64) -> chain_reader::ChainStatus {
    let reader = reader_of(devnet, BlockTag::Finalized, endpoints);
    let model = reader.mature_model().await.unwrap();
    assert_eq!((model.manifest, model.price, model.block_number), (digest(), Price::from(7), block_number));
    reader.status()
}

/// Reads through these at `finalized`, expects that there is no quorum, and returns what each said.
async fn no_quorum(reader: &ChainReader) -> Vec<String> {
    let error = reader.mature_model().await.unwrap_err();
    assert_eq!(error.availability(), Availability::NotNow);
    assert!(error.is_unreachable());
    let ChainError::NoQuorum { said, .. } = error else { panic!("{error:?}") };
    said
}

#[tokio::test]
async fn two_honest_endpoints_outvote_a_liar_and_it_is_told_who_said_what() {
    let devnet = chain(0).await;
    let (a, b) = (honest(&devnet).await, honest(&devnet).await);
    let liar = changes(&devnet, "eth_call", lie).await;
    let status = read(&devnet, &[&a, &liar, &b], 3).await;
    assert_eq!((status.quorum, status.liars_tolerated, status.disagreements), (2, 1, 1));
    let stances: Vec<_> =
        status.endpoints.iter().map(|of| (of.agrees, of.disagreements, of.errors)).collect();
    assert_eq!(stances, [(true, 0, 0), (false, 1, 0), (true, 0, 0)]);
    let said = &status.recent_disagreements[0].said;
    for (line, endpoint) in said.iter().zip([&a, &liar, &b]) {
        assert!(line.starts_with(&endpoint.url.to_string()) && !line.contains("secretkey"), "{line}");
    }
    assert!(said[0].contains(&digest().to_string()) && !said[1].contains(&digest().to_string()), "{said:?}");
}

#[tokio::test]
async fn a_dead_endpoint_and_a_stalled_one_and_one_that_answers_nonsense_stop_nobody() {
    let devnet = chain(0).await;
    let (a, b) = (honest(&devnet).await, honest(&devnet).await);
    for answer in [|| Answer::Silence, || Answer::Close, || Answer::Http(200, "<html>".to_owned())] {
        for method in ["eth_chainId", "eth_call"] {
            let bad = answers(&devnet, method, answer).await;
            let status = read(&devnet, &[&bad, &a, &b], 3).await;
            assert_eq!(
                (status.endpoints[0].errors, status.disagreements),
                (1, 0),
                "{:?}",
                status.endpoints[0]
            );
            assert!(!status.endpoints[0].agrees && status.endpoints[0].last.is_some());
        }
    }
    let dead = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let rpc_urls = vec![crate::url(&format!("http://{dead}")), a.url.clone(), b.url.clone()];
    let config = config_of(&devnet, BlockTag::Finalized, &[]).with_rpc_urls(rpc_urls);
    assert_eq!(ChainReader::new(config).unwrap().mature_model().await.unwrap().manifest, digest());
}

#[tokio::test]
async fn when_a_quorum_fails_everybody_is_waited_for_and_named() {
    let devnet = chain(0).await;
    let a = honest(&devnet).await;
    let (silent, closing) =
        (Scripted::start(|_, _| Answer::Silence).await, Scripted::start(|_, _| Answer::Close).await);
    let config = config_of(&devnet, BlockTag::Finalized, &[&a, &silent, &closing]);
    let hasty = policy().with_request_timeout(Duration::from_millis(200)).with_attempts(2);
    let said = no_quorum(&ChainReader::new(config.with_policy(hasty)).unwrap()).await;
    assert!(said[0].contains("in block 3"), "{said:?}");
    assert!(said[1].contains("did not answer") && said[2].contains("broke"), "{said:?}");
}

#[tokio::test]
async fn when_all_disagree_there_is_no_quorum_and_the_error_says_who_said_what() {
    let devnet = chain(0).await;
    let a = honest(&devnet).await;
    let liar = changes(&devnet, "eth_call", lie).await;
    let other_block = changes(&devnet, "eth_getBlockByNumber", |block| {
        if block["number"] != "0x0" {
            block["hash"] = json!(chain_reader::B256::repeat_byte(9));
        }
    });
    let other_block = other_block.await;
    let config = config_of(&devnet, BlockTag::Finalized, &[&a, &liar, &other_block]);
    let hasty = policy().with_request_timeout(Duration::from_secs(1));
    let reader = ChainReader::new(config.with_policy(hasty)).unwrap();
    let said = no_quorum(&reader).await;
    assert!(said[0].contains(&digest().to_string()) && said[1].contains("says"), "{said:?}");
    // It does not even have the block that it names.
    assert!(said[2].contains("no vote"), "{said:?}");
    let status = reader.status();
    assert!(status.rounds_without_quorum > 1, "endpoints that answer are asked again");
    assert!(status.disagreements >= 1 && status.trouble.unwrap().contains("no 2 of 3"));
}

#[tokio::test]
async fn two_liars_of_three_win_by_definition_and_a_trusted_endpoint_vetoes_that() {
    let devnet = chain(0).await;
    let a = honest(&devnet).await;
    let (b, c) = (changes(&devnet, "eth_call", lie).await, changes(&devnet, "eth_call", lie).await);
    let config = config_of(&devnet, BlockTag::Finalized, &[&a, &b, &c]);
    let fooled = ChainReader::new(config.clone()).unwrap().mature_model().await.unwrap();
    assert_ne!(fooled.manifest, digest());
    let trusting = config.clone().with_trusted_rpc(a.url.clone());
    let reader = ChainReader::new(trusting).unwrap();
    assert_eq!(no_quorum(&reader).await.len(), 3, "it is asked once, although it was given twice");
    assert!(reader.status().endpoints.iter().any(|of| of.is_trusted && of.endpoint == a.url.to_string()));

    // A trusted endpoint that is not one of the others is asked as well, and three of four do not outvote it.
    let (d, e) = (honest(&devnet).await, honest(&devnet).await);
    let of_four = config_of(&devnet, BlockTag::Finalized, &[&a, &d, &e]).with_trusted_rpc(b.url.clone());
    assert_eq!(no_quorum(&ChainReader::new(of_four).unwrap()).await.len(), 4);
    let alone = config.with_rpc_urls(Vec::new()).with_trusted_rpc(a.url.clone());
    assert_eq!(ChainReader::new(alone).unwrap().mature_model().await.unwrap().manifest, digest());
}

#[tokio::test]
async fn heights_differ_and_the_highest_that_a_quorum_has_is_read() {
    let devnet = chain(40).await;
    let top = 2 + 43 - 2;
    let a = honest(&devnet).await;
    let far = changes(&devnet, "eth_getBlockByNumber", exaggerate).await;
    let b = at_height(&devnet, top - 1).await;
    let lagging = at_height(&devnet, top - 32).await;
    let status = read(&devnet, &[&far, &a, &b], top - 1).await;
    assert_eq!(status.endpoints[0].height, Some(1_000_000_000));
    let status = read(&devnet, &[&a, &lagging, &b], top - 1).await;
    assert!(!status.endpoints[1].agrees && status.disagreements == 0, "lagging is no lie");
    read(&devnet, &[&a, &lagging], top - 32).await;
}

#[tokio::test]
async fn an_endpoint_that_has_pruned_the_state_gives_no_vote_and_is_named() {
    let devnet = chain(0).await;
    let (a, b) = (honest(&devnet).await, honest(&devnet).await);
    let pruned = answers(&devnet, "eth_call", || Answer::Error(-32000, "missing trie node")).await;
    let status = read(&devnet, &[&a, &pruned, &b], 3).await;
    let last = status.endpoints[1].last.clone().unwrap();
    assert!(last.contains("pruned") && last.contains("missing trie node"), "{last}");
    assert_eq!((status.disagreements, status.endpoints[1].errors), (0, 1));
    let said = no_quorum(&reader_of(&devnet, BlockTag::Finalized, &[&a, &pruned])).await;
    assert!(said[1].contains("pruned"), "{said:?}");
}

#[tokio::test]
async fn endpoints_on_another_chain_do_not_count() {
    let devnet = chain(0).await;
    let (a, b) = (honest(&devnet).await, honest(&devnet).await);
    let on_one = |result: &mut Value| *result = json!("0x1");
    let (c, d) =
        (changes(&devnet, "eth_chainId", on_one).await, changes(&devnet, "eth_chainId", on_one).await);
    let status = read(&devnet, &[&a, &c, &b], 3).await;
    assert_eq!((status.chain_id, status.disagreements), (Some(31337), 1));
    assert!(status.endpoints[1].last.as_ref().unwrap().contains("chain 1, expected chain 31337"));

    let said = no_quorum(&reader_of(&devnet, BlockTag::Finalized, &[&a, &c])).await;
    assert!(said[0].contains("chain 31337") && said[1].contains("chain 1 "), "{said:?}");
    let config = config_of(&devnet, BlockTag::Finalized, &[&a, &c, &d]);
    let pinned = config.with_chain_id(31337);
    let error = ChainReader::new(pinned).unwrap().mature_model().await.unwrap_err();
    assert!(matches!(error, ChainError::WrongChain { expected: 31337, found: 1, .. }), "{error:?}");

    // The same id, but another first block.
    let other_genesis = changes(&devnet, "eth_getBlockByNumber", |block| {
        if block["number"] == "0x0" {
            block["hash"] = json!(chain_reader::B256::repeat_byte(9));
        }
    });
    let other_genesis = other_genesis.await;
    let status = read(&devnet, &[&a, &other_genesis, &b], 3).await;
    assert!(status.endpoints[1].last.as_ref().unwrap().contains("genesis"));
}

#[tokio::test]
async fn what_a_quorum_says_of_a_contract_without_a_model_is_as_precise_as_with_one_endpoint() {
    let devnet = devnet().await;
    let (a, b) = (honest(&devnet).await, honest(&devnet).await);
    let liar = answers(&devnet, "eth_call", || Answer::Result(json!("0x"))).await;
    let endpoints = [&a, &liar, &b];
    let error = reader_of(&devnet, BlockTag::Finalized, &endpoints).mature_model().await.unwrap_err();
    assert!(matches!(error, ChainError::NotFinal { behind_blocks: 1, .. }), "{error:?}");
    let error = reader_of(&devnet, BlockTag::Latest, &endpoints).mature_model().await.unwrap_err();
    assert!(matches!(error, ChainError::NoModel { .. }), "{error:?}");
    devnet.set_text("no digest", U256::ZERO).await.unwrap();
    let error = reader_of(&devnet, BlockTag::Latest, &endpoints).mature_model().await.unwrap_err();
    assert_eq!(error.availability(), Availability::Alarm, "{error:?}");
}

#[tokio::test]
async fn a_block_that_changes_during_the_read_is_read_again() {
    let devnet = chain(0).await;
    let port = port(&devnet);
    let mut behind = true;
    // At first one of the two has another block there, as around a reorganisation.
    let wavering = twisted(&devnet, move |method, params| {
        let is_tag = method == "eth_getBlockByNumber" && params[0] == "finalized";
        is_tag.then(|| {
            let change: fn(&mut Value) = if behind {
                |block| block["hash"] = json!(chain_reader::B256::repeat_byte(9))
            } else {
                |_| ()
            };
            behind = false;
            pass(port, method, params, change)
        })
    });
    let (a, wavering) = (honest(&devnet).await, wavering.await);
    let status = read(&devnet, &[&a, &wavering], 3).await;
    assert_eq!((status.rounds, status.rounds_without_quorum), (2, 1));
}
