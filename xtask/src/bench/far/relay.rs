//! A distance within one machine: a relay between a fetcher and its seeders that delays what goes through it, and lets
//! through no more than a line would.
//!
//! Each direction is one line that all connections share: first come, first served. Bytes arrive half a round trip after
//! they left the line. As much as the line's speed times the round trip may be on its way, and 50 ms of the line more wait
//! before it; then nothing more is read, and the sender's TCP waits. Nothing is lost, and there is no slow start. Headers
//! do not count. Connecting takes a round trip, as it would: a client's bytes go on one round trip after its connection
//! was taken, and the seeder sees it half a round trip later.

mod line;
mod pipe;
mod pool;
mod record;
mod window;

use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

pub(crate) use self::line::Distance;
use self::line::Line;
use self::pipe::{Pipe, Shared, sleep_until};
pub(crate) use self::pool::Pool;
pub(crate) use self::record::Record;

/// See the module's documentation. Runs until it is dropped.
pub(crate) struct Relay {
    inner: Arc<Inner>,
    /// Where it listens, one address for each seeder, in their order.
    pub(crate) addresses: Vec<SocketAddr>,
    accepting: Vec<JoinHandle<()>>,
}

struct Inner {
    distance: Distance,
    pool: Arc<Pool>,
    /// To the seeders, and to the fetcher.
    up: Mutex<Line>,
    down: Mutex<Line>,
    record: Mutex<Record>,
    open: Mutex<Open>,
}

/// What has to be ended.
#[derive(Default)]
struct Open {
    is_stopping: bool,
    streams: Vec<TcpStream>,
    connections: Vec<JoinHandle<()>>,
}

impl Relay {
    /// Listens on this host for connections to each of the seeders.
    pub(crate) fn start(distance: Distance, seeders: &[SocketAddr], pool: &Arc<Pool>) -> Result<Self> {
        let now = Instant::now();
        let inner = Arc::new(Inner {
            distance,
            pool: Arc::clone(pool),
            up: Mutex::new(Line::new(distance, now)),
            down: Mutex::new(Line::new(distance, now)),
            record: Mutex::new(Record::new(now)),
            open: Mutex::default(),
        });
        let mut relay = Self { inner, addresses: Vec::new(), accepting: Vec::new() };
        for seeder in seeders.iter().copied() {
            let listener = TcpListener::bind(("127.0.0.1", 0)).context("a relay cannot listen")?;
            relay.addresses.push(listener.local_addr().context("a relay has no address")?);
            let inner = Arc::clone(&relay.inner);
            relay.accepting.push(thread::spawn(move || accept(&inner, &listener, seeder)));
        }
        Ok(relay)
    }

    /// What has come to the fetcher, since the relay was started.
    pub(crate) fn record(&self) -> Record {
        lock(&self.inner.record).clone()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let mut open = lock(&self.inner.open);
        open.is_stopping = true;
        for stream in open.streams.drain(..) {
            // Fails when it is closed already.
            let _ = stream.shutdown(Shutdown::Both);
        }
        let connections = std::mem::take(&mut open.connections);
        drop(open);
        for address in &self.addresses {
            // Wakes the thread that waits for a connection.
            let _ = TcpStream::connect(address);
        }
        for thread in self.accepting.drain(..).chain(connections) {
            // A panic has been told by the thread itself.
            let _ = thread.join();
        }
    }
}

fn accept(inner: &Arc<Inner>, listener: &TcpListener, seeder: SocketAddr) {
    for client in listener.incoming() {
        let accepted = Instant::now();
        let mut open = lock(&inner.open);
        if open.is_stopping {
            return;
        }
        let Ok(client) = client else {
            drop(open);
            // Too many open files, say: not at full speed.
            thread::sleep(Duration::from_millis(10));
            continue;
        };
        lock(&inner.record).connected(accepted);
        let connected = Arc::clone(inner);
        open.connections.push(thread::spawn(move || connected.connect(&client, accepted, seeder)));
    }
}

impl Inner {
    /// Everything of one connection, until both sides have ended it.
    fn connect(&self, client: &TcpStream, accepted: Instant, seeder: SocketAddr) {
        let shared = |line, record| Shared { distance: self.distance, line, pool: &self.pool, record };
        let up = Pipe::new(shared(&self.up, None));
        let down = Pipe::new(shared(&self.down, Some(&self.record)));
        if self.keep(client).is_err() {
            return;
        }
        thread::scope(|scope| {
            scope.spawn(|| {
                sleep_until(accepted + self.distance.round_trip);
                up.send_from(client);
            });
            sleep_until(accepted + self.distance.round_trip * 3 / 2);
            let server = TcpStream::connect(seeder).and_then(|server| {
                self.keep(&server)?;
                Ok(server)
            });
            let Ok(server) = server else {
                // As it would be with nobody there.
                return up.give_up(client);
            };
            let server = &server;
            thread::scope(|scope| {
                scope.spawn(|| down.send_from(server));
                scope.spawn(|| down.deliver(server, client));
                up.deliver(client, server);
            });
        });
    }

    /// So that it is ended with the relay, at once if that has been.
    fn keep(&self, stream: &TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        let mut open = lock(&self.open);
        if open.is_stopping {
            stream.shutdown(Shutdown::Both)?;
        }
        open.streams.push(stream.try_clone()?);
        Ok(())
    }
}

/// What another thread did before it panicked is of no concern here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    /// Sends back what it is sent, to one client.
    fn echo() -> (SocketAddr, JoinHandle<()>) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let echo = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            std::io::copy(&mut stream.try_clone().unwrap(), &mut stream).unwrap();
        });
        (address, echo)
    }

    #[test]
    fn all_bytes_come_back_in_order_and_not_sooner_than_they_could() {
        let (seeder, echo) = echo();
        let distance = Distance {
            round_trip: Duration::from_millis(40),
            bytes_per_s: 20_000_000,
            window_bytes: Some(256 << 10),
        };
        let relay = Relay::start(distance, &[seeder], &Arc::default()).unwrap();
        let started = Instant::now();
        let mut client = TcpStream::connect(relay.addresses[0]).unwrap();
        let sent: Vec<u8> = (0..1_000_003_u32).map(|number| number.to_le_bytes()[0] ^ 17).collect();
        let mut writing = client.try_clone().unwrap();
        let mut got = Vec::new();
        thread::scope(|scope| {
            scope.spawn(|| {
                writing.write_all(&sent).unwrap();
                writing.shutdown(Shutdown::Write).unwrap();
            });
            client.read_to_end(&mut got).unwrap();
        });
        assert!(got == sent, "{} bytes of {}", got.len(), sent.len());
        // Two round trips, and the line's time; only what is too soon is wrong.
        assert!(started.elapsed() >= Duration::from_millis(80 + 50), "{:?}", started.elapsed());
        assert_eq!(relay.record().total_bytes(), 1_000_003);
        drop(relay);
        echo.join().unwrap();
    }

    #[test]
    fn a_relay_ends_with_its_connections() {
        let (seeder, echo) = echo();
        let distance = Distance { round_trip: Duration::ZERO, bytes_per_s: 1_000_000, window_bytes: None };
        let relay = Relay::start(distance, &[seeder], &Arc::default()).unwrap();
        let mut client = TcpStream::connect(relay.addresses[0]).unwrap();
        client.write_all(&[7]).unwrap();
        client.read_exact(&mut [0]).unwrap();
        drop(relay);
        assert!(matches!(client.read(&mut [0]), Ok(0) | Err(_)));
        echo.join().unwrap();
    }

    #[test]
    fn nobody_behind_it_ends_the_connection() {
        let nobody = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
        let distance = Distance { round_trip: Duration::ZERO, bytes_per_s: 1_000_000, window_bytes: None };
        let relay = Relay::start(distance, &[nobody], &Arc::default()).unwrap();
        let mut client = TcpStream::connect(relay.addresses[0]).unwrap();
        assert!(matches!(client.read(&mut [0]), Ok(0) | Err(_)));
        drop(relay);
    }
}
