//! Contracts that name the weights themselves, as before there were manifests.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use e2e::{Chain, Conduct, Fetched, Home, Peer, Process, TCP, made_up, python_peer};
use manifest::Digest;
use tokio::process::Command;

/// Weights that are too large for a manifest.
const LARGE: usize = (16 << 20) + 4321;

/// Somebody who has the blob in a folder.
struct Holder {
    process: Process,
    address: String,
    _home: Home,
}

impl Holder {
    async fn start(blob: Digest, bytes: &[u8]) -> Self {
        let home = Home::new();
        let folder = folder(&home, blob, bytes);
        let args = ["serve", "--listen", TCP, "--blob-dir"].map(OsStr::new);
        let process = Process::start(home.command(args.into_iter().chain([folder.as_os_str()])));
        Self::up(process, home).await
    }

    /// The existing Python software, which speaks 1.0.0.
    async fn python(blob: Digest, bytes: &[u8]) -> Self {
        let home = Home::new();
        let folder = folder(&home, blob, bytes);
        let [interpreter, script] = python_peer();
        let mut command = Command::new(interpreter);
        command.arg(script).arg("serve").arg(folder);
        Self::up(Process::start(command), home).await
    }

    async fn up(mut process: Process, home: Home) -> Self {
        let address = process.first_line().await;
        Self { process, address, _home: home }
    }
}

fn folder(home: &Home, blob: Digest, bytes: &[u8]) -> PathBuf {
    let folder = home.path("blobs");
    std::fs::create_dir(&folder).unwrap();
    File::create(folder.join(blob.to_string())).unwrap().write_all(bytes).unwrap();
    folder
}

/// `loader fetch` of what the contract names.
async fn fetch(home: &Home, chain: &Chain, peers: &[&str], flags: &[&str]) -> e2e::Outcome {
    let peers = peers.iter().flat_map(|peer| ["--peer", peer]).chain(flags.iter().copied());
    let args = ["fetch"].into_iter().chain(peers).map(str::to_owned);
    home.run(args.chain(chain.flags())).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contract_that_names_weights_is_loaded_when_that_is_allowed() {
    for length in [300_000, LARGE] {
        let bytes = made_up(length);
        let blob = Digest::of(&bytes);
        let (chain, home) = (Chain::start().await, Home::new());
        chain.set(&blob.to_string()).await;
        let ours = Holder::start(blob, &bytes).await;

        let error = fetch(&home, &chain, &[&ours.address], &["--wait", "1s"]).await;
        let status = if length == LARGE { 4 } else { 3 };
        assert!(error.failure(status).contains("--single-blob"), "the error says what to do");
        let error = fetch(&home, &chain, &[&ours.address], &["--single-blob", "--max-size", "100KiB"]).await;
        let _ = error.failure(2);

        let python = Holder::python(blob, &bytes).await;
        for peer in [&ours.address, &python.address] {
            let home = Home::new();
            let fetched = Fetched::of(fetch(&home, &chain, &[peer], &["--single-blob"]).await);
            assert!(std::fs::read(&fetched.path).unwrap() == bytes, "other bytes than the contract names");
            // Nobody is asked again.
            let again = Fetched::of(fetch(&home, &chain, &[], &["--single-blob"]).await);
            assert!(again.from_cache && again.weights == fetched.weights);
            assert_eq!(again.manifest, fetched.manifest);
        }
        ours.process.terminate().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_liar_about_the_size_does_not_win_and_what_was_loaded_is_served() {
    let bytes = made_up(LARGE);
    let blob = Digest::of(&bytes);
    let chain = Chain::start().await;
    chain.set(&blob.to_string()).await;
    let lie = Conduct::sending([(blob, Arc::new(made_up(LARGE - 1000)))].into());
    let liars = [Peer::start(lie.clone()).await, Peer::start(lie.speaking_1_0_0()).await];
    let honest = Holder::start(blob, &bytes).await;
    let home = Home::new();
    let peers = [liars[0].address(), liars[1].address(), &honest.address];
    let fetched = Fetched::of(fetch(&home, &chain, &peers, &["--single-blob"]).await);
    assert!(std::fs::read(&fetched.path).unwrap() == bytes);
    assert!(fetched.source(honest.address.rsplit_once("/p2p/").unwrap().1).good_bytes >= LARGE as u64);

    let mut serving = home.start(["serve", "--listen", TCP]);
    let listening: serde_json::Value = serde_json::from_str(&serving.first_line().await).unwrap();
    let address = listening["address"].as_str().unwrap();
    let other = Home::new();
    let fetched = Fetched::of(fetch(&other, &chain, &[address], &["--single-blob"]).await);
    assert!(std::fs::read(&fetched.path).unwrap() == bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_loaded_a_blob_is_found_by_its_digest() {
    let bytes = made_up(300_000);
    let blob = Digest::of(&bytes);
    let (chain, hub, home, other) = (Chain::start().await, Home::new(), Home::new(), Home::new());
    chain.set(&blob.to_string()).await;
    let first = Holder::start(blob, &bytes).await;
    let _ = Fetched::of(fetch(&home, &chain, &[&first.address], &["--single-blob"]).await);
    first.process.terminate().await;

    let mut bootstrap = Process::start(hub.command(["serve", "--listen", TCP]));
    let address = bootstrap.first_line().await;
    let mut seeder = Process::start(home.command(["serve", "--listen", TCP, "--bootstrap", &address]));
    let _ = seeder.first_line().await;
    let flags = ["--single-blob", "--wait", "30s", "--bootstrap", &address];
    let fetched = Fetched::of(fetch(&other, &chain, &[], &flags).await);
    assert!(std::fs::read(&fetched.path).unwrap() == bytes);
}
