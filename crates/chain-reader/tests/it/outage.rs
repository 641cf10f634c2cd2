//! What is retried, what is said, and what stands in when endpoints are out of order.

use std::time::Duration;

use chain_reader::{Availability, BlockTag, ChainError, ChainReader, Config, Devnet, Staleness, U256};
use serde_json::{Value, json};

use crate::honest::{answers, config_of, honest, pass, port, reader_of, twisted};
use crate::scripted::{Answer, Scripted};
use crate::{devnet, digest};

/// What an endpoint that is out of order answers.
type Fault = fn() -> Answer;

async fn chain() -> Devnet {
    let devnet = devnet().await;
    devnet.set_text(&digest().to_string(), U256::ZERO).await.unwrap();
    devnet.mine(6).await.unwrap();
    devnet
}

/// Several nodes behind one URL, every second one of them two blocks behind.
async fn balanced(devnet: &Devnet) -> Scripted {
    let (port, mut turn) = (port(devnet), 0);
    twisted(devnet, move |method, params| {
        turn += 1;
        let is_head = method == "eth_getBlockByNumber" && params[0] == "finalized";
        (is_head && turn % 2 == 0).then(|| pass(port, method, &json!(["0x4", false]), |_| ()))
    })
    .await
}

#[tokio::test]
async fn nodes_behind_one_url_that_differ_by_two_blocks_are_asked_again() {
    let (devnet, dir) = (chain().await, tempfile::tempdir().unwrap());
    let (balanced, a) = (balanced(&devnet).await, honest(&devnet).await);
    for endpoints in [vec![&balanced], vec![&balanced, &a]] {
        let config = config_of(&devnet, BlockTag::Finalized, &endpoints);
        let config = config.with_state_dir(dir.path().to_owned());
        for _ in 0..20 {
            let model = ChainReader::new(config.clone()).unwrap().mature_model().await.unwrap();
            assert_eq!(model.manifest, digest());
        }
    }
}

#[tokio::test]
async fn a_contract_that_reverts_reverts_whatever_the_nodes_call_it() {
    let devnet = chain().await;
    let reverting = [
        answers(&devnet, "eth_call", || Answer::Error(3, "execution reverted: no")).await,
        answers(&devnet, "eth_call", || Answer::Error(-32000, "execution reverted")).await,
        answers(&devnet, "eth_call", || Answer::Error(-32015, "VM execution error.")).await,
    ];
    let reader = reader_of(&devnet, BlockTag::Finalized, &reverting.each_ref());
    let error = reader.mature_model().await.unwrap_err();
    assert!(matches!(error, ChainError::Reverted { .. }), "{error:?}");
    assert_eq!(error.availability(), Availability::Never);
}

#[tokio::test]
async fn a_tag_that_nodes_do_not_know_is_named() {
    let devnet = chain().await;
    let unknown = |devnet| {
        twisted(devnet, |method, params| {
            let is_it = method == "eth_getBlockByNumber" && params[0] == "finalized";
            is_it.then(|| Answer::Error(-32602, "invalid argument 0: hex string without 0x prefix"))
        })
    };
    let (a, b) = (unknown(&devnet).await, unknown(&devnet).await);
    for endpoints in [vec![&a], vec![&a, &b]] {
        let error = reader_of(&devnet, BlockTag::Finalized, &endpoints).mature_model().await.unwrap_err();
        assert!(matches!(error, ChainError::UnknownTag { tag: BlockTag::Finalized, .. }), "{error:?}");
        assert!(error.to_string().contains("--block-tag"), "{error}");
        assert_eq!(error.availability(), Availability::Never);
        assert!(reader_of(&devnet, BlockTag::Latest, &endpoints).mature_model().await.is_ok());
    }
}

/// Each of these is an outage: what was loaded stands in, if that is wanted, and is no answer otherwise.
#[tokio::test]
async fn whatever_keeps_the_chain_from_being_read_the_last_model_stands_in() {
    let (devnet, dir) = (chain().await, tempfile::tempdir().unwrap());
    let remembering = |config: Config| config.with_state_dir(dir.path().to_owned());
    let a = honest(&devnet).await;
    let reader = ChainReader::new(remembering(config_of(&devnet, BlockTag::Finalized, &[&a]))).unwrap();
    reader.note_loaded(&reader.mature_model().await.unwrap()).await.unwrap();
    let outages: [(&str, Fault); 12] = [
        ("401", || Answer::Http(401, "no".to_owned())),
        ("402", || Answer::Http(402, "no".to_owned())),
        ("403", || Answer::Http(403, "no".to_owned())),
        ("404", || Answer::Http(404, "no".to_owned())),
        ("429", || Answer::Http(429, "no".to_owned())),
        ("503", || Answer::Http(503, "no".to_owned())),
        ("no such method", || Answer::Error(-32601, "the method does not exist")),
        ("no such tag", || Answer::Error(-32602, "invalid params")),
        ("no finalized block", || Answer::Result(Value::Null)),
        ("not found", || Answer::Error(-39001, "Unknown block")),
        ("nonsense", || Answer::Http(200, "<html>".to_owned())),
        ("closed", || Answer::Close),
    ];
    for (name, outage) in outages {
        let mut endpoints = Vec::new();
        for _ in 0..3 {
            let is_it =
                |method: &str, params: &Value| method == "eth_getBlockByNumber" && params[0] == "finalized";
            endpoints.push(twisted(&devnet, move |method, params| is_it(method, params).then(outage)).await);
        }
        let endpoints: Vec<_> = endpoints.iter().collect();
        for endpoints in [&endpoints[..1], &endpoints[..]] {
            let config = remembering(config_of(&devnet, BlockTag::Finalized, endpoints));
            let error = ChainReader::new(config.clone()).unwrap().mature_model().await.unwrap_err();
            assert!(error.is_unreachable(), "{name}: {error:?}");
            let staleness = Staleness::UpTo(Duration::from_secs(3600));
            let stale = ChainReader::new(config.with_staleness(staleness)).unwrap();
            assert_eq!(stale.mature_model().await.unwrap().manifest, digest(), "{name}");
        }
    }
}
