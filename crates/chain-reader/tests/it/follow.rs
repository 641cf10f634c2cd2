//! Following a real chain while endpoints and blocks come and go.

use std::time::Duration;

use chain_reader::{
    BlockTag, ChainError, ChainReader, Config, FollowEvent, Follower, HintUrl, Trouble, U256,
};
use manifest::Digest;
use serde_json::json;
use tokio::time::timeout;

use crate::honest::{config_of, honest, port, twisted};
use crate::scripted::Scripted;
use crate::{config, devnet, digest};

/// What is waited for comes in milliseconds; a loaded machine gets this long.
const DEADLINE: Duration = Duration::from_secs(60);

fn follow(config: Config) -> Follower {
    let config = config.with_poll_interval(Duration::from_millis(50));
    ChainReader::new(config).unwrap().follow(None)
}

async fn next(follower: &mut Follower) -> FollowEvent {
    timeout(DEADLINE, follower.next()).await.unwrap()
}

async fn next_model(follower: &mut Follower) -> Digest {
    match next(follower).await {
        FollowEvent::Model(model) => model.manifest,
        other => panic!("{other:?}"),
    }
}

async fn next_trouble(follower: &mut Follower) -> Trouble {
    match next(follower).await {
        FollowEvent::Trouble(trouble) => trouble,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn from_a_contract_that_is_not_final_to_one_model_after_the_other() {
    let devnet = devnet().await;
    let mut follower = follow(config(&devnet, BlockTag::Finalized));
    let trouble = next_trouble(&mut follower).await;
    assert!(matches!(trouble.error, ChainError::NotFinal { .. }) && trouble.keeping.is_none(), "{trouble}");
    for number in 0..3_u8 {
        let model = Digest::of(&[number]);
        devnet.set_text(&model.to_string(), U256::ZERO).await.unwrap();
        devnet.mine(2).await.unwrap();
        // Between two blocks there may be another reason why there is no model yet.
        let told = loop {
            match next(&mut follower).await {
                FollowEvent::Model(model) => break model.manifest,
                FollowEvent::Trouble(trouble) => assert_eq!(number, 0, "{trouble}"),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(told, model);
    }
}

#[tokio::test]
async fn endpoints_may_restart_in_the_middle() {
    let devnet = devnet().await;
    devnet.set_text(&digest().to_string(), U256::ZERO).await.unwrap();
    let (a, b, c) = (honest(&devnet).await, honest(&devnet).await, honest(&devnet).await);
    let mut follower = follow(config_of(&devnet, BlockTag::Latest, &[&a, &b, &c]));
    assert_eq!(next_model(&mut follower).await, digest());
    // One of three is nobody's trouble; two are.
    let (b, c) = (b.stop().await, c.stop().await);
    let trouble = next_trouble(&mut follower).await;
    assert!(
        matches!(trouble.error, ChainError::NoQuorum { .. }) && trouble.keeping == Some(digest()),
        "{trouble}"
    );
    let node = port(&devnet);
    let _b = Scripted::pass_on(b, node).await;
    assert!(matches!(next(&mut follower).await, FollowEvent::Recovered));
    drop(a);
    next_trouble(&mut follower).await;
    let newer = Digest::of(b"newer");
    devnet.set_text(&newer.to_string(), U256::ZERO).await.unwrap();
    let _c = Scripted::pass_on(c, node).await;
    assert_eq!(next_model(&mut follower).await, newer);
}

#[tokio::test]
async fn a_reorganisation_takes_a_model_back_and_the_one_before_is_told_again() {
    let devnet = devnet().await;
    let (old, new) = (Digest::of(b"old"), Digest::of(b"new"));
    devnet.set_text(&old.to_string(), U256::ZERO).await.unwrap();
    let mut follower = follow(config(&devnet, BlockTag::Latest));
    assert_eq!(next_model(&mut follower).await, old);
    devnet.set_text(&new.to_string(), U256::ZERO).await.unwrap();
    assert_eq!(next_model(&mut follower).await, new);
    devnet.request("anvil_reorg", (1, json!([]))).await.unwrap();
    assert_eq!(next_model(&mut follower).await, old);
}

#[tokio::test]
async fn an_event_over_a_websocket_makes_it_look_at_once() {
    let devnet = devnet().await;
    let hints: HintUrl = devnet.rpc_url_text().replacen("http", "ws", 1).parse().unwrap();
    let dead: HintUrl = "ws://127.0.0.1:1".parse().unwrap();
    let at_leisure = Duration::from_secs(24 * 3600);
    let config =
        config(&devnet, BlockTag::Latest).with_poll_interval(at_leisure).with_hints(vec![dead, hints]);
    let mut follower = ChainReader::new(config).unwrap().follow(None);
    assert!(matches!(next_trouble(&mut follower).await.error, ChainError::NoModel { .. }));
    // An event before the subscription is missed: the next one is not.
    let told = async {
        for number in 0..100_u8 {
            devnet.set_text(&Digest::of(&[number]).to_string(), U256::ZERO).await.unwrap();
            if let Ok(event) = timeout(Duration::from_millis(300), follower.next()).await {
                return event;
            }
        }
        panic!("no hint was heard");
    };
    assert!(matches!(timeout(DEADLINE, told).await.unwrap(), FollowEvent::Model(_)));
}

#[tokio::test]
async fn a_lie_that_comes_and_goes_is_never_told() {
    let devnet = devnet().await;
    devnet.set_text(&digest().to_string(), U256::ZERO).await.unwrap();
    let mut calls = 0;
    let node = port(&devnet);
    let wavering = twisted(&devnet, move |method, params| {
        calls += usize::from(method == "eth_call");
        let lies = method == "eth_call" && calls % 2 == 0;
        lies.then(|| crate::honest::pass(node, method, params, crate::honest::lie))
    });
    let (a, b, wavering) = (honest(&devnet).await, honest(&devnet).await, wavering.await);
    let config = config_of(&devnet, BlockTag::Latest, &[&a, &wavering, &b]);
    let reader = ChainReader::new(config.with_poll_interval(Duration::from_millis(5))).unwrap();
    let mut follower = reader.follow(None);
    assert_eq!(next_model(&mut follower).await, digest());
    let lies_heard = async {
        while reader.status().disagreements < 3 {
            if let Ok(event) = timeout(Duration::from_millis(20), follower.next()).await {
                panic!("{event:?}");
            }
        }
    };
    timeout(DEADLINE, lies_heard).await.unwrap();
}
