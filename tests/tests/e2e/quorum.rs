//! Fetching what several RPC endpoints say, and what is remembered of that. Peers are not asked: all is in the cache.

use std::time::Duration;

use e2e::{Chain, Fetched, Home, Model, Mood, Recipe, Rpc, Seeder};
use serde_json::json;

/// A home whose cache holds the model.
async fn home_with(model: &Model) -> Home {
    let home = Home::new();
    let seeder = Seeder::start(model, &model.shards_but(&[])).await;
    home.fetch(model, &[seeder.address()]).await;
    home
}

/// `loader fetch` through these endpoints.
fn fetch(chain: &Chain, endpoints: &[&Rpc]) -> Vec<String> {
    let urls = endpoints.iter().flat_map(|endpoint| ["--rpc-url".to_owned(), endpoint.url().to_owned()]);
    ["fetch".to_owned(), "--contract".to_owned(), chain.contract()].into_iter().chain(urls).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_honest_endpoints_outvote_a_liar_and_then_the_chain_can_be_away() {
    let (model, chain) = (Recipe::of_size(100_000).publish().await, Chain::start().await);
    let home = home_with(&model).await;
    chain.set(&model.id).await;
    let (a, b) = (Rpc::honest(&chain).await, Rpc::honest(&chain).await);
    let liar = Rpc::lying(&chain, &model.id, &"ab".repeat(32)).await;

    let outcome = home.run(fetch(&chain, &[&a, &liar, &b])).await;
    let host = liar.url().strip_prefix("http://").unwrap();
    assert!(outcome.stderr.contains("disagree") && outcome.stderr.contains(host), "{}", outcome.stderr);
    let fetched = Fetched::of(outcome);
    assert_eq!((&fetched.manifest, fetched.from_cache), (&model.id, true));

    let contract = chain.contract();
    let shown = home.run(["chain", "show"]).await.answer();
    assert_eq!((&shown["contract"], &shown["chain_id"]), (&contract.clone().into(), &31337.into()));
    assert_eq!(shown["loaded"]["manifest"], model.id);
    let on_chain = fetched.chain.as_ref().unwrap();
    assert_eq!(shown["floor"]["number"], on_chain["block_number"]);
    assert_eq!(shown["floor"]["hash"], on_chain["block_hash"]);

    let line = fetch(&chain, &[&a, &b]);
    drop((chain, a, b));
    assert!(home.run(&line).await.failure(4).contains("cannot reach"));
    let stale = line.iter().map(String::as_str).chain(["--allow-stale", "1h"]);
    assert_eq!(Fetched::of(home.run(stale).await).manifest, model.id);
    let offline = ["fetch", "--offline", "--contract", &contract];
    let again = Fetched::of(home.run(offline).await);
    assert_eq!((&again.manifest, again.chain), (&model.id, fetched.chain));

    let forgotten = home.run(["chain", "forget", "--contract", &contract]).await.answer();
    assert_eq!(
        (&forgotten["type"], &forgotten["contract"]),
        (&"chain-forgotten".into(), &contract.clone().into())
    );
    assert!(home.run(offline).await.failure(4).contains("nothing was loaded"));
}

/// It tells the truth, about a block of yesterday.
#[tokio::test(flavor = "multi_thread")]
async fn one_liar_of_three_rolls_nobody_back_while_an_honest_one_is_slow() {
    let (model, chain) = (Recipe::of_size(100_000).publish().await, Chain::start().await);
    let home = home_with(&model).await;
    let old = "ab".repeat(32);
    chain.set(&old).await;
    let height = chain.height().await - 2;
    chain.set(&model.id).await;
    let (liar, slow, fast) =
        (Rpc::honest(&chain).await, Rpc::honest(&chain).await, Rpc::honest(&chain).await);
    liar.set(Mood::Stuck { tags: &["finalized"], height });
    slow.set(Mood::Slow(Duration::from_millis(1_300)));
    let line = fetch(&chain, &[&liar, &slow, &fast]);
    let outcome = home.run(line.iter().map(String::as_str).chain(["-v"])).await;
    assert!(outcome.stderr.contains("left out") && outcome.stderr.contains(&old), "{}", outcome.stderr);
    assert_eq!(Fetched::of(outcome).manifest, model.id);

    // The slow one has no vote at all: then nothing is loaded, and least of all the old model.
    slow.set(Mood::status(429).on(&["eth_call"]));
    let message = home.run(line).await.failure(4);
    assert!(
        message.contains("no 2 of 3") && message.contains(&model.id) && message.contains(&old),
        "{message}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_final_block_that_is_replaced_stops_everything_until_it_is_forgotten() {
    let (model, chain) = (Recipe::of_size(100_000).publish().await, Chain::start().await);
    let home = home_with(&model).await;
    chain.set(&model.id).await;
    chain.mine(4).await;
    let rpc = Rpc::honest(&chain).await;
    let watch = ["watch", "--poll-interval", "100ms", "--wait", "1ms"].map(str::to_owned);
    let mut watching = home.start(watch.into_iter().chain(fetch(&chain, &[&rpc]).into_iter().skip(1)));
    watching.line(0).await;
    chain.devnet().request("anvil_reorg", (4, json!([]))).await.unwrap();
    chain.set(&"ab".repeat(32)).await;
    chain.mine(3).await;
    watching.says("nothing is loaded from it any more").await;
    chain.mine(3).await;
    assert!(home.run(fetch(&chain, &[&rpc])).await.failure(3).contains("loader chain forget"));
    let shown = home.run(["chain", "show"]).await.answer();
    assert_eq!(shown["alarm"]["before"], shown["floor"]);
    assert_eq!(shown["last_good"]["manifest"], model.id);

    home.run(["chain", "forget", "--contract", &chain.contract()]).await.expect(0);
    // Nobody has the other model: but it is the one that is looked for.
    watching.says(&"ab".repeat(32)).await;
    watching.terminate().await;
    assert_eq!(watching.outcome().await.expect(0).answers().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_that_stands_still_is_not_available_and_its_age_is_told() {
    let (model, chain) = (Recipe::of_size(100_000).publish().await, Chain::start().await);
    let home = home_with(&model).await;
    chain.set(&model.id).await;
    let rpc = Rpc::honest(&chain).await;
    // Another id than that of development chains, on which blocks may be of any age.
    rpc.set(Mood::result("0x1").on(&["eth_chainId"]));
    let line = fetch(&chain, &[&rpc]);
    assert_eq!(Fetched::of(home.run(&line).await).manifest, model.id);
    let strict = |more: &[&str]| {
        let limit = ["--max-block-age", "1s"].iter().chain(more).map(|word| (*word).to_owned());
        line.iter().cloned().chain(limit).collect::<Vec<_>>()
    };
    // It becomes too old while this waits.
    let stale = async {
        loop {
            let outcome = home.run(strict(&[])).await;
            if outcome.status != Some(0) {
                break outcome;
            }
        }
    };
    let message = e2e::soon("an old block", stale).await.failure(4);
    assert!(message.contains("the newest finalized block that 1 of 1 RPC endpoints have"), "{message}");
    assert!(message.contains("old, expected at most 1 seconds"), "{message}");
    // What was loaded stands in for it, as long as its block will do.
    assert_eq!(Fetched::of(home.run(strict(&["--allow-stale", "1h"])).await).manifest, model.id);
    home.run(strict(&["--allow-stale", "1s"])).await.failure(4);

    let watch = strict(&["--poll-interval", "100ms"]).into_iter().skip(1);
    let mut watching = home.start(["watch".to_owned()].into_iter().chain(watch));
    watching.says("the newest finalized block").await;
    let status = home.run(["status"]).await.answer();
    assert!(status["chain"]["block"]["age_s"].as_u64().unwrap() > 1, "{status}");
    assert!(home.plain(["status"]).await.stdout.contains(" old\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_quorum_on_a_first_start_is_not_available_and_a_trusted_endpoint_vetoes() {
    let (chain, truth) = (Chain::start().await, "cd".repeat(32));
    chain.set(&truth).await;
    let (lie, other_lie) = ("ab".repeat(32), "ba".repeat(32));
    let honest = Rpc::honest(&chain).await;
    let (a, b) = (Rpc::lying(&chain, &truth, &lie).await, Rpc::lying(&chain, &truth, &other_lie).await);
    let message = Home::new().run(fetch(&chain, &[&honest, &a, &b])).await.failure(4);
    assert!([&truth, &lie, &other_lie].iter().all(|said| message.contains(said.as_str())), "{message}");

    let c = Rpc::lying(&chain, &truth, &lie).await;
    let line = fetch(&chain, &[&honest, &a, &c]);
    let trusting = line.iter().map(String::as_str).chain(["--trusted-rpc", honest.url()]);
    assert!(Home::new().run(trusting).await.failure(4).contains("no 2 of 3"));
    let fooled = line.iter().map(String::as_str).chain(["--wait", "1ms"]);
    assert!(Home::new().run(fooled).await.failure(4).contains(&lie), "two liars of three win by definition");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_provider_counts_once_and_a_quorum_must_be_possible() {
    let chain = Chain::start().await;
    let line = ["fetch".to_owned()].into_iter().chain(chain.flags()).collect::<Vec<_>>();
    let [_, _, flag, url] = chain.flags();
    let message = Home::new().run(line.iter().chain([&flag, &format!("{url}secretkey")])).await.failure(2);
    assert!(message.contains("given twice") && !message.contains("secretkey"), "{message}");
    let message = Home::new().run(line.iter().map(String::as_str).chain(["--quorum", "2"])).await.failure(2);
    assert!(message.contains("expected 1 to 1"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_catches_endpoints_that_all_lie() {
    let (chain, truth) = (Chain::start().await, "cd".repeat(32));
    chain.set(&truth).await;
    let liar = Rpc::lying(&chain, &truth, &"ab".repeat(32)).await;
    let line = fetch(&chain, &[&liar]);
    let proving = line.iter().map(String::as_str).chain(["--verify-proof"]);
    let message = Home::new().run(proving).await.failure(3);
    assert!(message.contains("contradicts") && message.contains("--string-slot"), "{message}");
    // The truth is proven, and only a peer is missing.
    let honest = Rpc::honest(&chain).await;
    let line = fetch(&chain, &[&honest]);
    let proving = line.iter().map(String::as_str).chain(["--verify-proof", "--wait", "1ms", "-v"]);
    let outcome = Home::new().run(proving).await;
    assert!(outcome.stderr.contains("proven: the string is in storage slot 0"), "{}", outcome.stderr);
    assert!(outcome.failure(4).contains(&truth));
}
