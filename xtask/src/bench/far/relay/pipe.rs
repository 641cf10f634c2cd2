//! One direction of one connection: a thread that reads and puts what it reads on the line, and one that writes what
//! has arrived.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSliceMut, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::line::{Distance, Line};
use super::lock;
use super::pool::{Filled, Pool};
use super::record::Record;
use super::window::{Room, Window};

/// Buffers that are filled by one call.
const BUFFERS: usize = 4;
/// The shortest sleeps, so that each is worth its switch of threads. A sender that sleeps too long loses nothing, as
/// more than this waits before the line meanwhile; what arrives is late by less than this.
const SENDERS_NAP: Duration = Duration::from_millis(1);
const ARRIVALS_NAP: Duration = Duration::from_micros(200);

/// What all connections share in one direction.
#[derive(Debug)]
pub(super) struct Shared<'a> {
    pub(super) distance: Distance,
    pub(super) line: &'a Mutex<Line>,
    pub(super) pool: &'a Pool,
    /// Where it is written down, if it is.
    pub(super) record: Option<&'a Mutex<Record>>,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Pipe<'a> {
    shared: Shared<'a>,
    state: Mutex<State>,
    /// Something was put on the line.
    sent: Condvar,
    /// Something was written, or can't be any more.
    arrived: Condvar,
}

#[derive(Debug)]
struct State {
    /// What is on the line, in the order of its arrival.
    travelling: VecDeque<(Instant, What)>,
    window: Window,
    is_broken: bool,
}

#[derive(Debug)]
enum What {
    Bytes(Filled),
    End,
}

impl<'a> Pipe<'a> {
    pub(super) fn new(shared: Shared<'a>) -> Self {
        let window = Window::new(shared.distance.connection_bytes());
        let state = State { travelling: VecDeque::new(), window, is_broken: false };
        Self { shared, state: Mutex::new(state), sent: Condvar::new(), arrived: Condvar::new() }
    }

    /// Reads to the end, no faster than there is room on the line.
    pub(super) fn send_from(&self, mut source: &TcpStream) {
        let mut buffers: Vec<Vec<u8>> = Vec::new();
        'reading: loop {
            buffers.resize_with(BUFFERS, || self.shared.pool.take());
            let mut left = match read(&mut source, &mut buffers) {
                Ok(0) | Err(_) => break,
                Ok(count) => count,
            };
            while left > 0 {
                let buffer = buffers.remove(0);
                let len = left.min(buffer.len());
                left -= len;
                let filled = self.shared.pool.filled(buffer, len);
                if !self.send(filled) {
                    break 'reading;
                }
            }
        }
        for buffer in buffers {
            let len = buffer.len();
            self.shared.pool.done_with(self.shared.pool.filled(buffer, len));
        }
        let arrives_at = Instant::now() + self.shared.distance.one_way();
        let mut state = lock(&self.state);
        let last_at = state.travelling.back().map_or(arrives_at, |(at, _)| *at);
        state.travelling.push_back((arrives_at.max(last_at), What::End));
        self.sent.notify_one();
    }

    /// Puts it on the line, as soon as there is room. Returns whether more is of use.
    fn send(&self, filled: Filled) -> bool {
        let bytes = filled.bytes().len() as u64;
        if !self.wait_for_window(bytes) {
            return false;
        }
        let arrives_at = loop {
            let now = Instant::now();
            let admitted = lock(self.shared.line).admit(bytes, now);
            match admitted {
                Ok(arrives_at) => break arrives_at,
                Err(again) => sleep_until(again.max(now + SENDERS_NAP)),
            }
        };
        let mut state = lock(&self.state);
        state.travelling.push_back((arrives_at, What::Bytes(filled)));
        self.sent.notify_one();
        !state.is_broken
    }

    fn wait_for_window(&self, bytes: u64) -> bool {
        let mut state = lock(&self.state);
        loop {
            let now = Instant::now();
            match state.window.room(bytes, now) {
                _ if state.is_broken => return false,
                Room::Now => {
                    state.window.send(bytes);
                    return true;
                }
                Room::At(at) => {
                    drop(state);
                    sleep_until(at.max(now + SENDERS_NAP));
                    state = lock(&self.state);
                }
                Room::AfterAnArrival => {
                    state = self.arrived.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
                }
            }
        }
    }

    /// Writes everything when it has arrived. When that fails, nothing more is read from `source`.
    pub(super) fn deliver(&self, source: &TcpStream, mut target: &TcpStream) {
        while let Some(filled) = self.next_arrival() {
            let bytes = filled.bytes().len() as u64;
            if target.write_all(filled.bytes()).is_err() {
                return self.give_up(source);
            }
            let now = Instant::now();
            self.shared.pool.done_with(filled);
            if let Some(record) = self.shared.record {
                lock(record).delivered(bytes, now);
            }
            lock(&self.state).window.acknowledge_at(now + self.shared.distance.one_way(), bytes);
            self.arrived.notify_one();
        }
        let _ = target.shutdown(Shutdown::Write);
    }

    /// Nothing of what `source` sends can be delivered.
    pub(super) fn give_up(&self, source: &TcpStream) {
        lock(&self.state).is_broken = true;
        self.arrived.notify_all();
        // Fails when it is closed already.
        let _ = source.shutdown(Shutdown::Both);
    }

    /// Waits for the next bytes to arrive; `None` at the end.
    fn next_arrival(&self) -> Option<Filled> {
        let mut state = lock(&self.state);
        loop {
            let now = Instant::now();
            match state.travelling.front().map(|(at, _)| *at) {
                None => state = self.sent.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner),
                Some(at) if at > now => {
                    drop(state);
                    sleep_until(at.max(now + ARRIVALS_NAP));
                    state = lock(&self.state);
                }
                Some(_) => match state.travelling.pop_front() {
                    Some((_, What::Bytes(filled))) => return Some(filled),
                    Some((_, What::End)) | None => return None,
                },
            }
        }
    }
}

/// Without being interrupted by signals.
fn read(source: &mut &TcpStream, buffers: &mut [Vec<u8>]) -> io::Result<usize> {
    loop {
        let mut slices: Vec<_> = buffers.iter_mut().map(|buffer| IoSliceMut::new(buffer)).collect();
        match source.read_vectored(&mut slices) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

pub(super) fn sleep_until(at: Instant) {
    thread::sleep(at.saturating_duration_since(Instant::now()));
}
