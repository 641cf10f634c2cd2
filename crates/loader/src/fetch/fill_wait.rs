//! Waiting while another process, or another load of this one, fills the same model.

use std::time::{Duration, Instant};

use manifest::Digest;
use store::{Cache, FillLock, FillState, FillWait, LockHolders, PAUSE};
use tokio::time::sleep;

use super::blocking::blocking;
use crate::error::LoadError;
use crate::observer::{Event, Observer};

/// Whoever waits is told again this often.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// The right to fill the model. Waits for a holder that gets on, and for `wait` for one that does not. Dropping the future
/// leaves nothing that waits.
pub(super) async fn fill(
    cache: &Cache,
    digest: Digest,
    wait: Duration,
    observer: &dyn Observer,
) -> Result<FillLock, LoadError> {
    let mut waiting = FillWait::new(cache, digest, Instant::now());
    let mut told: Option<(Instant, Vec<(u32, bool)>)> = None;
    loop {
        let (look, back) = blocking(move || (waiting.look(Instant::now()), waiting)).await?;
        waiting = back;
        let (holders, idle) = match look? {
            FillState::Mine(lock) => return Ok(lock),
            FillState::Theirs { holders, idle } => (holders, idle),
        };
        let news = news(&holders);
        if !told.as_ref().is_some_and(|(at, before)| at.elapsed() < TELL_EVERY && *before == news) {
            observer.on_event(&Event::Waiting { holders: &holders });
            told = Some((Instant::now(), news));
        }
        if idle >= wait {
            return Err(LoadError::Locked { digest, holders, wait });
        }
        sleep(PAUSE.min(wait - idle)).await;
    }
}

/// What of the holders is worth telling when it changes.
fn news(holders: &LockHolders) -> Vec<(u32, bool)> {
    holders.0.iter().map(|holder| (holder.process, holder.is_stopped)).collect()
}
