//! New versions of a model, on a machine that has the old one.

use e2e::{Home, Model, PIECE_BYTES, Recipe, Seeder, Tree, made_up, put};

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

/// A safetensors file of these tensors of bytes.
fn safetensors(tensors: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, bytes) in tensors {
        let offsets = [data.len(), data.len() + bytes.len()];
        let entry = serde_json::json!({"dtype": "U8", "shape": [bytes.len()], "data_offsets": offsets});
        header.insert((*name).to_owned(), entry);
        data.extend_from_slice(bytes);
    }
    let header = serde_json::Value::from(header).to_string();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()
}

/// Loads one folder, then another, and tells how much of it was fetched and reused.
async fn update(old: &Tree, new: &Tree, layout: &str) -> (u64, u64) {
    let home = Home::new();
    let models = [old.publish(&["--layout", layout]).await, new.publish(&["--layout", layout]).await];
    let mut fetched = None;
    for model in &models {
        let seeder = Seeder::start(model, &model.shards_but(&[])).await;
        fetched = Some(home.fetch(model, &[seeder.address()]).await);
    }
    let fetched = fetched.unwrap();
    assert_eq!(fetched.rebuilt_bytes, 0, "{fetched:?}");
    (fetched.fetched_bytes, fetched.reused_bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_folder_that_shifts_only_what_changed_moves() {
    let weights = made_up(30 * PIECE_BYTES);
    let (a, b, c) = (
        &weights[..10 * PIECE_BYTES + 7],
        &weights[10 * PIECE_BYTES + 7..20 * PIECE_BYTES],
        &weights[20 * PIECE_BYTES..],
    );
    let added = vec![9; PIECE_BYTES / 2];
    let tree = |config: &str, first: Vec<u8>, second: Vec<u8>, names: [&str; 2]| {
        let [one, two] = names.map(str::to_owned);
        Tree(vec![("config.json".to_owned(), config.as_bytes().to_vec()), (one, first), (two, second)])
    };
    let names = ["model-1.safetensors", "model-2.safetensors"];
    let old = tree("{}", safetensors(&[("a", a), ("b", b)]), safetensors(&[("c", c)]), names);
    let two = 2 * PIECE_BYTES as u64;
    for layout in ["files", "rows"] {
        // A line more in a file that comes before all others.
        let new = tree("{\"line\": 1}", old.0[1].1.clone(), old.0[2].1.clone(), names);
        let (fetched, reused) = update(&old, &new, layout).await;
        assert!(fetched <= two && reused > 0, "{layout}, a longer config: {fetched}");
        // A tensor at the front of the first file.
        let first = safetensors(&[("0 new", &added), ("a", a), ("b", b)]);
        let new = tree("{}", first, old.0[2].1.clone(), names);
        let (fetched, reused) = update(&old, &new, layout).await;
        assert!(
            fetched <= added.len() as u64 + 2 * two && reused > 0,
            "{layout}, a tensor inserted: {fetched}"
        );
        // The files in another order, and a tensor in another file.
        let new = tree("{}", safetensors(&[("c", c)]), safetensors(&[("b", b), ("a", a)]), names);
        let (fetched, reused) = update(&old, &new, layout).await;
        assert!(fetched <= 2 * two && reused > 0, "{layout}, another order: {fetched}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_publisher_of_a_folder_is_told_beforehand_how_little_moves() {
    let home = Home::new();
    let tree = Tree::of_sizes([("config.json", 100), ("model.safetensors", 20 * PIECE_BYTES)]);
    tree.write_to(&home.path("folder"));
    let piece_size = PIECE_BYTES.to_string();
    let publish =
        ["publish", "folder", "--model-kind", "simplenet", "--layout", "rows", "--piece-size", &piece_size];
    let base = home.run(publish).await.answer();
    put(&home.path("folder/config.json"), &[7; 333]);
    let base = base["manifest"].as_str().unwrap();
    let published = home.run(publish.into_iter().chain(["--base", base])).await.answer();
    let fetched = published["base"]["fetched_bytes"].as_u64().unwrap();
    assert!(fetched <= 2 * PIECE_BYTES as u64, "{published}");
}
