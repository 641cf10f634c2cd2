//! What a person sees at a terminal, and what a log keeps.

use std::collections::BTreeSet;

use e2e::{Home, Peer, Process, Recipe, Seeder, TCP, Terminal};
use serde_json::Value;
use tokio::process::Command;

use crate::cli::{assert_keeps, promised};

/// A line that tells how far the whole is, when half of two million bytes are there.
fn is_half(line: &str) -> bool {
    let percent = line.split(" %").next().unwrap_or_default().trim_start_matches("total").trim();
    matches!(percent.parse(), Ok(1..=99)) && (line.contains(" of 1.91 MiB") || line.len() < 20)
}

fn fetch(home: &Home, model: &str, peer: &str) -> Command {
    let mut command = home.command(["fetch", model, "--wait", "5m", "--peer", peer]);
    command.env("TERM", "xterm");
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_is_always_on_the_screen_however_small_that_is() {
    let model = Recipe::default().publish().await;
    for (columns, rows, parts) in [(80, 24, 10), (40, 20, 10), (40, 8, 4), (20, 5, 1), (6, 1, 0)] {
        let peer = Peer::start(model.conduct().stopping_after(1_000_000)).await;
        let home = Home::new();
        let terminal = Terminal::start(fetch(&home, &model.id, peer.address()), columns, rows);
        let is_drawn =
            |lines: &[String]| lines.last().is_some_and(|line| is_half(line)) && lines.len() == 1 + parts;
        let drawn = terminal.shows(is_drawn).await;
        let (_, above) = drawn.split_last().unwrap();
        assert!(above.iter().all(|line| line.starts_with("shard ") && line.contains('%')), "{drawn:#?}");

        peer.gate().open();
        let (status, left, _) = terminal.outcome().await;
        assert_eq!(status, Some(0), "{left:#?}");
        assert!(!left.iter().any(|line| line.contains('%') || line.starts_with("shard")), "{left:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bars_fit_a_terminal_that_becomes_smaller_and_larger() {
    let (model, home) = (Recipe::default().publish().await, Home::new());
    let peer = Peer::start(model.conduct().stopping_after(1_000_000)).await;
    let terminal = Terminal::start(fetch(&home, &model.id, peer.address()), 80, 24);
    for (columns, rows, parts) in [(80, 24, 10), (40, 20, 10), (20, 5, 1), (100, 30, 10), (40, 20, 10)] {
        terminal.resize(columns, rows);
        let fits = |lines: &[String]| {
            // What was drawn for another size at that moment may stay above.
            lines.last().is_some_and(|line| is_half(line) && line.len() > usize::from(columns) / 3)
                && lines.iter().filter(|line| line.starts_with("shard ")).count() >= parts
        };
        terminal.shows(fits).await;
    }
    peer.gate().open();
    let (status, left, _) = terminal.outcome().await;
    assert_eq!(status, Some(0), "{left:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dumb_terminal_gets_lines_and_nothing_that_steers() {
    let model = Recipe::default().publish().await;
    let seeder = Seeder::start(&model, &model.shards_but(&[])).await;
    for (variable, steers) in [(("TERM", "dumb"), false), (("TERM", "xterm"), true)] {
        let home = Home::new();
        let mut command = fetch(&home, &model.id, seeder.address());
        command.env(variable.0, variable.1);
        let (status, _, written) = Terminal::start(command, 200, 24).outcome().await;
        assert_eq!(status, Some(0), "{written}");
        let controls = |char: char| char.is_control() && char != '\n';
        // A terminal begins lines itself.
        assert_eq!(written.replace("\r\n", "\n").contains(controls), steers, "{written:?}");
        assert_eq!(
            written.contains(&format!("Z model {}: 1.91 MiB verified", model.id)),
            !steers,
            "{written}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn colours_are_only_where_they_are_wanted() {
    let home = Home::new();
    for (variables, coloured) in [
        (&[("TERM", "xterm")][..], true),
        (&[("TERM", "xterm"), ("NO_COLOR", "1")], false),
        (&[("TERM", "xterm"), ("NO_COLOR", "")], true),
        (&[("TERM", "dumb")], false),
    ] {
        // A mistake is told in plain text always.
        for (line, coloured) in
            [("--help", coloured), ("fetch --help", coloured), ("fetch --nonsense", false)]
        {
            let mut command = home.command(line.split(' '));
            command.envs(variables.iter().copied());
            let (_, _, written) = Terminal::start(command, 80, 24).outcome().await;
            assert_eq!(written.contains('\u{1b}'), coloured, "{variables:?} {line}: {written:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn quiet_is_silent_but_for_errors() {
    let (model, home) = (Recipe::default().publish().await, Home::new());
    let seeder = Seeder::start(&model, &model.shards_but(&[])).await;
    let fetched = home.plain(["-q", "fetch", &model.id, "--peer", seeder.address()]).await.expect(0);
    assert_eq!((fetched.stderr.as_str(), fetched.stdout.lines().count()), ("", 1));
    let elsewhere = Home::new();
    let failed = elsewhere.plain(["fetch", &model.id, "--quiet", "--wait", "1ms"]).await.expect(4);
    assert!(failed.stderr.starts_with("error: ") && failed.stdout.is_empty(), "{failed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_says_when_which_model_came_from_how_many() {
    let (model, home) = (Recipe::default().publish().await, Home::new());
    let one = Seeder::start(&model, &[1, 2, 3, 4, 5]).await;
    let other = Seeder::start(&model, &[6, 7, 8, 9, 10, 11]).await;
    let fetch = ["fetch", &model.id, "--peer", one.address(), "--peer", other.address()];
    let fetched = home.plain(fetch).await.expect(0).stderr;
    let line = fetched.lines().find(|line| line.contains("verified and mapped")).unwrap();
    let (time, told) = line.split_once(' ').unwrap();
    assert!(time.len() > 20 && time.starts_with("20") && time.ends_with('Z'), "{line}");
    assert!(told.starts_with(&format!("model {}: 1.91 MiB verified and mapped in ", model.id)), "{line}");
    assert!(told.contains(" from 2 peers: 1.91 MiB fetched, 195 KiB rebuilt"), "{line}");
    let again = home.plain(fetch).await.expect(0).stderr;
    assert!(again.contains(&format!("Z model {}: 1.91 MiB in the cache already", model.id)), "{again}");
}

/// The objects on stderr, each as the documentation has it.
fn events(stderr: &str) -> Vec<Value> {
    let promised = promised("{\"timestamp\":");
    let read = |line| {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let kind = event["type"].as_str().unwrap_or("log");
        assert_keeps(promised.get(kind).unwrap_or_else(|| panic!("docs/cli.md has no {kind}")), &event);
        event
    };
    stderr.lines().map(read).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_those_of_the_documentation() {
    let (model, home) = (Recipe::default().publish().await, Home::new());
    let seeder = Seeder::start(&model, &model.shards_but(&[0])).await;
    let liar = Peer::start(model.conduct().lying_about([model.shard(1)])).await;
    let halfway = Peer::start(model.conduct().stopping_after(500_000)).await;
    let fetch = |peers: &[&str]| {
        let peers = peers.iter().flat_map(|peer| ["--peer", peer]);
        let line = ["--log-format", "json", "-v", "fetch", &model.id, "--wait", "1s"];
        Process::start(home.command(line.into_iter().chain(peers)))
    };
    let mut seen = BTreeSet::new();
    let mut take = |stderr: &str| {
        let events = events(stderr);
        let kinds = events.iter().map(|event| event["type"].as_str().unwrap_or("log").to_owned());
        seen.extend(kinds);
        events
    };
    // One that is ended, with another that waits for it, and one that goes on from there.
    let nobody = "/ip4/127.0.0.1/tcp/1";
    let mut ended = fetch(&[halfway.address(), nobody]);
    ended.notes(|text| text.contains("\"type\":\"source-down\"")).await;
    ended.notes(|text| text.contains("\"type\":\"progress\"")).await;
    home.verifies(1).await;
    let mut waiting = fetch(&[]);
    waiting.notes(|text| text.contains("\"type\":\"waiting\"")).await;
    waiting.terminate().await;
    take(&waiting.outcome().await.expect(1).stderr);
    ended.terminate().await;
    let told = take(&ended.outcome().await.expect(1).stderr);
    assert!(
        told.iter().any(|event| event["type"] == "error" && event["message"] == "interrupted"),
        "{told:?}"
    );
    halfway.gate().open();
    let resumed = fetch(&[seeder.address(), liar.address()]).outcome().await.expect(0);
    let told = take(&resumed.stderr);
    let done: Vec<_> = told.iter().filter(|event| event["type"] == "done").collect();
    let [done] = done[..] else { panic!("{told:?}") };
    assert_eq!((&done["manifest"], &done["total_bytes"]), (&model.id.clone().into(), &2_000_000.into()));
    let again = fetch(&[]).outcome().await.expect(0);
    assert_eq!(take(&again.stderr).last().unwrap()["from_cache"], true);
    let bad = fetch(&["127.0.0.1:4201"]).outcome().await.expect(2);
    assert!(take(&bad.stderr)[0]["message"].as_str().unwrap().contains("/ip4/127.0.0.1/tcp/4201"));

    let promised: BTreeSet<String> = promised("{\"timestamp\":").into_keys().collect();
    // A shard is wrong as a whole only without a piece index; what others are rebuilt from is a race.
    let may_be_missing = BTreeSet::from(["shard-wrong", "wrong-bytes", "rebuilt"].map(str::to_owned));
    let missing: Vec<_> = promised.difference(&seen).filter(|kind| !may_be_missing.contains(*kind)).collect();
    assert!(missing.is_empty(), "never told: {missing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_told_as_events_for_programs() {
    let model = Recipe::default().publish().await;
    let lost = [0, 3, 6, 9];
    let liar = Peer::start(model.conduct().lying_about(model.shards())).await;
    let home = Home::new();
    let line = ["fetch", &model.id, "--progress", "json", "-q", "--wait", "1s", "--peer", liar.address()];
    let mut fetch = Process::start(home.command(line));
    fetch.notes(|text| text.contains("\"type\":\"wrong-bytes\"")).await;
    let failed = fetch.outcome().await.expect(4);
    let (error, told): (Vec<&str>, _) = failed.stderr.lines().partition(|line| !line.starts_with('{'));
    assert!(error[0].starts_with("error: "), "errors are as ever: {error:?}");
    let told = events(&told.join("\n"));
    let wrong = told.iter().find(|event| event["type"] == "wrong-bytes").unwrap();
    assert_eq!((&wrong["source"], &wrong["level"]), (&liar.id().into(), &"WARN".into()));
    assert_eq!(told.iter().find(|event| event["type"] == "source-up").unwrap()["source"], liar.id());

    let seeder = Seeder::start(&model, &model.shards_but(&lost)).await;
    let line = ["fetch", &model.id, "--progress", "json", "-q", "--wait", "1s", "--peer", seeder.address()];
    let told = events(&home.plain(line).await.expect(0).stderr);
    let of = |kind: &str| told.iter().filter(|event| event["type"] == kind).collect::<Vec<_>>();
    let rebuilt: u64 = of("rebuilt").iter().map(|event| event["bytes"].as_u64().unwrap()).sum();
    let [done] = of("done")[..] else { panic!("{told:?}") };
    assert_eq!((rebuilt, &done["rebuilt_bytes"]), (800_000, &800_000.into()));
    assert_eq!((&done["sources"], &of("begin")[0]["total_bytes"]), (&1.into(), &2_000_000.into()));
    let last = of("progress").into_iter().next_back().unwrap();
    assert_eq!((&last["done_bytes"], &last["activity"]), (&2_000_000.into(), &"fetching".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_variable_that_is_no_setting_is_told() {
    let home = Home::new();
    let mut command = home.command(["cache", "path"]);
    command.env("LOADER_PEERS", "of-mine").env("LOADER_PATH", "/told/to/a/hook").env("LOADER_WAIT", "1s");
    let told = Process::start(command).outcome().await.expect(0).stderr;
    assert_eq!(told, "warning: the variable LOADER_PEERS is no setting: did you mean LOADER_PEER?\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn status_tells_what_keeps_each_model() {
    let (model, home) = (Recipe::default().publish().await, Home::new());
    let seeder = Seeder::start(&model, &model.shards_but(&[])).await;
    let link = home.path("current").display().to_string();
    let fetch = ["fetch", &model.id, "--link", &link, "--peer", seeder.address()];
    home.run(fetch).await.expect(0);
    let mut serving = home.start(["serve", "--listen", TCP]);
    serving.first_line().await;
    let status = home.run(["status"]).await.answer();
    let [held] = status["cache"]["models"].as_array().unwrap().as_slice() else { panic!("{status}") };
    assert_eq!((&held["manifest"], &held["finished"]), (&model.id.clone().into(), &true.into()));
    assert_eq!(held["kept_by"], serde_json::json!([{"by": "link", "name": link}]));
    home.run(["cache", "pin", &model.id]).await.expect(0);
    let told = home.plain(["status"]).await.expect(0).stdout;
    assert!(told.contains(&format!("kept by a pin, link {link}")), "{told}");
    assert!(told.contains(" connected, 0 give what is loaded"), "{told}");
}
