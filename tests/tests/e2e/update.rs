//! New versions of a model, on a machine that has the old one.

use e2e::{Home, Model, PIECE_BYTES, Recipe, Seeder, made_up};

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
