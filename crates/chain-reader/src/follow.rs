//! Following the contract: each new model once, trouble when it begins, and never a model taken away.
//!
//! A [`Follower`] has no queue: it looks when it is asked for the next event, so that whoever was busy for hours gets the
//! model that is current then, and not those in between. What it waits for survives in it when a caller gives up
//! waiting. WebSocket hints make it look sooner; what counts is always what a quorum says.

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

/// What happened.
#[derive(Debug)]
#[non_exhaustive]
pub enum FollowEvent {
    /// The contract names another model than before.
    Model(MatureModel),
    /// The contract cannot be read, or what it says is wrong. Said once, until it is over or of another kind.
    Trouble(Trouble),
    /// The trouble is over, and the contract names the same model as before it.
    Recovered,
}

/// Why there is no newer model now. It is looked for again.
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

/// What one look gave: the model or why there is none, and what will do instead.
type Look = (Result<MatureModel, ChainError>, Option<MatureModel>);

/// Follows a contract. Dropping it ends its WebSocket connections.
pub struct Follower {
    reader: ChainReader,
    interval: Duration,
    hints: Hints,
    budget: HintBudget,
    /// The next look, whatever the hints say.
    due: Instant,
    /// The look that is under way.
    looking: Option<BoxFuture<'static, Look>>,
    /// The model that was last told of.
    current: Option<Digest>,
    /// The kind of trouble that was last told of.
    trouble: Option<(Discriminant<ChainError>, String)>,
    /// Looks in a row in which the chain could not be reached.
    unreachable: u32,
    /// What is told of next, before anything else: two events at most.
    events: VecDeque<FollowEvent>,
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower").field("reader", &self.reader).field("current", &self.current).finish()
    }
}

impl ChainReader {
    /// Follows the contract from now on, as [`Config::with_poll_interval`] and [`Config::with_hints`] say. A model that is `known`
    /// already is no news. To be called on a tokio runtime: each hint has a task there.
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
    /// Waits for what happens next. The first look is made at once.
    ///
    /// **Cancel safety.** Nothing is lost when the future is dropped: a look that is under way goes on with the next
    /// call.
    pub async fn next(&mut self) -> FollowEvent {
        loop {
            if let Some(event) = self.events.pop_front() {
                return event;
            }
            if self.looking.is_none() {
                self.until_due().await;
                // A hint that comes from here on may be about what this look is too early for.
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

    /// Waits for the next look, or for a hint, if so many are listened to.
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

/// What makes an error news although one of its kind was told of: not the block, which is another one at most looks.
fn distinction(error: &ChainError) -> String {
    match error {
        ChainError::NotADigest { found, found_bytes, .. } => format!("{found_bytes} {found}"),
        ChainError::FinalizedChanged { before, now, .. } => format!("{before} {now}"),
        _ => String::new(),
    }
}

/// Reads the contract. When that fails and no model was there so far, an older one may do.
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
