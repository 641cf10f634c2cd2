//! The command as programs see it: streams, statuses, objects, variables and the settings file.

use std::collections::BTreeMap;
use std::fs::{File, Permissions};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::Path;

use e2e::{Chain, Home, Model, PIECE_BYTES, Process, Recipe, Seeder, TCP, put, put_private};
use serde_json::Value;

/// A home with the model in its cache.
async fn home_with(model: &Model) -> Home {
    let home = Home::new();
    let seeder = Seeder::start(model, &model.shards_but(&[])).await;
    home.fetch(model, &[seeder.address()]).await;
    home
}

#[tokio::test(flavor = "multi_thread")]
async fn version_and_help() {
    let home = Home::new();
    let version = home.plain(["--version"]).await.expect(0);
    assert_eq!(
        (version.stdout.trim_end(), &*version.stderr),
        (concat!("loader ", env!("CARGO_PKG_VERSION")), "")
    );
    let help = home.plain(["--help"]).await.expect(0);
    for command in [
        "fetch", "serve", "publish", "watch", "key", "verify", "manifest", "cache", "chain", "status",
        "config", "doctor",
    ] {
        assert!(help.stdout.contains(&format!("\n  {command} ")), "{command}: {}", help.stdout);
        home.plain([command, "--help"]).await.expect(0);
    }
    assert!(!home.cache("").exists(), "nobody has asked for a cache");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_usage_is_told_on_stderr_only() {
    let home = Home::new();
    for line in [
        "",
        "steal",
        "fetch --manifest 12",
        "fetch --peer here",
        "cache rm",
        "publish --model-kind simplenet",
    ] {
        let outcome = home.plain(line.split_whitespace()).await.expect(2);
        assert!(outcome.stdout.is_empty() && !outcome.stderr.is_empty(), "{line}: {outcome:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_answers_are_one_word() {
    let (model, home) = (Recipe::default().publish().await, Home::new());
    let seeder = Seeder::start(&model, &model.shards_but(&[])).await;
    let weights = home.cache("models").join(&model.id).join("weights").display().to_string();
    for _ in 0..2 {
        let fetch = ["fetch", "--manifest", &model.id, "--peer", seeder.address()];
        assert_eq!(home.plain(fetch).await.expect(0).stdout, format!("{weights}\n"));
    }
    assert_eq!(home.plain(["cache", "path", &model.id]).await.expect(0).stdout, format!("{weights}\n"));
    let cache = home.cache("").display().to_string();
    assert_eq!(
        home.plain(["cache", "path"]).await.expect(0).stdout.trim_end().trim_end_matches('/'),
        cache.trim_end_matches('/')
    );
    assert!(home.plain(["cache", "ls"]).await.expect(0).stdout.starts_with(&model.id));
    assert!(home.plain(["verify"]).await.expect(0).stdout.starts_with(&format!("{}  ", model.id)));
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_finds_a_flipped_bit_and_names_its_piece() {
    for index in [true, false] {
        let model = Recipe { index, ..Recipe::default() }.publish().await;
        let home = home_with(&model).await;
        let good = home.run(["verify"]).await.answer();
        assert_eq!((&good["good"], &good["manifest"]), (&true.into(), &model.id.clone().into()));

        let path = home.cache("models").join(&model.id).join("weights");
        // In piece 2 of shard 3.
        let at = 3 * 200_000 + 2 * PIECE_BYTES;
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        file.write_all_at(&[model.weights[at] ^ 1], at as u64).unwrap();
        drop(file);
        let outcome = home.run(["verify", &model.id]).await.expect(3);
        let [verified, error] = &outcome.answers()[..] else { panic!("{outcome:?}") };
        assert_eq!((&verified["type"], &error["type"]), (&"verified".into(), &"error".into()));
        let pieces: &[u32] = if index { &[2] } else { &[] };
        let bad = serde_json::json!([{"shard": 3, "is_parity": false, "pieces": pieces}]);
        assert_eq!((&verified["good"], &verified["bad"]), (&false.into(), &bad));

        // It is not given to anybody, and can be removed and fetched again.
        home.start_fetch(&model, &[]).outcome().await.failure(4);
        home.run(["cache", "rm", &model.id]).await.expect(0);
        home.assert_has_nothing_of(&model.id);
        let seeder = Seeder::start(&model, &model.shards_but(&[])).await;
        home.fetch(&model, &[seeder.address()]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cache_lists_finds_and_removes() {
    let model = Recipe::default().publish().await;
    let home = home_with(&model).await;
    let entry = home.run(["cache", "ls"]).await.answer();
    assert_eq!((&entry["manifest"], &entry["finished"]), (&model.id.clone().into(), &true.into()));
    assert_eq!(entry["total_size_bytes"], 2_000_000);
    let path = home.run(["cache", "path", &model.id]).await.answer();
    assert!(std::fs::read(path["path"].as_str().unwrap()).unwrap() == model.weights);
    let unknown = "0".repeat(64);
    for line in [["cache", "path", &unknown], ["cache", "rm", &unknown]] {
        assert!(home.run(line).await.failure(1).contains(&unknown));
    }
    // Not while it is served.
    let mut seeder = home.start(["serve", "--listen", TCP]);
    seeder.first_line().await;
    assert!(home.run(["cache", "rm", &model.id]).await.failure(1).contains("in use"));
    seeder.kill().await;
    let removed = home.run(["cache", "rm", &model.id]).await.answer();
    assert!(removed["freed_bytes"].as_u64().unwrap() >= 2_000_000, "{removed}");
    home.assert_has_nothing_of(&model.id);
    assert_eq!(home.run(["cache", "ls"]).await.expect(0).answers(), Vec::<Value>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn manifests_are_shown_and_checked() {
    let model = Recipe::default().publish().await;
    let home = home_with(&model).await;
    let shown = home.run(["manifest", "show", &model.id]).await.answer();
    assert_eq!(shown["merkle_root"], model.manifest.merkle_root().to_string());
    assert_eq!(shown["shards"].as_array().unwrap().len(), 14);
    put(&home.path("manifest.json"), &model.blobs[&model.digest]);
    assert_eq!(home.run(["manifest", "show", "manifest.json"]).await.answer(), shown);
    let check = ["manifest", "check", "manifest.json", "--expect"];
    assert_eq!(home.run(check.into_iter().chain([&*model.id])).await.answer(), shown);
    let other = "0".repeat(64);
    let message = home.run(check.into_iter().chain([&*other])).await.failure(3);
    assert!(message.contains(&other) && message.contains(&model.id), "{message}");
    put(&home.path("bad.json"), b"{\"version\": 2}");
    let message = home.run(["manifest", "check", "bad.json"]).await.failure(3);
    assert!(message.contains("`version` is 2, expected 1"), "{message}");
    home.run(["manifest", "check", "missing.json"]).await.failure(1);
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_a_seeder_with_success() {
    let home = Home::new();
    let mut seeder = home.start(["serve", "--listen", TCP]);
    seeder.first_line().await;
    seeder.terminate().await;
    seeder.outcome().await.expect(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_come_from_flags_then_variables_then_the_file() {
    let home = Home::new();
    put(&home.path("settings.toml"), b"cache-dir = 'of-the-file'\nwait = '1ms'\n");
    let path = |flag: Option<&'static str>, variable: Option<&'static str>| {
        let mut command = home.command(["--config", "settings.toml", "cache", "path"]);
        command.args(flag.map(|dir| format!("--cache-dir={dir}")));
        if let Some(dir) = variable {
            command.env("LOADER_CACHE_DIR", dir);
        }
        Process::start(command).outcome()
    };
    for (flag, variable, expected) in [
        (None, None, "of-the-file"),
        (None, Some("of-the-variable"), "of-the-variable"),
        (Some("of-the-flag"), Some("of-the-variable"), "of-the-flag"),
    ] {
        let found = path(flag, variable).await.expect(0).stdout;
        assert!(found.trim_end().ends_with(expected), "{found}");
    }
    put(&home.path("settings.toml"), b"cache-dirs = 'typo'\n");
    let message = home.run(["--config", "settings.toml", "cache", "path"]).await.failure(2);
    assert!(message.contains("line 1") && message.contains("did you mean cache-dir?"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_setting_is_shown_with_its_origin() {
    let home = Home::new();
    let text = "wait = '1m'\npeer = '/ip4/192.0.2.1/tcp/1'\n[fetch]\nwait = '2m'\nno-code = true\n";
    put(&home.path("settings.toml"), text.as_bytes());
    let show = |args: &str| {
        let mut command = home.command(["--json", "--config", "settings.toml", "config", "show"]);
        command.args(args.split_whitespace()).env("LOADER_QUORUM", "2");
        Process::start(command).outcome()
    };
    let shown = show("fetch --peer /ip4/192.0.2.2/tcp/1 -v").await.expect(0).answers();
    let of = |key: &str| {
        let found = shown.iter().find(|one| one["key"] == key).unwrap_or_else(|| panic!("{key}: {shown:?}"));
        (found["values"].clone(), found["origin"].as_str().unwrap(), found["place"].as_str().unwrap_or("-"))
    };
    let is = |values: &[&str], origin, place| (serde_json::json!(values), origin, place);
    assert_eq!(of("wait"), is(&["2m"], "file", "settings.toml:4"));
    assert_eq!(of("no-code"), is(&["true"], "file", "settings.toml:5"));
    assert_eq!(of("peer"), is(&["/ip4/192.0.2.2/tcp/1"], "flag", "-"));
    assert_eq!(of("verbose"), is(&["1"], "flag", "-"));
    assert_eq!(of("quorum"), is(&["2"], "variable", "LOADER_QUORUM"));
    assert_eq!(of("memory"), is(&["256MiB"], "default", "-"));
    assert_eq!(of("link"), is(&[], "default", "-"));
    // Of all commands: those for which it is so.
    let all = show("").await.expect(0).answers();
    let waits: Vec<_> = all.iter().filter(|one| one["key"] == "wait").map(|one| &one["commands"]).collect();
    assert_eq!(waits, [&serde_json::json!(["watch", "verify"]), &serde_json::json!(["fetch"])]);
    // A command that needs more than is there is shown all the same, and one that is wrong is not.
    assert!(!show("publish").await.expect(0).answers().is_empty());
    assert!(show("fetch --waits 1s").await.failure(2).contains("--waits"));
    assert!(!home.cache("").exists(), "nobody has asked for a cache");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_takes_what_it_needs_from_the_file() {
    let (model, home) = (Recipe::default().publish().await, Home::new());
    let seeder = Seeder::start(&model, &model.shards_but(&[])).await;
    let settings = format!(
        "peer = '{}'\n[fetch]\nmanifest = '{}'\nlink = 'model'\nno-listen = true\n\
         [publish]\nmodel-kind = 'simplenet'\n",
        seeder.address(),
        model.id
    );
    put(&home.path("settings.toml"), settings.as_bytes());
    let fetched = home.run(["--config", "settings.toml", "fetch"]).await.answer();
    assert_eq!((&fetched["manifest"], home.path("model").exists()), (&model.id.clone().into(), true));
    put(&home.path("weights"), b"weights");
    let published = home.run(["--config", "settings.toml", "publish", "weights"]).await.answer();
    // The line wins.
    let other = published["manifest"].as_str().unwrap();
    let fetched = home.run(["--config", "settings.toml", "fetch", other]).await.answer();
    assert_eq!(fetched["manifest"], other);
}

/// The objects that `docs/cli.md` promises, by type: those that begin so.
pub(crate) fn promised(start: &str) -> BTreeMap<String, Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cli.md");
    let text = std::fs::read_to_string(path).unwrap();
    let objects = text.lines().filter(|line| line.starts_with(start));
    let named = objects.map(|line| {
        let object: Value = serde_json::from_str(line).unwrap();
        (object["type"].as_str().unwrap_or("log").to_owned(), object)
    });
    named.collect()
}

/// Fails the test unless all that is promised is there, in the same form.
#[track_caller]
pub(crate) fn assert_keeps(promise: &Value, answer: &Value) {
    match (promise, answer) {
        (Value::Object(promise), Value::Object(fields)) => {
            for (name, promise) in promise {
                assert_keeps(promise, fields.get(name).unwrap_or_else(|| panic!("no {name} in {answer}")));
            }
        }
        (Value::Array(promise), Value::Array(answers)) => {
            for answer in answers {
                assert_keeps(&promise[0], answer);
            }
        }
        (_, Value::Null) | (Value::Null, _) => {}
        (Value::String(_), Value::String(_))
        | (Value::Number(_), Value::Number(_))
        | (Value::Bool(_), Value::Bool(_)) => {}
        _ => panic!("expected the form of {promise}, found {answer}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_those_of_the_documentation() {
    let (chain, publisher, home) = (Chain::start().await, Home::new(), Home::new());
    put(&publisher.path("model"), b"weights");
    let mut publish =
        publisher.command(["--json", "publish", "model", "--model-kind", "simplenet", "--price", "0"]);
    publish.args(chain.flags()).args(["--private-key-env", "KEY"]).env("KEY", chain.devnet().owner_key());
    let published = Process::start(publish).outcome().await.answer();
    chain.mine(2).await;
    let id = published["manifest"].as_str().unwrap();
    let mut seeder = publisher.start(["serve", "--listen", TCP]);
    let listening: Value = serde_json::from_str(&seeder.first_line().await).unwrap();
    let flags = chain.flags();
    let address = listening["address"].as_str().unwrap();
    let fetch = ["fetch", "--peer", address].into_iter().chain(flags.iter().map(String::as_str));
    let mut answers = vec![home.run(fetch).await.answer(), published.clone(), listening.clone()];
    assert!(home.run(["status"]).await.failure(4).contains("no node is running"));
    answers.push(publisher.run(["status"]).await.answer());
    assert_eq!(answers[3]["models"], Value::from([id].as_slice()));
    for line in [
        &["verify"][..],
        &["manifest", "show", id],
        &["cache", "ls"],
        &["cache", "path"],
        &["id"],
        &["cache", "unpin", id],
        &["cache", "rm", id],
        &["chain", "show"],
        &["chain", "forget", "--contract", &chain.contract()],
    ] {
        answers.push(home.run(line).await.answer());
    }
    answers.extend(home.run(["cache", "rm", id]).await.expect(1).answers());
    answers.extend(home.run(["doctor"]).await.answers().into_iter().take(1));
    answers.extend(home.run(["config", "show", "id"]).await.expect(0).answers().into_iter().take(1));
    std::fs::create_dir(home.path("blobs")).unwrap();
    e2e::sharder("layer_wise", &home.path("blobs"), &home.path("shards.json")).await.expect(0);
    let assemble =
        ["manifest", "from-shards", "shards.json", "--blob-dir", "blobs", "--model-kind", "simplenet"];
    answers.push(home.run(assemble).await.answer());
    put_private(&home.path("password"), b"secret\n");
    let key = ["key", "new", "--keystore", "key.json", "--password-file", "password"];
    answers.push(home.run(key).await.answer());

    let mut promised = promised("{\"type\":");
    for answer in &answers {
        let name = answer["type"].as_str().unwrap();
        let promise =
            promised.remove(name).unwrap_or_else(|| panic!("docs/cli.md has no {name}, or it came twice"));
        assert_keeps(&promise, answer);
    }
    assert!(promised.is_empty(), "never answered: {:?}", promised.keys());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_peer_id_is_that_of_the_node_and_shells_learn_the_commands() {
    let home = Home::new();
    let mut serving = Process::start(home.command(["serve", "--listen", TCP]));
    let address = serving.first_line().await;
    let id = home.plain(["id"]).await.expect(0).stdout;
    assert!(address.ends_with(id.trim()), "{address} is of {id}");
    serving.kill().await;
    assert_eq!(home.plain(["id"]).await.expect(0).stdout, id, "also when no node runs");
    for shell in ["bash", "zsh", "fish"] {
        let script = home.plain(["completions", shell]).await.expect(0).stdout;
        assert!(script.contains("single-blob") && script.contains("publish"), "{shell}");
    }
    assert!(home.plain(["completions", "tcsh"]).await.expect(2).stderr.contains("bash"));
}
