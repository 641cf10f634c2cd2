//! Following the contract: `loader watch` and `loader serve --contract`.

use e2e::{Chain, Home, Model, Peer, Process, Recipe, TCP, made_up, put, soon};
use serde_json::Value;

/// Models that share nothing.
async fn models<const N: usize>() -> [Model; N] {
    let mut models = Vec::new();
    for number in (0..=u8::MAX).take(N) {
        let mut weights = made_up(300_000);
        weights.iter_mut().for_each(|byte| *byte ^= number);
        models.push(Recipe::default().publish_weights(weights).await);
    }
    models.try_into().unwrap()
}

/// Starts `loader` with this command, which is told of the contract and of all these peers.
fn start(home: &Home, chain: &Chain, command: &[&str], peers: &[&str]) -> Process {
    let peers = peers.iter().flat_map(|peer| ["--peer", peer]).map(str::to_owned);
    let command = command.iter().map(|word| (*word).to_owned());
    let quick = ["--poll-interval", "100ms"].map(str::to_owned);
    home.start(command.chain(chain.flags()).chain(quick).chain(peers))
}

fn id(line: &str) -> String {
    let answer: Value = serde_json::from_str(line).unwrap();
    answer["manifest"].as_str().unwrap_or_else(|| panic!("{line}")).to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_new_model_is_loaded_and_told_to_a_command() {
    let ([a, b], chain, home) = (models().await, Chain::start().await, Home::new());
    let seeders = futures([&a, &b].map(|model| Peer::start(model.conduct()))).await;
    let peers: Vec<_> = seeders.iter().map(Peer::address).collect();
    let exec = r#"cmp "$LOADER_WEIGHTS" "$HOME/.cache/loader/models/$LOADER_MANIFEST/weights" &&
        echo "$LOADER_MODEL_KIND $LOADER_PRICE $LOADER_BLOCK_NUMBER is at $LOADER_MANIFEST""#;
    chain.set(&a.id).await;
    let mut watching = start(&home, &chain, &["watch", "--exec", exec], &peers);
    assert_eq!(id(&watching.line(0).await), a.id);
    watching.says(&format!("is at {}", a.id)).await;
    chain.set(&b.id).await;
    let second = watching.line(1).await;
    assert_eq!(id(&second), b.id);
    watching.says(&format!("llm-backbone 0 {} is at {}", block(&second), b.id)).await;
    // The old one is there as before.
    assert!(home.fetch(&a, &[]).await.from_cache);
    watching.terminate().await;
    let outcome = watching.outcome().await.expect(0);
    assert_eq!(outcome.answers().len(), 2);
    for model in [&a, &b] {
        let line = format!("Z model {}: 293 KiB verified and mapped in ", model.id);
        assert!(outcome.stderr.contains(&line), "a log says when which came: {}", outcome.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_takes_long_holds_nothing_up_and_then_runs_for_the_newest() {
    let (all, chain, home) = (models::<3>().await, Chain::start().await, Home::new());
    let seeders = futures(all.each_ref().map(|model| Peer::start(model.conduct()))).await;
    let peers: Vec<_> = seeders.iter().map(Peer::address).collect();
    let gate = home.path("gate");
    assert!(std::process::Command::new("mkfifo").arg(&gate).status().unwrap().success());
    let exec = format!("cat {} && echo \"ran for $LOADER_MANIFEST\"", gate.display());
    chain.set(&all[0].id).await;
    let mut watching = start(&home, &chain, &["watch", "--exec", &exec, "--keep", "1"], &peers);
    assert_eq!(id(&watching.line(0).await), all[0].id);
    // It has begun when it reads.
    let open = |gate| tokio::task::spawn_blocking(move || std::fs::File::create(gate).unwrap());
    let first = open(gate.clone()).await.unwrap();
    for (line, model) in all.iter().enumerate().skip(1) {
        chain.set(&model.id).await;
        assert_eq!(id(&watching.line(line).await), model.id);
    }
    watching.says(&format!("the command is not run for model {}", all[1].id)).await;
    drop(first);
    watching.says(&format!("ran for {}", all[0].id)).await;
    drop(open(gate).await.unwrap());
    watching.says(&format!("ran for {}", all[2].id)).await;
    watching.terminate().await;
    let told = watching.outcome().await.expect(0).stderr;
    assert!(!told.contains(&format!("ran for {}", all[1].id)), "{told}");
}

/// Succeeds for models of which there is a file in the home directory.
const WORKS_IF_TOLD: &str = r#"test -e "$HOME/$LOADER_MANIFEST" && echo "works with $LOADER_MANIFEST""#;

#[tokio::test(flavor = "multi_thread")]
async fn the_model_whose_command_succeeded_last_stays_until_that_of_another_does() {
    let ([a, b, c], chain, home) = (models().await, Chain::start().await, Home::new());
    let seeders = futures([&a, &b, &c].map(|model| Peer::start(model.conduct()))).await;
    let peers: Vec<_> = seeders.iter().map(Peer::address).collect();
    let watch = ["watch", "--exec", WORKS_IF_TOLD, "--keep", "1"];
    let is_there = |model: &Model| home.cache("models").join(&model.id).exists();
    put(&home.path(&a.id), b"");
    chain.set(&a.id).await;
    let mut watching = start(&home, &chain, &watch, &peers);
    watching.says(&format!("works with {}", a.id)).await;
    chain.set(&b.id).await;
    watching.says(&format!("the command for model {} failed: exit status: 1; trying again", b.id)).await;
    watching.terminate().await;
    watching.outcome().await.expect(0);

    let mut watching = start(&home, &chain, &watch, &peers);
    watching.says(&format!("the command for model {} failed", b.id)).await;
    chain.set(&c.id).await;
    watching.says(&format!("model {} is removed", b.id)).await;
    watching.says(&format!("the command for model {} failed", c.id)).await;
    assert!(is_there(&a) && is_there(&c));
    // It is tried again by itself.
    put(&home.path(&c.id), b"");
    watching.says(&format!("the command for model {} succeeded", c.id)).await;
    watching.says(&format!("model {} is removed", a.id)).await;
    assert!(is_there(&c) && !is_there(&a));
}

#[tokio::test(flavor = "multi_thread")]
async fn before_a_command_has_succeeded_no_model_is_removed() {
    let ([a, b, c], chain, home) = (models().await, Chain::start().await, Home::new());
    let seeders = futures([&a, &b, &c].map(|model| Peer::start(model.conduct()))).await;
    let peers: Vec<_> = seeders.iter().map(Peer::address).collect();
    let mut watching = start(&home, &chain, &["watch", "--exec", WORKS_IF_TOLD, "--keep", "1"], &peers);
    for model in [&a, &b, &c] {
        chain.set(&model.id).await;
        watching.says(&format!("the command for model {} failed", model.id)).await;
    }
    put(&home.path(&c.id), b"");
    for model in [&a, &b] {
        watching.says(&format!("model {} is removed", model.id)).await;
    }
    watching.terminate().await;
    let told = watching.outcome().await.expect(0).stderr;
    let (succeeded, removed) = (told.find("succeeded, after").unwrap(), told.find("is removed").unwrap());
    assert!(succeeded < removed, "{told}");
}

fn block(line: &str) -> Value {
    serde_json::from_str::<Value>(line).unwrap()["chain"]["block_number"].clone()
}

async fn futures<const N: usize, F: Future>(all: [F; N]) -> Vec<F::Output> {
    let mut done = Vec::new();
    for one in all {
        done.push(one.await);
    }
    done
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_version_never_takes_the_old_one_away() {
    let ([a, b], chain, home) = (models().await, Chain::start().await, Home::new());
    let broken = a.with_manifest(|json| json["total_size"] = 0.into());
    let peer = Peer::start(a.conduct()).await;
    let others = [Peer::start(b.conduct()).await, Peer::start(broken.conduct()).await];
    let peers = [peer.address(), others[0].address(), others[1].address()];
    chain.set(&a.id).await;
    let mut watching = start(&home, &chain, &["watch", "--wait", "1ms"], &peers);
    assert_eq!(id(&watching.line(0).await), a.id);
    let nobody_has = "ab".repeat(32);
    for (bad, why) in [
        (&*nobody_has, "no source has the manifest"),
        (&broken.id, "is not a valid manifest"),
        ("ipfs://model", "ipfs://model"),
        ("", "no model"),
    ] {
        chain.set(bad).await;
        watching.says(why).await;
        assert!(home.fetch(&a, &[]).await.from_cache, "{why}");
    }
    chain.set(&b.id).await;
    assert_eq!(id(&watching.line(1).await), b.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_changes_during_one_fetch() {
    let ([a, b, c], chain, home) = (models().await, Chain::start().await, Home::new());
    // The first two never come: each is given up for the next.
    let stuck = [a.conduct().stopping_after(100_000), b.conduct().stopping_after(100_000)].map(Peer::start);
    let (stuck, last) = (futures(stuck).await, Peer::start(c.conduct()).await);
    let peers = [stuck[0].address(), stuck[1].address(), last.address()];
    chain.set(&a.id).await;
    let mut watching = start(&home, &chain, &["watch"], &peers);
    stuck[0].gate().reached().await;
    chain.set(&b.id).await;
    stuck[1].gate().reached().await;
    chain.set(&c.id).await;
    assert_eq!(id(&watching.line(0).await), c.id);
    // What was fetched of the others is kept.
    let entries = home.run(["cache", "ls"]).await.expect(0).answers();
    assert_eq!(entries.iter().filter(|entry| entry["finished"] == false).count(), 2, "{entries:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seeder_follows_the_contract_and_keeps_the_last_models() {
    let ([a, b, c], chain, home) = (models().await, Chain::start().await, Home::new());
    let sources = futures([&a, &b, &c].map(|model| Peer::start(model.conduct()))).await;
    let peers: Vec<_> = sources.iter().map(Peer::address).collect();
    chain.set(&a.id).await;
    let mut seeder = start(&home, &chain, &["serve", "--keep", "2", "--listen", TCP], &peers);
    let listening: Value = serde_json::from_str(&seeder.line(0).await).unwrap();
    let address = listening["address"].as_str().unwrap().to_owned();
    for (line, model) in [(1, &a), (2, &b), (3, &c)] {
        chain.set(&model.id).await;
        assert_eq!(id(&seeder.line(line).await), model.id);
        let fetched = Home::new().fetch(model, &[&address]).await;
        assert_eq!(fetched.fetched_bytes, fetched.total_size_bytes);
    }
    seeder.says(&format!("model {} is removed", a.id)).await;
    soon("the first model to be gone", async { while home.cache("models").join(&a.id).exists() {} }).await;
    assert!(home.cache("models").join(&b.id).exists() && home.cache("models").join(&c.id).exists());
    let status = home.run(["status"]).await.answer();
    assert_eq!(status["models"].as_array().unwrap().len(), 2);
    assert_eq!(status["chain"]["contract"], chain.contract());
    seeder.terminate().await;
    seeder.outcome().await.expect(0);
}
