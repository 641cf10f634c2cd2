//! A gate that lets so many bytes pass, so that a test can stop the world at a point of its choice.

use std::sync::{Condvar, Mutex, PoisonError};

use tokio::sync::watch;

use crate::soon;

/// Reads of a peer's blobs pass here. Those over the limit wait until it is opened.
#[derive(Debug)]
pub struct Gate {
    limit_bytes: Mutex<u64>,
    opened: Condvar,
    passed_bytes: watch::Sender<u64>,
    waiting: watch::Sender<bool>,
}

impl Gate {
    pub(crate) fn new(limit_bytes: u64) -> Self {
        Self {
            limit_bytes: Mutex::new(limit_bytes),
            opened: Condvar::new(),
            passed_bytes: watch::Sender::new(0),
            waiting: watch::Sender::new(false),
        }
    }

    /// Lets a read of so many bytes pass, or blocks until that is allowed.
    pub(crate) fn pass(&self, bytes: u64) {
        let mut limit_bytes = self.limit_bytes.lock().unwrap_or_else(PoisonError::into_inner);
        while self.passed_bytes().saturating_add(bytes) > *limit_bytes {
            self.waiting.send_replace(true);
            limit_bytes = self.opened.wait(limit_bytes).unwrap_or_else(PoisonError::into_inner);
        }
        self.passed_bytes.send_modify(|passed| *passed += bytes);
    }

    /// Lets everything pass from now on.
    pub fn open(&self) {
        *self.limit_bytes.lock().unwrap_or_else(PoisonError::into_inner) = u64::MAX;
        self.opened.notify_all();
    }

    /// How much has passed.
    pub fn passed_bytes(&self) -> u64 {
        *self.passed_bytes.borrow()
    }

    /// Waits until something has passed.
    ///
    /// # Panics
    /// When nothing does.
    pub async fn passed(&self) {
        soon("a read", self.passed_bytes.subscribe().wait_for(|passed| *passed > 0)).await.unwrap();
    }

    /// Waits until a read stands at the closed gate.
    ///
    /// # Panics
    /// When none does.
    pub async fn reached(&self) {
        soon("a read at the gate", self.waiting.subscribe().wait_for(|waiting| *waiting)).await.unwrap();
    }
}
