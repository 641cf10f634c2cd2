//! What the network's own sharder wrote becomes a model that can be fetched, rebuilt and opened by the names of its layers.

use std::fs;
use std::path::PathBuf;

use e2e::{Home, TCP, put, sharder};
use serde_json::Value;

/// The sharder's blobs and list in a home.
async fn shard(home: &Home, strategy: &str) -> (PathBuf, Vec<u8>) {
    let blobs = home.path("blobs");
    fs::create_dir(&blobs).unwrap();
    sharder(strategy, &blobs, &home.path("shards.json")).await.expect(0);
    (blobs, fs::read(home.path("shards.weights")).unwrap())
}

const ASSEMBLE: [&str; 7] =
    ["manifest", "from-shards", "shards.json", "--blob-dir", "blobs", "--model-kind", "simplenet"];

fn corrections(answer: &Value) -> Vec<&str> {
    answer["corrections"].as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_of_the_sharder_are_seeded_as_they_are_and_rebuilt_from_parity_that_works() {
    let (home, fetcher) = (Home::new(), Home::new());
    let (blobs, weights) = shard(&home, "layer_wise").await;
    let answer = home.run(ASSEMBLE).await.answer();
    let id = answer["manifest"].as_str().unwrap();
    assert_eq!((answer["shards"].as_u64(), answer["files"].as_u64()), (Some(11), Some(7)), "{answer}");
    assert_eq!(answer["total_size_bytes"].as_u64(), Some(weights.len() as u64));
    let said = corrections(&answer);
    assert!(
        said.len() == 2 && said[0].starts_with("total_size: ") && said[1].starts_with("parity: "),
        "{said:?}"
    );
    assert_eq!(home.run(ASSEMBLE).await.answer()["manifest"], id, "again, over what is there");

    let manifest: Value = serde_json::from_slice(&fs::read(blobs.join(id)).unwrap()).unwrap();
    let list: Value = serde_json::from_slice(&fs::read(home.path("shards.json")).unwrap()).unwrap();
    for index in 0..7 {
        let (file, listed) = (&manifest["files"][index], &list["shards"][index]);
        assert_eq!((&file["path"], &file["sha256"]), (&listed["layer_name"], &listed["shard_hash"]));
        assert_eq!(file["sha256"], manifest["shards"][index]["hash"], "its digest is proven");
    }
    let shown = home.run(["manifest", "show", blobs.join(id).to_str().unwrap()]).await.answer();
    assert_eq!(shown["files"][0]["is_proven"], true);

    // The smallest layers are nowhere any more: they are rebuilt.
    for index in [1, 4] {
        let digest = list["shards"][index]["shard_hash"].as_str().unwrap();
        fs::remove_file(blobs.join(format!("{digest}.shard"))).unwrap();
    }
    let mut seeder = home.start(["serve", "--listen", TCP, "--blob-dir", blobs.to_str().unwrap()]);
    let listening: Value = serde_json::from_str(&seeder.first_line().await).unwrap();
    let address = listening["address"].as_str().unwrap();
    let fetched = fetcher.run(["fetch", "--wait", "5s", "--manifest", id, "--peer", address]).await.answer();
    let folder = std::path::Path::new(fetched["path"].as_str().unwrap());
    let layers =
        (0..7).map(|index| fs::read(folder.join(list["shards"][index]["layer_name"].as_str().unwrap())));
    assert!(layers.map(Result::unwrap).collect::<Vec<_>>().concat() == weights, "each layer is a file");
    assert_eq!(fetched["rebuilt_bytes"].as_u64(), Some(1000), "{fetched}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_in_one_blob_becomes_a_model_of_one_shard() {
    let (home, fetcher) = (Home::new(), Home::new());
    let (blobs, weights) = shard(&home, "replica").await;
    let answer = home.run(ASSEMBLE).await.answer();
    assert!(corrections(&answer).is_empty(), "{answer}");
    assert_eq!((answer["shards"].as_u64(), answer["files"].as_u64()), (Some(1), Some(1)));
    let mut seeder = home.start(["serve", "--listen", TCP, "--blob-dir", blobs.to_str().unwrap()]);
    let listening: Value = serde_json::from_str(&seeder.first_line().await).unwrap();
    let (id, address) = (answer["manifest"].as_str().unwrap(), listening["address"].as_str().unwrap());
    let fetched = fetcher.run(["fetch", "--wait", "5s", "--manifest", id, "--peer", address]).await.answer();
    assert!(fs::read(fetched["path"].as_str().unwrap()).unwrap() == weights);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_or_something_else_is_named_and_nothing_is_written() {
    let home = Home::new();
    let (blobs, _) = shard(&home, "layer_wise").await;
    let names = || {
        let mut names: Vec<_> =
            fs::read_dir(&blobs).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = names();
    let text = fs::read_to_string(home.path("shards.json")).unwrap();
    let list: Value = serde_json::from_str(&text).unwrap();
    let digest = list["shards"][2]["shard_hash"].as_str().unwrap();
    let path = blobs.join(format!("{digest}.shard"));
    let bytes = fs::read(&path).unwrap();
    let mut wrong = bytes.clone();
    wrong[100_000] ^= 1;
    put(&path, &wrong);
    let said = home.run(ASSEMBLE).await.failure(3);
    assert!(said.contains(digest) && said.contains("sha256"), "{said}");
    fs::remove_file(&path).unwrap();
    let said = home.run(ASSEMBLE).await.failure(2);
    assert!(said.contains(&format!("{digest}.shard")), "{said}");
    put(&path, &bytes);
    assert_eq!(names(), before, "nothing was left there");

    put(&home.path("shards.json"), text.replace("\"shard_index\": 3", "\"shard_index\": 9").as_bytes());
    let said = home.run(ASSEMBLE).await.failure(2);
    assert!(said.contains("shards.json") && said.contains("`shards[3]`"), "{said}");
    // A name that no file may have names no files.
    put(&home.path("shards.json"), text.replace("head.bias", "../bias").as_bytes());
    let answer = home.run(ASSEMBLE).await.answer();
    assert_eq!(answer["files"].as_u64(), Some(0));
    assert!(corrections(&answer).iter().any(|one| one.contains("../bias")), "{answer}");
}
