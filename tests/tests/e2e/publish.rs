//! Publishing: what is made, what is refused, and the transaction.

use std::path::PathBuf;

use e2e::{Chain, Fetched, Home, Model, Outcome, Process, Recipe, Seeder, TCP, made_up, put, put_private};
use serde_json::{Value, json};

/// A home with a file to publish in it.
fn home_with(name: &str, bytes: &[u8]) -> (Home, PathBuf) {
    let home = Home::new();
    let path = home.path(name);
    put(&path, bytes);
    (home, path)
}

/// Publishes `model` of this home, with these further arguments.
async fn publish<S: AsRef<str>>(home: &Home, more: impl IntoIterator<Item = S>) -> Outcome {
    let more: Vec<_> = more.into_iter().map(|word| word.as_ref().to_owned()).collect();
    home.run(
        ["publish", "model", "--model-kind", "simplenet"].into_iter().chain(more.iter().map(String::as_str)),
    )
    .await
}

/// Publishes `model` of this home and sets it on chain with the key in a variable.
async fn publish_signed(home: &Home, chain: &Chain, key: &str) -> Outcome {
    let mut command =
        home.command(["--json", "publish", "model", "--model-kind", "simplenet", "--price", "7"]);
    command.args(chain.flags()).args(["--private-key-env", "THE_KEY"]).env("THE_KEY", key);
    Process::start(command).outcome().await
}

async fn fetch(home: &Home, chain: &Chain, more: &[&str]) -> Outcome {
    let line = ["fetch".to_owned()].into_iter().chain(chain.flags());
    home.run(line.chain(more.iter().map(|word| (*word).to_owned()))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_owner_sets_the_model_on_chain() {
    let (chain, (home, _)) = (Chain::start().await, home_with("model", &made_up(1000)));
    let published = publish_signed(&home, &chain, chain.devnet().owner_key()).await.answer();
    assert_eq!(published["transaction"]["contract"], chain.contract());
    let hash = published["transaction"]["hash"].as_str().unwrap();
    let receipt = chain.devnet().request("eth_getTransactionReceipt", (hash,)).await.unwrap();
    assert_eq!(receipt["status"], "0x1");

    // In a block, but that is not final.
    let message = fetch(&home, &chain, &[]).await.failure(4);
    assert!(message.contains("not yet finalized"), "{message}");
    let latest = Fetched::of(fetch(&home, &chain, &["--block-tag", "latest"]).await);
    chain.mine(2).await;
    let fetched = Fetched::of(fetch(&home, &chain, &[]).await);
    for fetched in [latest, fetched] {
        assert_eq!(fetched.manifest, published["manifest"]);
        assert_eq!(fetched.chain.unwrap()["price"], "7");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_is_refused_before_anything_is_sent() {
    let (chain, (home, _)) = (Chain::start().await, home_with("model", b"weights"));
    chain.mine(2).await;
    let before = chain.devnet().request("eth_blockNumber", ()).await.unwrap();
    let message = publish_signed(&home, &chain, chain.devnet().stranger_key()).await.failure(1);
    assert!(message.contains("refuses setMatureModel"), "{message}");
    assert_eq!(chain.devnet().request("eth_blockNumber", ()).await.unwrap(), before);
    assert!(fetch(&home, &chain, &[]).await.failure(4).contains("no model yet"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_key_is_refused_before_anything_is_encoded() {
    let (chain, (home, _)) = (Chain::start().await, home_with("model", b"weights"));
    let message = publish_signed(&home, &chain, "0x12").await.failure(2);
    assert!(message.contains("THE_KEY") && !message.contains("0x12"), "{message}");
    assert_eq!(home.run(["cache", "ls"]).await.expect(0).answers(), Vec::<Value>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_call_for_a_proposal_is_the_one_that_sets_the_model() {
    let (chain, (home, _)) = (Chain::start().await, home_with("model", b"weights"));
    let published = publish(&home, ["--price", "7", "--calldata"]).await.answer();
    assert_eq!(published["transaction"], Value::Null);
    let owner = chain.devnet().request("eth_accounts", ()).await.unwrap()[0].clone();
    let call = json!({"from": owner, "to": chain.contract(), "data": published["calldata"]});
    chain.devnet().request("eth_sendTransaction", (call,)).await.unwrap();
    chain.mine(2).await;
    let fetched = Fetched::of(fetch(&home, &chain, &[]).await);
    assert_eq!(fetched.manifest, published["manifest"]);
    assert_eq!(fetched.chain.unwrap()["price"], "7");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_published_is_refused_and_leaves_nothing() {
    let (home, _) = home_with("model", b"weights");
    put(&home.path("empty"), b"");
    std::fs::create_dir(home.path("none")).unwrap();
    for (line, status, part) in [
        ("empty --model-kind simplenet", 2, "empty has no file with bytes"),
        ("empty --no-names --model-kind simplenet", 2, "empty is empty"),
        ("missing --model-kind simplenet", 1, "missing"),
        ("none --model-kind simplenet", 2, "none has no file"),
        (". --no-names --model-kind simplenet", 2, "not a regular file"),
        ("model --model-kind simplenet --data 0", 2, "at least 1 row"),
        ("model --model-kind simplenet --data 200 --parity 57", 2, "at most 256"),
        ("model --model-kind simplenet --piece-size 8KiB", 2, "8192"),
        ("model --model-kind simplenet --piece-size 100000", 2, "multiple of 64"),
        ("--layers model empty --model-kind simplenet", 2, "empty is empty"),
        ("model --model-kind simplenet --contract 0x0000000000000000000000000000000000000001", 2, "--price"),
    ] {
        let message = home.run(["publish"].into_iter().chain(line.split(' '))).await.failure(status);
        assert!(message.contains(part), "{line}: {message}");
        assert_eq!(home.run(["cache", "ls"]).await.expect(0).answers(), Vec::<Value>::new(), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_input_gives_the_same_digest_and_another_input_another() {
    let (home, path) = home_with("model", &made_up(100_000));
    let first = publish(&home, [] as [&str; 0]).await.answer();
    assert_eq!(publish(&home, [] as [&str; 0]).await.answer(), first, "in the same cache");
    let (other, _) = home_with("model", &made_up(100_000));
    assert_eq!(publish(&other, [] as [&str; 0]).await.answer()["manifest"], first["manifest"]);
    assert_ne!(publish(&home, ["--parity", "3"]).await.answer()["manifest"], first["manifest"]);
    // What was published does not change with the file.
    put(&path, b"other weights");
    let weights = std::fs::read(first["path"].as_str().unwrap()).unwrap();
    assert!(weights == made_up(100_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_become_shards() {
    let model: Model =
        Recipe { layers: vec![10, 20_000, 3], data: 2, parity: 1, ..Recipe::default() }.publish().await;
    let sizes: Vec<_> = model.manifest.shards().iter().map(|shard| shard.size_bytes).collect();
    assert_eq!(sizes, [10, 20_000, 3, 10_007]);
    let seeder = Seeder::start(&model, &[0, 1, 2]).await;
    Home::new().fetch(&model, &[seeder.address()]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_can_be_seeded_at_once() {
    let (chain, weights) = (Chain::start().await, made_up(300_000));
    let (publisher, _) = home_with("model", &weights);
    let mut command = publisher.command(["--json", "publish", "model", "--model-kind", "simplenet"]);
    command.args(["--price", "7", "--serve", "--listen", TCP]).args(chain.flags());
    command.args(["--private-key-env", "KEY"]).env("KEY", chain.devnet().owner_key());
    let mut publishing = Process::start(command);
    let (mut address, mut published) = (None, None);
    for line in 0..2 {
        let answer: Value = serde_json::from_str(&publishing.line(line).await).unwrap();
        match answer["type"].as_str() {
            Some("listening") => address = answer["address"].as_str().map(str::to_owned),
            _ => published = Some(answer),
        }
    }
    let (address, published) = (address.unwrap(), published.unwrap());
    assert!(published["transaction"]["block_number"].as_u64().is_some(), "{published}");
    chain.mine(2).await;
    let home = Home::new();
    let fetch = ["fetch", "--wait", "1s", "--peer", &address].map(str::to_owned);
    let fetched = Fetched::of(home.run(fetch.into_iter().chain(chain.flags())).await);
    assert!(std::fs::read(&fetched.path).unwrap() == weights);
    publishing.terminate().await;
    publishing.outcome().await.expect(0);
}

/// The account of a new key file, and the flags that name it.
async fn new_key(home: &Home) -> (String, Vec<String>) {
    put_private(&home.path("password"), b"correct horse\n");
    let flags = ["--keystore", "key.json", "--password-file", "password"].map(str::to_owned);
    let made = home.run(["key", "new"].into_iter().chain(flags.iter().map(String::as_str))).await.answer();
    (made["address"].as_str().unwrap().to_owned(), flags.to_vec())
}

/// Publishes `model` of this home and signs with these flags.
async fn publish_with(home: &Home, chain: &Chain, signing: &[String], more: &[&str]) -> Outcome {
    let fixed = ["publish", "model", "--model-kind", "simplenet", "--price", "7"].map(str::to_owned);
    let more = more.iter().map(|word| (*word).to_owned());
    home.run(fixed.into_iter().chain(chain.flags()).chain(signing.iter().cloned()).chain(more)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_made_once_and_read_by_its_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let home = Home::new();
    let (address, flags) = new_key(&home).await;
    let file = home.path("key.json");
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let again = home.run(["key", "new"].into_iter().chain(flags.iter().map(String::as_str))).await.failure(2);
    assert!(again.contains("key.json"), "{again}");
    let shown = home.run(["key", "show"].into_iter().chain(flags.iter().map(String::as_str))).await.answer();
    assert_eq!(shown["address"].as_str().unwrap(), address);
    put_private(&home.path("password"), b"wrong\n");
    let line = ["key", "show"].into_iter().chain(flags.iter().map(String::as_str));
    let refused = home.run(line).await.expect(2);
    assert!(!refused.stderr.contains("correct horse"));
    let asked = home.run(["key", "show", "--keystore", "key.json"]).await.failure(2);
    assert!(asked.contains("--password-file"), "there is no terminal: {asked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_asked_for_at_the_terminal_and_not_shown() {
    let home = Home::new();
    let new = ["key", "new", "--keystore", "key.json"];
    let differ = home.at_terminal(&["correct horse", "correct house"], &new).await.expect(2);
    assert!(differ.stdout.contains("the two passwords differ"), "{}", differ.stdout);
    assert!(!home.path("key.json").exists(), "nothing was made");
    let made = home.at_terminal(&["correct horse", "correct horse"], &new).await.expect(0);
    let address = made.stdout.lines().last().unwrap();
    assert!(address.starts_with("0x") && !made.stdout.contains("correct"), "{}", made.stdout);
    let show = ["key", "show", "--keystore", "key.json"];
    let shown = home.at_terminal(&["correct horse"], &show).await.expect(0);
    assert_eq!(shown.stdout.lines().last(), Some(address));
    let wrong = home.at_terminal(&["correct house"], &show).await.expect(2);
    assert!(wrong.stdout.contains("the password is wrong"), "{}", wrong.stdout);
    // What is in a file is not asked for.
    put_private(&home.path("password"), b"correct horse\n");
    let told = home.run(show.into_iter().chain(["--password-file", "password"])).await.answer();
    assert_eq!(told["address"].as_str(), Some(address.trim()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_shows_the_call_and_sends_nothing() {
    let (chain, (home, _)) = (Chain::start().await, home_with("model", b"weights"));
    let before = chain.devnet().request("eth_blockNumber", ()).await.unwrap();
    let mut command =
        home.command(["--json", "publish", "model", "--model-kind", "simplenet", "--price", "7"]);
    command.args(chain.flags()).args(["--dry-run", "--private-key-env", "KEY"]);
    command.env("KEY", chain.devnet().owner_key());
    let published = Process::start(command).outcome().await.answer();
    assert_eq!((&published["transaction"], &published["call"]["nonce"]), (&Value::Null, &json!(1)));
    assert_eq!(published["call"]["contract"], chain.contract());
    assert_eq!(chain.devnet().request("eth_blockNumber", ()).await.unwrap(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_key_may_not_call_and_a_cap_on_fees_holds() {
    let (chain, (home, _)) = (Chain::start().await, home_with("model", b"weights"));
    let (address, flags) = new_key(&home).await;
    let message = publish_with(&home, &chain, &flags, &[]).await.failure(1);
    assert!(message.contains("refuses setMatureModel") && message.contains(&address), "{message}");
    assert!(message.contains("is in the cache, but not set on chain"), "{message}");
    let mut command =
        home.command(["--json", "publish", "model", "--model-kind", "simplenet", "--price", "7"]);
    command.args(chain.flags()).args(["--max-fee", "0.000000001", "--private-key-env", "KEY"]);
    command.env("KEY", chain.devnet().owner_key());
    let capped = Process::start(command).outcome().await;
    assert_ne!(capped.status, Some(0));
    assert!(capped.stderr.contains("gwei"), "{}", capped.stderr);
}
