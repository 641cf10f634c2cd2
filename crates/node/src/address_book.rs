//! The address book: peers that were reached, kept in the cache so that a restart needs no bootstrap.
//!
//! `peers` in the cache has a line for each, the one reached last first: when that was in seconds since 1970, and the
//! full address. Lines that are not understood are passed over.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use files::Place;
use p2p_blob::{Contact, Multiaddr, PeerId};

/// Peers remembered.
const MAX_PEERS: usize = 512;
/// No book is longer.
const MAX_BOOK_BYTES: u64 = MAX_PEERS as u64 * 512;
/// A peer that could not be reached so often in a run is forgotten.
const MAX_FAILURES: u32 = 3;
/// Name of the file in the cache.
const NAME: &str = "peers";

/// Peers that were dialed with success, each at its last address.
#[derive(Debug)]
pub(crate) struct AddressBook {
    path: PathBuf,
    /// Whether it is saved.
    is_kept: bool,
    peers: Mutex<Peers>,
}

#[derive(Debug, Default)]
struct Peers {
    known: HashMap<PeerId, Entry>,
    has_changed: bool,
}

#[derive(Debug, Clone)]
struct Entry {
    /// In seconds since 1970.
    reached_at: u64,
    addr: Multiaddr,
    /// Failed attempts in this run since it was reached.
    failures: u32,
}

impl AddressBook {
    /// Reads the book of the cache at `cache_dir`. One that cannot be read is replaced by an empty one. It is saved if
    /// `is_kept`.
    pub(crate) fn open(cache_dir: &Path, is_kept: bool) -> Self {
        let path = cache_dir.join(NAME);
        let now = unix_now();
        let known = match read(&path) {
            Ok(text) => text.lines().filter_map(|line| parse(line, now)).take(MAX_PEERS).collect(),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot read the peers of earlier runs");
                HashMap::new()
            }
        };
        Self { path, is_kept, peers: Mutex::new(Peers { known, has_changed: false }) }
    }

    /// The peer was reached there, now.
    pub(crate) fn reached(&self, peer: PeerId, addr: Multiaddr) {
        let reached_at = unix_now();
        let mut peers = self.peers();
        if peers.known.len() >= MAX_PEERS && !peers.known.contains_key(&peer) {
            let oldest = peers.known.iter().min_by_key(|(_, entry)| entry.reached_at).map(|(peer, _)| *peer);
            oldest.and_then(|oldest| peers.known.remove(&oldest));
        }
        peers.known.insert(peer, Entry { reached_at, addr, failures: 0 });
        peers.has_changed = true;
    }

    /// The peer could not be reached. It is forgotten after [`MAX_FAILURES`].
    pub(crate) fn failed(&self, peer: &PeerId) {
        let mut peers = self.peers();
        let Some(entry) = peers.known.get_mut(peer) else { return };
        entry.failures += 1;
        if entry.failures >= MAX_FAILURES {
            peers.known.remove(peer);
            peers.has_changed = true;
        }
    }

    /// Up to `count` of the peers, at random.
    pub(crate) fn choose(&self, count: usize) -> Vec<Contact> {
        let peers = self.peers();
        let contact =
            |(peer, entry): (&PeerId, &Entry)| Contact { peer: *peer, addrs: vec![entry.addr.clone()] };
        fastrand::choose_multiple(peers.known.iter(), count).into_iter().map(contact).collect()
    }

    /// Writes the book, if it has changed, merged with what another process has added to the file meanwhile, as far as it
    /// fits.
    ///
    /// # Errors
    /// When it cannot be written; the next call tries again.
    pub(crate) fn save(&self) -> io::Result<()> {
        let mut known = {
            let mut peers = self.peers();
            if !self.is_kept || !std::mem::take(&mut peers.has_changed) {
                return Ok(());
            }
            peers.known.clone()
        };
        let now = unix_now();
        for (peer, entry) in read(&self.path).unwrap_or_default().lines().filter_map(|line| parse(line, now))
        {
            known.entry(peer).or_insert(entry);
        }
        let written = write(&self.path, known);
        if written.is_err() {
            self.peers().has_changed = true;
        }
        written
    }

    fn peers(&self) -> MutexGuard<'_, Peers> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(path: &Path) -> io::Result<String> {
    let bytes = files::read(Place::of(path), MAX_BOOK_BYTES)?.unwrap_or_default();
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

fn write(path: &Path, known: HashMap<PeerId, Entry>) -> io::Result<()> {
    let mut entries: Vec<_> = known.into_iter().collect();
    entries.sort_unstable_by_key(|(_, entry)| std::cmp::Reverse(entry.reached_at));
    let mut text = String::new();
    for (peer, Entry { reached_at, addr, .. }) in entries.into_iter().take(MAX_PEERS) {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{reached_at} {addr}/p2p/{peer}");
    }
    files::replace(Place::of(path), text.as_bytes(), 0o600, false)
}

/// The peer of a line. One that was reached in the future, by a wrong clock, is the first to be forgotten.
fn parse(line: &str, now: u64) -> Option<(PeerId, Entry)> {
    let (reached_at, addr) = line.split_once(' ')?;
    let addr: Multiaddr = addr.parse().ok().filter(p2p_blob::is_dialable)?;
    let (addr, peer) = p2p_blob::split_peer(addr)?;
    let reached_at: u64 = reached_at.parse().ok()?;
    let reached_at = if reached_at > now { 0 } else { reached_at };
    Some((peer, Entry { reached_at, addr, failures: 0 }))
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn addr(port: usize) -> Multiaddr {
        format!("/ip4/192.0.2.7/tcp/{port}").parse().unwrap()
    }

    #[test]
    fn peers_survive_and_lost_ones_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (PeerId::random(), PeerId::random());
        let book = AddressBook::open(dir.path(), true);
        book.reached(one, addr(1));
        book.reached(two, addr(2));
        book.reached(one, addr(3));
        (0..MAX_FAILURES).for_each(|_| book.failed(&two));
        (1..MAX_FAILURES).for_each(|_| book.failed(&one));
        book.save().unwrap();
        let book = AddressBook::open(dir.path(), true);
        assert_eq!(book.choose(10), [Contact { peer: one, addrs: vec![addr(3)] }]);
        assert!(book.choose(0).is_empty());
    }

    #[test]
    fn one_that_was_reached_in_the_future_is_no_fresh_one() {
        let dir = tempfile::tempdir().unwrap();
        let future = PeerId::random();
        let line = format!("{} /ip4/192.0.2.7/tcp/9/p2p/{future}\n", u64::MAX);
        std::fs::File::create(dir.path().join(NAME)).unwrap().write_all(line.as_bytes()).unwrap();
        let book = AddressBook::open(dir.path(), true);
        (1..=MAX_PEERS).for_each(|port| book.reached(PeerId::random(), addr(port)));
        assert!(book.choose(2 * MAX_PEERS).iter().all(|contact| contact.peer != future), "the oldest goes");
        assert_eq!(book.choose(2 * MAX_PEERS).len(), MAX_PEERS);
    }

    #[test]
    fn two_processes_share_a_book() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (AddressBook::open(dir.path(), true), AddressBook::open(dir.path(), true));
        one.reached(PeerId::random(), addr(1));
        two.reached(PeerId::random(), addr(2));
        one.save().unwrap();
        two.save().unwrap();
        assert_eq!(AddressBook::open(dir.path(), true).choose(10).len(), 2);
    }

    #[test]
    fn a_book_is_bounded_and_garbage_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let book = AddressBook::open(dir.path(), true);
        for port in 1..=MAX_PEERS + 10 {
            book.reached(PeerId::random(), addr(port));
        }
        book.save().unwrap();
        let path = dir.path().join(NAME);
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), MAX_PEERS);
        let mut file = std::fs::File::options().write(true).open(&path).unwrap();
        file.write_all(b"nonsense\n1 /ip4/192.0.2.7/tcp/1\nx ").unwrap();
        drop(file);
        let read = AddressBook::open(dir.path(), true).choose(2 * MAX_PEERS).len();
        assert!((MAX_PEERS - 3..MAX_PEERS).contains(&read), "{read}");
        let mut file = std::fs::File::options().write(true).open(&path).unwrap();
        file.write_all(&[0xff; 10]).unwrap();
        assert!(AddressBook::open(dir.path(), true).choose(10).is_empty(), "it is not text");
    }
}
