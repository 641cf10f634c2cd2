//! `fetch --from-cache`: a process that may only read the cache waits for the one that fills it.

use e2e::{Fetched, Home, Process, Recipe, Seeder, read_only};

#[tokio::test(flavor = "multi_thread")]
async fn it_waits_for_what_another_process_fetches() {
    let model = Recipe::default().publish().await;
    let seeder = Seeder::start(&model, &(0..14).collect::<Vec<_>>()).await;
    let home = Home::new();
    let cache = home.cache("");
    std::fs::create_dir_all(&cache).unwrap();
    // The peer is not asked: with it alone, nothing could be written.
    let waits = home.command([
        "--json",
        "fetch",
        "--from-cache",
        "--wait",
        "60s",
        "--peer",
        seeder.address(),
        &model.id,
    ]);
    let waits = Process::start(read_only(&cache, &waits));
    let fetched = home.fetch(&model, &[seeder.address()]).await;
    let found = Fetched::of(waits.outcome().await);
    assert_eq!((found.path, found.from_cache), (fetched.path, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_does_not_wait_for_ever() {
    let model = Recipe::default().publish().await;
    let home = Home::new();
    let fetch = ["fetch", "--from-cache", "--wait", "1s", &model.id];
    let no_cache = home.run(fetch).await.failure(4);
    assert!(no_cache.contains("there is no cache at "), "{no_cache}");
    assert!(!home.cache("").exists(), "a cache was made");
}
