//! Peers of the existing network: Python, py-libp2p, protocol 1.0.0.

use std::ffi::OsStr;

use e2e::{Home, Process, Recipe, Seeder, python_peer};
use tokio::process::Command;

/// Runs the Python peer with these arguments.
fn python(args: &[&OsStr]) -> Process {
    let [interpreter, script] = python_peer();
    let mut command = Command::new(interpreter);
    command.arg(script).args(args);
    Process::start(command)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_peer_seeds() {
    let model = Recipe::default().publish().await;
    let folder = model.folder(&model.shards_but(&[0, 13]));
    let mut peer = python(&["serve".as_ref(), folder.path().as_ref()]);
    let address = peer.first_line().await;
    let fetched = Home::new().fetch(&model, &[&address]).await;
    assert!(fetched.rebuilt_bytes >= 200_000, "{fetched:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_peer_and_ours_seed_together() {
    let model = Recipe::default().publish().await;
    let folder = model.folder(&[0, 1, 2, 3, 4]);
    let mut peer = python(&["serve".as_ref(), folder.path().as_ref()]);
    let address = peer.first_line().await;
    let ours = Seeder::start(&model, &[5, 6, 7, 8, 9]).await;
    let fetched = Home::new().fetch(&model, &[&address, ours.address()]).await;
    assert_eq!(fetched.source(ours.id()).good_bytes, 1_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_peer_fetches_from_ours() {
    let model = Recipe::default().publish().await;
    let (seeder, home) = (Seeder::start(&model, &[3]).await, Home::new());
    let into = home.path("blob");
    let fetch = |blob: String| {
        python(&["fetch".as_ref(), seeder.address().as_ref(), blob.as_ref(), into.as_ref()]).outcome()
    };
    for blob in [model.digest, model.shard(3)] {
        fetch(blob.to_string()).await.expect(0);
        assert!(std::fs::read(&into).unwrap() == **model.blobs[&blob]);
    }
    let outcome = fetch(model.shard(4).to_string()).await.expect(4);
    assert!(outcome.stderr.contains("is not there"), "{}", outcome.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_peer_is_told_what_ours_serves_and_asks_whoever_has_told_it() {
    let model = Recipe::default().publish().await;
    let (seeder, home) = (Seeder::start(&model, &[3]).await, Home::new());
    let into = home.path("blob");
    for blob in [model.digest, model.shard(3)] {
        let name = blob.to_string();
        let args = ["told", seeder.address(), &name].map(OsStr::new);
        python(&[args[0], args[1], args[2], into.as_ref()]).outcome().await.expect(0);
        assert!(std::fs::read(&into).unwrap() == **model.blobs[&blob]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_python_peer_tells_does_no_harm_whatever_it_is() {
    let model = Recipe::default().publish().await;
    let (seeder, home) = (Seeder::start(&model, &[3]).await, Home::new());
    let (into, name) = (home.path("blob"), model.shard(3).to_string());
    let args = ["odd", seeder.address(), &name].map(OsStr::new);
    python(&[args[0], args[1], args[2], into.as_ref()]).outcome().await.expect(0);
    assert!(std::fs::read(&into).unwrap() == **model.blobs[&model.shard(3)]);
}
