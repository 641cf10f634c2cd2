//! What a reader remembers: the floor, and what to use without a chain.

use std::path::Path;
use std::time::Duration;

use chain_reader::{
    Availability, BlockTag, ChainError, ChainReader, Config, Devnet, MatureModel, Staleness, U256,
    stored_chains,
};
use manifest::Digest;
use serde_json::json;

use crate::honest::{at_height, config_of};
use crate::{config, devnet, digest, policy};

fn remembering(config: Config, dir: &Path) -> Config {
    config.with_state_dir(dir.to_owned())
}

async fn read(config: &Config) -> Result<MatureModel, ChainError> {
    ChainReader::new(config.clone()).unwrap().mature_model().await
}

/// A chain that names this text in its last block.
async fn chain(text: &str) -> Devnet {
    let devnet = devnet().await;
    devnet.set_text(text, U256::ZERO).await.unwrap();
    devnet
}

#[tokio::test]
async fn the_floor_holds_after_a_restart() {
    let (devnet, dir) = (chain(&digest().to_string()).await, tempfile::tempdir().unwrap());
    devnet.mine(20).await.unwrap();
    let current = remembering(config(&devnet, BlockTag::Latest), dir.path());
    assert_eq!(read(&current).await.unwrap().block_number, 22);

    let (a, b) = (at_height(&devnet, 10).await, at_height(&devnet, 21).await);
    let hasty = policy().with_request_timeout(Duration::from_secs(1));
    let behind = config_of(&devnet, BlockTag::Latest, &[&a, &b]).with_policy(hasty);
    let behind = remembering(behind, dir.path());
    let error = read(&behind).await.unwrap_err();
    let ChainError::NoQuorum { ref said, .. } = error else { panic!("{error:?}") };
    assert!(said.iter().all(|line| line.contains("below block 22, which was read before")), "{said:?}");
    assert_eq!(error.availability(), Availability::NotNow);
    // The floor is that of its own tag only.
    let finalized = behind.clone().with_block_tag(BlockTag::Finalized);
    assert_eq!(read(&finalized).await.unwrap().block_number, 10);

    for stored in stored_chains(dir.path()).unwrap() {
        stored.forget().unwrap();
    }
    assert_eq!(read(&behind).await.unwrap().block_number, 10);
}

#[tokio::test]
async fn an_older_model_at_a_greater_height_is_a_normal_change() {
    let old = Digest::of(b"an old manifest");
    let (devnet, dir) = (chain(&old.to_string()).await, tempfile::tempdir().unwrap());
    let reader = ChainReader::new(remembering(config(&devnet, BlockTag::Latest), dir.path())).unwrap();
    for manifest in [digest(), old, digest()] {
        devnet.set_text(&manifest.to_string(), U256::ZERO).await.unwrap();
        assert_eq!(reader.mature_model().await.unwrap().manifest, manifest);
    }
}

#[tokio::test]
async fn another_block_at_the_same_height_is_an_alarm_only_when_it_was_final() {
    let (devnet, dir) = (chain(&digest().to_string()).await, tempfile::tempdir().unwrap());
    devnet.mine(5).await.unwrap();
    let at = |tag| remembering(config(&devnet, tag), dir.path());
    let before = read(&at(BlockTag::Finalized)).await.unwrap();
    assert_eq!((before.block_number, read(&at(BlockTag::Latest)).await.unwrap().block_number), (5, 7));
    devnet.request("anvil_reorg", (4, json!([]))).await.unwrap();

    let after = read(&at(BlockTag::Latest)).await.unwrap();
    assert_eq!((after.block_number, after.manifest), (7, digest()));
    let error = read(&at(BlockTag::Finalized)).await.unwrap_err();
    let ChainError::FinalizedChanged { block_number: 5, before: was, now } = error else {
        panic!("{error:?}")
    };
    assert!(before.block_hash == was && now != was);
    assert_eq!(error.availability(), Availability::Alarm);
    // It stays one, and is no reason to use what was loaded before.
    assert!(matches!(read(&at(BlockTag::Finalized)).await, Err(ChainError::FinalizedChanged { .. })));
}

#[tokio::test]
async fn without_a_chain_the_model_that_was_last_loaded_will_do() {
    let (devnet, dir) = (chain(&digest().to_string()).await, tempfile::tempdir().unwrap());
    let config = remembering(config(&devnet, BlockTag::Latest), dir.path());
    let offline = config.clone().with_staleness(Staleness::Offline);
    let stale = config.clone().with_staleness(Staleness::UpTo(Duration::from_secs(3600)));
    let error = read(&offline).await.unwrap_err();
    assert!(matches!(error, ChainError::NothingLoaded { .. }), "{error:?}");
    assert_eq!(error.availability(), Availability::NotNow);

    let reader = ChainReader::new(config.clone()).unwrap();
    let loaded = reader.mature_model().await.unwrap();
    assert!(matches!(read(&offline).await, Err(ChainError::NothingLoaded { .. })), "it was only read");
    reader.note_loaded(&loaded).await.unwrap();
    assert_eq!(reader.status().memory.loaded.unwrap().manifest, digest());
    // The contract names another one, which was read but not loaded.
    devnet.set_text(&Digest::of(b"another").to_string(), U256::ZERO).await.unwrap();
    assert_ne!(reader.mature_model().await.unwrap().manifest, digest());
    assert_eq!(read(&offline).await.unwrap(), loaded);
    assert_ne!(read(&stale).await.unwrap().manifest, digest(), "the chain can be read");

    drop(devnet);
    assert_eq!(read(&stale).await.unwrap(), loaded);
    assert_eq!(read(&offline).await.unwrap(), loaded);
    assert!(read(&config).await.unwrap_err().is_unreachable());
    tokio::time::sleep(Duration::from_secs(1)).await;
    let too_old = config.with_staleness(Staleness::UpTo(Duration::ZERO));
    assert!(read(&too_old).await.unwrap_err().is_unreachable());
}

#[tokio::test]
async fn a_chain_that_says_that_there_is_no_model_is_believed_over_what_was_loaded() {
    let (devnet, dir) = (chain(&digest().to_string()).await, tempfile::tempdir().unwrap());
    let config = remembering(config(&devnet, BlockTag::Latest), dir.path());
    let reader = ChainReader::new(config.clone()).unwrap();
    reader.note_loaded(&reader.mature_model().await.unwrap()).await.unwrap();
    devnet.set_text("", U256::ZERO).await.unwrap();
    let stale = config.with_staleness(Staleness::UpTo(Duration::from_secs(3600)));
    assert!(matches!(read(&stale).await, Err(ChainError::NoModel { .. })));
}

#[tokio::test]
async fn a_corrupt_memory_stops_the_read() {
    let (devnet, dir) = (chain(&digest().to_string()).await, tempfile::tempdir().unwrap());
    let config = remembering(config(&devnet, BlockTag::Latest), dir.path());
    read(&config).await.unwrap();
    let path = stored_chains(dir.path()).unwrap().remove(0).path;
    std::fs::copy(dir.path().join("lock"), &path).unwrap();
    let error = read(&config).await.unwrap_err();
    assert!(error.to_string().contains("corrupt") && error.to_string().contains(path.to_str().unwrap()));
    assert_eq!(error.availability(), Availability::Alarm);
    assert!(read(&config.with_staleness(Staleness::Offline)).await.is_err());
}
