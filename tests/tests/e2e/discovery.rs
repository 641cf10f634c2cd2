//! Finding peers: nodes that know only one other find the rest.

use e2e::{Fetched, Home, Model, Process, Recipe, Seeder, TCP, put};

/// A `loader serve` that holds nothing; its address.
async fn bootstrap(home: &Home) -> (Process, String) {
    let mut process = Process::start(home.command(["serve", "--listen", TCP]));
    let address = process.first_line().await;
    (process, address)
}

/// Three seeders that know the bootstrap peer, and hold different shards between them.
async fn three_seeders(model: &Model, bootstrap: &str, flags: &[&str]) -> Vec<Seeder> {
    let mut seeders = Vec::new();
    for third in 0..3 {
        let held: Vec<_> = model.shards_but(&[]).into_iter().skip(third).step_by(3).collect();
        let flags: Vec<_> = ["--bootstrap", bootstrap].iter().chain(flags).copied().collect();
        seeders.push(Seeder::with(TCP, model, &held, &flags).await);
    }
    seeders
}

fn assert_all_gave(fetched: &Fetched, seeders: &[Seeder]) {
    for seeder in seeders {
        let source = fetched.source(seeder.id());
        assert!(source.good_bytes > 0 && source.bad_bytes == 0, "{source:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_knows_one_peer_finds_all_holders() {
    // Without parity each holder is needed.
    let model = Recipe { parity: 0, ..Recipe::default() }.publish().await;
    let (hub, home) = (Home::new(), Home::new());
    let (_bootstrap, address) = bootstrap(&hub).await;
    let seeders = three_seeders(&model, &address, &[]).await;
    // The seeders tell the bootstrap peer of themselves when they have connected: until then it knows nobody.
    let fetch = ["fetch", "--wait", "30s", "--manifest", &model.id, "--bootstrap", &address];
    let fetched = Fetched::of(home.run(fetch).await);
    home.assert_has(&model, &fetched);
    assert_all_gave(&fetched, &seeders);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_holds_nothing_is_not_asked_for_shards_and_nobody_is_found() {
    let (model, hub, home) = (Recipe::of_size(1).publish().await, Home::new(), Home::new());
    let (_bootstrap, address) = bootstrap(&hub).await;
    let fetch = ["fetch", "--wait", "1s", "--manifest", &model.id, "--bootstrap", &address];
    let message = home.run(fetch).await.failure(4);
    let (_, id) = address.rsplit_once("/p2p/").unwrap();
    assert!(message.contains(&model.id) && message.contains(id), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dht_alone_leads_to_all_holders() {
    let model = Recipe { parity: 0, ..Recipe::default() }.publish().await;
    let (first_home, second_home, home) = (Home::new(), Home::new(), Home::new());
    let mut first = Process::start(first_home.command(["serve", "--listen", TCP, "--dht-server"]));
    let first_address = first.first_line().await;
    let second = ["serve", "--listen", TCP, "--dht-server", "--bootstrap", &first_address];
    let mut second = Process::start(second_home.command(second));
    // The seeders tell the second node what they hold, and the fetcher knows the first one only.
    let seeders = three_seeders(&model, &second.first_line().await, &["--dht-server"]).await;
    let fetch = ["fetch", "--wait", "30s", "--manifest", &model.id, "--bootstrap", &first_address];
    let fetched = Fetched::of(home.run(fetch).await);
    home.assert_has(&model, &fetched);
    assert_all_gave(&fetched, &seeders);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_needs_no_bootstrap() {
    let (one, two, home) =
        (Recipe::of_size(100).publish().await, Recipe::of_size(200).publish().await, Home::new());
    let folder = one.folder(&one.shards_but(&[]));
    for (blob, bytes) in two.blobs_of(&two.shards_but(&[])) {
        put(&folder.path().join(blob.to_string()), &bytes);
    }
    let (seeder_home, folder) = (Home::new(), folder.path().display().to_string());
    let mut seeder = Process::start(seeder_home.command(["serve", "--listen", TCP, "--blob-dir", &folder]));
    let address = seeder.first_line().await;
    home.fetch(&one, &[&address]).await;
    let fetched = home.fetch(&two, &[]).await;
    assert_eq!(fetched.sources.iter().filter(|source| source.good_bytes > 0).count(), 1, "{fetched:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seeder_in_the_local_network_needs_no_address() {
    let (model, home, seeder_home) = (Recipe::default().publish().await, Home::new(), Home::new());
    let folder = model.folder(&model.shards_but(&[]));
    let mut serve = seeder_home.command(["serve", "--listen", "/ip4/0.0.0.0/tcp/0", "--blob-dir"]);
    serve.arg(folder.path()).env_remove("LOADER_NO_MDNS");
    let mut seeder = Process::start(serve);
    let address = seeder.first_line().await;
    let mut fetch = home.command(["--json", "fetch", "--wait", "30s", "--manifest", &model.id]);
    fetch.env_remove("LOADER_NO_MDNS");
    let fetched = Fetched::of(Process::start(fetch).outcome().await);
    home.assert_has(&model, &fetched);
    assert!(fetched.source(address.rsplit_once("/p2p/").unwrap().1).good_bytes > 0, "{fetched:?}");
}
