//! What the contract names has its digest but is not valid: status 3, and nothing stays in the cache.

use std::sync::Arc;

use e2e::{Chain, Home, Model, Peer, Recipe};
use manifest::Digest;
use serde_json::json;

/// Sets the model on chain, fetches it from this peer, and returns what the failure says.
async fn refused(model: &Model, peer: &Peer) -> String {
    let (chain, home) = (Chain::start().await, Home::new());
    chain.set(&model.id).await;
    let flags = chain.flags().into_iter().chain(["--peer".to_owned(), peer.address().to_owned()]);
    let message = home.run(["fetch".to_owned()].into_iter().chain(flags)).await.failure(3);
    home.assert_has_nothing_of(&model.id);
    assert!(message.contains(&model.id), "{message}");
    message
}

async fn honest(model: &Model) -> Peer {
    Peer::start(model.conduct()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_is_no_manifest() {
    let mut model = Recipe::of_size(1).publish().await;
    let bytes = b"weights, not a manifest".to_vec();
    model.digest = Digest::of(&bytes);
    model.id = model.digest.to_string();
    model.blobs.insert(model.digest, Arc::new(bytes));
    let message = refused(&model, &honest(&model).await).await;
    assert!(message.contains("not a valid manifest"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_merkle_root() {
    let wrong = "0".repeat(64);
    let model = Recipe::of_size(1).publish().await;
    let model = model.with_manifest(|json| json["merkle_root"] = wrong.clone().into());
    let message = refused(&model, &honest(&model).await).await;
    assert!(message.contains("merkle_root") && message.contains(&wrong), "{message}");
}

/// The same shards without the last bytes of the weights, which are now padding, and not zero.
fn with_dirty_padding(model: &Model) -> Model {
    model.with_manifest(|json| json["total_size"] = (model.weights.len() - 5).into())
}

#[tokio::test(flavor = "multi_thread")]
async fn padding_that_is_not_zero() {
    for index in [true, false] {
        let model = with_dirty_padding(&Recipe { index, ..Recipe::default() }.publish().await);
        let message = refused(&model, &honest(&model).await).await;
        assert!(message.contains("shard 9") && message.contains("padding"), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn padding_that_is_not_zero_once_it_is_rebuilt() {
    for index in [true, false] {
        let model = with_dirty_padding(&Recipe { index, ..Recipe::default() }.publish().await);
        let mut conduct = model.conduct();
        conduct.blobs.remove(&model.shard(9));
        let message = refused(&model, &Peer::start(conduct).await).await;
        assert!(message.contains("shard 9") && message.contains("padding"), "{message}");
    }
}

/// The model with another piece index, whose digest is in the manifest.
fn with_index(model: &Model, index: Vec<u8>) -> Model {
    let digest = Digest::of(&index);
    let mut changed = model.with_manifest(|json| json["pieces"]["index"] = json!(digest.to_string()));
    changed.blobs.insert(digest, Arc::new(index));
    changed
}

#[tokio::test(flavor = "multi_thread")]
async fn a_piece_index_that_is_none() {
    let model = Recipe::default().publish().await;
    let right = model.blobs[&model.manifest.pieces().unwrap().index].to_vec();
    let of_its_size = vec![0; right.len()];
    let model = with_index(&model, of_its_size);
    let message = refused(&model, &honest(&model).await).await;
    assert!(message.contains("piece index"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_piece_index_that_calls_right_pieces_wrong_is_found_out() {
    let model = Recipe::default().publish().await;
    let mut index = model.blobs[&model.manifest.pieces().unwrap().index].to_vec();
    // A chaining value in the middle, of some shard.
    let middle = index.len() / 2;
    index[middle] ^= 1;
    let model = with_index(&model, index);
    let (one, other) = (honest(&model).await, honest(&model).await);
    let fetched = Home::new().fetch(&model, &[one.address(), other.address()]).await;
    for peer in [&one, &other] {
        assert!(!fetched.source(&peer.id()).banned, "{fetched:?}");
    }
}
