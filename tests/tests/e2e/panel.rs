//! What a node tells over HTTP, and what it does not take.

use e2e::{
    Chain, Fetched, Home, Http, Model, PIECE_BYTES, Peer, Process, QUIC, Recipe, Rpc, Seeder, TCP, made_up,
    soon,
};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Fails the test unless the text has the form of OpenMetrics: a type and a help before the samples of each name.
fn assert_is_open_metrics(text: &str) {
    assert!(text.ends_with("# EOF\n"), "{text}");
    let mut name = "";
    for line in text.lines().take_while(|line| *line != "# EOF") {
        if let Some(rest) = line.strip_prefix("# ") {
            name = rest.split(' ').nth(1).unwrap();
        } else {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            assert!(
                sample.starts_with(name) && value.parse::<f64>().is_ok(),
                "{line} is no sample of {name}"
            );
        }
    }
}

/// Everything that a fetch counts: from four seeders, one of which lies, with one shard that nobody has, after an earlier run
/// that was killed, beside another model that shares something.
#[tokio::test(flavor = "multi_thread")]
async fn every_counter_of_a_fetch_moves() {
    let (model, home) = (Recipe::default().publish().await, Home::new());
    let total_bytes = model.weights.len();
    // An earlier run got some of the first rows, and was killed.
    let first = Model { blobs: model.blobs_of(&[0, 1]), ..model.clone() };
    let early = Peer::start(first.conduct().stopping_after(3 * PIECE_BYTES as u64)).await;
    let fetching = home.start_fetch(&model, &[early.address()]);
    early.gate().reached().await;
    home.verifies(1).await;
    fetching.kill().await;
    drop(early);
    // Another model has the last fifth, too.
    let other: Vec<u8> = (0..total_bytes)
        .zip(made_up(total_bytes))
        .map(|(at, byte)| if at < total_bytes / 5 * 4 { !byte } else { byte })
        .collect();
    let other = Recipe::default().publish_weights(other).await;
    let seeder = Seeder::start(&other, &other.shards_but(&[])).await;
    home.fetch(&other, &[seeder.address()]).await;

    // Parity of one shard stands for shard 4, which nobody has; half of shard 5 comes when the gate is opened.
    let honest = Seeder::with(TCP, &model, &[0, 1, 2, 3, 10], &["--upload-limit", "512KiB"]).await;
    let quic = Seeder::at(QUIC, &model, &[6, 7, 8, 9]).await;
    // It lies about what others have, too, so that it is found out.
    let lies = Model { blobs: model.blobs_of(&[0, 1, 2, 3]), ..model.clone() };
    let liar = Peer::start(lies.conduct().lying_about(model.shards())).await;
    let half = Model { blobs: model.blobs_of(&[5]), ..model.clone() };
    let gated = Peer::start(half.conduct().stopping_after_pieces(2)).await;
    let peers = [honest.address(), quic.address(), gated.address(), liar.address()];
    let peers = peers.iter().flat_map(|peer| ["--peer", peer]);
    let line = ["fetch", "--http", "0", "--wait", "1m", "--listen", TCP, "--manifest", &model.id];
    let mut fetching = home.start(line.into_iter().chain(peers));
    let http = Http::of(&mut fetching).await;

    for (name, labels) in [
        (
            "loader_transferred_bytes_total",
            &[r#"direction="in""#, r#"transport="tcp""#, r#"outcome="good""#][..],
        ),
        (
            "loader_transferred_bytes_total",
            &[r#"direction="in""#, r#"transport="quic""#, r#"outcome="good""#],
        ),
        (
            "loader_transferred_bytes_total",
            &[r#"direction="in""#, r#"transport="tcp""#, r#"outcome="wrong""#],
        ),
        ("loader_pieces_total", &[r#"outcome="fetched""#]),
        ("loader_pieces_total", &[r#"outcome="rebuilt""#]),
        ("loader_pieces_total", &[r#"outcome="reused""#]),
        ("loader_pieces_total", &[r#"outcome="resumed""#]),
        ("loader_pieces_total", &[r#"outcome="wrong""#]),
        ("loader_spared_bytes_total", &[r#"origin="rebuilt""#]),
        ("loader_spared_bytes_total", &[r#"origin="reused""#]),
        ("loader_spared_bytes_total", &[r#"origin="resumed""#]),
        ("loader_verify_seconds_total", &[]),
        ("loader_rebuild_seconds_total", &[]),
        ("loader_bans_total", &[]),
        ("loader_peers", &[r#"state="source""#]),
        ("loader_peers", &[r#"state="banned""#]),
        ("loader_cache_bytes", &[other.id.as_str(), r#"state="finished""#]),
        ("loader_cache_bytes", &[model.id.as_str(), r#"state="partial""#]),
        ("loader_disk_free_bytes", &[]),
        ("loader_rarest_column_live_shards", &[]),
        ("loader_build", &[]),
    ] {
        http.counts(name, labels).await;
    }
    assert_eq!(http.count("loader_rarest_column_needed_shards", &[]).await, Some(10.0));
    assert_eq!(http.count("loader_ready", &[]).await, Some(0.0));
    assert_eq!(http.get("/readyz").await.status, 503);
    let metrics = http.get("/metrics").await;
    assert!(metrics.head.contains("application/openmetrics-text"), "{}", metrics.head);
    assert_is_open_metrics(&metrics.body);

    // Who fetches from it has it send, and is a peer that is no source.
    let status: Value = serde_json::from_str(&http.get("/status.json").await.body).unwrap();
    let mut told = home.run(["status"]).await.answer();
    for moving in
        ["uptime_s", "loading", "received_bytes", "received_bytes_per_s", "sent_bytes_per_s", "peers_others"]
    {
        told[moving] = status[moving].clone();
    }
    told.as_object_mut().unwrap().remove("cache");
    assert_eq!(status, told, "the same as `loader status`");
    let second = Home::new();
    let address = status["listen"][0].as_str().unwrap();
    let follower = second.start(["fetch", "--wait", "1m", "--manifest", &model.id, "--peer", address]);
    http.counts("loader_transferred_bytes_total", &[r#"direction="out""#, r#"transport="tcp""#]).await;
    http.counts("loader_peers", &[r#"state="other""#]).await;
    assert_shows_all(&http, &model, &liar.id()).await;

    gated.gate().open();
    let fetched = Fetched::of(fetching.outcome().await);
    home.assert_has(&model, &fetched);
    drop(follower);
}

/// The swarm as the page gets it.
async fn assert_shows_all(http: &Http, model: &Model, liar: &str) {
    let swarm: Value = serde_json::from_str(&http.get("/swarm.json").await.body).unwrap();
    let load = &swarm["loads"][0];
    assert_eq!(load["manifest"], model.id.as_str());
    assert_eq!((&load["model"]["data"], &load["model"]["parity"]), (&10.into(), &4.into()));
    let sources = load["sources"].as_array().unwrap();
    let found = sources.iter().find(|source| source["name"] == liar).unwrap();
    assert!(found["state"] == "banned" && found["wrong_bytes"].as_u64() > Some(0), "{found}");
    assert!(sources.iter().any(|source| source["round_trip_ms"].as_f64() > Some(0.0)), "{sources:?}");
    let path = format!("/pieces.json?load={}", load["number"]);
    let pieces: Value = serde_json::from_str(&http.get(&path).await.body).unwrap();
    assert_eq!(pieces["shards"], Value::from(vec![4; 14]));
    let next = format!("{path}&since={}", pieces["next"]);
    let later: Value = serde_json::from_str(&http.get(&next).await.body).unwrap();
    assert!(later["changes"].is_array() && later["cells"].is_null(), "{later}");
    assert_eq!(http.get("/pieces.json?load=77").await.status, 404);
}

/// A seeder with little to give says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_queue_and_busy_answers_are_counted_at_both_ends() {
    // Pieces that are large enough to need a slot.
    let model = Recipe { index: false, ..Recipe::default() }.publish().await;
    let (seeder, folder) = (Home::new(), model.folder(&model.shards_but(&[])));
    let folder = folder.path().to_str().unwrap();
    let limit = ["--upload-limit", "64KiB", "--http", "0", "--blob-dir", folder];
    let mut serving = seeder.start(["serve", "--listen", TCP].into_iter().chain(limit));
    let listening: Value = serde_json::from_str(&serving.first_line().await).unwrap();
    let of_seeder = Http::of(&mut serving).await;
    assert_eq!(of_seeder.get("/readyz").await.status, 200, "it seeds what it has");
    let address = listening["address"].as_str().unwrap();
    // Each asks for little of somebody so slow: together they ask for too much.
    let homes = [(); 4].map(|()| Home::new());
    let line = ["fetch", "--http", "0", "--manifest", &model.id, "--peer", address];
    let mut fetching: Vec<_> = homes.iter().map(|home| home.start(line)).collect();
    of_seeder.counts("loader_queued_requests", &[]).await;
    of_seeder.counts("loader_answers_under_way", &[]).await;
    of_seeder.counts("loader_busy_answers_total", &[r#"direction="given""#]).await;
    let got = async {
        loop {
            for one in &mut fetching {
                let of_fetcher = Http::of(one).await;
                if of_fetcher.count("loader_busy_answers_total", &[r#"direction="got""#]).await > Some(0.0) {
                    return;
                }
            }
        }
    };
    soon("a busy answer at a fetcher", got).await;
}

/// A probe sees when the model that the contract names is there, and the chain is counted.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_ready_once_the_named_model_is_mapped() {
    let (model, chain, home) = (Recipe::default().publish().await, Chain::start().await, Home::new());
    chain.set(&model.id).await;
    let (a, b) = (Rpc::honest(&chain).await, Rpc::honest(&chain).await);
    let liar = Rpc::lying(&chain, &model.id, &"ab".repeat(32)).await;
    let peer = Peer::start(model.conduct().stopping_after(100_000)).await;
    let contract = chain.contract();
    let endpoints = [&a, &b, &liar].map(|endpoint| endpoint.url().to_owned()).join(",");
    let mut watching = home.start([
        "watch",
        "--http",
        "127.0.0.1:0",
        "--poll-interval",
        "100ms",
        "--contract",
        &contract,
        "--rpc-url",
        &endpoints,
        "--peer",
        peer.address(),
    ]);
    let http = Http::of(&mut watching).await;
    peer.gate().reached().await;
    let waiting = http.get("/readyz").await;
    assert!(waiting.status == 503 && waiting.body.contains(&model.id), "{waiting:?}");
    assert_eq!(http.get("/healthz").await.status, 200);
    peer.gate().open();
    let ready = http.answers("/readyz", |reply| reply.status == 200).await;
    assert!(ready.body.contains(&model.id), "{ready:?}");
    for (name, labels) in [
        ("loader_ready", &[][..]),
        ("loader_loads_total", &[r#"outcome="done""#]),
        ("loader_last_load_timestamp_seconds", &[]),
        ("loader_last_load_duration_seconds", &[]),
        ("loader_chain_height", &[]),
        ("loader_chain_disagreements_total", &[]),
        ("loader_chain_rounds_total", &[r#"outcome="agreed""#]),
    ] {
        http.counts(name, labels).await;
    }
    for name in ["loader_chain_lag_blocks", "loader_chain_block_age_seconds"] {
        assert!(http.count(name, &[]).await.is_some(), "{name}");
    }
    let text = http.get("/metrics").await.body;
    assert!(!text.contains(&a.url()["http://".len()..]), "endpoints are not named to whoever scrapes");
    // What nobody has fails to load, and the old model stays.
    chain.set(&"cd".repeat(32)).await;
    let both = http.answers("/readyz", |reply| reply.body.contains("is being loaded")).await;
    assert_eq!(both.status, 200, "the model before is there: {both:?}");
    watching.terminate().await;
    watching.outcome().await.expect(0);
}

/// Whatever comes, it does no harm.
#[tokio::test(flavor = "multi_thread")]
async fn hostile_requests_are_refused_and_keep_nobody_out() {
    let home = Home::new();
    let mut serving =
        home.start(["serve", "--listen", TCP, "--http", "0", "--http-host", "models.example.org"]);
    let http = Http::of(&mut serving).await;
    let own = http.address().to_string();
    for (method, path, host, status) in [
        ("GET", "/", own.as_str(), 200),
        ("HEAD", "/", &own, 200),
        ("GET", "/page.js", "localhost", 200),
        ("GET", "/page.css", "models.example.org:80", 200),
        ("GET", "/", "evil.example.org", 421),
        ("GET", "/metrics", "127.0.0.1.evil.example.org", 421),
        ("POST", "/", &own, 405),
        ("DELETE", "/status.json", &own, 405),
        ("OPTIONS", "*", &own, 405),
        ("GET", "/../../etc/passwd", &own, 404),
        ("GET", "/pieces.json?load=-1&since=99999999999999999999", &own, 404),
    ] {
        let reply = http.ask(method, path, host).await;
        assert_eq!(reply.status, status, "{method} {path} {host}: {reply:?}");
        for header in [
            "content-security-policy: default-src 'none'",
            "x-content-type-options: nosniff",
            "cache-control: no-store",
        ] {
            assert!(reply.head.contains(header), "{reply:?}");
        }
        assert!(!reply.head.contains("access-control"), "{reply:?}");
    }
    let named = format!("GET / HTTP/1.1\r\nHost: {own}\r\n");
    for (request, status) in [
        (format!("{named}X: {}\r\n\r\n", "x".repeat(64 << 10)), 431),
        (format!("{named}{}\r\n", "X: x\r\n".repeat(100)), 431),
        (format!("{named}Content-Length: 5\r\nConnection: close\r\n\r\nhello"), 400),
        (format!("{named}Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n5\r\nhello\r\n"), 400),
        (format!("{named}Host: {own}\r\nConnection: close\r\n\r\n"), 421),
        ("GET / HTTP/1.0\r\n\r\n".to_owned(), 421),
        ("no request at all\r\n\r\n".to_owned(), 400),
    ] {
        let reply = http.send(request.as_bytes()).await;
        assert_eq!(reply.status, status, "{}: {reply:?}", &request[..request.len().min(200)]);
    }
    // More slow clients than there is room for: the oldest goes, and who asks quickly is answered.
    let mut slow = Vec::new();
    for _ in 0..40 {
        let mut stream = http.connect().await;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: loc").await.unwrap();
        slow.push(stream);
        assert_eq!(http.get("/healthz").await.status, 200);
    }
    let mut nothing = Vec::new();
    let _ = soon("the end of the oldest", slow[0].read_to_end(&mut nothing)).await;
    assert!(nothing.is_empty());
    // The same process as before.
    let status: Value = serde_json::from_str(&http.get("/status.json").await.body).unwrap();
    assert_eq!((&status["type"], &status["pid"]), (&"status".into(), &serving.id().into()));
    serving.terminate().await;
    serving.outcome().await.expect(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_loopback_there_are_numbers_and_probes_unless_the_page_is_wanted() {
    for (flags, page) in [(&[][..], 404), (&["--http-page"], 200)] {
        let home = Home::new();
        let line = ["serve", "--listen", TCP, "--http", "0.0.0.0:0"];
        let mut serving = home.start(line.iter().chain(flags));
        let http = Http::of(&mut serving).await;
        for path in ["/", "/status.json", "/swarm.json", "/page.js"] {
            assert_eq!(http.get(path).await.status, page, "{path} {flags:?}");
        }
        for path in ["/metrics", "/healthz", "/readyz"] {
            assert_eq!(http.get(path).await.status, 200, "{path} {flags:?}");
        }
        let taken = http.address().to_string();
        let refused = Home::new().run(["serve", "--listen", TCP, "--http", &taken]).await.failure(2);
        assert!(refused.contains("--http") && refused.contains("in use"), "{refused}");
    }
    assert!(Home::new().run(["serve", "--http-page"]).await.failure(2).contains("--http ADDR"));
}

/// A browser sees the model half there, and then all of it. The screenshots are those of `docs/`, which are made again with
/// `LOADER_SCREENSHOTS=$PWD/docs/images`.
#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_right_in_a_browser() {
    let (model, chain, home) = (Recipe::default().publish().await, Chain::start().await, Home::new());
    chain.set(&model.id).await;
    let honest = Seeder::with(TCP, &model, &[0, 1, 2, 3, 10], &["--upload-limit", "512KiB"]).await;
    let quic = Seeder::at(QUIC, &model, &[6, 7, 8, 9]).await;
    let lies = Model { blobs: model.blobs_of(&[0, 1, 2, 3]), ..model.clone() };
    let liar = Peer::start(lies.conduct().lying_about(model.shards())).await;
    // Half of shard 5 comes when the gate is opened; with it shard 4, which nobody has, is rebuilt.
    let half = Model { blobs: model.blobs_of(&[5]), ..model.clone() };
    let gated = Peer::start(half.conduct().stopping_after_pieces(2)).await;
    let peers = [honest.address(), quic.address(), gated.address(), liar.address()];
    let peers = peers.iter().flat_map(|peer| ["--peer", peer]).map(str::to_owned);
    let line = ["watch", "--http", "0", "--poll-interval", "100ms"].map(str::to_owned);
    let mut watching = home.start(line.into_iter().chain(chain.flags()).chain(peers));
    let http = Http::of(&mut watching).await;
    http.counts("loader_pieces_total", &[r#"outcome="rebuilt""#]).await;
    http.counts("loader_bans_total", &[]).await;

    let [node, script, chromium] = e2e::browser();
    let screenshots = std::env::var_os("LOADER_SCREENSHOTS").map_or(home.path(""), Into::into);
    let mut look = tokio::process::Command::new(node);
    look.arg(script).arg(chromium).arg(format!("http://{}/", http.address())).arg(&screenshots);
    // Chromium keeps a profile there.
    look.env("HOME", home.path("")).current_dir(home.path(""));
    let mut looking = Process::start(look);
    looking.prints(|said| said.contains("seen\n")).await;
    gated.gate().open();
    let seen = looking.outcome().await;
    assert_eq!(seen.status, Some(0), "{}\n{}", seen.stdout, seen.stderr);
    println!("{}", seen.stdout);
}
