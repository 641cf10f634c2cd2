//! Fetching again after the end of a process, and in two processes at once.

use e2e::{Fetched, Home, Peer, Recipe, soon};

#[tokio::test(flavor = "multi_thread")]
async fn after_kill_9_only_the_rest_is_moved() {
    for index in [true, false] {
        let model = Recipe { index, ..Recipe::default() }.publish().await;
        let home = Home::new();
        let total_bytes = model.weights.len() as u64;
        let peer = Peer::start(model.conduct().stopping_after(total_bytes / 2)).await;
        let fetching = home.start_fetch(&model, &[peer.address()]);
        peer.gate().reached().await;
        // What was sent is on its way through the fetcher: let it come to rest there.
        soon("a verified piece", verified(&home, total_bytes / 4)).await;
        fetching.kill().await;
        drop(peer);

        let peer = Peer::start(model.conduct()).await;
        let fetched = home.fetch(&model, &[peer.address()]).await;
        assert!(fetched.resumed_bytes >= total_bytes / 4, "{fetched:?}");
        assert_eq!(fetched.resumed_bytes + fetched.fetched_bytes, total_bytes, "{fetched:?}");
        assert!(peer.gate().passed_bytes() < total_bytes, "what is here was asked for again");
    }
}

/// Waits until the partial model in the cache has so many verified bytes.
async fn verified(home: &Home, bytes: u64) {
    loop {
        let entry = home.run(["cache", "ls"]).await.answer();
        assert_eq!(entry["finished"], false);
        if entry["verified_bytes"].as_u64().unwrap() >= bytes {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_fetch_a_model_once() {
    let (model, home) = (Recipe::default().publish().await, Home::new());
    let peer = Peer::start(model.conduct().stopping_after(100_000)).await;
    let first = home.start_fetch(&model, &[peer.address()]);
    peer.gate().reached().await;
    let mut second = home.start_fetch(&model, &[peer.address()]);
    second.says("another process fetches this model").await;
    peer.gate().open();
    let both = [Fetched::of(first.outcome().await), Fetched::of(second.outcome().await)];
    for fetched in &both {
        home.assert_has(&model, fetched);
    }
    assert_eq!(both.iter().map(|fetched| fetched.fetched_bytes).sum::<u64>(), model.weights.len() as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_goes_on_when_the_one_it_waits_for_is_killed() {
    let (model, home) = (Recipe::default().publish().await, Home::new());
    let peer = Peer::start(model.conduct().stopping_after(1_000_000)).await;
    let first = home.start_fetch(&model, &[peer.address()]);
    peer.gate().reached().await;
    let mut second = home.start_fetch(&model, &[peer.address()]);
    second.says("another process fetches this model").await;
    first.kill().await;
    peer.gate().open();
    let fetched = Fetched::of(second.outcome().await);
    home.assert_has(&model, &fetched);
    assert!(fetched.resumed_bytes > 0, "{fetched:?}");
    assert_eq!(fetched.resumed_bytes + fetched.fetched_bytes, model.weights.len() as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_fetch_keeps_what_it_has() {
    let (model, home) = (Recipe::default().publish().await, Home::new());
    let peer = Peer::start(model.conduct().stopping_after(1_000_000)).await;
    let fetching = home.start_fetch(&model, &[peer.address()]);
    peer.gate().reached().await;
    fetching.terminate().await;
    let message = fetching.outcome().await.failure(1);
    assert!(message.contains("interrupted"), "{message}");
    peer.gate().open();
    let fetched = home.fetch(&model, &[peer.address()]).await;
    assert!(fetched.resumed_bytes > 0, "{fetched:?}");
}
