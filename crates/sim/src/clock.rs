//! Virtual time, and what happens when.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// Nanoseconds since the beginning.
pub(crate) type Time = u64;

pub(crate) const MS: Time = 1_000_000;

pub(crate) fn duration(time: Time) -> Duration {
    Duration::from_nanos(time)
}

/// How long so many bytes take at this speed.
pub(crate) fn time_for(bytes: u64, bytes_per_s: u64) -> Time {
    bytes * 1_000_000_000 / bytes_per_s
}

/// What is to happen, soonest first; of things at the same time, what was put in first.
#[derive(Debug)]
pub(crate) struct Agenda<E> {
    heap: BinaryHeap<Reverse<Entry<E>>>,
    next: u64,
}

#[derive(Debug)]
struct Entry<E> {
    at: (Time, u64),
    what: E,
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl<E> Eq for Entry<E> {}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Entry<E> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}

impl<E> Agenda<E> {
    pub(crate) fn new() -> Self {
        Self { heap: BinaryHeap::new(), next: 0 }
    }

    pub(crate) fn add(&mut self, at: Time, what: E) {
        self.heap.push(Reverse(Entry { at: (at, self.next), what }));
        self.next += 1;
    }

    pub(crate) fn next(&mut self) -> Option<(Time, E)> {
        self.heap.pop().map(|Reverse(entry)| (entry.at.0, entry.what))
    }
}
