//! Disks that are too small or get full, and file systems that cannot rename directories.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use e2e::{Conduct, Disk, FileSystem, Home, Model, Outcome, Overlay, Peer, Process, Recipe, made_up, soon};
use manifest::Digest;
use serde_json::Value;

const MIB: u64 = 1 << 20;
/// What a failed fetch may leave on a disk: a manifest, locks, directories.
const CRUMBS_BYTES: u64 = MIB / 2;
const SMALL: usize = 2_000_000;

/// `loader --json` with these arguments, on this cache.
fn start<A: AsRef<OsStr>>(cache: &Path, args: impl IntoIterator<Item = A>) -> Process {
    let args: Vec<_> = args.into_iter().map(|arg| arg.as_ref().to_owned()).collect();
    Home::new().start(args.into_iter().chain(["--cache-dir".into(), cache.into()]))
}

async fn run<A: AsRef<OsStr>>(cache: &Path, args: impl IntoIterator<Item = A>) -> Outcome {
    start(cache, args).outcome().await
}

fn start_fetch(cache: &Path, model: &Model, peer: &Peer) -> Process {
    start(cache, ["fetch", "--wait", "1s", "--manifest", &model.id, "--peer", peer.address()])
}

async fn fetch(cache: &Path, model: &Model, peer: &Peer) -> Outcome {
    start_fetch(cache, model, peer).outcome().await
}

fn assert_has(cache: &Path, model: &Model) {
    let weights = fs::read(cache.join("models").join(&model.id).join("weights")).unwrap();
    assert!(weights == model.weights, "other bytes than were published");
}

fn number(text: &str, before: &str) -> u64 {
    let digits = text.split(before).next().unwrap().rsplit(' ').next().unwrap();
    digits.parse().unwrap_or_else(|_| panic!("no number before {before:?}: {text}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_does_not_fit_leaves_the_disk_as_it_is_until_there_is_room() {
    let model = Recipe::of_size(30_000_000).publish().await;
    let peer = Peer::start(model.conduct()).await;
    let disk = Disk::new(48 * MIB, FileSystem::Ext4);
    let cache = disk.path().join("cache");
    begin(&cache).await;
    let ballast = disk.path().join("ballast");
    let taken = disk.free_bytes() - 10 * MIB;
    fs::File::create(&ballast).unwrap();
    rustix::fs::fallocate(
        fs::File::options().write(true).open(&ballast).unwrap(),
        rustix::fs::FallocateFlags::empty(),
        0,
        taken,
    )
    .unwrap();

    let before = disk.free_bytes();
    for _ in 0..2 {
        let message = fetch(&cache, &model, &peer).await.failure(1);
        let (needed, free) = (number(&message, " bytes are needed"), number(&message, " are free"));
        assert!(needed > 30_000_000 && needed < 33_000_000 && free <= before, "{message}");
        assert!(message.contains(&*cache.to_string_lossy()) && message.contains("cache ls"), "{message}");
        assert!(disk.free_bytes() + CRUMBS_BYTES > before, "{} of {before} are left", disk.free_bytes());
    }
    assert_eq!(peer.gate().passed_bytes(), 0, "nothing was fetched that has no place");
    assert_eq!(run(&cache, ["cache", "ls"]).await.expect(0).answers(), [Value::Null; 0]);
    let small = Recipe::of_size(SMALL).publish().await;
    let _ = fetch(&cache, &small, &Peer::start(small.conduct()).await).await.expect(0);

    fs::remove_file(ballast).unwrap();
    let _ = fetch(&cache, &model, &peer).await.expect(0);
    assert_has(&cache, &model);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_others_fill_meanwhile_has_room_for_what_was_reserved() {
    let model = Recipe::of_size(SMALL).publish().await;
    let peer = Peer::start(model.conduct().stopping_after(1_000_000)).await;
    let disk = Disk::new(24 * MIB, FileSystem::Ext4);
    let cache = disk.path().join("cache");
    let fetching = start_fetch(&cache, &model, &peer);
    peer.gate().reached().await;
    let ballast = disk.fill("ballast");
    peer.gate().open();
    let _ = fetching.outcome().await.expect(0);
    assert_has(&cache, &model);
    fs::remove_file(ballast).unwrap();
    let fetched = fetch(&cache, &model, &peer).await.answer();
    assert_eq!(fetched["from_cache"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn models_are_removed_from_a_full_disk() {
    let model = Recipe::of_size(SMALL).publish().await;
    for finished in [true, false] {
        let limit_bytes = if finished { u64::MAX } else { 1_000_000 };
        let peer = Peer::start(model.conduct().stopping_after(limit_bytes)).await;
        let disk = Disk::new(24 * MIB, FileSystem::Ext4);
        let cache = disk.path().join("cache");
        let fetching = start_fetch(&cache, &model, &peer);
        if finished {
            let _ = fetching.outcome().await.expect(0);
        } else {
            peer.gate().reached().await;
            fetching.kill().await;
        }
        let _ballast = disk.fill("ballast");
        assert_eq!(disk.free_bytes(), 0);
        let removed = run(&cache, ["cache", "rm", &model.id]).await.answer();
        assert!(removed["freed_bytes"].as_u64().unwrap() >= SMALL as u64, "{removed}");
        assert!(disk.free_bytes() >= SMALL as u64);
        for dir in ["models", "partial"] {
            assert_eq!(fs::read_dir(cache.join(dir)).unwrap().count(), 0);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_does_not_fill_the_disk_either() {
    let disk = Disk::new(48 * MIB, FileSystem::Ext4);
    let cache = disk.path().join("cache");
    begin(&cache).await;
    let home = Home::new();
    let file = home.path("file");
    // Its parity is what does not fit.
    e2e::put(&file, &made_up(30_000_000));
    let before = disk.free_bytes();
    let args = ["publish", "--model-kind", "llm-backbone"].map(OsStr::new);
    let message = run(&cache, args.into_iter().chain([file.as_os_str()])).await.failure(1);
    assert!(number(&message, " bytes are needed") > 42_000_000, "{message}");
    assert_eq!(disk.free_bytes(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_without_room_for_names_is_told_from_a_full_one() {
    let model = Recipe::of_size(SMALL).publish().await;
    let peer = Peer::start(model.conduct()).await;
    let disk = Disk::new(24 * MIB, FileSystem::Ext4);
    let cache = disk.path().join("cache");
    begin(&cache).await;
    let names = disk.path().join("names");
    fs::create_dir(&names).unwrap();
    let free = || rustix::fs::statvfs(disk.path()).unwrap().f_favail;
    for number in 0..free() - 8 {
        fs::File::create(names.join(number.to_string())).unwrap();
    }
    for _ in 0..2 {
        let message = fetch(&cache, &model, &peer).await.failure(1);
        assert!(message.contains("more files"), "{message}");
    }
    fs::remove_dir_all(&names).unwrap();
    let _ = fetch(&cache, &model, &peer).await.expect(0);
    assert_has(&cache, &model);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_may_not_write_large_files_says_so() {
    let model = Recipe::of_size(SMALL).publish().await;
    let peer = Peer::start(model.conduct()).await;
    let home = Home::new();
    let fetch = home.command(["--json", "fetch", "--manifest", &model.id, "--peer", peer.address()]);
    let mut limited = tokio::process::Command::new("sh");
    limited.args(["-c", "ulimit -f 1000 && exec \"$0\" \"$@\""]);
    limited.arg(fetch.as_std().get_program()).args(fetch.as_std().get_args());
    limited.env("HOME", home.path("")).env("LOADER_NO_MDNS", "true");
    let message = Process::start(limited).outcome().await.failure(1);
    assert!(message.contains("ulimit -f") && message.contains("2000000 bytes"), "{message}");
    assert!(!home.cache("partial").join(&model.id).exists());
}

/// Makes a cache in which there is nothing yet: whoever only looks makes none.
async fn begin(cache: &Path) {
    run(cache, ["fetch", "--wait", "1ms", "--manifest", &"0".repeat(64)]).await.failure(4);
}

/// Somebody who has these bytes under a digest that they may not have.
async fn holder(blob: Digest, bytes: Vec<u8>) -> Peer {
    Peer::start(Conduct::sending([(blob, Arc::new(bytes))].into())).await
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_that_are_only_claimed_reserve_nothing_and_leave_nothing() {
    const RIGHT: usize = (17 << 20) + 5;
    let bytes = made_up(RIGHT);
    let blob = Digest::of(&bytes);
    let honest = holder(blob, bytes.clone()).await;
    // One is larger than the disk, the other has room beside nothing else.
    for claimed in [64 << 20, 24 << 20] {
        let lie = made_up(claimed);
        let liars = [holder(blob, lie.clone()).await, holder(blob, lie).await];
        let disk = Disk::new(40 * MIB, FileSystem::Ext4);
        let cache = disk.path().join("cache");
        begin(&cache).await;
        let before = disk.free_bytes();
        let text = blob.to_string();
        let args = ["fetch", "--single-blob", "--wait", "1s", "--manifest", &text];
        let peers = [&liars[0], &liars[1], &honest].map(|peer| ["--peer", peer.address()]);
        let fetched = run(&cache, args.into_iter().chain(peers.into_iter().flatten())).await.answer();
        assert!(fs::read(fetched["weights"].as_str().unwrap()).unwrap() == bytes);
        assert_eq!(fs::read_dir(cache.join("manifests")).unwrap().count(), 1);
        assert_eq!(fs::read_dir(cache.join("partial")).unwrap().count(), 0);
        assert!(disk.free_bytes() + RIGHT as u64 + CRUMBS_BYTES > before);
        // Without anybody who is right, there is no room for the one size, and the other is wrong.
        let _ = run(&cache, ["cache", "rm", fetched["manifest"].as_str().unwrap()]).await.expect(0);
        let args = args.into_iter().chain(["--peer", liars[0].address()]);
        let failed = run(&cache, args).await;
        let _ = failed.failure(if claimed == 64 << 20 { 1 } else { 4 });
        assert!(disk.free_bytes() + CRUMBS_BYTES > before, "{} of {before} are left", disk.free_bytes());
        assert_eq!(fs::read_dir(cache.join("manifests")).unwrap().count(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_in_the_lower_layer_of_an_overlay_is_gone_on_with() {
    let model = Recipe::of_size(SMALL).publish().await;
    let home = Home::new();
    let peer = Peer::start(model.conduct().stopping_after(1_000_000)).await;
    let fetching = home.start_fetch(&model, &[peer.address()]);
    peer.gate().reached().await;
    soon("a verified piece", async {
        while home.run(["cache", "ls"]).await.answer()["verified_bytes"].as_u64().unwrap() < 400_000 {}
    })
    .await;
    fetching.kill().await;
    peer.gate().open();

    let lower = home.cache("");
    for _ in 0..2 {
        // The partial model is finished, and removed.
        let overlay = Overlay::over(&lower);
        let fetched = fetch(&overlay.path(), &model, &peer).await.answer();
        assert!(fetched["resumed_bytes"].as_u64().unwrap() >= 400_000, "{fetched}");
        assert_has(&overlay.path(), &model);
        assert_eq!(fs::read_dir(overlay.path().join("partial")).unwrap().count(), 0);
        assert_eq!(fetch(&overlay.path(), &model, &peer).await.answer()["from_cache"], true);
        drop(overlay);
        let overlay = Overlay::over(&lower);
        let _ = run(&overlay.path(), ["cache", "rm", &model.id]).await.answer();
        assert_eq!(run(&overlay.path(), ["cache", "ls"]).await.expect(0).answers(), [Value::Null; 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_model_in_the_lower_layer_of_an_overlay_is_healed_and_removed() {
    let model = Recipe::of_size(SMALL).publish().await;
    let home = Home::new();
    let peer = Peer::start(model.conduct()).await;
    let _ = home.fetch(&model, &[peer.address()]).await;
    let overlay = Overlay::over(&home.cache(""));
    let weights = overlay.path().join("models").join(&model.id).join("weights");
    let mut bytes = model.weights.clone();
    bytes[1_000_000] ^= 1;
    fs::remove_file(&weights).unwrap();
    e2e::put(&weights, &bytes);
    let fetched = fetch(&overlay.path(), &model, &peer).await.answer();
    assert_eq!(fetched["fetched_bytes"], e2e::PIECE_BYTES, "the rest is right: {fetched}");
    assert_has(&overlay.path(), &model);
    drop(overlay);

    let overlay = Overlay::over(&home.cache(""));
    let removed = run(&overlay.path(), ["cache", "rm", &model.id]).await.answer();
    assert!(removed["freed_bytes"].as_u64().unwrap() >= SMALL as u64);
    assert!(!overlay.path().join("models").join(&model.id).exists());
    let _ = fetch(&overlay.path(), &model, &peer).await.expect(0);
    assert_has(&overlay.path(), &model);
}
