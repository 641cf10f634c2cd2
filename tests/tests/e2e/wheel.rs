//! The Python wheel, installed into a fresh environment.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;

use e2e::{
    Chain, Conduct, Home, Outcome, Peer, Process, TCP, Tree, made_up, put, python_peer, real_inputs,
    wheel_script,
};
use manifest::Digest;
use serde_json::{Value, json};
use tokio::process::Command;

/// Where nobody is.
const NOBODY: &str = "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWGzxzKZYveHXtpG6AsrUJBcWxHBFS2HsEoGTxrMLvKXtf";

/// Starts a scenario of tests/python/wheel/scenarios.py.
fn start(scenario: &str, home: &Home, arguments: &Value) -> Process {
    let [interpreter, script] = wheel_script("scenarios.py");
    let mut command = Command::new(interpreter);
    command.env_clear().env("HOME", home.path("")).arg(script).arg(scenario).arg(arguments.to_string());
    Process::start(command)
}

/// What it says at its end. Nothing else may have been printed: a library does not.
fn said(outcome: Outcome) -> Value {
    let outcome = outcome.expect(0);
    assert_eq!(outcome.stderr, "", "nothing is printed");
    serde_json::from_str(outcome.stdout.lines().last().unwrap()).unwrap()
}

async fn run(scenario: &str, home: &Home, arguments: &Value) -> Value {
    said(start(scenario, home, arguments).outcome().await)
}

/// Publishes this folder: the digest.
async fn published(home: &Home, folder: &Path) -> String {
    let publish = ["publish", "--model-kind", "simplenet"].map(AsRef::as_ref);
    let published = home.run(publish.into_iter().chain([folder.as_os_str()])).await.answer();
    published["manifest"].as_str().unwrap().to_owned()
}

/// A home that has published this folder and serves it: the digest, the address, and the process.
async fn serving(home: &Home, folder: &Path) -> (String, String, Process) {
    let id = published(home, folder).await;
    let mut seeder = home.start(["serve", "--listen", TCP]);
    let listening: Value = serde_json::from_str(&seeder.first_line().await).unwrap();
    (id, listening["address"].as_str().unwrap().to_owned(), seeder)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_model_is_named_by_a_contract_and_run_from_views_of_its_map() {
    let found = real_inputs(&["minilm-path".as_ref()]).await.expect(0).stdout;
    let (publisher, home, chain) = (Home::new(), Home::new(), Chain::start().await);
    let (id, address, _seeder) = serving(&publisher, Path::new(found.trim())).await;
    chain.set(&id).await;
    let [_, _, _, rpc] = chain.flags();
    let reference = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/minilm_reference.json");
    let arguments = json!({
        "contract": chain.contract(), "rpc": rpc, "peers": [address], "cache": home.path("cache"),
        "reference": reference,
    });
    let said = run("minilm", &home, &arguments).await;
    assert_eq!(said["digest"], id);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_server_swaps_models_and_loses_no_request() {
    let found = real_inputs(&["minilm-path".as_ref()]).await.expect(0).stdout;
    let (publisher, home, chain) = (Home::new(), Home::new(), Chain::start().await);
    let first = Tree::read(Path::new(found.trim()));
    let mut second = first.clone();
    let config = second.0.iter_mut().find(|(path, _)| path == "config.json").unwrap();
    config.1.extend_from_slice(b"\n");
    let mut ids = Vec::new();
    for (number, tree) in [first, second].iter().enumerate() {
        let folder = publisher.path(format!("folder-{number}"));
        tree.write_to(&folder);
        ids.push(published(&publisher, &folder).await);
    }
    let mut seeder = publisher.start(["serve", "--listen", TCP]);
    let listening: Value = serde_json::from_str(&seeder.first_line().await).unwrap();
    let [_, _, _, rpc] = chain.flags();
    let arguments = json!({
        "contract": chain.contract(), "rpc": rpc, "peer": listening["address"], "cache": home.path("cache"),
    });
    chain.set(&ids[0]).await;
    let mut serving = start("server", &home, &arguments);
    for (number, id) in ids.iter().enumerate() {
        chain.set(id).await;
        let line: Value = serde_json::from_str(&serving.line(number).await).unwrap();
        assert_eq!(line["serving"], *id);
    }
    let said = said(serving.outcome().await);
    assert!(said["requests"].as_u64().unwrap() > 1, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_code_of_the_documentation_runs() {
    let found = real_inputs(&["minilm-path".as_ref()]).await.expect(0).stdout;
    let (publisher, home, chain) = (Home::new(), Home::new(), Chain::start().await);
    let (id, address, _seeder) = serving(&publisher, Path::new(found.trim())).await;
    chain.set(&id).await;
    let [_, _, _, rpc] = chain.flags();
    let arguments = json!({
        "page": Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/python.md"), "manifest": id,
        "contract": chain.contract(), "rpc": rpc, "peers": [address], "cache": home.path("cache"),
    });
    let said = run("docs", &home, &arguments).await;
    assert!(said["blocks"].as_u64().unwrap() >= 5, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_and_some_files_and_some_rows_are_arrays() {
    let (publisher, home) = (Home::new(), Home::new());
    let folder = publisher.path("folder");
    real_inputs(&["make-parts".as_ref(), folder.as_ref()]).await.expect(0);
    let (id, address, _seeder) = serving(&publisher, &folder).await;
    let arguments = json!({"manifest": id, "peer": address, "cache": home.path("cache")});
    let said = run("parts", &home, &arguments).await;
    assert!(said["empty"].as_u64().unwrap() > 0, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tensors_come_while_their_model_is_fetched() {
    let (publisher, home) = (Home::new(), Home::new());
    let folder = publisher.path("folder");
    real_inputs(&["make-parts".as_ref(), folder.as_ref()]).await.expect(0);
    let (id, address, _seeder) = serving(&publisher, &folder).await;
    let arguments = json!({"manifest": id, "peer": address, "nobody": NOBODY, "cache": home.path("cache")});
    let said = run("stream", &home, &arguments).await;
    assert!(said["tensors"].as_u64().unwrap() > 4, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn exceptions_are_by_what_to_do_and_rot_on_the_disk_is_told_and_healed() {
    let (publisher, home) = (Home::new(), Home::new());
    let folder = publisher.path("folder");
    Tree::of_sizes([("config.json", 600), ("weights.bin", 3_000_000)]).write_to(&folder);
    let (id, address, _seeder) = serving(&publisher, &folder).await;
    let arguments = json!({"manifest": id, "peer": address, "cache": home.path("cache"), "nobody": NOBODY});
    let said = run("mistakes", &home, &arguments).await;
    assert!(said["usage"][0].as_str().unwrap().contains("contract="), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn interrupts_and_cancelled_tasks_end_a_load() {
    let home = Home::new();
    let arguments = json!({"manifest": "ab".repeat(32), "nobody": NOBODY, "cache": home.path("cache")});
    // Each would wait for ten minutes.
    let said = run("interrupted", &home, &arguments).await;
    assert!(said["ctrl_c_s"].is_number() && said["cancel_s"].is_number(), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contract_is_followed_while_a_server_keeps_answering() {
    let (publisher, home, chain) = (Home::new(), Home::new(), Chain::start().await);
    let mut ids = Vec::new();
    for version in ["1", "2"] {
        let folder = publisher.path(format!("folder-{version}"));
        Tree::of_sizes([("weights.bin", 500_000)]).write_to(&folder);
        put(&folder.join("version.txt"), version.as_bytes());
        ids.push(published(&publisher, &folder).await);
    }
    let mut seeder = publisher.start(["serve", "--listen", TCP]);
    let listening: Value = serde_json::from_str(&seeder.first_line().await).unwrap();
    chain.set(&ids[0]).await;
    let [_, _, _, rpc] = chain.flags();
    let arguments = json!({
        "contract": chain.contract(), "rpc": rpc, "peer": listening["address"], "cache": home.path("cache"),
    });
    let mut watching = start("watch", &home, &arguments);
    for (number, id) in ids.iter().enumerate() {
        chain.set(id).await;
        let ready: Value = serde_json::from_str(&watching.line(number).await).unwrap();
        assert_eq!(ready["ready"], *id);
    }
    said(watching.outcome().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_takes_the_place_of_the_existing_nodes_blob_store() {
    let home = Home::new();
    let (here, there) = (home.path("here"), home.path("there"));
    for dir in [&here, &there] {
        std::fs::create_dir(dir).unwrap();
    }
    let (shared, pushed, theirs) = (made_up(700_000), made_up(300_000), Digest::of(b"theirs"));
    let (shared_digest, pushed_digest) = (Digest::of(&shared), Digest::of(&pushed));
    put(&here.join(theirs.to_string()), b"theirs");
    put(&there.join(pushed_digest.to_string()), &pushed);
    let honest = Conduct::sending([(shared_digest, Arc::new(shared))].into());
    let (liar, old_liar, honest) = (
        Peer::start(honest.clone().lying_about([shared_digest])).await,
        Peer::start(honest.clone().lying_about([shared_digest]).speaking_1_0_0()).await,
        Peer::start(honest.speaking_1_0_0()).await,
    );
    let arguments = json!({
        "cache": home.path("cache"), "blob_dir": here, "theirs": theirs.to_string(),
        "peers": [liar.address(), old_liar.address(), honest.address()],
        "shared": shared_digest.to_string(), "pushed": pushed_digest.to_string(),
    });
    let mut store = start("blobs", &home, &arguments);
    let up: Value = serde_json::from_str(&store.first_line().await).unwrap();
    let [interpreter, script] = python_peer();
    let python = |args: &[&OsStr]| {
        let mut command = Command::new(&interpreter);
        command.arg(&script).args(args);
        Process::start(command)
    };
    let (address, digest) = (up["address"].as_str().unwrap(), up["put"].as_str().unwrap());
    let into = home.path("blob");
    let told = python(&["told".as_ref(), address.as_ref(), digest.as_ref(), into.as_ref()]);
    told.outcome().await.expect(0);
    assert_eq!(Digest::of(&std::fs::read(&into).unwrap()).to_string(), digest);
    let _holder = python(&["hold".as_ref(), address.as_ref(), there.as_ref()]);
    let said = said(store.outcome().await);
    assert!(said["blobs"].as_u64().unwrap() >= 5, "{said}");
}
