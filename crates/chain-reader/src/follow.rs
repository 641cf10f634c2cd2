//! Following the contract: events for each new model and for trouble, never the withdrawal of a model.
//!
//! A [`Follower`] has no queue: it polls when it is asked for the next event, so that a caller that was busy for hours gets
//! the current model, and not those in between. A poll in progress survives when the caller stops waiting. WebSocket hints
//! make it poll sooner; only the quorum decides.

use std::collections::VecDeque;
use std::fmt;
use std::mem::{Discriminant, discriminant};
use std::time::Duration;

use futures::future::BoxFuture;
use manifest::Digest;
use tokio::time::{Instant, sleep_until};

use crate::config::{Config, Staleness};
use crate::error::ChainError;
use crate::hints::{HintBudget, Hints};
use crate::model::MatureModel;
use crate::reader::ChainReader;

/// The longest pause while the chain cannot be reached, in intervals.
const MAX_PAUSE: u32 = 8;

/// An event of the contract.
#[derive(Debug)]
#[non_exhaustive]
pub enum FollowEvent {
    /// The contract names another model than before.
    Model(MatureModel),
    /// The contract cannot be read, or its answer is wrong. Reported once, until it is over or of another kind.
    Trouble(Trouble),
    /// The trouble is over, and the contract names the same model as before it.
    Recovered,
}

/// Why there is no newer model now. Polling goes on.
#[derive(Debug)]
pub struct Trouble {
    /// What is wrong.
    pub error: ChainError,
    /// The model to go on with, if there was one.
    pub keeping: Option<Digest>,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.keeping {
            Some(digest) => write!(f, "keeping the last good model {digest}, because {}", self.error),
            None => write!(f, "there is no model yet, because {}", self.error),
        }
    }
}

/// The result of one poll: the model, or why there is none, and the fallback.
type Look = (Result<MatureModel, ChainError>, Option<MatureModel>);

/// Follows a contract. Dropping it ends its WebSocket connections.
pub struct Follower {
    reader: ChainReader,
    interval: Duration,
    hints: Hints,
    budget: HintBudget,
    /// The next poll without a hint.
    due: Instant,
    /// The poll in progress.
    looking: Option<BoxFuture<'static, Look>>,
    /// The model that was last reported.
    current: Option<Digest>,
    /// The kind of trouble that was last reported.
    trouble: Option<(Discriminant<ChainError>, String)>,
    /// Polls in a row in which the chain was unreachable.
    unreachable: u32,
    /// Queued events: two at most.
    events: VecDeque<FollowEvent>,
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower").field("reader", &self.reader).field("current", &self.current).finish()
    }
}

impl ChainReader {
    /// Follows the contract from now on, as [`Config::with_poll_interval`] and [`Config::with_hints`] say. A model that is
    /// `known` already is not reported. To be called on a tokio runtime: each hint endpoint has a task there.
    pub fn follow(&self, known: Option<Digest>) -> Follower {
        let Config { poll_interval: interval, hints, contract, .. } = self.config();
        let interval = *interval;
        Follower {
            reader: self.clone(),
            interval,
            hints: Hints::start(hints, *contract),
            budget: HintBudget::new(interval),
            due: Instant::now(),
            looking: None,
            current: known,
            trouble: None,
            unreachable: 0,
            events: VecDeque::new(),
        }
    }
}

impl Follower {
    /// Waits for the next event. The first poll is made at once.
    ///
    /// **Cancel safety.** Nothing is lost when the future is dropped: a poll in progress goes on with the next call.
    pub async fn next(&mut self) -> FollowEvent {
        loop {
            if let Some(event) = self.events.pop_front() {
                return event;
            }
            if self.looking.is_none() {
                self.until_due().await;
                // A hint from here on may be about a block that this poll does not see yet.
                self.hints.clear();
                self.looking = Some(Box::pin(look(self.reader.clone(), self.current.is_none())));
            }
            if let Some(looking) = &mut self.looking {
                let (read, instead) = looking.await;
                self.looking = None;
                self.on_look(read, instead);
            }
        }
    }

    /// Waits for the next poll, or for a hint, as far as the rate limit allows.
    async fn until_due(&mut self) {
        if Instant::now() >= self.due {
            return;
        }
        let allowed_at = self.budget.allowed_at();
        let hinted = async {
            sleep_until(allowed_at).await;
            self.hints.wait().await;
        };
        tokio::select! {
            () = sleep_until(self.due) => {}
            () = hinted => {
                tracing::debug!("looking at the contract: a hint says that it has changed");
                self.budget.spend();
            }
        }
    }

    fn on_look(&mut self, read: Result<MatureModel, ChainError>, instead: Option<MatureModel>) {
        let is_unreachable = read.as_ref().is_err_and(ChainError::is_unreachable);
        self.unreachable = if is_unreachable { self.unreachable.saturating_add(1) } else { 0 };
        let pause = self.interval * (1 << self.unreachable.min(31)).min(MAX_PAUSE);
        self.due = Instant::now() + pause.mul_f64(0.8 + 0.4 * fastrand::f64());
        match read {
            Ok(model) => {
                let was_in_trouble = self.trouble.take().is_some();
                if self.current != Some(model.manifest) {
                    self.tell(model);
                } else if was_in_trouble {
                    self.events.push_back(FollowEvent::Recovered);
                }
            }
            Err(error) => {
                let kind = (discriminant(&error), distinction(&error));
                let is_news = self.trouble.as_ref() != Some(&kind);
                self.trouble = Some(kind);
                if let Some(model) = instead {
                    self.tell(model);
                }
                let trouble = Trouble { error, keeping: self.current };
                tracing::debug!(is_news, "{trouble}");
                if is_news {
                    self.events.push_back(FollowEvent::Trouble(trouble));
                }
            }
        }
    }

    fn tell(&mut self, model: MatureModel) {
        self.current = Some(model.manifest);
        self.events.push_back(FollowEvent::Model(model));
    }
}

/// What makes an error of a reported kind new: not the block, which differs at most polls.
fn distinction(error: &ChainError) -> String {
    match error {
        ChainError::NotADigest { found, found_bytes, .. } => format!("{found_bytes} {found}"),
        ChainError::FinalizedChanged { before, now, .. } => format!("{before} {now}"),
        _ => String::new(),
    }
}

/// Reads the contract. When that fails and there was no model so far, falls back to an older one.
async fn look(reader: ChainReader, is_first: bool) -> Look {
    if reader.config().staleness == Staleness::Offline {
        return (reader.mature_model().await, None);
    }
    let read = reader.read().await;
    let instead = match &read {
        Err(error) if is_first => reader.stand_in(error).await,
        _ => None,
    };
    (read, instead)
}

#[cfg(test)]
mod tests;
