//! Following the contract: each model that it names is loaded beside the one before.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use chain_reader::{FollowEvent, MatureModel, Trouble};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _};
use manifest::Digest;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::{Loaded, NodeError};

/// Exponential backoff after failed loads of one model.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LAST_PAUSE: Duration = Duration::from_secs(120);

/// Something happened to the model that the contract names.
#[derive(Debug)]
#[non_exhaustive]
pub enum Update {
    /// A new model is loaded: mapped, and served. The one before stays mapped until it is dropped.
    Ready {
        /// What the contract says of it.
        named: MatureModel,
        /// The model.
        loaded: Box<Loaded>,
    },
    /// A new model cannot be loaded, now or ever: keep using the one before.
    NotLoaded {
        /// What the contract says of it.
        named: MatureModel,
        /// Why not.
        error: NodeError,
        /// When it is retried; never when it is not valid.
        retry_after: Option<Duration>,
    },
    /// The contract cannot be read, or names no model: keep using the one before. Reported once.
    Trouble(Trouble),
    /// The contract can be read again, and names the same model as before.
    Recovered,
}

type Loading = BoxFuture<'static, Result<Loaded, NodeError>>;

/// Loads each model that the contract names: a stream of the results that never ends. It works while it is polled.
///
/// When the contract names another model while one is being loaded, that load is cancelled, and its verified pieces are
/// kept. Loads that fail for want of peers are retried for ever.
///
/// **Cancel safety.** Waiting for the next update may be cancelled at any time: the next wait goes on.
pub struct Watch {
    events: BoxStream<'static, FollowEvent>,
    load: Box<dyn Fn(MatureModel) -> Loading + Send>,
    /// The model that was loaded last.
    current: Option<Digest>,
    wanted: Option<Wanted>,
}

/// A model that is named and not loaded.
struct Wanted {
    named: MatureModel,
    failures: u32,
    work: Work,
}

enum Work {
    Loading(Loading),
    /// Backoff before the next attempt.
    Pausing(Pin<Box<Sleep>>),
    /// It is not valid: only another model helps.
    GivenUp,
}

impl Watch {
    pub(crate) fn new(
        events: BoxStream<'static, FollowEvent>,
        load: impl Fn(MatureModel) -> Loading + Send + 'static,
    ) -> Self {
        Self { events: events.fuse().boxed(), load: Box::new(load), current: None, wanted: None }
    }

    fn want(&mut self, named: MatureModel) {
        if self.current == Some(named.manifest) {
            self.wanted = None;
            return;
        }
        match &mut self.wanted {
            // The same model at another height or price.
            Some(wanted) if wanted.named.manifest == named.manifest => wanted.named = named,
            _ => {
                let work = Work::Loading((self.load)(named.clone()));
                self.wanted = Some(Wanted { named, failures: 0, work });
            }
        }
    }

    /// The next step of the work on a model.
    fn poll_step(&mut self, context: &mut Context<'_>) -> Poll<Step> {
        match self.wanted.as_mut().map(|wanted| &mut wanted.work) {
            Some(Work::Loading(loading)) => loading.as_mut().poll(context).map(Step::Loaded),
            Some(Work::Pausing(pause)) => pause.as_mut().poll(context).map(|()| Step::Again),
            Some(Work::GivenUp) | None => Poll::Pending,
        }
    }

    fn on_step(&mut self, step: Step) -> Option<Update> {
        let mut wanted = self.wanted.take()?;
        let result = match step {
            Step::Loaded(result) => result,
            Step::Again => {
                wanted.work = Work::Loading((self.load)(wanted.named.clone()));
                self.wanted = Some(wanted);
                return None;
            }
        };
        let named = wanted.named.clone();
        match result {
            Ok(loaded) => {
                self.current = Some(named.manifest);
                Some(Update::Ready { named, loaded: Box::new(loaded) })
            }
            Err(error) => {
                let retry_after = (!is_final(&error)).then(|| pause(wanted.failures));
                wanted.failures += 1;
                wanted.work = match retry_after {
                    Some(pause) => Work::Pausing(Box::pin(sleep_until(Instant::now() + pause))),
                    None => Work::GivenUp,
                };
                self.wanted = Some(wanted);
                Some(Update::NotLoaded { named, error, retry_after })
            }
        }
    }
}

impl Stream for Watch {
    type Item = Update;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Update>> {
        let this = &mut *self;
        loop {
            // First, as it may name another model than the one that is being loaded. A chain never ends.
            while let Poll::Ready(Some(event)) = this.events.poll_next_unpin(context) {
                match event {
                    FollowEvent::Model(named) => this.want(named),
                    FollowEvent::Trouble(trouble) => return Poll::Ready(Some(Update::Trouble(trouble))),
                    FollowEvent::Recovered => return Poll::Ready(Some(Update::Recovered)),
                    _ => {}
                }
            }
            let step = ready!(this.poll_step(context));
            if let Some(update) = this.on_step(step) {
                return Poll::Ready(Some(update));
            }
        }
    }
}

#[expect(clippy::large_enum_variant, reason = "there is one at a time")]
enum Step {
    Loaded(Result<Loaded, NodeError>),
    Again,
}

/// Whether the model can never be loaded.
fn is_final(error: &NodeError) -> bool {
    matches!(error, NodeError::Load(error) if error.is_integrity())
}

fn pause(failures: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << failures.min(16)).min(LAST_PAUSE)
}

#[cfg(test)]
mod tests;
