//! Looking for holders without asking a connected peer: in the DHT, in the local network, in the address book.

use std::sync::Arc;
use std::time::Duration;

use super::shared::{PendingOne, Shared};
use crate::address_book::AddressBook;

/// Pauses between two searches of the DHT: from the first to the last, doubling. The first search comes before any server is
/// known, unless there are connections already.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(240);
/// With so many sources nobody is looked for.
const ENOUGH_SOURCES: usize = 25;
/// How often the local network is looked at.
const LAN_EVERY: Duration = Duration::from_millis(500);
/// With fewer sources than this, peers of earlier runs are tried, once the others had time to come up.
const FEW_SOURCES: usize = 4;
const BOOK_AFTER: Duration = Duration::from_secs(3);
/// So many of them.
const FROM_BOOK: usize = 32;

/// Searches the DHT at once, and again while there are few sources.
pub(super) async fn in_dht(shared: Shared, first: PendingOne) {
    let mut first = Some(first);
    let mut pause = FIRST_PAUSE;
    loop {
        if shared.claims.count() < ENOUGH_SOURCES {
            let mut found = shared.client.find_providers(shared.manifest).await;
            while let Some(contact) = found.recv().await {
                // When too many wait already, this one is found again.
                let _ = shared.found.try_send(contact);
            }
        }
        first.take();
        tokio::time::sleep(pause.mul_f64(fastrand::f64() + 0.5)).await;
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

/// Tells of the peers in the local network, again and again: who is known already costs nothing.
pub(super) async fn in_lan(shared: Shared) {
    loop {
        if shared.claims.count() < ENOUGH_SOURCES {
            for contact in shared.client.nearby() {
                let _ = shared.found.try_send(contact);
            }
        }
        tokio::time::sleep(LAN_EVERY).await;
    }
}

/// Tells of peers of earlier runs: at once when nobody was named, else when there are few sources after a while.
pub(super) async fn in_book(shared: Shared, book: Arc<AddressBook>, is_only_hope: bool, first: PendingOne) {
    if is_only_hope {
        tell(&shared, &book);
        drop(first);
        return;
    }
    drop(first);
    tokio::time::sleep(BOOK_AFTER).await;
    if shared.claims.count() < FEW_SOURCES {
        tell(&shared, &book);
    }
}

fn tell(shared: &Shared, book: &AddressBook) {
    for contact in book.choose(FROM_BOOK) {
        let _ = shared.found.try_send(contact);
    }
}
