//! True answers about old blocks, which are lies about today.

use std::time::Duration;

use chain_reader::{BlockTag, ChainError, ChainReader, Devnet, U256};
use manifest::Digest;

use crate::honest::{
    answers, at_height, config_of, exaggerate, honest, pass, port, reader_of, slow, twisted,
};
use crate::scripted::{Answer, Scripted};
use crate::{devnet, digest, policy};

/// The height at which the old model was final.
const OLD: u64 = 4;
/// Longer than anybody is waited for.
const SLOW: Duration = Duration::from_millis(1_300);

/// A chain that named another model at block `OLD`, and names the one of `digest` at its final block.
async fn chain() -> Devnet {
    let devnet = devnet().await;
    devnet.set_text(&Digest::of(b"an old manifest").to_string(), U256::ZERO).await.unwrap();
    devnet.mine(4).await.unwrap();
    devnet.set_text(&digest().to_string(), U256::ZERO).await.unwrap();
    devnet.mine(4).await.unwrap();
    devnet
}

async fn backdated(devnet: &Devnet) -> Scripted {
    at_height(devnet, OLD).await
}

#[tokio::test]
async fn an_endpoint_that_names_an_old_block_rolls_nobody_back_however_slow_the_others_are() {
    let devnet = chain().await;
    // How many tell old truths, how many are slow, and how many are fast: with each the tolerated number of liars.
    for (liars, slow_ones, fast_ones) in [(1, 1, 1), (1, 2, 0), (1, 2, 1), (2, 1, 2), (2, 3, 0)] {
        let mut endpoints = Vec::new();
        for _ in 0..liars {
            endpoints.push(backdated(&devnet).await);
        }
        for _ in 0..slow_ones {
            endpoints.push(slow(&devnet, SLOW).await);
        }
        for _ in 0..fast_ones {
            endpoints.push(honest(&devnet).await);
        }
        let endpoints: Vec<_> = endpoints.iter().collect();
        let model = reader_of(&devnet, BlockTag::Finalized, &endpoints).mature_model().await.unwrap();
        assert_eq!((model.manifest, model.block_number), (digest(), 9), "{liars} {slow_ones} {fast_ones}");
    }
}

#[tokio::test]
async fn where_the_other_honest_one_gives_no_vote_there_is_no_quorum_and_no_old_model() {
    let devnet = chain().await;
    let (liar, fast) = (backdated(&devnet).await, honest(&devnet).await);
    let limited = answers(&devnet, "eth_call", || Answer::Http(429, String::new())).await;
    let stalled = Scripted::start(|_, _| Answer::Silence).await;
    let stalls_vote = answers(&devnet, "eth_call", || Answer::Silence).await;
    for other in [None, Some(&limited), Some(&stalled), Some(&stalls_vote)] {
        let endpoints: Vec<_> = [&liar, &fast].into_iter().chain(other).collect();
        let hasty = policy().with_request_timeout(Duration::from_millis(300)).with_attempts(2);
        let config = config_of(&devnet, BlockTag::Finalized, &endpoints).with_policy(hasty);
        let reader = ChainReader::new(config).unwrap();
        let error = reader.mature_model().await.unwrap_err();
        let ChainError::NoQuorum { ref said, .. } = error else { panic!("{error:?}") };
        assert!(said[0].contains("in block 4 ") && said[1].contains("in block 9 "), "{said:?}");
    }
}

/// Whoever was left out of a decision is told in the status.
#[tokio::test]
async fn what_was_left_out_is_told() {
    let devnet = chain().await;
    let (liar, a, b) = (backdated(&devnet).await, honest(&devnet).await, honest(&devnet).await);
    let reader = reader_of(&devnet, BlockTag::Finalized, &[&liar, &a, &b]);
    assert_eq!(reader.mature_model().await.unwrap().manifest, digest());
    let status = reader.status();
    let last = status.endpoints[0].last.clone().unwrap();
    assert!(last.contains("finalized block 4") && last.contains(&Digest::of(b"an old manifest").to_string()));
    assert!(!status.endpoints[0].agrees && status.endpoints[1].agrees);
}

/// One that lags in earnest has not heard the news: with the liar it names the old model, and is an honest endpoint's
/// word. One that lags less names the new one.
#[tokio::test]
async fn the_head_of_an_honest_endpoint_names_the_winner() {
    let devnet = chain().await;
    let (liar, a) = (backdated(&devnet).await, honest(&devnet).await);
    for (lagging, expected) in [(8, digest()), (5, Digest::of(b"an old manifest"))] {
        let lagging = at_height(&devnet, lagging).await;
        let model = reader_of(&devnet, BlockTag::Finalized, &[&liar, &a, &lagging]).mature_model().await;
        assert_eq!(model.unwrap().manifest, expected);
    }
}

#[tokio::test]
async fn a_claimed_height_of_a_billion_and_silence_about_it_hold_nobody_up() {
    let devnet = chain().await;
    let port = port(&devnet);
    let liar = twisted(&devnet, move |method, params| match method {
        "eth_getBlockByNumber" if params[0] == "finalized" => Some(pass(port, method, params, exaggerate)),
        "eth_call" => Some(Answer::Silence),
        _ => None,
    });
    let (liar, a, lagging) = (liar.await, honest(&devnet).await, at_height(&devnet, 8).await);
    let model = reader_of(&devnet, BlockTag::Finalized, &[&liar, &a, &lagging]).mature_model().await.unwrap();
    assert_eq!((model.manifest, model.block_number), (digest(), 8));
}

/// The time of a block is part of it.
#[tokio::test]
async fn endpoints_that_give_a_block_different_times_do_not_agree() {
    let devnet = chain().await;
    let earlier = crate::honest::changes(&devnet, "eth_getBlockByNumber", |block| {
        block["timestamp"] = serde_json::json!("0x1");
    });
    let (a, earlier) = (honest(&devnet).await, earlier.await);
    let error = reader_of(&devnet, BlockTag::Finalized, &[&a, &earlier]).mature_model().await.unwrap_err();
    assert!(matches!(error, ChainError::NoQuorum { .. }), "{error:?}");
}
