//! Models that are folders.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;

use e2e::{Fetched, Home, Model, Peer, Process, Seeder, Tree, put, python_peer};
use manifest::{Digest, Layout};
use serde_json::Value;
use tokio::process::Command;

/// Each layout, one in which files are shards and one in which they lie across them.
async fn both_layouts(tree: &Tree) -> [Model; 2] {
    let models = [tree.publish(&["--layout", "files"]).await, tree.publish(&["--layout", "rows"]).await];
    assert_eq!(models.each_ref().map(|model| model.manifest.layout()), [Layout::LayerWise, Layout::Uniform]);
    models
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_arrives_as_it_was_published() {
    let tree = Tree::sample();
    for model in both_layouts(&tree).await {
        let home = Home::new();
        let seeder = Seeder::start(&model, &model.shards_but(&[])).await;
        let fetched = home.fetch(&model, &[seeder.address()]).await;
        assert_eq!((fetched.weights, fetched.rebuilt_bytes), (None, 0));
        assert_eq!(fetched.fetched_bytes, model.weights.len() as u64 + padding(&model));
        drop(seeder);
        // Again, and by a process that hashes it first.
        assert!(home.fetch(&model, &[]).await.from_cache);
        assert_eq!(home.run(["verify", &model.id]).await.answer()["good"], true);
        let path = home.run(["cache", "path", &model.id]).await.answer();
        assert_eq!(path["path"].as_str(), fetched.path.to_str());
        for (name, _) in &tree.0 {
            assert!(fetched.path.join(name).exists(), "{name}");
        }
    }
}

fn padding(model: &Model) -> u64 {
    match model.manifest.layout() {
        Layout::Uniform => {
            u64::from(model.manifest.data()) * model.manifest.row_size_bytes() - model.weights.len() as u64
        }
        Layout::LayerWise => 0,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_file_has_its_sha256_and_where_it_is_a_shard_that_is_proven() {
    let tree = Tree::sample();
    for model in both_layouts(&tree).await {
        for file in model.manifest.files() {
            let (_, bytes) = tree.0.iter().find(|(name, _)| name == file.path().as_str()).unwrap();
            assert_eq!(*file.sha256(), Digest::of(bytes), "{}", file.path());
            let is_shard = model.manifest.layout() == Layout::LayerWise && !bytes.is_empty();
            assert_eq!(model.manifest.shard_of_file(file).is_some(), is_shard, "{}", file.path());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_lost_of_a_folder_is_rebuilt_and_a_liar_changes_nothing() {
    for model in both_layouts(&Tree::sample()).await {
        let home = Home::new();
        let lost: &[usize] =
            if model.manifest.layout() == Layout::Uniform { &[0, 3, 9, 11] } else { &[0, 4] };
        let seeder = Seeder::start(&model, &model.shards_but(lost)).await;
        let liar = Peer::start(model.conduct().lying_about(model.shards())).await;
        let fetched = home.fetch(&model, &[seeder.address(), liar.address()]).await;
        assert!(fetched.rebuilt_bytes > 0, "{fetched:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn python_peers_seed_a_folder_and_fetch_a_file_of_it_by_its_digest() {
    let model = Tree::sample().publish(&["--layout", "files"]).await;
    let folder = model.folder(&model.shards_but(&[0]));
    let [interpreter, script] = python_peer();
    let python = |args: &[&OsStr]| {
        let mut command = Command::new(&interpreter);
        command.arg(&script).args(args);
        Process::start(command)
    };
    let mut peer = python(&["serve".as_ref(), folder.path().as_ref()]);
    let (home, address) = (Home::new(), peer.first_line().await);
    let fetched = home.fetch(&model, &[&address]).await;
    assert!(fetched.rebuilt_bytes > 0);
    let mut seeder = home.start(["serve", "--listen", e2e::TCP]);
    let listening: Value = serde_json::from_str(&seeder.first_line().await).unwrap();
    let config = model.manifest.files().iter().find(|file| file.path().as_str() == "config.json").unwrap();
    let (into, blob) = (home.path("config"), config.sha256().to_string());
    let address = listening["address"].as_str().unwrap();
    python(&["fetch".as_ref(), address.as_ref(), blob.as_ref(), into.as_ref()]).outcome().await.expect(0);
    assert!(fs::read(into).unwrap() == fs::read(fetched.path.join("config.json")).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_in_a_file_and_a_file_that_is_gone_are_made_good() {
    for model in both_layouts(&Tree::sample()).await {
        let home = Home::new();
        let seeder = Seeder::start(&model, &model.shards_but(&[])).await;
        let fetched = home.fetch(&model, &[seeder.address()]).await;
        let file = |name: &str| fetched.path.join(name);
        let bytes = fs::read(file("config.json")).unwrap();
        fs::remove_file(file("config.json")).unwrap();
        put(&file("config.json"), &[&[bytes[0] ^ 1], &bytes[1..]].concat());
        fs::remove_file(file("model-00002-of-00003.safetensors")).unwrap();
        fs::remove_file(file("empty")).unwrap();
        let bad = home.run(["verify", &model.id]).await;
        assert_eq!(bad.status, Some(3), "{}", bad.stdout);
        let again = home.fetch(&model, &[seeder.address()]).await;
        let moved = again.fetched_bytes;
        assert!((640_000..1_100_000).contains(&moved), "{moved} of {}", model.weights.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_keeps_its_name_and_without_names_it_is_weights() {
    let (home, fetcher) = (Home::new(), Home::new());
    put(&home.path("tiny.gguf"), &e2e::made_up(100_000));
    let publish = ["publish", "--model-kind", "simplenet"];
    let named = home.run(publish.into_iter().chain(["tiny.gguf"])).await.answer();
    assert!(named["path"].as_str().unwrap().ends_with("/files/tiny.gguf"), "{named}");
    assert_eq!(named["weights"], named["path"]);
    let unnamed = home.run(publish.into_iter().chain(["tiny.gguf", "--no-names"])).await.answer();
    assert!(unnamed["path"].as_str().unwrap().ends_with("/weights"), "{unnamed}");
    assert_ne!(named["manifest"], unnamed["manifest"]);
    let mut seeder = home.start(["serve", "--listen", e2e::TCP]);
    let listening: Value = serde_json::from_str(&seeder.first_line().await).unwrap();
    let id = named["manifest"].as_str().unwrap();
    let fetch = ["fetch", "--manifest", id, "--peer", listening["address"].as_str().unwrap()];
    let fetched = Fetched::of(fetcher.run(fetch).await);
    assert!(fs::read(&fetched.path).unwrap() == e2e::made_up(100_000));
    assert!(fetched.path.ends_with("files/tiny.gguf"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hubs_snapshot_is_published_as_it_is() {
    let home = Home::new();
    let (blobs, snapshot) = (home.path("hub/models--x/blobs"), home.path("hub/models--x/snapshots/abc"));
    Tree::of_sizes([("aaaa", 1000), ("bbbb", 2_000_000)]).write_to(&blobs);
    fs::create_dir_all(&snapshot).unwrap();
    symlink("../../blobs/aaaa", snapshot.join("config.json")).unwrap();
    symlink("../../blobs/bbbb", snapshot.join("model.safetensors")).unwrap();
    let publish = ["publish", "--model-kind", "simplenet", snapshot.to_str().unwrap()];
    let published = home.run(publish).await.answer();
    let path = std::path::Path::new(published["path"].as_str().unwrap());
    for (name, blob) in [("config.json", "aaaa"), ("model.safetensors", "bbbb")] {
        assert!(path.join(name).symlink_metadata().unwrap().is_file());
        assert!(fs::read(path.join(name)).unwrap() == fs::read(blobs.join(blob)).unwrap());
    }
}
