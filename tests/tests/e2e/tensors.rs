//! Loading some tensors of a folder, over the network.

use e2e::{Home, Model, PIECE_BYTES, Seeder, Tree, made_up};
use loader::{LoadedTensor, Report, Selection, Silent, TensorChoice};
use node::{Config, Node, NodeError};

/// A safetensors file of these tensors of 16-bit rows of 8.
fn safetensors(tensors: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, bytes) in tensors {
        let offsets = [data.len(), data.len() + bytes.len()];
        let entry =
            serde_json::json!({"dtype": "BF16", "shape": [bytes.len() / 16, 8], "data_offsets": offsets});
        header.insert((*name).to_owned(), entry);
        data.extend_from_slice(bytes);
    }
    let header = serde_json::Value::from(header).to_string();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()
}

fn choice(name: &str, rows: Option<std::ops::Range<u64>>) -> TensorChoice {
    TensorChoice { names: Selection::new(&[name.to_owned()], &[]).unwrap(), rows }
}

async fn load(
    home: &Home,
    model: &Model,
    peer: &str,
    choices: &[TensorChoice],
) -> Result<(Vec<LoadedTensor>, Report), NodeError> {
    let config = Config::new(home.cache("")).with_mdns(false).with_peers(vec![peer.parse().unwrap()]);
    let node = Node::start(config).await.unwrap();
    let loaded = node.load_tensors(model.digest, choices, &Silent).await;
    node.shutdown().await;
    loaded
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_pieces_of_the_tensors_and_rows_that_are_wanted_move() {
    let bytes = made_up(24 * PIECE_BYTES);
    let (a, b, c) =
        (&bytes[..10 * PIECE_BYTES], &bytes[10 * PIECE_BYTES..20 * PIECE_BYTES], &bytes[20 * PIECE_BYTES..]);
    let tree = Tree(vec![
        ("config.json".to_owned(), b"{}".to_vec()),
        ("one.safetensors".to_owned(), safetensors(&[("layer.a", a), ("layer.b", b)])),
        ("sub/two.safetensors".to_owned(), safetensors(&[("c", c)])),
    ]);
    for layout in ["files", "rows"] {
        let (model, home) = (tree.publish(&["--layout", layout]).await, Home::new());
        let seeder = Seeder::start(&model, &model.shards_but(&[])).await;
        // A rank's share of one, and all of another.
        let rows = (PIECE_BYTES / 16) as u64;
        let choices = [choice("*.b", Some(2 * rows..3 * rows)), choice("c", None)];
        let (tensors, report) = load(&home, &model, seeder.address(), &choices).await.unwrap();
        let [whole, share] = &tensors[..] else { panic!("{tensors:?}") };
        assert_eq!(
            (share.name.as_str(), share.dtype.as_str(), &share.shape[..]),
            ("layer.b", "BF16", &[rows, 8][..])
        );
        assert!(share.bytes == b[2 * PIECE_BYTES..3 * PIECE_BYTES] && whole.bytes == c);
        let moved = report.fetched_bytes / PIECE_BYTES as u64;
        assert!(moved <= 1 + 4 + 6, "{layout}: {moved} pieces");
        // Nothing moves twice, and the rest comes later.
        let (again, report) = load(&home, &model, seeder.address(), &choices).await.unwrap();
        assert!(again == tensors && report.fetched_bytes == 0, "{report:?}");
        let fetched = home.fetch(&model, &[seeder.address()]).await;
        assert!(fetched.resumed_bytes > 0);
        let (of_cache, report) = load(&home, &model, seeder.address(), &choices).await.unwrap();
        assert!(of_cache == tensors && report.from_cache);
        let refused = load(&home, &model, seeder.address(), &[choice("d", None)]).await.unwrap_err();
        assert!(
            refused.to_string().contains("no tensor d") || format!("{refused:?}").contains("NoSuchTensors"),
            "{refused}"
        );
    }
}
