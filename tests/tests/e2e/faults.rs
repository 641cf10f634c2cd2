//! Fetching from peers that lie, stall or leave, and when there are too few.

use e2e::{Conduct, Fetched, Home, Line, Model, PIECE_BYTES, Peer, Recipe, Seeder, TCP};

/// Has everything, and sends nothing of it before its gate is opened, not even the manifest.
fn stalling(model: &Model) -> Conduct {
    model.conduct().gating_everything().stopping_after(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn too_few_shards_are_named_with_the_peers_that_were_asked() {
    let (model, home) = (Recipe::default().publish().await, Home::new());
    let one = Seeder::start(&model, &[0, 2, 4, 6]).await;
    let other = Seeder::start(&model, &[8, 10, 11, 12, 13]).await;
    let message = home.start_fetch(&model, &[one.address(), other.address()]).outcome().await.failure(4);
    for part in ["shard 1", "shard 3", "shard 5", "shard 7", "shard 9", one.id(), other.id()] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert!(!message.contains("shard 2"), "it is not missing: {message}");
    // A peer with one more shard is enough. What came before is kept: parity did not, as it was of no use.
    let last = Seeder::start(&model, &[9]).await;
    let fetched = home.fetch(&model, &[other.address(), last.address()]).await;
    assert_eq!((fetched.fetched_bytes, fetched.resumed_bytes), (1_000_000, 1_000_000));
    assert_eq!(fetched.rebuilt_bytes, 800_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_to_ask() {
    let (model, home) = (Recipe::of_size(1).publish().await, Home::new());
    let message = home.start_fetch(&model, &[]).outcome().await.failure(4);
    assert!(message.contains(&model.id) && message.contains("no source is known"), "{message}");
    let seeder = Seeder::start(&model, &[]).await;
    let address = seeder.address().to_owned();
    seeder.kill().await;
    let message = home.start_fetch(&model, &[&address]).outcome().await.failure(4);
    assert!(message.contains(&address), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_connection_of_two_holds_nothing_up() {
    let (model, home) = (Recipe::of_size(16_000_000).publish().await, Home::new());
    let shards: Vec<usize> = (0..10).collect();
    // So slow that the second connection is there in time.
    let flags = ["--upload-limit", "8MiB"];
    let seeder = Seeder::with(TCP, &model, &shards, &flags).await;
    let line = Line::dying(seeder.address(), 1, 500_000).await;
    // A source that is silent for longer than a second or two is given up.
    let fetching = home.start_fetch(&model, &[line.address()]);
    line.died().await;
    let fetched = Fetched::of(fetching.outcome().await);
    home.assert_has(&model, &fetched);
    assert!(!fetched.source(seeder.id()).banned, "{fetched:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_liar_is_named_and_wastes_no_more_than_was_in_flight() {
    let model = Recipe::default().publish().await;
    let liar = Peer::start(model.conduct().lying_about(model.shards())).await;
    let honest = Peer::start(model.conduct().stopping_after(0)).await;
    let home = Home::new();
    let mut fetching = home.start_fetch(&model, &[liar.address(), honest.address()]);
    fetching.says(&liar.id()).await;
    honest.gate().open();
    let fetched = Fetched::of(fetching.outcome().await);
    home.assert_has(&model, &fetched);

    let source = fetched.source(&liar.id());
    assert!(source.bad_bytes > 0 && source.good_bytes == 0 && source.banned, "{source:?}");
    // It is never proven, so one piece at a time is in flight from it, and none of a shard it lied about.
    let shards = model.manifest.shards().len();
    assert!(source.bad_bytes + source.duplicate_bytes <= (shards * PIECE_BYTES) as u64, "{source:?}");
    assert!(fetched.wasted_bytes >= source.bad_bytes);
    let source = fetched.source(&honest.id());
    assert!(source.bad_bytes == 0 && !source.banned, "{source:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_liar_that_speaks_1_0_0_or_a_model_without_an_index_changes_nothing() {
    for (index, speaks_ranges) in [(true, false), (false, true), (false, false)] {
        let model = Recipe { index, ..Recipe::default() }.publish().await;
        let mut conduct = model.conduct().lying_about(model.shards());
        if !speaks_ranges {
            conduct = conduct.speaking_1_0_0();
        }
        let liar = Peer::start(conduct).await;
        let honest = Peer::start(model.conduct().stopping_after(0)).await;
        let home = Home::new();
        let fetching = home.start_fetch(&model, &[liar.address(), honest.address()]);
        liar.gate().passed().await;
        honest.gate().open();
        let fetched = Fetched::of(fetching.outcome().await);
        home.assert_has(&model, &fetched);
        assert!(!fetched.source(&honest.id()).banned, "{fetched:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn liars_only() {
    let (model, home) = (Recipe::default().publish().await, Home::new());
    let liar = Peer::start(model.conduct().lying_about(model.shards())).await;
    let message = home.start_fetch(&model, &[liar.address()]).outcome().await.failure(4);
    assert!(message.contains(&liar.id()) && message.contains("wrong bytes"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_lie_in_one_shard_is_made_good_from_parity() {
    let model = Recipe::default().publish().await;
    // The only peer there is.
    let liar = Peer::start(model.conduct().lying_about([model.shard(4)])).await;
    let fetched = Home::new().fetch(&model, &[liar.address()]).await;
    assert!(fetched.rebuilt_bytes > 0, "{fetched:?}");
    let source = fetched.source(&liar.id());
    assert!(source.bad_bytes > 0 && source.bad_bytes <= 16 * PIECE_BYTES as u64, "{source:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_never_sends_does_not_hold_the_fetch() {
    let model = Recipe::default().publish().await;
    fetch_past_a_stalled_one(&model, stalling(&model), &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_stops_sending_does_not_hold_the_fetch() {
    let model = Recipe::default().publish().await;
    // It alone has some shards: they are rebuilt.
    let conduct = model.conduct().stopping_after(3 * PIECE_BYTES as u64);
    fetch_past_a_stalled_one(&model, conduct, &[1, 2, 3, 4]).await;
}

/// Fetches from a peer that stalls, and from an honest one that lacks some shards.
async fn fetch_past_a_stalled_one(model: &Model, conduct: Conduct, lost: &[usize]) {
    /// The network's own timeout for a stream on which nothing moves: the fetch must not wait for it.
    const LIMIT_MS: u64 = 15_000;
    let stalled = Peer::start(conduct).await;
    let honest = Seeder::start(model, &model.shards_but(lost)).await;
    let fetched = Home::new().fetch(model, &[stalled.address(), honest.address()]).await;
    assert!(fetched.elapsed_ms < LIMIT_MS, "{fetched:?}");
    assert!(!fetched.source(&stalled.id()).banned, "to be slow is no lie: {fetched:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_gone_halfway() {
    let model = Recipe::default().publish().await;
    let leaving = Peer::start(model.conduct().stopping_after(500_000)).await;
    let staying = Peer::start(model.conduct().stopping_after(0)).await;
    let home = Home::new();
    let fetching = home.start_fetch(&model, &[leaving.address(), staying.address()]);
    leaving.gate().reached().await;
    let id = leaving.id();
    drop(leaving);
    staying.gate().open();
    let fetched = Fetched::of(fetching.outcome().await);
    home.assert_has(&model, &fetched);
    let source = fetched.source(&id);
    assert!(source.good_bytes > 0 && source.last_error.is_some(), "{source:?}");
    assert!(!source.banned, "{source:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_manifest_is_refused() {
    let model = Recipe::default().publish().await;
    let other = Recipe::of_size(1).publish().await;
    let mut conduct = model.conduct();
    conduct.blobs.insert(model.digest, other.blobs[&other.digest].clone());
    let liar = Peer::start(conduct.clone()).await;
    let home = Home::new();
    let message = home.start_fetch(&model, &[liar.address()]).outcome().await.failure(4);
    assert!(message.contains(&liar.id()) && message.contains(&model.id), "{message}");
    home.assert_has_nothing_of(&model.id);
    home.assert_has_nothing_of(&other.id);

    // Beside an honest one that answers later.
    let liar = Peer::start(conduct).await;
    let honest = Peer::start(stalling(&model)).await;
    let mut fetching = home.start_fetch(&model, &[liar.address(), honest.address()]);
    fetching.says(&liar.id()).await;
    honest.gate().open();
    let fetched = Fetched::of(fetching.outcome().await);
    home.assert_has(&model, &fetched);
    assert!(fetched.source(&liar.id()).bad_bytes > 0, "{fetched:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_of_another_size_is_refused() {
    let (model, home) = (Recipe { parity: 0, ..Recipe::default() }.publish().await, Home::new());
    for versions_1_0_0 in [false, true] {
        let mut conduct = model.conduct();
        for shard in model.shards() {
            conduct.blobs.insert(shard, vec![7; 100].into());
        }
        if versions_1_0_0 {
            conduct = conduct.speaking_1_0_0();
        }
        let liar = Peer::start(conduct).await;
        let message = home.start_fetch(&model, &[liar.address()]).outcome().await.failure(4);
        assert!(message.contains(&liar.id()), "{message}");
    }
    let honest = Seeder::start(&model, &model.shards_but(&[])).await;
    home.fetch(&model, &[honest.address()]).await;
}
