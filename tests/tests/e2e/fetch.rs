//! Fetching from peers that are honest, whatever they have and speak.

use e2e::{Chain, Fetched, Home, Model, PIECE_BYTES, Peer, QUIC, Recipe, Seeder, Source};

/// Three seeders that hold different shards, but not those that are lost. Each shard is held by one.
async fn three_seeders(model: &Model, lost: &[usize]) -> Vec<Seeder> {
    let mut seeders = Vec::new();
    for third in 0..3 {
        let held: Vec<_> = model.shards_but(lost).into_iter().skip(third).step_by(3).collect();
        seeders.push(Seeder::start(model, &held).await);
    }
    seeders
}

fn addresses(seeders: &[Seeder]) -> Vec<&str> {
    seeders.iter().map(Seeder::address).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn from_the_contract_to_mapped_weights_and_again_from_the_cache() {
    let (model, chain, home) = (Recipe::default().publish().await, Chain::start().await, Home::new());
    chain.set(&model.id).await;
    let seeders = three_seeders(&model, &[]).await;
    let peers = addresses(&seeders).into_iter().flat_map(|peer| ["--peer", peer]).map(str::to_owned);
    let line: Vec<_> = ["fetch".to_owned()].into_iter().chain(chain.flags()).chain(peers).collect();

    let fetched = Fetched::of(home.run(&line).await);
    home.assert_has(&model, &fetched);
    assert_eq!((fetched.from_cache, fetched.resumed_bytes), (false, 0));
    assert_eq!(fetched.fetched_bytes, fetched.sources.iter().map(|source| source.good_bytes).sum::<u64>());
    for seeder in &seeders {
        let source = fetched.source(seeder.id());
        assert!(source.good_bytes > 0 && source.bad_bytes == 0 && !source.banned, "{source:?}");
    }
    let on_chain = fetched.chain.unwrap();
    assert_eq!(on_chain["contract"], chain.contract());
    assert_eq!((&on_chain["chain_id"], &on_chain["price"]), (&31337.into(), &"0".into()));

    // Nobody is left to ask: first only the chain is up, then nothing.
    for seeder in seeders {
        seeder.kill().await;
    }
    let again = Fetched::of(home.run(&line).await);
    assert!(again.from_cache && again.sources.is_empty() && again.chain.is_some(), "{again:?}");
    home.assert_has(&model, &again);
    drop(chain);
    let again = home.fetch(&model, &[]).await;
    assert!(again.from_cache && again.sources.is_empty() && again.chain.is_none(), "{again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_four_of_fourteen_shards() {
    let model = Recipe::default().publish().await;
    let seeders = three_seeders(&model, &[0, 3, 6, 9]).await;
    let fetched = Home::new().fetch(&model, &addresses(&seeders)).await;
    assert_eq!((fetched.fetched_bytes, fetched.rebuilt_bytes), (2_000_000, 800_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_uniform_layout_with_each_codec_with_and_without_an_index() {
    fetch_each_way(&[1_000_003], &[2, 9]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_layer_wise_layout_with_each_codec_with_and_without_an_index() {
    // Layers of several rows, of parts of one, and across the borders of rows. The large ones cannot be rebuilt.
    fetch_each_way(&[70_000, 1, 300_000, 33_333, 500_000, 95_666], &[1, 3]).await;
}

async fn fetch_each_way(layers: &[usize], lost: &[usize]) {
    for (codec, parity) in [("rs", 4), ("replica", 10)] {
        for index in [true, false] {
            let recipe = Recipe { layers: layers.to_vec(), codec, parity, index, ..Recipe::default() };
            let model = recipe.publish().await;
            let seeders = three_seeders(&model, lost).await;
            let fetched = Home::new().fetch(&model, &addresses(&seeders)).await;
            // A copy of a shard has its digest, and is served in its place: then nothing is lost.
            let served = model.blobs_of(&model.shards_but(lost));
            let lost = lost.iter().map(|shard| model.manifest.shards()[*shard]);
            let lost = lost.filter(|shard| !served.contains_key(&shard.digest));
            let lost_bytes: u64 = lost.map(|shard| shard.size_bytes).sum();
            assert!(fetched.rebuilt_bytes >= lost_bytes, "{recipe:?}: {fetched:?}");
            let is_honest = |source: &Source| source.bad_bytes == 0 && !source.banned;
            assert!(fetched.sources.iter().all(is_honest), "{recipe:?}: {fetched:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_parity() {
    let model = Recipe { parity: 0, ..Recipe::default() }.publish().await;
    let seeders = three_seeders(&model, &[]).await;
    let fetched = Home::new().fetch(&model, &addresses(&seeders)).await;
    assert_eq!((fetched.fetched_bytes, fetched.rebuilt_bytes), (2_000_000, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_around_the_number_of_rows() {
    for size in [1, 9, 10, 11, 10 * PIECE_BYTES, 10 * PIECE_BYTES + 1] {
        let model = Recipe::of_size(size).publish().await;
        let seeder = Seeder::start(&model, &model.shards_but(&[])).await;
        let fetched = Home::new().fetch(&model, &[seeder.address()]).await;
        assert_eq!(fetched.total_size_bytes, size as u64);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn from_peers_that_speak_1_0_0_only() {
    for index in [true, false] {
        let model = Recipe { index, ..Recipe::default() }.publish().await;
        let mut peers = Vec::new();
        for held in [vec![0, 1, 2, 10], vec![4, 5, 6, 11], vec![7, 8, 9, 12]] {
            let mut conduct = model.conduct().speaking_1_0_0();
            conduct.blobs = model.blobs_of(&held);
            peers.push(Peer::start(conduct).await);
        }
        let addresses: Vec<_> = peers.iter().map(Peer::address).collect();
        let fetched = Home::new().fetch(&model, &addresses).await;
        assert!(fetched.rebuilt_bytes >= 200_000, "{fetched:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn over_quic_and_tcp() {
    let model = Recipe::default().publish().await;
    let over_quic = Seeder::at(QUIC, &model, &[0, 1, 2, 3, 4]).await;
    let over_tcp = Seeder::start(&model, &[5, 6, 7, 8, 9]).await;
    assert!(over_quic.address().contains("/quic-v1/"));
    let fetched = Home::new().fetch(&model, &[over_quic.address(), over_tcp.address()]).await;
    for seeder in [over_quic, over_tcp] {
        assert_eq!(fetched.source(seeder.id()).good_bytes, 1_000_000);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_fetched_is_served_on() {
    let (model, home) = (Recipe::default().publish().await, Home::new());
    let first = Seeder::start(&model, &model.shards_but(&[])).await;
    home.fetch(&model, &[first.address()]).await;
    first.kill().await;
    let mut second = home.start(["serve", "--listen", e2e::TCP]);
    let listening: serde_json::Value = serde_json::from_str(&second.first_line().await).unwrap();
    let fetched = Home::new().fetch(&model, &[listening["address"].as_str().unwrap()]).await;
    assert_eq!((fetched.fetched_bytes, fetched.rebuilt_bytes), (2_000_000, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_digest_alone_says_which_model_however_it_is_written() {
    let (model, home) = (Recipe::default().publish().await, Home::new());
    let seeder = Seeder::start(&model, &model.shards_but(&[])).await;
    let fetch = ["fetch", &model.id, "--peer", seeder.address()];
    let fetched = Fetched::of(home.run(fetch).await);
    assert!(!fetched.from_cache && std::fs::read(&fetched.path).unwrap() == model.weights);
    for form in [model.id.to_uppercase(), format!("0x{}", model.id), format!("sha256:{}", &model.id[..12])] {
        assert!(Fetched::of(home.run(["fetch", &form]).await).from_cache, "{form}");
    }
    let both = home.run(["fetch", &model.id, "--manifest", &model.id]).await.expect(2).stderr;
    assert!(both.contains("cannot be used with"), "{both}");
    let told = home.run(["fetch", &model.id, "--peer", "127.0.0.1:4201"]).await.expect(2).stderr;
    assert!(told.contains("/ip4/127.0.0.1/tcp/4201"), "{told}");
}
