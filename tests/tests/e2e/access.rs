//! Who may use a cache: users who may only read it, root in somebody else's, files that others have planted.

use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use e2e::{Chain, Home, Model, Outcome, Process, Recipe, Seeder, TCP, as_user, put, read_only, with_umask};
use tempfile::TempDir;
use tokio::process::Command;

/// A user without rights, and nobody's files.
const NOBODY: u32 = 65534;

/// A home with the model in its cache; and who gave it.
async fn home_with(model: &Model) -> (Home, Seeder) {
    let home = Home::new();
    let seeder = Seeder::start(model, &model.shards_but(&[])).await;
    home.fetch(model, &[seeder.address()]).await;
    fs::set_permissions(home.path(""), Permissions::from_mode(0o755)).unwrap();
    (home, seeder)
}

/// All that is below a directory, with what it looks like.
fn listing(dir: &Path) -> Vec<(PathBuf, u32, u64)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let metadata = fs::symlink_metadata(&path).unwrap();
        if metadata.is_dir() {
            found.extend(listing(&path));
        }
        found.push((path, metadata.mode(), metadata.ino()));
    }
    found.sort();
    found
}

fn with_cache(home: &Home, args: &[&str]) -> Command {
    let mut command = home.command(["--json"]);
    command.args(args);
    command
}

/// What only reads a cache does all it can in it, and leaves it as it is.
async fn assert_readable(model: &Model, home: &Home, run: impl AsyncFn(&[&str]) -> Outcome) {
    let before = listing(&home.cache(""));
    let weights = home.cache("models").join(&model.id).join("weights");
    let fetched = run(&["fetch", "--manifest", &model.id]).await.answer();
    assert_eq!((&fetched["from_cache"], fetched["weights"].as_str()), (&true.into(), weights.to_str()));
    assert_eq!(run(&["cache", "ls"]).await.answer()["finished"], true);
    assert_eq!(run(&["cache", "path", &model.id]).await.answer()["path"].as_str(), weights.to_str());
    assert_eq!(run(&["verify"]).await.answer()["good"], true);
    assert_eq!(run(&["manifest", "show", &model.id]).await.answer()["manifest"], *model.id);
    run(&["chain", "show"]).await.expect(0);
    // What writes says why it cannot.
    let other = manifest::Digest::of(b"other").to_string();
    for line in [&["cache", "rm", &model.id][..], &["fetch", "--wait", "1s", "--manifest", &other]] {
        let message = run(line).await.failure(1);
        assert!(message.contains("is read-only for this user"), "{message}");
    }
    assert_eq!(listing(&home.cache("")), before);
}

/// Others fetch from it; `serving` has said where.
async fn assert_serves(model: &Model, mut serving: Process) {
    let listening: serde_json::Value = serde_json::from_str(&serving.first_line().await).unwrap();
    Home::new().fetch(model, &[listening["address"].as_str().unwrap()]).await;
    serving.says("the cache is read-only").await;
    serving.terminate().await;
    serving.outcome().await.expect(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_of_somebody_else_is_read_and_served() {
    let model = Recipe::default().publish().await;
    let (home, _seeder) = home_with(&model).await;
    assert_readable(&model, &home, async |args| {
        Process::start(as_user(NOBODY, &with_cache(&home, args))).outcome().await
    })
    .await;
    let serve = with_cache(&home, &["serve", "--listen", TCP]);
    assert_serves(&model, Process::start(as_user(NOBODY, &serve))).await;
    // Without a stamp it is hashed, and found right, each time.
    fs::remove_file(home.cache("models").join(&model.id).join("stamp")).unwrap();
    fs::remove_dir_all(home.cache("locks")).unwrap();
    for _ in 0..2 {
        let fetch = with_cache(&home, &["fetch", "--manifest", &model.id]);
        assert_eq!(Process::start(as_user(NOBODY, &fetch)).outcome().await.answer()["from_cache"], true);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_on_a_read_only_mount_is_read_and_served() {
    let model = Recipe::default().publish().await;
    let (home, _seeder) = home_with(&model).await;
    let cache = home.cache("");
    assert_readable(&model, &home, async |args| {
        Process::start(read_only(&cache, &with_cache(&home, args))).outcome().await
    })
    .await;
    let serve = with_cache(&home, &["serve", "--listen", TCP]);
    assert_serves(&model, Process::start(read_only(&cache, &serve))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contract_is_read_though_nothing_of_it_can_be_remembered() {
    let (model, chain) = (Recipe::default().publish().await, Chain::start().await);
    let (home, _seeder) = home_with(&model).await;
    chain.set(&model.id).await;
    chain.mine(2).await;
    let (flags, cache) = (chain.flags(), home.cache(""));
    let mut fetch = with_cache(&home, &["fetch"]);
    fetch.args(&flags);
    for confined in [as_user(NOBODY, &fetch), read_only(&cache, &fetch)] {
        let outcome = Process::start(confined).outcome().await;
        assert!(outcome.stderr.contains("until this process ends only"), "{outcome:?}");
        let fetched = outcome.answer();
        assert_eq!((&fetched["from_cache"], fetched["manifest"].as_str()), (&true.into(), Some(&*model.id)));
    }
    // Whoever may write remembers, and others go by that.
    home.run(std::iter::once("fetch").chain(flags.iter().map(String::as_str))).await.answer();
    let offline = with_cache(&home, &["fetch", "--offline", "--contract", &chain.contract()]);
    let fetched = Process::start(as_user(NOBODY, &offline)).outcome().await.answer();
    assert_eq!(fetched["manifest"], *model.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_only_looks_creates_nothing() {
    let (home, id) = (Home::new(), manifest::Digest::of(b"model").to_string());
    put(&home.path("file"), b"");
    fs::create_dir(home.path("other")).unwrap();
    put(&home.path("other/notes"), b"");
    let before = listing(&home.path(""));
    let run = async |dir: &str, line: &str| {
        let line = line.replace("ID", &id);
        home.run(["--cache-dir", dir].into_iter().chain(line.split_whitespace())).await
    };
    let lines = [
        ("cache ls", 0),
        ("cache path", 0),
        ("cache path ID", 1),
        ("cache rm ID", 1),
        ("verify", 0),
        ("verify ID", 1),
        ("manifest show ID", 2),
        ("id", 1),
        ("status", 4),
        ("chain show", 0),
        ("fetch --offline --contract 0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", 4),
    ];
    for (line, status) in lines {
        run("mistyped", line).await.expect(status);
        // The others look for a node, or what was seen of a chain, only.
        if line.starts_with("status") || line.starts_with("chain") || line.starts_with("fetch") {
            continue;
        }
        for (dir, what) in [("file", "VERSION"), ("other", "is no cache")] {
            let message = run(dir, line).await.failure(1);
            assert!(message.contains(what), "{line} in {dir}: {message}");
        }
    }
    assert_eq!(listing(&home.path("")), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn root_locks_nobody_out_of_a_cache() {
    let model = Recipe::default().publish().await;
    let seeder = Seeder::start(&model, &model.shards_but(&[])).await;
    let home = Home::new();
    std::os::unix::fs::chown(home.path(""), Some(NOBODY), Some(NOBODY)).unwrap();
    let fetch = ["fetch", "--wait", "1s", "--manifest", &model.id, "--peer", seeder.address()];
    home.run(fetch).await.answer();
    for (path, ..) in listing(&home.path("")) {
        assert_eq!(fs::symlink_metadata(&path).unwrap().uid(), NOBODY, "{}", path.display());
    }
    // It is theirs in every way.
    for line in [&["verify"][..], &["id"], &["cache", "rm", &model.id], &fetch] {
        Process::start(as_user(NOBODY, &with_cache(&home, line))).outcome().await.answer();
    }
    let mut serving = Process::start(as_user(NOBODY, &with_cache(&home, &["serve", "--listen", TCP])));
    serving.first_line().await;
    home.run(["status"]).await.answer();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_umask_lets_the_world_write() {
    let model = Recipe::default().publish().await;
    let seeder = Seeder::start(&model, &model.shards_but(&[])).await;
    let home = Home::new();
    let fetch = with_cache(&home, &["fetch", "--manifest", &model.id, "--peer", seeder.address()]);
    Process::start(with_umask("000", &fetch)).outcome().await.answer();
    for (path, mode, _) in listing(&home.path("")) {
        assert_eq!(mode & 0o022, 0, "{}: {mode:o}", path.display());
    }
}

/// Puts something in the place of a file.
fn plant(path: &Path, what: &str, private: &Path) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    match what {
        "a link" => symlink(private, path).unwrap(),
        "a hard link" => fs::hard_link(private, path).unwrap(),
        "a FIFO" => {
            assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
        }
        _ => fs::create_dir(path).unwrap(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_fetched_through_what_somebody_has_planted() {
    let model = Recipe::default().publish().await;
    let seeder = Seeder::start(&model, &model.shards_but(&[10])).await;
    let secret = vec![7; model.weights.len()];
    for (name, what, message) in [
        ("weights", "a link", "symbolic link"),
        ("weights", "a hard link", "hard link"),
        ("weights", "a FIFO", "a FIFO"),
        ("weights", "a directory", "a directory"),
        ("journal", "a link", "symbolic link"),
        ("journal", "a FIFO", "a FIFO"),
        ("parity", "a link", "symbolic link"),
        ("", "a link", "symbolic link"),
    ] {
        let home = Home::new();
        let private = home.path("private");
        put(&private, &secret);
        fs::set_permissions(&private, Permissions::from_mode(0o600)).unwrap();
        let partial = home.cache("partial").join(&model.id);
        let (path, private_dir) = (partial.join(name), home.path("private-dir"));
        fs::create_dir(&private_dir).unwrap();
        let to = if name.is_empty() || name == "parity" { &private_dir } else { &private };
        plant(path.components().as_path(), what, to);
        let said = home.start_fetch(&model, &[seeder.address()]).outcome().await.failure(1);
        assert!(said.contains(message), "{what} as {name}: {said}");
        assert!(fs::read(&private).unwrap() == secret, "{what} as {name}");
        assert_eq!(fs::metadata(&private).unwrap().mode() & 0o777, 0o600, "{what} as {name}");
        assert_eq!(fs::read_dir(&private_dir).unwrap().count(), 0, "{what} as {name}");
        // Once it is gone the fetch goes on.
        let path = path.components().as_path();
        if what == "a directory" {
            fs::remove_dir(path).unwrap()
        } else {
            fs::remove_file(path).unwrap()
        }
        home.fetch(&model, &[seeder.address()]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_planted_in_the_place_of_a_finished_file_is_neither_mapped_nor_waited_for() {
    let model = Recipe::default().publish().await;
    for name in ["models/ID/weights", "manifests/ID.json", "VERSION", "models/ID/stamp"] {
        let (home, seeder) = home_with(&model).await;
        let path = home.cache(name.replace("ID", &model.id));
        fs::remove_file(&path).unwrap();
        plant(&path, "a FIFO", Path::new(""));
        let said = home.start_fetch(&model, &[seeder.address()]).outcome().await.failure(1);
        assert!(said.contains("a FIFO"), "{name}: {said}");
        assert!(fs::symlink_metadata(&path).unwrap().file_type().is_fifo());
    }
    // What is only remembered is begun anew.
    for name in ["bans", "peers"] {
        for what in ["a FIFO", "a link"] {
            let (home, seeder) = home_with(&model).await;
            home.run(["cache", "rm", &model.id]).await.expect(0);
            let _ = fs::remove_file(home.cache(name));
            put(&home.path("private"), b"secret");
            plant(&home.cache(name), what, &home.path("private"));
            home.fetch(&model, &[seeder.address()]).await;
            assert_eq!(fs::read(home.path("private")).unwrap(), b"secret");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cache_and_its_folders_may_be_links_of_its_owner() {
    let model = Recipe::default().publish().await;
    let seeder = Seeder::start(&model, &model.shards_but(&[])).await;
    let (home, disk) = (Home::new(), TempDir::new().unwrap());
    fs::create_dir(home.path(".cache")).unwrap();
    fs::create_dir(disk.path().join("cache")).unwrap();
    symlink(disk.path().join("cache"), home.path(".cache/loader")).unwrap();
    fs::create_dir(disk.path().join("models")).unwrap();
    symlink(disk.path().join("models"), home.cache("models")).unwrap();
    fs::create_dir(disk.path().join("partial")).unwrap();
    symlink(disk.path().join("partial"), home.cache("partial")).unwrap();
    home.fetch(&model, &[seeder.address()]).await;
    assert!(disk.path().join("models").join(&model.id).join("weights").is_file());
    // One that somebody else may have put into a directory that all may write to is none.
    fs::set_permissions(disk.path().join("cache"), Permissions::from_mode(0o777)).unwrap();
    std::os::unix::fs::lchown(home.cache("models"), Some(NOBODY), Some(NOBODY)).unwrap();
    let said = home.run(["cache", "ls"]).await.failure(1);
    assert!(said.contains("symbolic link"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_broken_beside_a_model_does_not_keep_it_from_being_used() {
    let model = Recipe::default().publish().await;
    let (home, seeder) = home_with(&model).await;
    let key = fs::read(home.cache("identity")).unwrap();
    put(&home.cache("identity"), b"garbled");
    let fetched = home.run(["fetch", "--manifest", &model.id]).await.answer();
    assert_eq!(fetched["from_cache"], true);
    // The network needs it, and says what to do; what is left of a key is not written over.
    for args in [
        &["serve", "--listen", TCP][..],
        &["fetch", "--manifest", &manifest::Digest::of(b"x").to_string()],
        &["id"],
    ] {
        let said = home.run(args).await.failure(1);
        assert!(said.contains("identity") && said.contains("remove it"), "{said}");
    }
    assert_eq!(fs::read(home.cache("identity")).unwrap(), b"garbled");
    put(&home.cache("identity"), &key);

    for name in ["bans", "peers"] {
        put(&home.cache(name), &vec![b'x'; 10 << 20]);
        home.run(["cache", "rm", &model.id]).await.answer();
        home.fetch(&model, &[seeder.address()]).await;
    }
    put(&home.cache("VERSION"), &vec![b'9'; 10 << 20]);
    let said = home.run(["cache", "ls"]).await.failure(1);
    assert!(
        said.contains("VERSION") && said.contains("another cache directory") && said.len() < 1000,
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_is_no_text_is_told_to_the_byte() {
    let model = Recipe::default().publish().await;
    let seeder = Seeder::start(&model, &model.shards_but(&[])).await;
    let home = Home::new();
    let mut name = home.path("").into_os_string().as_bytes().to_vec();
    name.extend(b"ca\xffche\x1b[2J");
    let dir = PathBuf::from(std::ffi::OsStr::from_bytes(&name));
    let command = |line: &str| {
        let mut command = home.command(line.split_whitespace());
        command.arg("--cache-dir").arg(&dir);
        command
    };
    let fetch = format!("fetch --manifest {} --peer {}", model.id, seeder.address());
    let said = Process::start(command(&format!("--json {fetch}"))).outcome().await.expect(2).stderr;
    assert!(said.contains("is not UTF-8") && !dir.exists(), "{said}");
    let weights = dir.join("models").join(&model.id).join("weights");
    for line in [&fetch, &format!("cache path {}", model.id)] {
        let output = e2e::soon("its end", command(line).output()).await.unwrap();
        let told = Path::new(std::ffi::OsStr::from_bytes(output.stdout.trim_ascii_end()));
        assert!(told == weights && fs::read(told).unwrap() == model.weights, "{output:?}");
        assert!(!output.stderr.contains(&0x1b), "{output:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_are_found_under_the_longest_path() {
    let home = Home::new();
    let deep = "x".repeat(100);
    let dir = home.path(&deep).join(&deep);
    let dir = dir.to_str().unwrap();
    home.run(["status", "--cache-dir", dir]).await.failure(4);
    let mut serving = home.start(["serve", "--listen", TCP, "--cache-dir", dir]);
    serving.first_line().await;
    home.run(["status", "--cache-dir", dir]).await.answer();
    serving.terminate().await;
    serving.outcome().await.expect(0);
    assert_eq!(fs::read_dir(Path::new(dir).join("run")).unwrap().count(), 0, "it has taken its socket away");
}
