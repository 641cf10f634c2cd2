//! The maintenance thread of the cache: finds new models, withdraws bad ones, and hashes unverified ones.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Weak};
use std::time::Duration;

use store::Blobs;

/// How often it runs.
const INTERVAL: Duration = Duration::from_secs(1);

/// Dropping it ends the thread, soon, and without waiting for it.
pub(crate) struct Maintenance {
    stop: Arc<AtomicBool>,
    _awake: SyncSender<()>,
}

impl Maintenance {
    pub(crate) fn start(blobs: &Arc<Blobs>) -> std::io::Result<Self> {
        let stop = Arc::<AtomicBool>::default();
        // Nothing is ever sent: closing it ends the thread.
        let (awake, asleep) = sync_channel(0);
        let (blobs, is_stopped) = (Arc::downgrade(blobs), Arc::clone(&stop));
        let work = move || {
            while asleep.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) && tend(&blobs, &is_stopped)
            {
            }
        };
        std::thread::Builder::new().name("cache".to_owned()).spawn(work)?;
        Ok(Self { stop, _awake: awake })
    }
}

/// One round; false when the cache is gone.
fn tend(blobs: &Weak<Blobs>, stop: &AtomicBool) -> bool {
    let Some(blobs) = blobs.upgrade() else { return false };
    if let Err(error) = blobs.tend(stop) {
        tracing::warn!(%error, "cannot look through the cache");
    }
    true
}

impl Drop for Maintenance {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
