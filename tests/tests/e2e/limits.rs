//! What the system limits: descriptors, file sizes, threads; and what may reach a terminal.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use e2e::{Home, Process, Recipe, Seeder, as_user, before_1970, limited, put};

const NOBODY: u32 = 65534;

#[tokio::test(flavor = "multi_thread")]
async fn a_low_soft_limit_of_descriptors_is_raised_and_a_low_hard_one_is_lived_with() {
    let model = Recipe::default().publish().await;
    let seeder = Seeder::start(&model, &model.shards_but(&[])).await;
    for limit in ["--nofile=48:20000", "--nofile=64:64"] {
        let home = Home::new();
        let mut command = home.command(["--json", "fetch", "--manifest", &model.id]);
        for _ in 0..3 {
            command.args(["--peer", seeder.address()]);
        }
        Process::start(limited(limit, &command)).outcome().await.answer();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_of_file_sizes_is_an_error_and_what_fits_is_kept() {
    let model = Recipe::default().publish().await;
    let (home, seeder) = (Home::new(), Seeder::start(&model, &model.shards_but(&[])).await);
    let fetch = home.command(["--json", "fetch", "--manifest", &model.id, "--peer", seeder.address()]);
    let said = Process::start(limited("--fsize=1000000", &fetch)).outcome().await.failure(1);
    assert!(said.contains("ulimit -f"), "{said}");
    put(&home.path("model"), &model.weights);
    let publish = home.command(["--json", "publish", "model", "--model-kind", "simplenet"]);
    let said = Process::start(limited("--fsize=1000000", &publish)).outcome().await.failure(1);
    assert!(said.contains("ulimit -f"), "{said}");
    home.fetch(&model, &[seeder.address()]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_few_threads_are_told_in_words() {
    let model = Recipe::default().publish().await;
    let seeder = Seeder::start(&model, &model.shards_but(&[])).await;
    let mut fetched = 0;
    for threads in [1, 2, 4, 8, 12, 14, 16, 18, 20, 24, 40] {
        let home = Home::new();
        std::os::unix::fs::chown(home.path(""), Some(NOBODY + threads), None).unwrap();
        put(&home.path("model"), &model.weights);
        for line in [
            &["fetch", "--manifest", &model.id, "--peer", seeder.address()][..],
            &["publish", "model", "--model-kind", "simplenet"],
            &["verify"],
        ] {
            let mut command = home.command(["--json"]);
            command.args(line);
            // A user of its own, whose threads are counted.
            let command = limited(&format!("--nproc={threads}"), &as_user(NOBODY + threads, &command));
            let outcome = Process::start(command).outcome().await;
            assert!(
                !outcome.stderr.contains("panicked") && !outcome.stderr.contains("internal error"),
                "{outcome:?}"
            );
            match outcome.status {
                Some(0) => fetched += usize::from(line[0] == "fetch"),
                _ => assert!(outcome.failure(1).contains("thread"), "{threads} threads: {line:?}"),
            }
        }
    }
    assert!(fetched > 0, "forty are enough");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_control_character_of_a_file_name_reaches_stderr() {
    let home = Home::new();
    let name = "no\u{1b}[31m\u{9b}2J\u{202e}such\rfile\nerror: forged";
    for line in [
        &["publish", name, "--model-kind", "simplenet"][..],
        &["manifest", "show", name],
        &["--config", name, "cache", "ls"],
        &["--cache-dir", name, "verify", &manifest::Digest::of(b"x").to_string()],
        &["fetch", name],
        &[name],
        &["key", "show", "--keystore", name],
    ] {
        for json in [&[][..], &["--json"]] {
            let outcome = home.plain(json.iter().chain(line)).await;
            assert_ne!(outcome.status, Some(0), "{outcome:?}");
            for text in [&outcome.stderr, &outcome.stdout] {
                assert!(!text.contains(['\u{1b}', '\u{9b}', '\u{202e}', '\r']), "{outcome:?}");
            }
        }
        let outcome = home.plain(line).await;
        assert!(
            line[0] == name || line[0] == "fetch" || !outcome.stderr.contains("\nerror: forged"),
            "{outcome:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ban_from_the_future_is_not_for_ever_and_not_read_anew_each_time() {
    let model = Recipe::default().publish().await;
    let (home, seeder) = (Home::new(), Seeder::start(&model, &model.shards_but(&[])).await);
    home.fetch(&model, &[seeder.address()]).await;
    home.run(["cache", "rm", &model.id]).await.answer();
    put(&home.cache("bans"), format!("loader bans 1\n99999999999 1000 {}\n", seeder.id()).as_bytes());
    home.start_fetch(&model, &[seeder.address()]).outcome().await.failure(4);
    let text = fs::read_to_string(home.cache("bans")).unwrap();
    let at_s: u64 = text.lines().nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(at_s <= u64::try_from(fs::metadata(home.cache("bans")).unwrap().mtime()).unwrap(), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_before_1970_is_told_of_and_needed_for_the_network_only() {
    let (model, dir) = (Recipe::default().publish().await, tempfile::tempdir().unwrap());
    let (home, seeder) = (Home::new(), Seeder::start(&model, &model.shards_but(&[])).await);
    let fetch = ["--json", "fetch", "--manifest", &model.id, "--peer", seeder.address()];
    let contract = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed";
    let read = ["--json", "fetch", "--rpc-url", "https://127.0.0.1:1", "--contract", contract];
    for line in [&fetch[..], &read, &["--json", "serve"]] {
        let command = before_1970(dir.path(), &home.command(line)).await;
        let message = Process::start(command).outcome().await.failure(1);
        assert!(message.contains("before 1970") && !message.contains("panicked"), "{message}");
    }
    home.fetch(&model, &[seeder.address()]).await;
    let command = before_1970(dir.path(), &home.command(fetch)).await;
    assert_eq!(Process::start(command).outcome().await.answer()["from_cache"], true);
}
