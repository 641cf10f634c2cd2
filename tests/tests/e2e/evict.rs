//! A cache that is to take no more than so much.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use e2e::{Disk, Fetched, FileSystem, Home, Model, Process, Recipe, Seeder, made_up, put};

/// Nothing takes so long here.
const PATIENCE: Duration = Duration::from_secs(60);

fn free_bytes(mount: &Path) -> u64 {
    let space = rustix::fs::statvfs(mount).unwrap();
    space.f_bavail * space.f_frsize
}

async fn three_models() -> Vec<(Model, Seeder)> {
    let mut models = Vec::new();
    for number in 0..3 {
        let mut weights = made_up(2_000_000);
        weights.iter_mut().for_each(|byte| *byte ^= number);
        let model = Recipe::default().publish_weights(weights).await;
        let seeder = Seeder::start(&model, &model.shards_but(&[])).await;
        models.push((model, seeder));
    }
    models
}

fn fetching<'a>((model, seeder): &'a (Model, Seeder), max_cache: &'a str) -> [&'a str; 6] {
    ["fetch", &model.id, "--peer", seeder.address(), "--max-cache", max_cache]
}

fn ids(listed: &[serde_json::Value]) -> Vec<&str> {
    listed.iter().map(|entry| entry["manifest"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_used_longest_ago_makes_room_and_what_is_pinned_does_not() {
    let (models, home) = (three_models().await, Home::new());
    let [one, two, three] = &models[..] else { unreachable!() };
    // Two models of 2 MB fit, with what is beside them.
    let limit = "6MiB";
    for model in [one, two] {
        Fetched::of(home.run(fetching(model, limit)).await);
    }
    // The first one is used again.
    assert!(Fetched::of(home.run(["fetch", &one.0.id]).await).from_cache);
    Fetched::of(home.run(fetching(three, limit)).await);
    let listed = home.run(["cache", "ls"]).await.expect(0).answers();
    let mut expected = vec![one.0.id.as_str(), &three.0.id];
    expected.sort_unstable();
    assert_eq!(ids(&listed), expected);

    for model in [one, three] {
        assert_eq!(home.run(["cache", "pin", &model.0.id]).await.answer()["pinned"], true);
    }
    let refused = home.run(fetching(two, limit)).await.failure(1);
    assert!(refused.contains("is pinned"), "{refused}");
    assert!(home.run(["cache", "rm", &one.0.id]).await.failure(1).contains("unpin"));
    assert_eq!(home.run(["cache", "unpin", &one.0.id]).await.answer()["pinned"], false);
    let would = home.run(["cache", "gc", "--max-bytes", "0", "--dry-run"]).await.answer();
    assert_eq!((&would["manifest"], &would["dry_run"]), (&one.0.id.clone().into(), &true.into()));
    let went = home.run(["cache", "gc", "--max-bytes", "0"]).await.answer();
    assert_eq!((&went["manifest"], &went["dry_run"]), (&one.0.id.clone().into(), &false.into()));
    let left = home.run(["cache", "ls"]).await.answer();
    assert_eq!((&left["manifest"], &left["pinned"]), (&three.0.id.clone().into(), &true.into()));
    assert!(home.run(["cache", "gc", "--older-than", "1h"]).await.expect(0).answers().is_empty());
    home.run(["cache", "gc"]).await.expect(2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_drops_its_parity_and_goes_on_serving() {
    let (home, fetcher) = (Home::new(), Home::new());
    put(&home.path("model"), &made_up(3_000_000));
    let published = home.run(["publish", "model", "--model-kind", "simplenet"]).await.answer();
    let id = published["manifest"].as_str().unwrap();
    let dropped = home.run(["cache", "drop-parity", id]).await.answer();
    assert!(dropped["freed_bytes"].as_u64().unwrap() > 1_000_000, "{dropped}");
    assert_eq!(home.run(["verify", id]).await.answer()["good"], true);
    let mut seeder = home.start(["serve", "--listen", e2e::TCP]);
    let listening: serde_json::Value = serde_json::from_str(&seeder.first_line().await).unwrap();
    let fetched =
        Fetched::of(fetcher.run(["fetch", id, "--peer", listening["address"].as_str().unwrap()]).await);
    assert!(!fetched.from_cache && fetched.rebuilt_bytes == 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limit_holds_at_every_moment_though_fetches_are_killed_and_run_two_at_once() {
    // Two models fit, and three would take 6 MB.
    const LIMIT_BYTES: u64 = 5_300_000;
    /// Folders, which are not counted.
    const BESIDE_BYTES: u64 = 400_000;
    let (models, home, disk) = (three_models().await, Home::new(), Disk::new(64 << 20, FileSystem::Ext4));
    let (cache, limit) = (disk.path().join("cache"), LIMIT_BYTES.to_string());
    let line = |model: &(Model, Seeder)| {
        let flags = ["--cache-dir", cache.to_str().unwrap()].map(str::to_owned);
        flags.into_iter().chain(fetching(model, &limit).map(str::to_owned)).collect::<Vec<_>>()
    };
    // The disk itself says what is taken, at one moment: files that are counted one after the other may move meanwhile.
    let (most, is_over, free) =
        (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default(), disk.free_bytes());
    let watcher = {
        let (most, is_over, mount) = (Arc::clone(&most), Arc::clone(&is_over), disk.path());
        std::thread::spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                most.fetch_max(free.saturating_sub(free_bytes(&mount)), Ordering::Relaxed);
            }
        })
    };
    for round in 0..9 {
        let (first, second) = (&models[round % 3], &models[(round + 1) % 3]);
        let processes: Vec<Process> = [first, second].iter().map(|model| home.start(line(model))).collect();
        // As soon as one has begun, once one is there, or not at all.
        let is_there = |parent: &str, model: &Model| cache.join(parent).join(&model.id).exists();
        let until = Instant::now() + PATIENCE;
        let is_time = || {
            let both = [&first.0, &second.0];
            let has_begun = round % 3 == 0 && both.iter().any(|model| is_there("partial", model));
            let are_there = both.iter().filter(|model| is_there("models", model)).count();
            has_begun || are_there == 2 || round % 3 == 1 && are_there == 1
        };
        while round % 3 < 2 && !is_time() {
            assert!(Instant::now() < until, "round {round}");
            tokio::task::yield_now().await;
        }
        for process in processes {
            match round % 3 {
                0 | 1 => process.kill().await,
                // Each has got its model, or there was no room beside the other one.
                _ => drop(process.outcome().await),
            }
        }
    }
    for model in &models {
        let fetched = Fetched::of(home.run(line(model)).await);
        assert!(fs::read(&fetched.path).unwrap() == model.0.weights);
    }
    is_over.store(true, Ordering::Relaxed);
    watcher.join().unwrap();
    let most = most.load(Ordering::Relaxed);
    assert!(most > LIMIT_BYTES / 2 && most <= LIMIT_BYTES + BESIDE_BYTES, "{most} bytes");
}
