//! `loader doctor`: a line for each check, and what is wrong is found.

use std::net::TcpListener;

use e2e::{Chain, Home, Mood, Outcome, Peer, Process, Recipe, Rpc, TCP, put, read_only};
use serde_json::Value;

/// What the checks of this kind have found: state, subject, text.
fn found(outcome: &Outcome, check: &str) -> Vec<(String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let answers = outcome.answers();
    let of_kind = answers.iter().filter(|answer| answer["check"] == check);
    let found: Vec<_> =
        of_kind.map(|one| (text(&one["state"]), text(&one["subject"]), text(&one["text"]))).collect();
    assert!(!found.is_empty(), "no {check}: {outcome:?}");
    found
}

/// The one that is bad, of which there is something to do.
fn bad(outcome: Outcome, check: &str) -> String {
    let outcome = outcome.expect(1);
    let answers = outcome.answers();
    let bad: Vec<_> = answers.iter().filter(|answer| answer["state"] == "bad").collect();
    let [bad] = bad[..] else { panic!("not one bad thing: {outcome:?}") };
    assert_eq!(bad["check"], check, "{outcome:?}");
    assert!(bad["advice"].is_string(), "{bad}");
    assert!(answers.last().unwrap()["message"].as_str().unwrap().starts_with("1 of "), "{outcome:?}");
    format!("{} {}", bad["subject"].as_str().unwrap_or_default(), bad["text"].as_str().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn where_all_is_well_each_check_says_so() {
    let (model, chain, home) = (Recipe::default().publish().await, Chain::start().await, Home::new());
    let peer = Peer::start(model.conduct()).await;
    chain.set(&model.id).await;
    home.fetch(&model, &[peer.address()]).await;
    let flags = chain.flags();
    let doctor = ["doctor", "--listen", TCP, "--peer", peer.address()].into_iter();
    let doctor: Vec<_> = doctor.chain(flags.iter().map(String::as_str)).collect();
    let outcome = home.run(&doctor).await.expect(0);
    for answer in outcome.answers() {
        assert!(answer["state"] == "ok" && answer["advice"].is_null(), "{answer}");
    }
    for (check, part) in [
        ("cache", "locks work"),
        ("room", "free"),
        ("models", "1 finished, 0 partial"),
        ("identity", "12D3"),
        ("descriptors", "connections"),
        ("port", "free"),
        ("rpc", "has latest, safe, finalized; shows proofs"),
        ("clock", "not in the future"),
        ("contract", &format!("names model {}, which is in the cache", model.id)),
        ("quorum", "all do"),
        ("peer", &format!("{} (p2p-blob/", peer.id())),
        ("outside", "a peer reaches this machine at /ip4/127.0.0.1/tcp/"),
    ] {
        let told = found(&outcome, check);
        assert!(told.iter().any(|(_, _, text)| text.contains(part)), "{check}: {told:?}");
    }
    let plain = home.plain(&doctor).await.expect(0).stdout;
    assert_eq!(plain.lines().count(), outcome.answers().len(), "a line each: {plain}");
    assert!(plain.lines().all(|line| line.starts_with("ok       ")), "{plain}");
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_that_will_not_do_are_named() {
    let (chain, home) = (Chain::start().await, Home::new());
    chain.set(&"ab".repeat(32)).await;
    let rpcs = [Rpc::honest(&chain).await, Rpc::honest(&chain).await, Rpc::honest(&chain).await];
    let run = || {
        let contract = chain.contract();
        let urls = rpcs.iter().flat_map(|rpc| ["--rpc-url".to_owned(), rpc.url_with_key()]);
        let line = ["doctor", "--listen", TCP, "--contract", &contract].map(str::to_owned);
        home.run(line.into_iter().chain(urls).collect::<Vec<_>>())
    };
    let host = rpcs[2].url().trim_start_matches("http://");
    rpcs[2].set(Mood::Closing);
    let outcome = run().await;
    // The others are enough.
    assert_eq!(found(&outcome, "contract")[0].0, "ok");
    assert_eq!(found(&outcome, "quorum")[0].0, "warning");
    let told = format!("{}{}", outcome.stdout, outcome.stderr);
    assert!(rpcs.iter().all(|rpc| rpc.keys().shown_in(&told).is_none()), "{told}");
    assert!(bad(outcome, "rpc").starts_with(host));
    rpcs[2].set(Mood::result("0x5").on(&["eth_chainId"]));
    let told = bad(run().await, "rpc");
    assert!(told.starts_with(host) && told.contains("is on chain 5, expected chain 31337"), "{told}");
    rpcs[2].set(Mood::error(-32602, "unknown block tag").on(&["eth_getBlockByNumber"]));
    assert!(bad(run().await, "rpc").starts_with(host));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_not_there_and_a_port_that_is_taken_are_named() {
    let home = Home::new();
    let nowhere = "/ip4/127.0.0.1/tcp/1";
    let told = bad(home.run(["doctor", "--listen", TCP, "--peer", nowhere]).await, "peer");
    assert!(told.starts_with(nowhere) && told.contains("refused"), "{told}");

    let peer = Peer::start(Recipe::default().publish().await.conduct()).await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let listen = format!("/ip4/127.0.0.1/tcp/{port}");
    let told = bad(home.run(["doctor", "--peer", peer.address(), "--listen", &listen]).await, "port");
    let holder = format!("process {} (", std::process::id());
    assert!(told.starts_with(&listen) && told.contains(&holder), "{told}");
    let http = port.to_string();
    let line = ["doctor", "--peer", peer.address(), "--listen", TCP, "--http", &http];
    assert!(bad(home.run(line).await, "port").contains(&holder));

    // That of the node itself is no fault.
    drop(taken);
    let mut serving = home.start(["serve", "--listen", &listen]);
    serving.first_line().await;
    let outcome = home.run(["doctor", "--peer", peer.address(), "--listen", &listen]).await.expect(0);
    let told = &found(&outcome, "port")[0].2;
    assert!(told.contains(&format!("process {}, a node of this cache", serving.id())), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_that_cannot_be_written_to_is_bad() {
    let (model, home) = (Recipe::default().publish().await, Home::new());
    let peer = Peer::start(model.conduct()).await;
    home.fetch(&model, &[peer.address()]).await;
    let mut command = home.command(["--json", "doctor", "--listen", TCP, "--peer"]);
    command.arg(peer.address());
    let told = bad(Process::start(read_only(&home.cache(""), &command)).outcome().await, "cache");
    assert!(told.contains("read-only"), "{told}");
    // Nothing is created where there is nothing.
    let home = Home::new();
    home.run(["doctor", "--listen", TCP, "--peer", peer.address()]).await.expect(0);
    assert!(!home.cache("").exists());
    put(&home.path("file"), b"");
    let line = ["--cache-dir", "file", "doctor", "--listen", TCP, "--peer", peer.address()];
    bad(home.run(line).await, "cache");
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_make_no_sense_are_found_beside_the_rest() {
    let home = Home::new();
    let line = ["doctor", "--listen", TCP, "--contract", "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"];
    let outcome = home.run(line).await;
    assert_eq!(found(&outcome, "peer")[0].0, "warning", "nobody is named");
    assert!(bad(outcome, "settings").contains("--rpc-url"));
}
