//! What is wrong in the cache: found, told, kept from others, and made good.

use std::fs::{File, Permissions};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::Path;

use e2e::{Home, Model, Peer, Process, Recipe, Seeder, TCP, soon};

/// Flips a bit of a file, whatever its mode, and puts its time of modification back.
fn flip(path: &Path, at: u64) {
    let before = path.metadata().unwrap();
    std::fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    file.set_modified(before.modified().unwrap()).unwrap();
    std::fs::set_permissions(path, before.permissions()).unwrap();
}

fn weights(home: &Home, model: &Model) -> std::path::PathBuf {
    home.cache("models").join(&model.id).join("weights")
}

async fn home_with(model: &Model) -> (Home, Seeder) {
    let (home, seeder) = (Home::new(), Seeder::start(model, &model.shards_but(&[])).await);
    home.fetch(model, &[seeder.address()]).await;
    (home, seeder)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bit_that_flips_after_a_kill_costs_its_piece_and_nobody_is_blamed() {
    for index in [true, false] {
        let (model, home) = (Recipe { index, ..Recipe::default() }.publish().await, Home::new());
        let total_bytes = model.weights.len() as u64;
        let peer = Peer::start(model.conduct().stopping_after(total_bytes / 2)).await;
        let fetching = home.start_fetch(&model, &[peer.address()]);
        peer.gate().reached().await;
        let entry = soon("a verified piece", async {
            loop {
                let entry = home.run(["cache", "ls"]).await.answer();
                if entry["verified_bytes"].as_u64().unwrap() >= total_bytes / 4 {
                    break entry;
                }
            }
        });
        entry.await;
        fetching.kill().await;
        drop(peer);
        // Every shard has one: whatever was recorded is hit.
        let partial = home.cache("partial").join(&model.id).join("weights");
        (0..10).for_each(|row| flip(&partial, row * 200_000 + 70_000));

        let seeder = Seeder::start(&model, &model.shards_but(&[])).await;
        let fetched = home.fetch(&model, &[seeder.address()]).await;
        assert!(fetched.sources.iter().all(|source| !source.banned && source.bad_bytes == 0), "{fetched:?}");
        assert_eq!(fetched.resumed_bytes + fetched.fetched_bytes, total_bytes, "{fetched:?}");
        let verified = home.run(["verify"]).await.answer();
        assert_eq!(verified["good"], true);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_model_is_healed_by_fetching_and_on_purpose() {
    let model = Recipe::default().publish().await;
    let (home, seeder) = home_with(&model).await;
    flip(&weights(&home, &model), 1_000_000);
    let fetched = home.fetch(&model, &[seeder.address()]).await;
    assert!(!fetched.from_cache && fetched.fetched_bytes < 100_000, "{fetched:?}");

    flip(&weights(&home, &model), 500_000);
    let outcome = home.run(["verify"]).await.expect(3);
    assert_eq!(outcome.answers()[0]["good"], false);
    // Or it would be fetched from whom the address book knows.
    std::fs::remove_file(home.cache("peers")).unwrap();
    let message = home.run(["verify", "--repair", "--wait", "1ms"]).await.failure(4);
    assert!(message.contains("missing shard 2"), "{message}");
    let repair = ["verify", "--repair", "--peer", seeder.address()];
    let answers = home.run(repair).await.expect(0).answers();
    assert!(answers.is_empty(), "what was begun is partial now: {answers:?}");
    home.fetch(&model, &[seeder.address()]).await;

    flip(&weights(&home, &model), 500_000);
    let answers = home.run(repair).await.expect(0).answers();
    let [verified, fetched] = &answers[..] else { panic!("{answers:?}") };
    assert_eq!((&verified["good"], &fetched["type"]), (&false.into(), &"fetched".into()));
    assert!(fetched["fetched_bytes"].as_u64().unwrap() < 100_000, "{fetched}");
    assert_eq!(home.run(["verify"]).await.answer()["good"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_that_were_deleted_are_fetched_once() {
    let model = Recipe::default().publish().await;
    let (home, seeder) = home_with(&model).await;
    std::fs::remove_file(weights(&home, &model)).unwrap();
    let fetched = home.fetch(&model, &[seeder.address()]).await;
    assert_eq!(fetched.fetched_bytes, model.weights.len() as u64);
    assert!(std::fs::read_dir(home.cache("partial")).unwrap().next().is_none());
    assert!(home.fetch(&model, &[]).await.from_cache);
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_reports_every_model_whatever_is_wrong_with_the_others() {
    let home = Home::new();
    let mut models = Vec::new();
    for size in [300_001, 300_002, 300_003, 300_004] {
        let model = Recipe::of_size(size).publish().await;
        let seeder = Seeder::start(&model, &model.shards_but(&[])).await;
        home.fetch(&model, &[seeder.address()]).await;
        models.push(model);
    }
    std::fs::remove_file(weights(&home, &models[0])).unwrap();
    let cut = weights(&home, &models[1]);
    std::fs::set_permissions(&cut, Permissions::from_mode(0o644)).unwrap();
    File::options().write(true).open(&cut).unwrap().set_len(1_000).unwrap();
    std::fs::remove_file(home.cache("manifests").join(format!("{}.json", models[2].id))).unwrap();
    let outcome = home.run(["verify"]).await.expect(3);
    let mut answers = outcome.answers();
    let error = answers.pop().unwrap();
    assert!(error["message"].as_str().unwrap().contains("3 of 4 models"), "{error}");
    let found = |model: &Model| answers.iter().find(|answer| answer["manifest"] == model.id).unwrap().clone();
    for (model, part) in models.iter().zip(["weights are gone", "1000 bytes", "manifest is gone"]) {
        let answer = found(model);
        assert!(answer["good"] == false && answer["error"].as_str().unwrap().contains(part), "{answer}");
    }
    assert_eq!((&found(&models[3])["good"], &found(&models[3])["error"]), (&true.into(), &().into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_found_bad_is_withdrawn_from_a_node_that_serves_it() {
    let model = Recipe::default().publish().await;
    let (home, _) = home_with(&model).await;
    let mut serving: Process = home.start(["serve", "--listen", TCP, "-v"]);
    let line = serving.first_line().await;
    let address: serde_json::Value = serde_json::from_str(&line).unwrap();
    let address = address["address"].as_str().unwrap().to_owned();
    Home::new().fetch(&model, &[&address]).await;

    flip(&weights(&home, &model), 1_000_000);
    home.run(["verify"]).await.expect(3);
    serving.says("it is not served any more").await;
    let message = Home::new().start_fetch(&model, &[&address]).outcome().await.failure(4);
    assert!(message.contains("no source has the manifest"), "{message}");
    // Healed beside the node that had it mapped, it is served again.
    let seeder = Seeder::start(&model, &model.shards_but(&[])).await;
    home.fetch(&model, &[seeder.address()]).await;
    soon("the model is served again", async {
        while Home::new().start_fetch(&model, &[&address]).outcome().await.status != Some(0) {}
    })
    .await;
}

/// As when a snapshot of the disk is mounted in the same boot: what was not synced is zeros.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_synced_is_hashed_by_the_next_process() {
    let (model, home) = (Recipe::default().publish().await, Home::new());
    let seeder = Seeder::start(&model, &model.shards_but(&[])).await;
    let line = ["fetch", "--no-fsync", "--wait", "1s", "--manifest", &model.id, "--peer", seeder.address()];
    home.run(line).await.expect(0);
    flip(&weights(&home, &model), 1_000_000);
    let fetched = home.fetch(&model, &[seeder.address()]).await;
    assert!(!fetched.from_cache && fetched.fetched_bytes < 100_000, "{fetched:?}");
}
