//! Fetching again after the end of a process, and in two processes at once.

use e2e::{Fetched, Home, Model, Peer, Process, Recipe};

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
        home.verifies(total_bytes / 4).await;
        fetching.kill().await;
        drop(peer);

        let peer = Peer::start(model.conduct()).await;
        let fetched = home.fetch(&model, &[peer.address()]).await;
        assert!(fetched.resumed_bytes >= total_bytes / 4, "{fetched:?}");
        assert_eq!(fetched.resumed_bytes + fetched.fetched_bytes, total_bytes, "{fetched:?}");
        assert!(peer.gate().passed_bytes() < total_bytes, "what is here was asked for again");
    }
}

/// A fetch that waits for another process however slow the machine is.
fn patient(home: &Home, model: &Model, peer: &Peer) -> Process {
    home.start(["fetch", "--wait", "1m", "--manifest", &model.id, "--peer", peer.address()])
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_fetch_a_model_once() {
    let (model, home) = (Recipe::default().publish().await, Home::new());
    let peer = Peer::start(model.conduct().stopping_after(100_000)).await;
    let first = patient(&home, &model, &peer);
    peer.gate().reached().await;
    let mut second = patient(&home, &model, &peer);
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
    let first = patient(&home, &model, &peer);
    home.verifies(1).await;
    let mut second = patient(&home, &model, &peer);
    second.says("another process fetches this model").await;
    first.kill().await;
    peer.gate().open();
    let fetched = Fetched::of(second.outcome().await);
    home.assert_has(&model, &fetched);
    assert!(fetched.resumed_bytes > 0, "{fetched:?}");
    assert_eq!(fetched.resumed_bytes + fetched.fetched_bytes, model.weights.len() as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_stopped_is_named_and_not_waited_for_for_ever() {
    let (model, home) = (Recipe::default().publish().await, Home::new());
    let peer = Peer::start(model.conduct().stopping_after(1_000_000)).await;
    let first = patient(&home, &model, &peer);
    peer.gate().reached().await;
    let mut second = patient(&home, &model, &peer);
    let holder = format!("process {} (loader)", first.id());
    second.says(&format!("another process fetches this model: waiting for {holder}")).await;
    first.signal("STOP").await;
    second.says(&format!("{holder}, which is stopped")).await;
    let message = home.start_fetch(&model, &[peer.address()]).outcome().await.failure(4);
    let continued = format!("`kill -CONT {}`", first.id());
    assert!(message.contains(&holder) && message.contains(&continued), "{message}");
    // One that waits can be told to end.
    let mut third = patient(&home, &model, &peer);
    third.says(&holder).await;
    third.terminate().await;
    third.outcome().await.failure(1);

    first.signal("CONT").await;
    peer.gate().open();
    for waited in [first, second] {
        home.assert_has(&model, &Fetched::of(waited.outcome().await));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_fetch_keeps_what_it_has() {
    let (model, home) = (Recipe::default().publish().await, Home::new());
    let peer = Peer::start(model.conduct().stopping_after(1_000_000)).await;
    let fetching = home.start_fetch(&model, &[peer.address()]);
    home.verifies(1).await;
    fetching.terminate().await;
    let message = fetching.outcome().await.failure(1);
    assert!(message.contains("interrupted"), "{message}");
    peer.gate().open();
    let fetched = home.fetch(&model, &[peer.address()]).await;
    assert!(fetched.resumed_bytes > 0, "{fetched:?}");
}
