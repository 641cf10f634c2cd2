//! Wherever a command is killed, the next one makes good of what it has left.

mod random;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use e2e::{Fetched, Home, Killed, Killer, Model, PIECE_BYTES, Recipe, Seeder, Tree, made_up, put};

/// A temporary file this old is one that nobody writes any more.
const STALE: Duration = Duration::from_secs(7200);
/// Each command makes more calls than this that change something in a file system.
const FEWEST_CALLS: u64 = 5;

/// Runs the command, killed in place of this call, and tells how; `None` when it makes fewer calls.
async fn kill(killer: &Killer, at: u64, home: &Home, args: &[&str]) -> Option<String> {
    match killer.run(home.command_killed(killer, at, args)).await {
        Killed::InPlaceOf(how) => Some(format!("killed {how}")),
        Killed::Not { outcome, .. } => {
            outcome.expect(0);
            assert!(at > FEWEST_CALLS, "it was killed only {} times", at - 1);
            None
        }
    }
}

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|error| panic!("{name}={text}: {error}")))
}

/// Some pieces in a shard, parity, and a piece index.
async fn small_model() -> Model {
    Recipe { layers: vec![5 * PIECE_BYTES + 77], data: 2, parity: 1, ..Recipe::default() }.publish().await
}

/// The same as a folder: its pieces lie across the borders of files, one of which is empty.
async fn small_folder() -> Model {
    let sizes = [("a", 1000), ("sub/b", 2 * PIECE_BYTES), ("sub/c", 0), ("d", 3 * PIECE_BYTES - 923)];
    Tree::of_sizes(sizes).publish(&["--data", "2", "--parity", "1", "--layout", "rows"]).await
}

/// A seeder of it that lacks a shard, which has to be rebuilt.
async fn seeder(model: &Model) -> Seeder {
    Seeder::start(model, &model.shards_but(&[1])).await
}

/// Fails the test unless a fetch ends well, and all is as if nothing had ever been killed.
async fn assert_mended(home: &Home, model: &Model, peer: &str, how: &str) {
    let outcome = home.start_fetch(model, &[peer]).outcome().await;
    assert_eq!(outcome.status, Some(0), "{how}: {}", outcome.stderr);
    home.assert_has(model, &Fetched::of(outcome));
    assert_good(home, &model.id, how).await;
    let again = home.start_fetch(model, &[]).outcome().await;
    assert_eq!(again.status, Some(0), "{how}: {}", again.stderr);
    assert!(Fetched::of(again).from_cache, "{how}: it is not in the cache");
    assert_tidy(home, how).await;
}

async fn assert_good(home: &Home, id: &str, how: &str) {
    let verified = home.run(["verify", id]).await;
    assert_eq!(verified.status, Some(0), "{how}: {} {}", verified.stdout, verified.stderr);
}

/// Fails the test when anything is left of what was being made.
async fn assert_tidy(home: &Home, how: &str) {
    age_temporaries(&home.cache(""));
    home.run(["cache", "ls"]).await.expect(0);
    let files = files_under(&home.cache(""));
    let is_left =
        |path: &&PathBuf| is_temporary(path) || path.parent().is_some_and(|dir| dir.ends_with("partial"));
    let left: Vec<_> = files.iter().filter(is_left).collect();
    assert!(left.is_empty(), "{how}: left behind: {left:?}");
}

/// Makes all temporary files as old as those that may be swept.
fn age_temporaries(dir: &Path) {
    for path in files_under(dir).iter().filter(|path| is_temporary(path)) {
        File::open(path).unwrap().set_modified(SystemTime::now() - STALE).unwrap();
    }
}

fn is_temporary(path: &Path) -> bool {
    path.file_name().unwrap().to_string_lossy().contains("tmp")
}

/// All files and directories in a directory, at any depth.
fn files_under(dir: &Path) -> Vec<PathBuf> {
    let mut all: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    let mut next = 0;
    while let Some(path) = all.get(next).cloned() {
        if path.is_dir() {
            all.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        }
        next += 1;
    }
    all
}

fn fetching<'a>(model: &'a Model, peer: &'a str) -> [&'a str; 7] {
    ["fetch", "--wait", "1s", "--manifest", &model.id, "--peer", peer]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_killed_at_any_call_is_made_good_by_the_next() {
    let killer = Killer::new().await;
    for model in [small_model().await, small_folder().await] {
        let seeder = seeder(&model).await;
        for at in 1.. {
            let home = Home::new();
            let Some(how) = kill(&killer, at, &home, &fetching(&model, seeder.address())).await else {
                break;
            };
            assert_mended(&home, &model, seeder.address(), &how).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_killed_again_and_again_comes_to_its_end() {
    let (model, killer, home) = (small_model().await, Killer::new().await, Home::new());
    let seeder = seeder(&model).await;
    let mut kills = Vec::new();
    for at in 1.. {
        let Some(how) = kill(&killer, at, &home, &fetching(&model, seeder.address())).await else { break };
        kills.push(how);
    }
    assert_mended(&home, &model, seeder.address(), &kills.join("\n")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_of_some_files_killed_at_any_call_is_made_good_by_the_next() {
    let (model, killer) = (small_folder().await, Killer::new().await);
    let seeder = seeder(&model).await;
    let some = [&fetching(&model, seeder.address())[..], &["--files", "sub/*"]].concat();
    for at in 1.. {
        let home = Home::new();
        let Some(how) = kill(&killer, at, &home, &some).await else { return };
        let outcome = home.run(&some).await;
        assert_eq!(outcome.status, Some(0), "{how}: {}", outcome.stderr);
        let fetched = Fetched::of(outcome);
        for name in ["sub/b", "sub/c"] {
            let file = model.manifest.files().iter().find(|file| file.path().as_str() == name).unwrap();
            let range =
                usize::try_from(file.range().start).unwrap()..usize::try_from(file.range().end).unwrap();
            assert!(fs::read(fetched.path.join(name)).unwrap() == model.weights[range], "{how}: {name}");
        }
        assert!(Fetched::of(home.run(&some).await).from_cache, "{how}: it is not in the cache");
        assert_mended(&home, &model, seeder.address(), &how).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_killed_at_any_call_is_made_good_by_the_next() {
    let (killer, weights) = (Killer::new().await, made_up(3 * PIECE_BYTES + 77));
    let piece_size = PIECE_BYTES.to_string();
    let common = ["publish", "--json", "--model-kind", "simplenet", "--data", "2", "--parity", "1"];
    for files in [&["model"][..], &["--layers", "part0", "part1", "part2", "part3"], &["folder"]] {
        let publish = [&common[..], &["--piece-size", &piece_size], files].concat();
        for at in 1.. {
            let home = Home::new();
            put(&home.path("model"), &weights);
            for (number, part) in weights.chunks(PIECE_BYTES).enumerate() {
                put(&home.path(format!("part{number}")), part);
                fs::create_dir_all(home.path("folder/sub")).unwrap();
                put(&home.path(format!("folder/sub/part{number}")), part);
            }
            let Some(how) = kill(&killer, at, &home, &publish).await else { break };
            let how = format!("{files:?} {how}");
            let outcome = home.plain(&publish).await;
            assert_eq!(outcome.status, Some(0), "{how}: {}", outcome.stderr);
            let published = outcome.answer();
            let path = Path::new(published["path"].as_str().unwrap());
            let written = match path.is_dir() {
                true => (0..4)
                    .flat_map(|number| fs::read(path.join(format!("sub/part{number}"))).unwrap())
                    .collect(),
                false => fs::read(path).unwrap(),
            };
            assert!(written == weights, "{how}: other bytes than were published");
            assert_good(&home, published["manifest"].as_str().unwrap(), &how).await;
            assert_tidy(&home, &how).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_killed_at_any_call_is_made_good_by_the_next() {
    let (model, killer) = (small_folder().await, Killer::new().await);
    let seeder = seeder(&model).await;
    let remove = ["cache", "rm", &model.id];
    for at in 1.. {
        let home = Home::new();
        home.fetch(&model, &[seeder.address()]).await;
        let Some(how) = kill(&killer, at, &home, &remove).await else { return };
        let removed = home.run(remove).await;
        // It may have been gone already.
        assert!(matches!(removed.status, Some(0 | 1)), "{how}: {}", removed.stderr);
        home.assert_has_nothing_of(&model.id);
        assert_tidy(&home, &how).await;
        assert_mended(&home, &model, seeder.address(), &how).await;
    }
}
