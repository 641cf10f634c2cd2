//! The DHT and mDNS: nodes find each other without being told.

use std::collections::HashSet;

use manifest::Digest;
use p2p_blob::{Contact, DhtMode, Multiaddr, PeerId};

use crate::common::{MemoryStore, Node, soon};

/// A server of the DHT that knows the others through `hub`, if there is one.
async fn server(hub: Option<&Node>) -> Node {
    let node = Node::start(MemoryStore::with(&[]), |config| config.with_dht(DhtMode::Server));
    join(&node, hub).await;
    node
}

async fn join(node: &Node, hub: Option<&Node>) {
    node.addr().await;
    if let Some(hub) = hub {
        soon(node.client.connect(hub.addr().await)).await.unwrap();
    }
}

/// Searches until somebody is found.
async fn find(node: &Node, manifest: Digest) -> Contact {
    soon(async {
        loop {
            if let Some(found) = node.client.find_providers(manifest).await.recv().await {
                return found;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_provides_a_manifest_is_found_by_those_who_know_one_other_node() {
    let hub = server(None).await;
    let holder = server(Some(&hub)).await;
    let fetcher = Node::fetcher();
    join_as_client(&fetcher, &hub).await;
    let manifest = Digest::of(b"manifest");
    holder.client.provide(HashSet::from([manifest, Digest::of(b"another")])).await;
    let found = find(&fetcher, manifest).await;
    assert_eq!(found.peer, holder.client.peer_id());
    assert_eq!(soon(fetcher.client.connect_to(&found)).await.unwrap(), found.peer);
    // Of what nobody provides nobody is found, and the search ends.
    let mut nobody = fetcher.client.find_providers(Digest::of(b"nobody has it")).await;
    assert_eq!(soon(nobody.recv()).await, None);
}

async fn join_as_client(node: &Node, hub: &Node) {
    soon(node.client.connect(hub.addr().await)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_provided_before_anybody_was_known_is_told_later() {
    let (hub, holder) = (server(None).await, server(None).await);
    let manifest = Digest::of(b"manifest");
    holder.client.provide(HashSet::from([manifest])).await;
    join_as_client(&holder, &hub).await;
    let fetcher = Node::fetcher();
    join_as_client(&fetcher, &hub).await;
    assert_eq!(find(&fetcher, manifest).await.peer, holder.client.peer_id());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_an_external_address_only_asks_and_one_with_it_provides() {
    let hub = server(None).await;
    let reachable: Multiaddr = "/ip4/192.0.2.7/tcp/4201".parse().unwrap();
    let hidden = Node::start(MemoryStore::with(&[]), |config| config);
    let known =
        Node::start(MemoryStore::with(&[]), |config| config.with_external_addrs(vec![reachable.clone()]));
    let manifest = Digest::of(b"manifest");
    for node in [&hidden, &known] {
        join(node, Some(&hub)).await;
        node.client.provide(HashSet::from([manifest])).await;
    }
    let found = find(&hidden, manifest).await;
    assert_eq!(found.peer, known.client.peer_id());
    assert!(found.addrs.contains(&reachable), "{found:?}");
    let mut others: Vec<PeerId> = Vec::new();
    let mut search = hub.client.find_providers(manifest).await;
    while let Some(found) = soon(search.recv()).await {
        others.push(found.peer);
    }
    assert_eq!(others, [known.client.peer_id()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_in_one_network_find_each_other_by_mdns() {
    let start = || {
        Node::start(MemoryStore::with(&[]), |config| {
            config.with_mdns(true).with_listen(vec!["/ip4/0.0.0.0/tcp/0".parse().unwrap()])
        })
    };
    let (one, two) = (start(), start());
    let stranger = Node::start(MemoryStore::with(&[]), |config| config);
    two.addr().await;
    let contact = soon(async {
        loop {
            let nearby = one.client.nearby();
            if let Some(found) = nearby.into_iter().find(|found| found.peer == two.client.peer_id()) {
                return found;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    });
    let contact = contact.await;
    assert_eq!(soon(one.client.connect_to(&contact)).await.unwrap(), contact.peer);
    assert!(stranger.client.nearby().is_empty(), "it is off unless it is wanted");
}

#[cfg(feature = "nat")]
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_others_can_reach_learns_that_and_provides() {
    let (hub, fetcher) = (server(None).await, Node::fetcher());
    join_as_client(&fetcher, &hub).await;
    // It does not know that it can be reached: the hub tries.
    let node = Node::start(MemoryStore::with(&[]), |config| config);
    let manifest = Digest::of(b"manifest");
    node.client.provide(HashSet::from([manifest])).await;
    join(&node, Some(&hub)).await;
    assert_eq!(find(&fetcher, manifest).await.peer, node.client.peer_id());
}
