//! Where nodes listen.

use std::net::{Ipv6Addr, UdpSocket};

use e2e::{Home, Process, QUIC, Recipe, Seeder, TCP};

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_do_not_share_a_port() {
    let model = Recipe::of_size(1).publish().await;
    for listen in [TCP, QUIC] {
        let first = Seeder::at(listen, &model, &[]).await;
        let (taken, _) = first.address().rsplit_once("/p2p/").unwrap();
        let message = Home::new().run(["serve", "--listen", taken]).await.failure(2);
        assert!(message.contains(taken) && message.contains("in use"), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_that_does_not_listen_fetches_all_the_same() {
    let model = Recipe::default().publish().await;
    let seeder = Seeder::start(&model, &(0..14).collect::<Vec<_>>()).await;
    let home = Home::new();
    let fetch = ["-v", "fetch", "--no-listen", "--manifest", &model.id, "--peer", seeder.address()];
    let ended = home.run(fetch).await.expect(0);
    assert!(!ended.stderr.contains("listening"), "{}", ended.stderr);
    let refused = home.run(["fetch", "--no-listen", "--listen", TCP, "--manifest", &model.id]).await;
    refused.expect(2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_listens_on_both_kinds_of_address_where_there_are_both() {
    let (model, home) = (Recipe::of_size(1).publish().await, Home::new());
    let mut fetching = Process::start(home.command([
        "-v",
        "fetch",
        "--wait",
        "1m",
        "--manifest",
        &model.id,
        "--peer",
        "/ip4/127.0.0.1/tcp/9",
    ]));
    fetching.says("/ip4/127.0.0.1/tcp/").await;
    if UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok() {
        fetching.says("/ip6/::1/tcp/").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_without_an_address_of_the_kind_is_called_that() {
    let (model, home) = (Recipe::of_size(1).publish().await, Home::new());
    let message =
        home.start_fetch(&model, &["/dns4/no-such-name.invalid/tcp/4201"]).outcome().await.failure(4);
    assert!(message.contains("no IPv4 address") && message.contains("/dns/"), "{message}");
}
