//! Ways to a model for those who run it: links, folders of their own, the beginning of a digest, and warnings.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};

use e2e::{Chain, Home, Outcome, Tree, put, soon};
use serde_json::Value;

async fn publish(home: &Home, more: &[&str]) -> Value {
    home.run(["publish", "folder", "--model-kind", "simplenet"].into_iter().chain(more.iter().copied()))
        .await
        .answer()
}

async fn fetch(home: &Home, id: &str, more: &[&str]) -> Outcome {
    home.run(["fetch", "--manifest", id].into_iter().chain(more.iter().copied())).await
}

/// A home with two models that are folders, published there.
async fn two_models() -> (Home, [String; 2]) {
    let home = Home::new();
    Tree::of_sizes([("config.json", 100), ("sub/a.bin", 50_000)]).write_to(&home.path("folder"));
    let first = publish(&home, &[]).await;
    put(&home.path("folder/config.json"), b"{}");
    let second = publish(&home, &[]).await;
    (home, [first, second].map(|published| published["manifest"].as_str().unwrap().to_owned()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_is_replaced_in_one_step_and_what_it_leads_to_stays() {
    let (home, [first, second]) = two_models().await;
    let link = home.path("current");
    let linked = |id: String| {
        let (home, link) = (&home, link.clone());
        async move {
            let fetched = fetch(home, &id, &["--link", link.to_str().unwrap()]).await.answer();
            assert_eq!(
                fs::read_link(&link).unwrap().to_str(),
                fetched["path"].as_str(),
                "the resolved path is told"
            );
            fs::read(link.join("config.json")).unwrap()
        }
    };
    assert_eq!(linked(first.clone()).await.len(), 100);
    assert_eq!(linked(second.clone()).await, b"{}");
    let refused = home.run(["cache", "rm", &second]).await.failure(1);
    assert!(refused.contains("current"), "{refused}");
    // It leads into this cache, and is replaced; what leads elsewhere is not, and neither is a file or a folder.
    for make in [
        (|path| put(path, b"mine")) as fn(&std::path::Path),
        |path| fs::create_dir(path).unwrap(),
        |path| symlink("/etc", path).unwrap(),
    ] {
        let other = home.path("other");
        make(&other);
        let refused = fetch(&home, &first, &["--link", "other"]).await.failure(2);
        assert!(refused.contains("other") && refused.contains("not replaced"), "{refused}");
        let found = other.symlink_metadata().unwrap();
        if found.is_dir() { fs::remove_dir(&other).unwrap() } else { fs::remove_file(&other).unwrap() }
    }
    fs::remove_file(&link).unwrap();
    home.run(["cache", "rm", &second]).await.expect(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_moves_the_link_with_the_contract() {
    let (home, [first, second]) = two_models().await;
    let chain = Chain::start().await;
    chain.set(&first).await;
    let link = home.path("current");
    let mut watch = home.start(
        [
            "watch",
            "--keep",
            "1",
            "--poll-interval",
            "1s",
            "--link",
            link.to_str().unwrap(),
            "--block-tag",
            "latest",
        ]
        .map(str::to_owned)
        .into_iter()
        .chain(chain.flags()),
    );
    let ready: Value = serde_json::from_str(&watch.first_line().await).unwrap();
    assert_eq!(fs::read_link(&link).unwrap().to_str(), ready["path"].as_str());
    chain.set(&second).await;
    let moved = soon("the second model", async {
        while !fs::read_link(&link).unwrap().to_str().unwrap().contains(&second) {
            tokio::task::yield_now().await;
        }
    });
    moved.await;
    // The one before stays, though only one is kept.
    assert!(home.cache("models").join(&first).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_laid_out_in_a_new_or_an_empty_folder_and_in_no_other() {
    let (home, [first, _]) = two_models().await;
    fs::create_dir(home.path("empty")).unwrap();
    for into in ["new/deep", "empty"] {
        let fetched = fetch(&home, &first, &["--into", into]).await.answer();
        let path = home.path(into);
        assert_eq!(fetched["path"].as_str(), path.to_str());
        assert_eq!(fs::read(path.join("sub/a.bin")).unwrap().len(), 50_000);
        let (laid, cached) =
            (path.join("config.json"), home.cache("models").join(&first).join("files/config.json"));
        assert_ne!(laid.metadata().unwrap().ino(), cached.metadata().unwrap().ino(), "a file of its own");
        // It is the user's to change.
        put(&laid, b"changed");
    }
    assert_eq!(home.run(["verify", &first]).await.answer()["good"], true);
    for into in ["empty", "folder/config.json"] {
        let refused = fetch(&home, &first, &["--into", into]).await.failure(2);
        assert!(refused.contains("not an empty folder"), "{refused}");
    }
    let left = fs::read_dir(home.path(""))
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with(".loader"));
    assert_eq!(left.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_beginning_of_a_digest_names_a_model_and_ls_tells_what_there_is() {
    let (home, [first, second]) = two_models().await;
    let path = home.run(["cache", "path", &first[..8]]).await.answer();
    assert!(path["path"].as_str().unwrap().contains(&first), "{path}");
    assert_eq!(fetch(&home, &second[..10], &[]).await.answer()["manifest"], second.as_str());
    assert_eq!(home.run(["manifest", "show", &first[..6]]).await.answer()["manifest"], first.as_str());
    assert_eq!(home.run(["verify", &first[..6]]).await.answer()["good"], true);
    let refused = home.run(["cache", "path", "0000"]).await.failure(2);
    assert!(refused.contains("begins with 0000") && refused.contains("cache ls"), "{refused}");
    home.run(["cache", "path", "abc"]).await.expect(2);
    let listed = home.run(["cache", "ls"]).await.expect(0).answers();
    assert_eq!(listed.len(), 2);
    assert!(listed.iter().all(|entry| entry["files"] == 2 && entry["changed_at"].is_u64()), "{listed:?}");
    let plain = home.plain(["cache", "ls"]).await;
    assert!(plain.stdout.contains("2 files") && plain.stdout.contains("old"), "{}", plain.stdout);
    assert!(plain.stderr.contains("2 models take"), "{}", plain.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_runtime_may_execute_is_told_and_refused_and_what_it_trips_over_is_told() {
    let home = Home::new();
    Tree::of_sizes([("model-00001-of-00002.safetensors", 1000)]).write_to(&home.path("folder"));
    put(&home.path("folder/modeling_x.py"), b"import os");
    put(
        &home.path("folder/model.safetensors.index.json"),
        br#"{"weight_map":{"a":"model-00002-of-00002.safetensors"}}"#,
    );
    let refused = home.run(["publish", "folder", "--model-kind", "simplenet", "--no-code"]).await.failure(2);
    assert!(refused.contains("modeling_x.py is Python"), "{refused}");
    assert_eq!(home.run(["cache", "ls"]).await.expect(0).answers(), Vec::<Value>::new());
    let published = publish(&home, &[]).await;
    let warnings = published["warnings"].to_string();
    assert!(warnings.contains("modeling_x.py") && warnings.contains("model-00002-of-00002"), "{warnings}");
    let id = published["manifest"].as_str().unwrap();
    let fetched = fetch(&home, id, &[]).await;
    assert!(fetched.stderr.contains("modeling_x.py is Python"), "{}", fetched.stderr);
    assert_eq!(fetched.answer()["executable"][0], "modeling_x.py is Python");
    let refused = fetch(&home, id, &["--no-code"]).await.failure(1);
    assert!(refused.contains("modeling_x.py"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_listed_before_it_is_read_and_what_is_left_out_is_told() {
    let home = Home::new();
    Tree::of_sizes([("config.json", 100), (".git/HEAD", 5), ("notes.md", 10)]).write_to(&home.path("folder"));
    let args = ["publish", "folder", "--model-kind", "simplenet", "--exclude", "*.md"];
    let published = home.run(args).await.expect(0);
    assert!(
        published.stderr.contains("config.json") && published.stderr.contains("in 1 files"),
        "{}",
        published.stderr
    );
    assert!(published.stderr.contains("left out: .git, notes.md"), "{}", published.stderr);
    // The model is the same whatever is left out.
    let only =
        home.run(["publish", "folder", "--model-kind", "simplenet", "--include", "config.*"]).await.answer();
    assert_eq!(only["manifest"], published.answer()["manifest"]);
}
