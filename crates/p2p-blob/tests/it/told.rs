//! Addresses that others tell, and whom they make a node dial.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use p2p_blob::{Contact, Multiaddr, PeerId};
use tokio::net::TcpListener;

use crate::common::{Node, soon};

/// Somebody who is no node, and counts who connects.
async fn victim() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    (port, count)
}

fn contact(addr: &str) -> Contact {
    Contact { peer: PeerId::random(), addrs: vec![addr.parse().unwrap()] }
}

#[tokio::test]
async fn many_names_at_one_address_are_not_dialed_one_after_the_other() {
    let ((port, count), node) = (victim().await, Node::fetcher());
    let addr = format!("/ip4/127.0.0.1/tcp/{port}");
    for _ in 0..100 {
        soon(node.client.connect_to(&contact(&addr))).await.unwrap_err();
    }
    assert_eq!(count.load(Ordering::Relaxed), 8);
    let named: Multiaddr = addr.parse().unwrap();
    soon(node.client.connect(named)).await.unwrap_err();
    assert_eq!(count.load(Ordering::Relaxed), 9, "what the user names is dialed");
}

#[tokio::test]
async fn a_name_that_somebody_tells_does_not_lead_to_this_machine() {
    let ((port, count), node) = (victim().await, Node::fetcher());
    let name = format!("/dns4/localhost/tcp/{port}");
    let error = soon(node.client.connect_to(&contact(&name))).await.unwrap_err();
    assert_eq!(count.load(Ordering::Relaxed), 0, "{error}");
    soon(node.client.connect(name.parse().unwrap())).await.unwrap_err();
    assert_eq!(count.load(Ordering::Relaxed), 1, "what the user names is dialed");
}
