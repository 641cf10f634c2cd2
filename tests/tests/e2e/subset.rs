//! Fetching some files of a folder.

use std::fs;
use std::path::Path;

use e2e::{Fetched, Home, Model, Outcome, PIECE_BYTES, Seeder, TCP, Tree, put};

/// Four files of weights, and small ones before them.
fn tree() -> Tree {
    Tree::of_sizes([
        ("config.json", 612),
        ("sub/config.json", 40_000),
        ("empty.json", 0),
        ("model-1.safetensors", 600_000),
        ("model-2.safetensors", 600_000),
        ("model-3.safetensors", 600_000),
        ("model-4.safetensors", 600_000),
        ("tokenizer.model", 900),
    ])
}

async fn fetch(home: &Home, model: &Model, peer: &str, more: &[&str]) -> Outcome {
    let fixed = ["fetch", "--wait", "1s", "--manifest", &model.id, "--peer", peer];
    home.run(fixed.into_iter().chain(more.iter().copied())).await
}

/// Fails the test unless just these files of the tree are in place.
fn assert_just(path: &Path, names: &[&str]) {
    let mut tree = tree();
    tree.0.retain(|(name, _)| names.contains(&name.as_str()));
    tree.assert_is(path);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_pieces_of_the_files_that_match_move_and_more_later_goes_on_from_there() {
    for layout in ["files", "rows"] {
        let (model, home) = (tree().publish(&["--layout", layout]).await, Home::new());
        let seeder = Seeder::start(&model, &model.shards_but(&[])).await;
        let address = seeder.address();
        let json = Fetched::of(fetch(&home, &model, address, &["--files", "*.json"]).await);
        assert!(!json.complete && json.weights.is_none());
        assert_just(&json.path, &["config.json", "sub/config.json", "empty.json"]);
        assert!(json.fetched_bytes <= 3 * PIECE_BYTES as u64, "{layout}: {json:?}");
        // Nothing is asked of anybody for what is there.
        let again = Fetched::of(fetch(&home, &model, address, &["--files", "config.json"]).await);
        assert!(again.from_cache && again.path == json.path);
        let listed = home.run(["cache", "ls"]).await.answer();
        assert_eq!(listed["finished"], false, "{listed}");

        let more = ["--files", "model-*", "--exclude", "*-[34].*"];
        let some = Fetched::of(fetch(&home, &model, address, &more).await);
        assert!(!some.complete);
        let names =
            ["config.json", "sub/config.json", "empty.json", "model-1.safetensors", "model-2.safetensors"];
        assert_just(&some.path, &names);
        let border = 4 * PIECE_BYTES as u64;
        assert!(some.fetched_bytes <= 1_200_000 + border && some.resumed_bytes > 0, "{layout}: {some:?}");

        let rest = home.fetch(&model, &[address]).await;
        assert!(rest.complete);
        let moved = json.fetched_bytes + some.fetched_bytes + rest.fetched_bytes;
        assert_eq!(moved, model.weights.len() as u64 + padding(&model), "nothing twice");
        assert!(!home.cache("partial").join(&model.id).exists());
        assert_eq!(home.run(["verify", &model.id]).await.answer()["good"], true);
        // What is there is more than was asked for.
        assert!(Fetched::of(fetch(&home, &model, address, &["--files", "*.json"]).await).from_cache);
    }
}

fn padding(model: &Model) -> u64 {
    match model.manifest.layout() {
        manifest::Layout::Uniform => {
            u64::from(model.manifest.data()) * model.manifest.row_size_bytes() - model.weights.len() as u64
        }
        manifest::Layout::LayerWise => 0,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_file_is_rebuilt_from_its_columns() {
    let (model, home) = (tree().publish(&["--layout", "files"]).await, Home::new());
    let lost =
        model.manifest.files().iter().find(|file| file.path().as_str() == "model-2.safetensors").unwrap();
    let lost = model.manifest.shard_of_file(lost).unwrap() as usize;
    let seeder = Seeder::start(&model, &model.shards_but(&[lost])).await;
    let one = Fetched::of(fetch(&home, &model, seeder.address(), &["--files", "model-2*"]).await);
    assert_just(&one.path, &["model-2.safetensors"]);
    assert!(one.rebuilt_bytes >= 600_000, "{one:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_bad_in_place_is_put_right_and_nobody_who_has_it_sees_it_change() {
    let (model, home) = (tree().publish(&["--layout", "rows"]).await, Home::new());
    let seeder = Seeder::start(&model, &model.shards_but(&[])).await;
    let some = Fetched::of(fetch(&home, &model, seeder.address(), &["--files", "*.json"]).await);
    let (path, other) = (some.path.join("sub/config.json"), home.path("other"));
    let right = fs::read(&path).unwrap();
    // Bytes of the same length, as a disk that flips bits leaves them.
    let mut wrong = right.clone();
    wrong[7] ^= 1;
    fs::remove_file(&path).unwrap();
    put(&path, &wrong);
    fs::hard_link(&path, &other).unwrap();
    let again = Fetched::of(fetch(&home, &model, seeder.address(), &["--files", "*.json"]).await);
    assert!(!again.from_cache && again.fetched_bytes > 0, "{again:?}");
    assert!(fs::read(&path).unwrap() == right);
    assert!(fs::read(&other).unwrap() == wrong, "the bad file itself was not written to");
    assert_just(&again.path, &["config.json", "sub/config.json", "empty.json"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_matches_nothing_is_told_with_the_names_there_are() {
    let (model, home) = (tree().publish(&[]).await, Home::new());
    let seeder = Seeder::start(&model, &model.shards_but(&[])).await;
    let refused = fetch(&home, &model, seeder.address(), &["--files", "*.gguf"]).await.failure(2);
    assert!(refused.contains("*.gguf") && refused.contains("tokenizer.model"), "{refused}");
    let refused = fetch(&home, &model, seeder.address(), &["--files", "[x"]).await.failure(2);
    assert!(refused.contains("\"[x\""), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_partly_there_is_removed_as_a_whole() {
    let (model, home) = (tree().publish(&[]).await, Home::new());
    let seeder = Seeder::start(&model, &model.shards_but(&[])).await;
    fetch(&home, &model, seeder.address(), &["--files", "*.json"]).await.expect(0);
    home.run(["cache", "rm", &model.id]).await.expect(0);
    home.assert_has_nothing_of(&model.id);
    home.fetch(&model, &[seeder.address()]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_there_is_of_a_model_is_served_by_a_later_process() {
    let (model, some, other) = (tree().publish(&["--layout", "files"]).await, Home::new(), Home::new());
    let seeder = Seeder::start(&model, &model.shards_but(&[])).await;
    fetch(&some, &model, seeder.address(), &["--files", "*.json"]).await.expect(0);
    drop(seeder);
    let mut serving = some.start(["serve", "--listen", TCP]);
    let listening: serde_json::Value = serde_json::from_str(&serving.first_line().await).unwrap();
    let address = listening["address"].as_str().unwrap();
    // It is hashed first, so there is nothing to be had at first.
    let fetch = ["fetch", "--wait", "30s", "--manifest", &model.id, "--peer", address, "--files", "*.json"];
    let json = Fetched::of(other.run(fetch).await);
    assert_just(&json.path, &["config.json", "sub/config.json", "empty.json"]);
}
