//! Attackers that take all places of a seeder, and honest nodes that come from other addresses meanwhile.

use e2e::{Attack, Home, Model, Recipe, Seeder, Way};

const ATTACKER: &str = env!("CARGO_BIN_EXE_attacker");

/// A newcomer fetches all of the model from the seeder while the attack goes on.
async fn fetch_under(attack: &str, model: &Model, words: &[&str]) {
    let seeder = Seeder::start(model, &(0..14).collect::<Vec<_>>()).await;
    let _attack = Attack::start(ATTACKER, attack, seeder.address(), "127.0.0.2", words).await;
    for newcomer in ["127.0.0.3", "127.0.0.4"] {
        let way = Way::from(newcomer, seeder.address()).await;
        Home::new().fetch(model, &[way.address()]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_that_say_nothing_keep_nobody_out() {
    fetch_under("silent-sockets", &Recipe::default().publish().await, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_do_not_end_keep_nobody_out() {
    fetch_under("half-open-noise", &Recipe::default().publish().await, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_names_with_idle_connections_keep_nobody_out() {
    fetch_under("idle-identities", &Recipe::default().publish().await, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_are_held_without_a_request_keep_nobody_out() {
    fetch_under("held-streams", &Recipe::default().publish().await, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_readers_keep_nobody_waiting() {
    let model = Recipe::of_size(40 << 20).publish().await;
    let shard = &model.manifest.shards()[0];
    let (digest, size) = (shard.digest.to_string(), shard.size_bytes.to_string());
    fetch_under("slow-readers", &model, &[&digest, &size]).await;
}
