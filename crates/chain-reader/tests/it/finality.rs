//! Finality that is taken back.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chain_reader::{
    Availability, BlockTag, ChainError, ChainReader, Config, Devnet, MatureModel, U256, stored_chains,
};
use manifest::Digest;
use serde_json::{Value, json};

use crate::honest::{config_of, honest, pass, port, twisted};
use crate::scripted::{Answer, Scripted};
use crate::{devnet, digest};

/// A chain whose final block, 5, names the model.
async fn chain() -> Devnet {
    let devnet = devnet().await;
    devnet.set_text(&digest().to_string(), U256::ZERO).await.unwrap();
    devnet.mine(5).await.unwrap();
    devnet
}

/// Replaces the final block, and all above it, and names another model in a higher one.
async fn take_back(devnet: &Devnet) {
    devnet.request("anvil_reorg", (4, json!([]))).await.unwrap();
    devnet.set_text(&Digest::of(b"another").to_string(), U256::ZERO).await.unwrap();
    devnet.mine(4).await.unwrap();
}

fn config(devnet: &Devnet, endpoints: &[&Scripted], dir: &Path) -> Config {
    let config = config_of(devnet, BlockTag::Finalized, endpoints);
    config.with_state_dir(dir.to_owned())
}

async fn read(config: &Config) -> Result<MatureModel, ChainError> {
    ChainReader::new(config.clone()).unwrap().mature_model().await
}

/// Answers like this when it is asked for the block of a height that can be changed.
async fn at(
    devnet: &Devnet,
    height: &Arc<AtomicU64>,
    answer: impl Fn(&str, &Value) -> Answer + Send + 'static,
) -> Scripted {
    let height = Arc::clone(height);
    let is_it = move |method: &str, params: &Value| {
        method == "eth_getBlockByNumber" && params[0] == format!("{:#x}", height.load(Ordering::Relaxed))
    };
    twisted(devnet, move |method, params| is_it(method, params).then(|| answer(method, params))).await
}

#[tokio::test]
async fn a_final_block_that_is_replaced_is_an_alarm_at_any_height_and_until_it_is_forgotten() {
    let (devnet, dir) = (chain().await, tempfile::tempdir().unwrap());
    let endpoints = [honest(&devnet).await, honest(&devnet).await, honest(&devnet).await];
    let config = config(&devnet, &endpoints.each_ref(), dir.path());
    let before = read(&config).await.unwrap();
    assert_eq!(before.block_number, 5);
    take_back(&devnet).await;
    let running = ChainReader::new(config.clone()).unwrap();
    for _ in 0..3 {
        for error in [read(&config).await.unwrap_err(), running.mature_model().await.unwrap_err()] {
            let ChainError::FinalizedChanged { block_number: 5, before: was, now } = error else {
                panic!("{error:?}")
            };
            assert!(before.block_hash == was && now != was);
            assert_eq!(error.availability(), Availability::Alarm);
        }
        devnet.mine(2).await.unwrap();
    }
    let stored = stored_chains(dir.path()).unwrap().remove(0);
    let memory = stored.memory.as_ref().unwrap();
    assert_eq!((memory.floor.unwrap().number, memory.alarm.unwrap().before.number), (5, 5));
    assert_eq!(memory.last_good.unwrap().manifest, digest(), "nothing was taken from the other chain");
    stored.forget().unwrap();
    assert_eq!(running.mature_model().await.unwrap().manifest, Digest::of(b"another"));
}

#[tokio::test]
async fn without_a_directory_it_lasts_as_long_as_the_reader() {
    let devnet = chain().await;
    let endpoint = honest(&devnet).await;
    let reader = crate::honest::reader_of(&devnet, BlockTag::Finalized, &[&endpoint]);
    reader.mature_model().await.unwrap();
    take_back(&devnet).await;
    for _ in 0..2 {
        let error = reader.mature_model().await.unwrap_err();
        assert!(matches!(error, ChainError::FinalizedChanged { .. }), "{error:?}");
        devnet.mine(2).await.unwrap();
    }
}

#[tokio::test]
async fn one_liar_cannot_lock_a_reader_and_a_pruned_block_is_no_denial() {
    let (devnet, floor) = (chain().await, Arc::new(AtomicU64::new(0)));
    let node = port(&devnet);
    let replaced = move |method: &str, params: &Value| {
        pass(node, method, params, |block| block["hash"] = json!(chain_reader::B256::repeat_byte(9)))
    };
    let (a, b) = (honest(&devnet).await, honest(&devnet).await);
    let (liar, other_liar) = (at(&devnet, &floor, replaced).await, at(&devnet, &floor, replaced).await);
    let pruned = at(&devnet, &floor, |_, _| Answer::Result(Value::Null)).await;
    let refusing = at(&devnet, &floor, |_, _| Answer::Error(4444, "pruned history unavailable")).await;
    let silent = at(&devnet, &floor, |_, _| Answer::Silence).await;
    for (others, is_locked) in [
        ([&a, &b], false),
        ([&pruned, &refusing], false),
        ([&pruned, &a], false),
        ([&silent, &a], false),
        ([&other_liar, &a], true),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let at = read(&config(&devnet, &[&a, &b], dir.path())).await.unwrap().block_number;
        floor.store(at, Ordering::Relaxed);
        devnet.mine(1).await.unwrap();
        let again = read(&config(&devnet, &[&liar, others[0], others[1]], dir.path())).await;
        assert_eq!(again.is_err(), is_locked, "{again:?}");
        assert!(again.is_err() || again.unwrap().block_number == at + 1);
    }
}

/// Only two of three are asked in time, and one of those lies: what it hides is not forgotten.
#[tokio::test]
async fn a_denial_that_too_few_confirm_is_looked_into_again() {
    let (devnet, floor, dir) = (chain().await, Arc::new(AtomicU64::new(5)), tempfile::tempdir().unwrap());
    let honest_ones = [honest(&devnet).await, honest(&devnet).await];
    let before = read(&config(&devnet, &[&honest_ones[0], &honest_ones[1]], dir.path())).await.unwrap();
    assert_eq!(before.block_number, 5);
    take_back(&devnet).await;
    let (node, hash) = (port(&devnet), before.block_hash);
    let hiding = at(&devnet, &floor, move |method, params| {
        pass(node, method, params, move |block| block["hash"] = json!(hash.to_string()))
    });
    let (hiding, silent) = (hiding.await, at(&devnet, &floor, |_, _| Answer::Silence).await);
    let undecided = config(&devnet, &[&honest_ones[0], &hiding, &silent], dir.path());
    let hasty = crate::policy().with_request_timeout(Duration::from_millis(500)).with_attempts(1);
    // One against one: the new chain is read, and the floor stays where it is in doubt.
    read(&undecided.with_policy(hasty)).await.unwrap();
    let memory = stored_chains(dir.path()).unwrap().remove(0).memory.unwrap();
    assert_eq!((memory.floor.unwrap().number, memory.alarm), (5, None));
    let slow = at(&devnet, &floor, move |method, params| {
        Answer::Late(Duration::from_millis(1_500), Box::new(pass(node, method, params, |_| ())))
    });
    let slow = slow.await;
    let decided = config(&devnet, &[&honest_ones[0], &hiding, &slow], dir.path());
    let error = read(&decided).await.unwrap_err();
    assert!(matches!(error, ChainError::FinalizedChanged { block_number: 5, .. }), "{error:?}");
}
