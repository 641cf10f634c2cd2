//! Who is served when.

use std::net::Ipv4Addr;

use futures::FutureExt as _;

use super::*;
use crate::admit::Origin;

const PIECE: u64 = 1 << 20;

fn uploads(uploads: usize, uploads_while_fetching: usize) -> Uploads {
    let limits = Limits { uploads, uploads_while_fetching, ..Limits::default() };
    Uploads::new(&limits, ConnectionSlots::new(&limits))
}

/// A new peer at this address.
fn at(host: u8) -> Asker {
    Asker { peer: PeerId::random(), origin: Origin::Ip(Ipv4Addr::new(127, 0, 0, host).into()) }
}

/// A place that is free, or nothing.
fn now(uploads: &Uploads, peer: Asker, piece: u64) -> Option<UploadSlot> {
    let slot = uploads.acquire(peer, &Digest::ZERO, piece * PIECE, PIECE);
    tokio::task::unconstrained(slot).now_or_never()?.ok()
}

#[tokio::test(start_paused = true)]
async fn a_node_that_fetches_sends_fewer_answers_at_a_time() {
    let uploads = uploads(4, 2);
    let peer = at(1);
    let taken = |uploads: &Uploads| (0..10).map_while(|piece| now(uploads, peer, piece)).collect::<Vec<_>>();
    assert_eq!(taken(&uploads).len(), 4);
    uploads.set_fetching(true);
    let kept = taken(&uploads);
    assert_eq!(kept.len(), 2, "serving leaves the rest to the fetch");
    uploads.set_fetching(true);
    uploads.set_fetching(false);
    assert!(now(&uploads, peer, 9).is_none(), "another fetch goes on");
    uploads.set_fetching(false);
    assert!(now(&uploads, peer, 9).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_node_that_fetches_sends_less_than_it_receives() {
    let uploads = uploads(4, 2);
    uploads.set_fetching(true);
    let peer = at(1);
    let count = |uploads: &Uploads| (0..100).map_while(|piece| now(uploads, peer, piece)).count() as u64;
    assert_eq!(count(&uploads), 16, "something to begin with");
    let waiting = uploads.acquire(peer, &Digest::ZERO, 0, PIECE);
    tokio::pin!(waiting);
    assert!(waiting.as_mut().now_or_never().is_none());
    uploads.received(&peer.peer, 4 * PIECE);
    assert!(waiting.await.is_ok(), "who waits gets what there is now");
    now(&uploads, peer, 0).unwrap().cancel();
    assert_eq!(count(&uploads), 2, "what is not sent after all does not count");
    assert!(uploads.acquire(peer, &Digest::ZERO, 0, PIECE).await.is_err());
    assert_eq!(count(&uploads), 100, "nothing came for a second");
    uploads.received(&peer.peer, PIECE);
    assert_eq!(count(&uploads), 0);
    uploads.on_busy();
    assert_eq!(count(&uploads), 100, "others hold it up");
    uploads.set_fetching(false);
    assert_eq!(count(&uploads), 100);
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_too_long_is_told_busy_and_a_freed_place_is_given_on() {
    let uploads = uploads(1, 1);
    let held = now(&uploads, at(1), 0).unwrap();
    let began = Instant::now();
    let busy = uploads.acquire(at(1), &Digest::ZERO, 0, PIECE).await.unwrap_err();
    assert!(began.elapsed() >= MAX_WAIT && (MIN_RETRY..=MAX_RETRY).contains(&busy.0), "{busy:?}");
    let waiting = uploads.acquire(at(1), &Digest::ZERO, 0, PIECE);
    tokio::pin!(waiting);
    assert!(waiting.as_mut().now_or_never().is_none());
    drop(held);
    assert!(waiting.await.is_ok());
    // Short answers wait for nobody.
    let _all = now(&uploads, at(1), 1);
    assert!(uploads.acquire(at(1), &Digest::ZERO, 0, 100).now_or_never().unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn pieces_in_short_answers_wait_for_their_turn() {
    let (uploads, peer) = (uploads(1, 1), at(1));
    let _held = now(&uploads, at(1), 1).unwrap();
    let short = || uploads.acquire(peer, &Digest::ZERO, 0, FREE_BYTES).now_or_never();
    let count = || std::iter::repeat_with(short).take_while(Option::is_some).take(1000).count();
    assert!((1..10).contains(&count()));
    tokio::time::advance(Duration::from_millis(50)).await;
    assert!((1..10).contains(&count()), "it comes back");
}

#[tokio::test(start_paused = true)]
async fn the_piece_that_was_sent_least_goes_first_and_peers_take_turns() {
    let uploads = uploads(1, 1);
    let [a, b] = [at(1), at(1)];
    drop(now(&uploads, a, 7).unwrap());
    let held = now(&uploads, b, 8).unwrap();
    // Both were sent the same. The first asks for what was sent before.
    let often = uploads.acquire(a, &Digest::ZERO, 7 * PIECE, PIECE);
    let never = uploads.acquire(b, &Digest::ZERO, 9 * PIECE, PIECE);
    tokio::pin!(often, never);
    assert!(often.as_mut().now_or_never().is_none() && never.as_mut().now_or_never().is_none());
    drop(held);
    let first = never.as_mut().now_or_never().expect("it is the rarest").unwrap();
    assert!(often.as_mut().now_or_never().is_none());
    drop(first);
    assert!(often.await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_address_that_has_nothing_yet_gets_one_of_the_places_for_newcomers() {
    let uploads = uploads(4, 4);
    let taken: Vec<_> = (0..10).map_while(|piece| now(&uploads, at(1), piece)).collect();
    assert_eq!(taken.len(), 4, "however many names there are at one address");
    let newcomer = now(&uploads, at(2), 0);
    assert!(newcomer.is_some());
    assert!(now(&uploads, at(3), 0).is_none(), "all have something to do");
    drop(newcomer);
    assert!(now(&uploads, at(2), 0).is_some());
}

#[tokio::test(start_paused = true)]
async fn whoever_takes_next_to_nothing_loses_its_answer_while_others_wait() {
    let uploads = uploads(2, 2);
    let [slow, fast] = [now(&uploads, at(1), 0).unwrap(), now(&uploads, at(1), 1).unwrap()];
    let never = std::future::pending::<Result<usize, ()>>();
    let receive_rate = Arc::clone(&slow.receive_rate);
    let reading = receive_rate.measure(never);
    tokio::pin!(reading);
    assert!(reading.as_mut().now_or_never().is_none());
    let _ = fast.receive_rate().measure(async { Ok::<_, ()>(1 << 20) }).await;
    tokio::time::advance(Duration::from_secs(6)).await;
    assert!(reading.as_mut().now_or_never().is_none(), "nobody waits");
    let waiting = uploads.acquire(at(2), &Digest::ZERO, 0, PIECE);
    tokio::pin!(waiting);
    assert!(waiting.as_mut().now_or_never().is_none());
    assert_eq!(reading.await, None);
    drop(slow);
    assert!(waiting.await.is_ok());
    assert!(!fast.receive_rate().is_too_slow(Instant::now()));
}
