//! The slots for inbound streams.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::admit::{Asker, Decision, Quota, Slot};

/// Idle time after which a stream is evicted for another one.
const IDLE_PATIENCE: Duration = Duration::from_secs(10);

/// The slots for streams of one version. Clones are the same ones.
#[derive(Debug, Clone)]
pub(super) struct StreamSlots(Arc<Mutex<Quota<u64>>>);

/// One stream's slot. Freed on drop.
#[derive(Debug)]
pub(super) struct StreamSlot {
    slots: StreamSlots,
    number: u64,
}

impl StreamSlots {
    pub(super) fn new(most: usize) -> Self {
        Self(Arc::new(Mutex::new(Quota::new(most, IDLE_PATIENCE))))
    }

    /// Whether one more stream is admitted, and which other one is evicted for it.
    pub(super) fn ask(&self, from: Asker) -> Decision<u64> {
        let now = Instant::now();
        self.quota().ask(&Slot::new(from.origin, Some(from.peer), now), now)
    }

    pub(super) fn insert(&self, number: u64, from: Asker) -> StreamSlot {
        self.quota().insert(number, Slot::new(from.origin, Some(from.peer), Instant::now()));
        StreamSlot { slots: self.clone(), number }
    }

    /// The stream has ended, or is being reset.
    pub(super) fn remove(&self, number: u64) {
        self.quota().remove(&number);
    }

    fn quota(&self) -> MutexGuard<'_, Quota<u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StreamSlot {
    /// A request has arrived.
    pub(super) fn begin_request(&self) {
        self.slots.quota().change(&self.number, |slot| slot.is_busy = true);
    }

    /// It is answered.
    pub(super) fn end_request(&self) {
        self.slots.quota().change(&self.number, |slot| {
            slot.is_busy = false;
            slot.was_useful = true;
            slot.active = Instant::now();
        });
    }
}

impl Drop for StreamSlot {
    fn drop(&mut self) {
        self.slots.remove(self.number);
    }
}
