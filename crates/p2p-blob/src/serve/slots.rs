//! The places for inbound streams.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::admit::{Answer, Asker, Guest, Quota};

/// How long a stream may be without a request when another one waits for its place.
const IDLE_PATIENCE: Duration = Duration::from_secs(10);

/// Who has how many streams. Clones are the same ones.
#[derive(Debug, Clone)]
pub(super) struct Seats(Arc<Mutex<Quota<u64>>>);

/// One stream's place. Given back when it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Seats,
    number: u64,
}

impl Seats {
    pub(super) fn new(most: usize) -> Self {
        Self(Arc::new(Mutex::new(Quota::new(most, IDLE_PATIENCE))))
    }

    /// Whether there is a place for one more stream, and which other one has to go.
    pub(super) fn ask(&self, from: Asker) -> Answer<u64> {
        let now = Instant::now();
        self.crowd().ask(&Guest::new(from.origin, Some(from.peer), now), now)
    }

    pub(super) fn enter(&self, number: u64, from: Asker) -> Seat {
        self.crowd().enter(number, Guest::new(from.origin, Some(from.peer), Instant::now()));
        Seat { seats: self.clone(), number }
    }

    /// The stream will be gone soon.
    pub(super) fn leave(&self, number: u64) {
        self.crowd().leave(&number);
    }

    fn crowd(&self) -> MutexGuard<'_, Quota<u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// A request has come.
    pub(super) fn is_asked(&self) {
        self.seats.crowd().change(&self.number, |guest| guest.is_busy = true);
    }

    /// It is answered.
    pub(super) fn is_answered(&self) {
        self.seats.crowd().change(&self.number, |guest| {
            guest.is_busy = false;
            guest.was_of_use = true;
            guest.active = Instant::now();
        });
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.leave(self.number);
    }
}
