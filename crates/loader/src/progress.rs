//! The progress of a load, as numbers.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use futures::Stream;
use manifest::SourceId;
use tokio::sync::watch;

use crate::observer::{Event, Observer};

/// The progress of a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Numbers {
    /// Size of what is wanted of the weights; 0 before the manifest is known.
    pub total_bytes: u64,
    /// Came from sources, and is right. Parity counts, too.
    pub fetched_bytes: u64,
    /// Was rebuilt from others.
    pub rebuilt_bytes: u64,
    /// Was taken from other models in the cache.
    pub reused_bytes: u64,
    /// An earlier run has left it, and it is right.
    pub resumed_bytes: u64,
    /// Came, and was wrong.
    pub wrong_bytes: u64,
    /// Connected sources.
    pub sources: u32,
    /// None of them can be asked for anything that is missing.
    pub is_starved: bool,
    /// All is there, and brought to the disk.
    pub is_finishing: bool,
}

/// An [`Observer`] for those who want numbers instead of events. Its counts are of all loads that it is given to.
#[derive(Debug, Default)]
pub struct Progress {
    numbers: watch::Sender<Numbers>,
    /// Connected sources: an unreachable address is reported as down without having been up.
    up: Mutex<HashSet<SourceId>>,
}

impl Progress {
    /// Nothing has happened yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// How far it is now.
    pub fn numbers(&self) -> Numbers {
        *self.numbers.borrow()
    }

    /// The numbers, now and after each change; changes between two polls are merged. Ends with the [`Progress`].
    pub fn stream(&self) -> impl Stream<Item = Numbers> + Send + Unpin + use<> {
        let mut numbers = self.numbers.subscribe();
        numbers.mark_changed();
        Box::pin(futures::stream::unfold(numbers, async |mut numbers| {
            numbers.changed().await.ok()?;
            let now = *numbers.borrow_and_update();
            Some((now, numbers))
        }))
    }
}

impl Observer for Progress {
    fn on_event(&self, event: &Event<'_>) {
        let mut up = self.up.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::SourceUp { source } => {
                up.insert((*source).clone());
            }
            Event::SourceDown { source, .. } => {
                up.remove(*source);
            }
            _ => {}
        }
        let sources = u32::try_from(up.len()).unwrap_or(u32::MAX);
        drop(up);
        self.numbers.send_if_modified(|numbers| {
            match event {
                Event::Manifest { manifest, .. } => numbers.total_bytes = manifest.total_size_bytes(),
                Event::Wanted { bytes } => numbers.total_bytes = *bytes,
                Event::PieceFetched { bytes, .. } => numbers.fetched_bytes += bytes,
                Event::PieceRebuilt { bytes, .. } => numbers.rebuilt_bytes += bytes,
                Event::Reused { bytes } => numbers.reused_bytes += bytes,
                Event::Resumed { bytes } => numbers.resumed_bytes += bytes,
                Event::WrongBytes { bytes, .. } => numbers.wrong_bytes += bytes,
                Event::SourceUp { .. } | Event::SourceDown { .. } => numbers.sources = sources,
                Event::Starved { is_starved } => numbers.is_starved = *is_starved,
                Event::Finishing => numbers.is_finishing = true,
                _ => return false,
            }
            true
        });
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt as _, StreamExt as _};

    use super::*;

    #[tokio::test]
    async fn numbers_are_told_at_once_and_with_each_change() {
        let (progress, source) = (Progress::new(), SourceId::new("a"));
        let mut numbers = progress.stream();
        assert_eq!(numbers.next().await, Some(Numbers::default()));
        assert!(numbers.next().now_or_never().is_none());
        progress.on_event(&Event::SourceUp { source: &source });
        for _ in 0..2 {
            progress.on_event(&Event::PieceFetched { shard: 0, piece: None, bytes: 5, source: &source });
        }
        progress.on_event(&Event::WrongBytes { shard: Some(1), bytes: 3, source: &source });
        let expected = Numbers { fetched_bytes: 10, wrong_bytes: 3, sources: 1, ..Numbers::default() };
        assert_eq!(numbers.next().await, Some(expected));
        let address = SourceId::new("nowhere");
        progress.on_event(&Event::SourceDown { source: &address, reason: "nobody is there" });
        assert_eq!(numbers.next().await, Some(expected), "it was not up");
        progress.on_event(&Event::SourceDown { source: &source, reason: "gone" });
        progress.on_event(&Event::Finishing);
        let expected = Numbers { sources: 0, is_finishing: true, ..expected };
        assert_eq!((numbers.next().await, progress.numbers()), (Some(expected), expected));
        drop(progress);
        assert_eq!(numbers.next().await, None);
    }
}
