//! Several contracts, which one node follows.

use std::path::PathBuf;

use e2e::{Chain, Home, Http, Model, Peer, Recipe, TCP, made_up, put, soon};
use serde_json::Value;

/// Nobody is there, and no contract.
const DEAD: &str = "http://127.0.0.1:1";
const NOWHERE: &str = "0x0000000000000000000000000000000000000009";

/// Models that share nothing, and who has them.
async fn models<const N: usize>() -> ([Model; N], Vec<Peer>) {
    let (mut models, mut peers) = (Vec::new(), Vec::new());
    for number in (0..=u8::MAX).take(N) {
        let mut weights = made_up(300_000);
        weights.iter_mut().for_each(|byte| *byte ^= number);
        let model = Recipe::default().publish_weights(weights).await;
        peers.push(Peer::start(model.conduct()).await);
        models.push(model);
    }
    (models.try_into().unwrap(), peers)
}

/// A settings file with these tables of contracts, all of which are read at the chain's node unless they say otherwise.
fn settings(home: &Home, chain: &Chain, peers: &[Peer], tables: &str) {
    let peers: Vec<_> = peers.iter().map(Peer::address).collect();
    let url = chain.devnet().rpc_url_text();
    let text =
        format!("peer = {peers:?}\nrpc-url = '{url}'\npoll-interval = '100ms'\nlisten = '{TCP}'\n{tables}");
    put(&home.path("loader.toml"), text.as_bytes());
}

/// The contract and the model of an answer.
fn named(line: &str) -> (String, String) {
    let answer: Value = serde_json::from_str(line).unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{line}")).to_owned();
    (text(&answer["chain"]["contract"]), text(&answer["manifest"]))
}

fn target(home: &Home, link: &str) -> PathBuf {
    std::fs::read_link(home.path(link)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_contract_is_followed_as_if_it_were_alone() {
    let (([a, b, c, d, e], peers), chain, home) = (models().await, Chain::start().await, Home::new());
    let (first, second) = (chain.devnet().contract(), chain.another().await);
    let table = |contract: &str, more: &str| format!("[[contract]]\naddress = '{contract}'\n{more}\n");
    let exec = "exec = 'echo \"ran for $LOADER_CONTRACT $LOADER_MANIFEST\"'";
    let tables = table(&first.to_string(), &format!("link = 'one'\nkeep = 1\n{exec}"))
        + &table(&second.to_string(), &format!("link = 'two'\n{exec}"))
        + &table(NOWHERE, &format!("rpc-url = '{DEAD}'\nlink = 'three'"));
    settings(&home, &chain, &peers, &tables);
    chain.set(&a.id).await;
    chain.set_of(second, &b.id).await;
    let mut watching = home.start(["--config", "loader.toml", "watch", "--http", "127.0.0.1:0"]);
    let http = Http::of(&mut watching).await;
    let mut found = vec![named(&watching.line(0).await), named(&watching.line(1).await)];
    found.sort();
    let mut expected = vec![(first.to_string(), a.id.clone()), (second.to_string(), b.id.clone())];
    expected.sort();
    assert_eq!(found, expected);
    watching.says(&format!("ran for {first} {}", a.id)).await;
    watching.says(&format!("ran for {second} {}", b.id)).await;
    watching.says(&format!("{NOWHERE}: ")).await;

    // Each changes by itself.
    chain.set_of(second, &c.id).await;
    assert_eq!(named(&watching.line(2).await), (second.to_string(), c.id.clone()));
    watching.says(&format!("ran for {second} {}", c.id)).await;
    chain.set(&d.id).await;
    assert_eq!(named(&watching.line(3).await), (first.to_string(), d.id.clone()));
    watching.says(&format!("ran for {first} {}", d.id)).await;
    chain.set(&e.id).await;
    assert_eq!(named(&watching.line(4).await), (first.to_string(), e.id.clone()));
    for (link, model) in [("one", &e), ("two", &c)] {
        assert!(target(&home, link).to_string_lossy().contains(&model.id), "{link}");
    }
    assert!(!home.path("three").exists());
    // One keeps the last and what its link led to before, and the other all.
    let is_there = |model: &Model| home.cache("models").join(&model.id).exists();
    watching.says(&format!("{first}: model {} is removed", a.id)).await;
    soon("the first model to be gone", async { while is_there(&a) {} }).await;
    assert!([&b, &c, &d, &e].into_iter().all(is_there));

    let status = home.run(["status"]).await.answer();
    let contract = |chain: &Value| chain["contract"].as_str().unwrap().to_owned();
    let more: Vec<_> = status["more_chains"].as_array().unwrap().iter().map(contract).collect();
    assert_eq!(
        (contract(&status["chain"]), more),
        (first.to_string(), vec![second.to_string(), NOWHERE.to_owned()])
    );
    let plain = home.plain(["status"]).await.expect(0).stdout;
    let metrics = http.get("/metrics").await.body;
    let swarm: Value = serde_json::from_str(&http.get("/swarm.json").await.body).unwrap();
    assert_eq!(swarm["chains"].as_array().unwrap().len(), 3);
    for contract in [&first.to_string(), &second.to_string(), NOWHERE] {
        assert!(plain.contains(contract), "{plain}");
        assert!(
            metrics.contains(&format!("loader_chain_rounds_total{{contract=\"{contract}\"")),
            "{metrics}"
        );
    }
    assert!(metrics.contains(&format!("loader_chain_height{{contract=\"{second}\"}}")), "{metrics}");
    watching.terminate().await;
    watching.outcome().await.expect(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seeder_serves_the_models_of_all_and_names_them() {
    let (([a, b], peers), chain, home) = (models().await, Chain::start().await, Home::new());
    let second = chain.another().await;
    let tables = format!(
        "[[contract]]\naddress = '{}'\n[[contract]]\naddress = '{second}'\n[[contract]]\naddress = '{NOWHERE}'\n\
         rpc-url = '{DEAD}'\n",
        chain.contract()
    );
    settings(&home, &chain, &peers, &tables);
    chain.set(&a.id).await;
    chain.set_of(second, &b.id).await;
    let mut seeder = e2e::Process::start(home.command(["--config", "loader.toml", "serve"]));
    let told = seeder.prints(|text| text.matches("  ").count() == 2).await;
    for (contract, model) in [(chain.contract(), &a), (second.to_string(), &b)] {
        let weights = home.cache("models").join(&model.id).join("weights");
        assert!(told.contains(&format!("{contract}  {}\n", weights.display())), "{told}");
    }
    let address = told.lines().find(|line| line.starts_with("/ip4/")).unwrap();
    for model in [&a, &b] {
        Home::new().fetch(model, &[address]).await;
    }
    // A contract that is named has its table, and is the only one.
    let line = ["--config", "loader.toml", "fetch", "--contract", &second.to_string()];
    assert_eq!(home.run(line).await.answer()["manifest"], *b.id);
    let line = ["--config", "loader.toml", "fetch", "--contract", NOWHERE];
    assert!(home.run(line).await.failure(4).contains("127.0.0.1:1"), "its table has another endpoint");
    let checked = home.run(["--config", "loader.toml", "doctor"]).await.expect(1).answers();
    let contracts: Vec<_> =
        checked.iter().filter(|one| one["check"] == "contract").map(|one| &one["state"]).collect();
    assert_eq!(contracts, ["ok", "ok", "bad"]);
    seeder.terminate().await;
    seeder.outcome().await.expect(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_two_contracts_cannot_share_is_told() {
    let (chain, home) = (Chain::start().await, Home::new());
    let contract = chain.contract();
    for (tables, part) in [
        (format!("[[contract]]\naddress = '{contract}'\n").repeat(2), "stands here already"),
        (
            format!(
                "link = 'm'\n[[contract]]\naddress = '{contract}'\n[[contract]]\naddress = '{NOWHERE}'\n"
            ),
            "two contracts have the link",
        ),
    ] {
        settings(&home, &chain, &[], &tables);
        for command in ["watch", "serve"] {
            let told = home.run(["--config", "loader.toml", command]).await.failure(2);
            assert!(told.contains(part), "{told}");
        }
    }
    let shown = home.plain(["--config", "loader.toml", "config", "show", "watch"]).await.expect(0).stdout;
    assert!(shown.contains(&format!("contract.2.contract  {NOWHERE}  (file loader.toml:9)")), "{shown}");
}
