//! Discovery beside peer exchange: the DHT, mDNS, the address book.

use std::sync::Arc;
use std::time::Duration;

use super::shared::{PendingOne, Shared};
use crate::address_book::AddressBook;

/// Exponential backoff between two searches of the DHT. The first one finds nothing before a server is known, unless there
/// are connections already.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(240);
/// With so many sources there is no search.
const ENOUGH_SOURCES: usize = 25;
/// How often the peers found by mDNS are polled.
const LAN_EVERY: Duration = Duration::from_millis(500);
/// With fewer sources than this, the address book is used, once the others had time to connect.
const FEW_SOURCES: usize = 4;
const BOOK_AFTER: Duration = Duration::from_secs(3);
/// So many peers of it.
const FROM_BOOK: usize = 32;

/// Searches the DHT at once, and again while there are few sources.
pub(super) async fn in_dht(shared: Shared, first: PendingOne) {
    let mut first = Some(first);
    let mut pause = FIRST_PAUSE;
    loop {
        if shared.claims.count() < ENOUGH_SOURCES {
            let mut found = shared.client.find_providers(shared.manifest).await;
            while let Some(contact) = found.recv().await {
                // With a full queue it is found again.
                let _ = shared.found.try_send(contact);
            }
        }
        first.take();
        tokio::time::sleep(pause.mul_f64(fastrand::f64() + 0.5)).await;
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

/// Polls the peers found by mDNS: known ones cost nothing.
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

/// Adds peers of the address book: at once when none was named, else when there are few sources after a while.
pub(super) async fn in_book(shared: Shared, book: Arc<AddressBook>, is_only_hope: bool, first: PendingOne) {
    if is_only_hope {
        report_book(&shared, &book);
        drop(first);
        return;
    }
    drop(first);
    tokio::time::sleep(BOOK_AFTER).await;
    if shared.claims.count() < FEW_SOURCES {
        report_book(&shared, &book);
    }
}

fn report_book(shared: &Shared, book: &AddressBook) {
    for contact in book.choose(FROM_BOOK) {
        let _ = shared.found.try_send(contact);
    }
}
