//! Disks that get full.

use std::fs;

use e2e::{Disk, Fetched, FileSystem, Home, Model, Peer, Process, Recipe};

const MIB: u64 = 1 << 20;

/// Starts a fetch into a cache on the disk.
fn start_fetch(home: &Home, disk: &Disk, model: &Model, peer: &Peer) -> Process {
    let cache = disk.path().join("cache");
    let fetch = ["--cache-dir", cache.to_str().unwrap(), "fetch", "--wait", "1s", "--manifest", &model.id];
    home.start(fetch.into_iter().chain(["--peer", peer.address()]))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_onto_a_disk_that_is_too_small_leaves_it_as_it_was() {
    let (home, disk) = (Home::new(), Disk::new(16 * MIB, FileSystem::Ext4));
    let model = Recipe::of_size(24_000_000).publish().await;
    let peer = Peer::start(model.conduct()).await;
    let free_bytes = disk.free_bytes();
    let message = start_fetch(&home, &disk, &model, &peer).outcome().await.failure(1);
    assert!(message.contains("no space left"), "{message}");
    let lost_bytes = free_bytes - disk.free_bytes();
    assert!(lost_bytes < MIB, "{lost_bytes} bytes are not given back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_gets_full_keeps_what_was_verified_and_the_fetch_goes_on_once_there_is_room() {
    let (home, disk) = (Home::new(), Disk::new(32 * MIB, FileSystem::Ext4));
    let model = Recipe::of_size(12_000_000).publish().await;
    let total_bytes = model.weights.len() as u64;
    let peer = Peer::start(model.conduct().stopping_after(total_bytes / 2)).await;
    let fetching = start_fetch(&home, &disk, &model, &peer);
    peer.gate().reached().await;
    let filled = disk.fill("somebody-elses");
    peer.gate().open();
    let message = fetching.outcome().await.failure(1);
    assert!(message.contains("no space left"), "{message}");

    fs::remove_file(filled).unwrap();
    let fetched = Fetched::of(start_fetch(&home, &disk, &model, &peer).outcome().await);
    assert!(fetched.resumed_bytes >= total_bytes / 4, "{fetched:?}");
    assert!(fs::read(&fetched.weights).unwrap() == model.weights, "other bytes than were published");
}
