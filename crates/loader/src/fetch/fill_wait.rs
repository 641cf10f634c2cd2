//! Waiting for the fill lock, while another process, or another load of this one, fills the same model.

use std::time::{Duration, Instant};

use manifest::Digest;
use store::{Cache, FillLock, FillState, FillWait, LockHolders, PAUSE};
use tokio::time::sleep;

use super::blocking::blocking;
use crate::error::LoadError;
use crate::observer::{Event, Observer};

/// How often the wait is reported again.
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// The right to fill the model. Waits for a lock holder that makes progress, and for `wait` for one that does not.
/// Dropping the future leaves no waiter.
pub(super) async fn fill(
    cache: &Cache,
    digest: Digest,
    wait: Duration,
    observer: &dyn Observer,
) -> Result<FillLock, LoadError> {
    let mut waiting = FillWait::new(cache, digest, Instant::now());
    let mut reported: Option<(Instant, Vec<(u32, bool)>)> = None;
    loop {
        let (look, back) = blocking(move || (waiting.look(Instant::now()), waiting)).await?;
        waiting = back;
        let (holders, idle) = match look? {
            FillState::Mine(lock) => return Ok(lock),
            FillState::Theirs { holders, idle } => (holders, idle),
        };
        let summary = summary(&holders);
        if !reported.as_ref().is_some_and(|(at, before)| at.elapsed() < REPORT_EVERY && *before == summary) {
            observer.on_event(&Event::Waiting { holders: &holders });
            reported = Some((Instant::now(), summary));
        }
        if idle >= wait {
            return Err(LoadError::Locked { digest, holders, wait });
        }
        sleep(PAUSE.min(wait - idle)).await;
    }
}

/// The part of the holders whose changes are reported.
fn summary(holders: &LockHolders) -> Vec<(u32, bool)> {
    holders.0.iter().map(|holder| (holder.process, holder.is_stopped)).collect()
}
