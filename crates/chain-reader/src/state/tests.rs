//! What is remembered, and where.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use alloy::primitives::{B256, U256};
use manifest::Digest;

use super::*;
use crate::block::BlockRef;

const CHAIN: ChainKey = ChainKey { chain_id: 1, genesis: Some(B256::repeat_byte(7)) };

fn store(dir: &Path) -> Store {
    Store::new(Some(dir.to_owned()), Address::from_bytes([9; 20]), BlockTag::Finalized)
}

fn block(number: u64) -> BlockRef {
    BlockRef { number, hash: B256::repeat_byte(1) }
}

async fn load(store: &Store, chain: ChainKey) -> ChainMemory {
    store.load(chain).await.unwrap().1
}

fn seen(number: u64, confirmed_at: u64) -> Seen {
    let price = U256::MAX;
    let block_timestamp = number;
    Seen { manifest: Digest::of(b"a model"), price, block: block(number), block_timestamp, confirmed_at }
}

#[tokio::test]
async fn what_is_noted_is_there_for_the_next_process_only_where_it_belongs() {
    let dir = tempfile::tempdir().unwrap();
    let first = store(dir.path());
    first.update(CHAIN, |memory| memory.note(block(5), Some(seen(5, 100)))).await.unwrap();
    first.update(CHAIN, |memory| memory.loaded = Some(seen(5, 100))).await.unwrap();
    let again = load(&store(dir.path()), CHAIN).await;
    assert_eq!(again.floor, Some(block(5)));
    assert_eq!((again.last_good, again.loaded), (Some(seen(5, 100)), Some(seen(5, 100))));
    assert_eq!(store(dir.path()).loaded().await.unwrap(), [(CHAIN, seen(5, 100))]);

    let elsewhere = ChainKey { chain_id: 2, ..CHAIN };
    assert_eq!(load(&first, elsewhere).await, ChainMemory::default());
    let of_tag = Store::new(Some(dir.path().to_owned()), first.contract, BlockTag::Latest);
    assert_eq!(load(&of_tag, CHAIN).await, ChainMemory::default());
    assert!(of_tag.loaded().await.unwrap().is_empty());

    let stored = stored_chains(dir.path()).unwrap();
    assert_eq!(stored.len(), 1);
    assert_eq!((stored[0].chain_id, stored[0].genesis), (1, CHAIN.genesis));
    stored[0].forget().unwrap();
    assert_eq!(load(&first, CHAIN).await, ChainMemory::default());
    assert!(stored_chains(&dir.path().join("none")).unwrap().is_empty());
}

#[tokio::test]
async fn a_corrupt_file_is_an_error_until_it_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    store.update(CHAIN, |memory| memory.note(block(5), None)).await.unwrap();
    let path = stored_chains(dir.path()).unwrap().remove(0).path;
    let good = fs::read_to_string(&path).unwrap();
    let longer = format!("{good}{}", " ".repeat(20_000));
    let version = good.replace("\"version\":1", "\"version\":2");
    for bad in ["", "{}", &good[..good.len() / 2], &version, &longer.replace('}', "]")] {
        File::create(&path).unwrap().write_all(bad.as_bytes()).unwrap();
        let error = store.load(CHAIN).await.unwrap_err();
        assert!(matches!(error, StateError::Corrupt { .. }), "{bad}: {error:?}");
        assert!(error.to_string().contains("loader chain forget"));
    }
    let stored = stored_chains(dir.path()).unwrap().remove(0);
    assert!(stored.memory.is_err());
    stored.forget().unwrap();
    assert_eq!(load(&store, CHAIN).await, ChainMemory::default());
}

#[tokio::test]
async fn without_its_first_block_a_chain_is_found_by_its_id_and_two_of_them_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (store, unknown) = (store(dir.path()), ChainKey { genesis: None, ..CHAIN });
    let note = async |chain: ChainKey, number: u64| {
        store.update(chain, move |memory| memory.note(block(number), None)).await
    };
    // Nobody has ever had it; then somebody has, and what was remembered is this chain's.
    note(unknown, 5).await.unwrap();
    assert_eq!(store.load(unknown).await.unwrap().0, unknown);
    assert_eq!(load(&store, CHAIN).await.floor, Some(block(5)));
    note(CHAIN, 6).await.unwrap();
    let stored = stored_chains(dir.path()).unwrap();
    assert_eq!((stored.len(), stored[0].genesis), (1, CHAIN.genesis), "it has its name now");
    assert_eq!(store.load(unknown).await.unwrap(), (CHAIN, load(&store, CHAIN).await));
    note(unknown, 7).await.unwrap();
    assert_eq!(load(&store, CHAIN).await.floor, Some(block(7)));

    let other = ChainKey { genesis: Some(B256::repeat_byte(8)), ..CHAIN };
    note(other, 1).await.unwrap();
    assert_eq!(load(&store, CHAIN).await.floor, Some(block(7)));
    for error in [store.load(unknown).await.unwrap_err(), note(unknown, 9).await.unwrap_err()] {
        assert!(
            matches!(&error, StateError::Ambiguous { chain_id: 1, paths } if paths.len() == 2),
            "{error:?}"
        );
        assert!(error.to_string().contains("loader chain forget"), "{error}");
    }
    assert_eq!(load(&store, ChainKey { chain_id: 2, ..unknown }).await, ChainMemory::default());
}

#[test]
fn a_word_is_as_old_as_its_block_and_none_from_the_future_counts() {
    let word = Seen { block_timestamp: 1_000_000, ..seen(5, 2_000_000) };
    assert_eq!(word.age(2_000_000), Some(Duration::from_secs(1_000_000)), "whenever it was read");
    assert_eq!(word.age(2_000_000 - CLOCK_SKEW_S), Some(Duration::from_secs(1_000_000 - CLOCK_SKEW_S)));
    for now in [2_000_000 - CLOCK_SKEW_S - 1, 1_500_000, 1_000, 0] {
        assert_eq!(word.age(now), None, "the clock was set back, or then ahead: {now}");
    }
    let ahead = Seen { block_timestamp: 2_000_000 + CLOCK_SKEW_S + 1, ..word };
    assert_eq!(ahead.age(2_000_000), None);
    // An earlier version wrote no time of the block.
    let old = serde_json::to_string(&word).unwrap().replace("\"block_timestamp\":1000000,", "");
    assert_eq!(
        serde_json::from_str::<Seen>(&old).unwrap().age(2_000_000),
        Some(Duration::from_secs(2_000_000))
    );
    // What is written while a clock is ahead is written again when it is right.
    let mut memory = ChainMemory { last_good: Some(word), ..ChainMemory::default() };
    memory.note(block(5), Some(Seen { confirmed_at: 1_000_100, ..word }));
    assert_eq!(memory.last_good.unwrap().confirmed_at, 1_000_100);
}

#[test]
fn times_are_written_once_a_minute_and_blocks_always() {
    let mut memory = ChainMemory { loaded: Some(seen(5, 100)), ..ChainMemory::default() };
    memory.note(block(5), Some(seen(5, 101)));
    let first = memory;
    assert_eq!((first.last_good, first.loaded), (Some(seen(5, 101)), Some(seen(5, 100))));
    memory.note(block(5), Some(seen(5, 159)));
    assert_eq!(memory, first);
    memory.note(block(5), Some(seen(5, 160)));
    assert_eq!(memory.loaded, Some(seen(5, 160)));
    memory.note(block(6), Some(seen(6, 161)));
    assert_eq!((memory.last_good, memory.loaded), (Some(seen(6, 161)), Some(seen(6, 161))));
    let other = Seen { manifest: Digest::of(b"another"), ..seen(7, 500) };
    memory.note(block(7), Some(other));
    assert_eq!((memory.last_good, memory.loaded), (Some(other), Some(seen(6, 161))));
}

#[tokio::test]
async fn several_writers_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let writers = (1..=20).map(|number| {
        let store = store(dir.path());
        async move {
            let raise = move |memory: &mut ChainMemory| {
                let floor = memory.floor.map_or(0, |floor| floor.number);
                memory.floor = Some(block(floor + number));
            };
            store.update(CHAIN, raise).await.unwrap();
        }
    });
    let tasks: Vec<_> = writers.map(tokio::spawn).collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(load(&store(dir.path()), CHAIN).await.floor, Some(block(210)));
}

#[test]
fn whoever_holds_the_lock_and_gets_no_further_is_not_waited_for_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let held = file::lock(dir.path()).unwrap();
    let error = file::lock_within(dir.path(), Duration::from_millis(1)).unwrap_err();
    assert!(matches!(&error, StateError::Locked { path, .. } if path.starts_with(dir.path())), "{error}");
    drop(held);
    file::lock(dir.path()).unwrap();
}
