//! Chains that stand still, and how old what they say is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chain_reader::{Availability, BlockTag, ChainError, ChainReader, Devnet, Staleness, U256};
use serde_json::{Value, json};

use crate::honest::{config_of, pass, port, twisted};
use crate::scripted::{Answer, Scripted};
use crate::{devnet, digest};

const DAY_S: u64 = 24 * 3600;
const HOUR: Duration = Duration::from_secs(3600);

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A chain with this id whose blocks all were made at a time that can be changed.
async fn standing(devnet: &Devnet, chain_id: &'static str, made_at: &Arc<AtomicU64>) -> Scripted {
    let (port, made_at) = (port(devnet), Arc::clone(made_at));
    let twist = move |method: &str, params: &Value| match method {
        "eth_chainId" => Some(Answer::Result(json!(chain_id))),
        "eth_getBlockByNumber" => {
            let timestamp = json!(format!("{:#x}", made_at.load(Ordering::Relaxed)));
            Some(pass(port, method, params, move |block| block["timestamp"] = timestamp))
        }
        _ => None,
    };
    twisted(devnet, twist).await
}

/// A chain whose final block names the model.
async fn chain() -> Devnet {
    let devnet = devnet().await;
    devnet.set_text(&digest().to_string(), U256::ZERO).await.unwrap();
    devnet.mine(2).await.unwrap();
    devnet
}

#[tokio::test]
async fn a_block_that_is_too_old_says_nothing_about_today() {
    let (devnet, made_at) = (chain().await, Arc::new(AtomicU64::new(now() - 3 * DAY_S)));
    let endpoints = [standing(&devnet, "0x1", &made_at).await, standing(&devnet, "0x1", &made_at).await];
    let config = config_of(&devnet, BlockTag::Finalized, &[&endpoints[0], &endpoints[1]]);
    let reader = ChainReader::new(config.clone()).unwrap();
    let error = reader.mature_model().await.unwrap_err();
    let ChainError::StaleBlock { agreeing: 2, endpoints: 2, block_number: 2, .. } = error else {
        panic!("{error:?}")
    };
    assert!(error.to_string().contains("3 days old, expected at most 6 hours"), "{error}");
    assert_eq!(error.availability(), Availability::NotNow);
    let status = reader.status();
    assert!(status.block.unwrap().age_s >= 3 * DAY_S && status.trouble.is_some());

    // It goes on: then it is read.
    made_at.store(now() - 3_600, Ordering::Relaxed);
    assert_eq!(reader.mature_model().await.unwrap().manifest, digest());
    let strict = config.clone().with_max_block_age(HOUR / 2);
    assert!(matches!(
        ChainReader::new(strict).unwrap().mature_model().await,
        Err(ChainError::StaleBlock { .. })
    ));
    made_at.store(now() - 3 * DAY_S, Ordering::Relaxed);
    let lenient = config.with_max_block_age(HOUR * 100);
    assert_eq!(ChainReader::new(lenient).unwrap().mature_model().await.unwrap().manifest, digest());
}

#[tokio::test]
async fn a_development_chain_may_stand_still_unless_that_is_forbidden() {
    let (devnet, made_at) = (chain().await, Arc::new(AtomicU64::new(now() - 300 * DAY_S)));
    let endpoint = standing(&devnet, "0x7a69", &made_at).await;
    let config = config_of(&devnet, BlockTag::Finalized, &[&endpoint]);
    assert_eq!(ChainReader::new(config.clone()).unwrap().mature_model().await.unwrap().manifest, digest());
    let strict = ChainReader::new(config.with_max_block_age(HOUR)).unwrap();
    assert!(matches!(strict.mature_model().await, Err(ChainError::StaleBlock { .. })));
}

/// What was loaded is vouched for from its block on, whenever that was read.
#[tokio::test]
async fn what_stands_in_for_the_chain_is_as_old_as_its_block() {
    let (devnet, dir) = (chain().await, tempfile::tempdir().unwrap());
    let made_at = Arc::new(AtomicU64::new(now() - 5 * 3_600));
    let endpoint = standing(&devnet, "0x1", &made_at).await;
    let config = config_of(&devnet, BlockTag::Finalized, &[&endpoint]);
    let config = config.with_state_dir(dir.path().to_owned());
    let reader = ChainReader::new(config.clone()).unwrap();
    reader.note_loaded(&reader.mature_model().await.unwrap()).await.unwrap();
    drop(endpoint);
    let stale = async |hours: u32| {
        let staleness = Staleness::UpTo(HOUR * hours);
        ChainReader::new(config.clone().with_staleness(staleness)).unwrap().mature_model().await
    };
    assert_eq!(stale(6).await.unwrap().manifest, digest());
    assert!(
        stale(4).await.unwrap_err().is_unreachable(),
        "it was read a moment ago, in a block of five hours"
    );

    // The clock was set back by two days, or was two days ahead then.
    let path = chain_reader::stored_chains(dir.path()).unwrap().remove(0).path;
    let text = std::fs::read_to_string(&path).unwrap();
    let mut file: Value = serde_json::from_str(&text).unwrap();
    file["loaded"]["confirmed_at"] = json!(now() + 2 * DAY_S);
    std::io::Write::write_all(&mut std::fs::File::create(&path).unwrap(), file.to_string().as_bytes())
        .unwrap();
    assert!(stale(6).await.unwrap_err().is_unreachable());
}
