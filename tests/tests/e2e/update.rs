//! New versions of a model, on a machine that has the old one.

use e2e::{Home, Model, PIECE_BYTES, Recipe, Seeder, made_up, put};

/// How many pieces the old version has.
const PIECES: usize = 40;

/// Publishes these bytes in four whole rows.
async fn publish(weights: Vec<u8>) -> Model {
    Recipe { data: 4, parity: 2, ..Recipe::default() }.publish_weights(weights).await
}

/// The old version, and one in which every tenth piece is changed.
async fn versions() -> (Model, Model) {
    let old = made_up(PIECES * PIECE_BYTES);
    let mut new = old.clone();
    for piece in (3..PIECES).step_by(10) {
        new[piece * PIECE_BYTES + 5] ^= 1;
    }
    (publish(old).await, publish(new).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_publisher_is_told_how_much_moves() {
    let home = Home::new();
    let old = made_up(PIECES * PIECE_BYTES);
    put(&home.path("old"), &old);
    put(&home.path("new"), &[&old[..PIECES / 2 * PIECE_BYTES], &vec![7; PIECES / 2 * PIECE_BYTES]].concat());
    let piece_size = PIECE_BYTES.to_string();
    let publish =
        ["publish", "--model-kind", "simplenet", "--data", "4", "--parity", "2", "--piece-size", &piece_size];
    let base = home.run(publish.into_iter().chain(["old"])).await.answer();
    let base = base["manifest"].as_str().unwrap();
    let published = home.run(publish.into_iter().chain(["new", "--base", base])).await.answer();
    let half = (PIECES / 2 * PIECE_BYTES) as u64;
    assert_eq!(published["base"]["manifest"], base);
    assert_eq!(published["base"]["reused_bytes"], half);
    // The other half is the same row twice, which is fetched once.
    assert_eq!(published["base"]["fetched_bytes"], half / 2);
    let unknown = "ab".repeat(32);
    let refused = home.run(publish.into_iter().chain(["new", "--base", &unknown])).await.failure(1);
    assert!(refused.contains(&unknown), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fine_tune_of_a_tenth_fetches_a_tenth() {
    let ((old, new), home) = (versions().await, Home::new());
    let seeders =
        [Seeder::start(&old, &old.shards_but(&[])).await, Seeder::start(&new, &new.shards_but(&[])).await];
    home.fetch(&old, &[seeders[0].address()]).await;
    let fetched = home.fetch(&new, &[seeders[1].address()]).await;
    let tenth = (PIECES / 10 * PIECE_BYTES) as u64;
    assert_eq!((fetched.fetched_bytes, fetched.reused_bytes), (tenth, 9 * tenth), "{fetched:?}");
    // Both are there, side by side.
    assert!(home.fetch(&old, &[]).await.from_cache && home.fetch(&new, &[]).await.from_cache);
}
