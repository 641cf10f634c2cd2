//! How far a long piece of work is: bars at a terminal, a line every few seconds, or events.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use loader::Observer;
use manifest::{Digest, Manifest};

use crate::answer::Text;
use crate::bars::{Bar, Part};
use crate::event::{Event, Level, Progress};
use crate::output::{Output, Shown};
use crate::tally::{Lines, Tally};
use crate::units::show_size;

/// Of this many sources of wrong bytes each is told of once.
const MAX_NAMED: usize = 64;
/// Events of progress are at least so far apart.
const EVENT_EVERY: Duration = Duration::from_millis(250);
/// The name of a fetch at a terminal.
const WHOLE: &str = "total";

/// Work of which only the number of bytes done is known, such as encoding.
pub(crate) struct ByteProgress<'a> {
    output: &'a Output,
    what: &'static str,
    bar: Bar,
    pace: Mutex<Pace>,
}

impl<'a> ByteProgress<'a> {
    /// `what` is being done.
    pub(crate) fn new(output: &'a Output, what: &'static str) -> Self {
        Self { output, what, bar: output.bars().add(what), pace: Mutex::new(Pace::new()) }
    }

    /// `done_bytes` of `total_bytes` are done. May be called from any thread, and out of order.
    pub(crate) fn update(&self, done_bytes: u64, total_bytes: u64) {
        let done_bytes = done_bytes.max(self.bar.done_bytes());
        self.bar.set(done_bytes, total_bytes);
        let due = lock(&self.pace).next(self.output.progress(), done_bytes, total_bytes);
        match due {
            Some(Due::Line(line)) => self.output.note(&format!("{}: {line}", self.what)),
            Some(Due::Event) => self.tell_event(),
            None => {}
        }
    }

    fn tell_event(&self) {
        let progress = Progress {
            activity: self.what,
            manifest: None,
            done_bytes: self.bar.done_bytes(),
            total_bytes: self.bar.total_bytes(),
            bytes_per_s: self.bar.bytes_per_s(),
            sources: None,
        };
        self.output.event(Level::Info, &Event::Progress(progress), None);
    }
}

impl Drop for ByteProgress<'_> {
    /// The end of it is told, too.
    fn drop(&mut self) {
        self.tell_event();
    }
}

/// A fetch, or one after the other: the whole of it, and each data shard.
pub(crate) struct FetchProgress {
    output: Output,
    state: Mutex<State>,
}

struct State {
    /// The model, once that is known.
    manifest: Option<Digest>,
    tally: Tally,
    pace: Pace,
    /// `None` while nothing is fetched.
    bar: Option<Bar>,
    /// For another process: there is nothing to tell of this one.
    is_waiting: bool,
    /// Those that are up. One that was never reached goes down, too.
    sources: BTreeSet<String>,
    named: BTreeSet<String>,
    /// The shards of which pieces were rebuilt, and how many bytes, since that was told.
    rebuilt: (BTreeSet<u32>, u64),
}

impl FetchProgress {
    /// Of this model.
    pub(crate) fn new(output: &Output, manifest: Digest) -> Self {
        let progress = Self::idle(output);
        {
            let mut state = lock(&progress.state);
            (state.manifest, state.bar) = (Some(manifest), Some(output.bars().add(WHOLE)));
        }
        progress
    }

    /// Of models that are not known yet: shows nothing before a manifest is there.
    pub(crate) fn idle(output: &Output) -> Self {
        let state = State {
            manifest: None,
            tally: Tally::default(),
            pace: Pace::new(),
            bar: None,
            is_waiting: false,
            sources: BTreeSet::new(),
            named: BTreeSet::new(),
            rebuilt: Default::default(),
        };
        Self { output: output.clone(), state: Mutex::new(state) }
    }

    /// Tells how far it is when that is due. To be called now and then: a fetch that waits for peers has no events.
    pub(crate) fn tick(&self) {
        let (due, sources) = {
            let mut state = lock(&self.state);
            if state.bar.is_none() || state.is_waiting {
                return;
            }
            let (done_bytes, total_bytes) = (state.tally.done_bytes(), state.tally.total_bytes());
            (state.pace.next(self.output.progress(), done_bytes, total_bytes), state.sources.len())
        };
        match due {
            Some(Due::Line(line)) => self.output.note(&format!("fetching: {line}; peers: {sources}")),
            Some(Due::Event) => self.tell_events(),
            None => {}
        }
    }

    /// Tells how far it is, and what was rebuilt, where events are wanted.
    fn tell_events(&self) {
        let events = lock(&self.state).events();
        events.iter().for_each(|event| self.output.event(Level::Info, event, None));
    }

    /// Takes the bars away.
    pub(crate) fn finish(&self) {
        let mut state = lock(&self.state);
        (state.bar, state.manifest) = (None, None);
    }

    fn begin(&self, digest: Digest, manifest: &Manifest) {
        let total_bytes = {
            let mut state = lock(&self.state);
            // Those before go first.
            state.bar = None;
            let bar = self.output.bars().add(WHOLE);
            let tally = Tally::new(manifest);
            let total_bytes = tally.total_bytes();
            bar.set(0, total_bytes);
            let part = |(shard, size_bytes)| Part { shard, done_bytes: 0, size_bytes };
            bar.show(|shown| {
                shown.sources = Some(state.sources.len());
                shown.parts = tally.shards().map(part).collect();
            });
            state.is_waiting = false;
            state.pace = Pace::new();
            (state.manifest, state.tally, state.bar) = (Some(digest), tally, Some(bar));
            total_bytes
        };
        let begin = Event::Begin { manifest: Text::of(digest), total_bytes };
        self.output.event(Level::Info, &begin, None);
    }

    fn on_wrong_bytes(&self, shard: Option<u32>, source: &str, bytes: u64) {
        let is_new = {
            let mut state = lock(&self.state);
            state.named.len() < MAX_NAMED && state.named.insert(source.to_owned())
        };
        let what = shard.map_or("the manifest or its index".to_owned(), |shard| format!("shard {shard}"));
        let text = is_new.then(|| format!("peer {source} sent wrong bytes for {what}: dropped"));
        let event = |manifest| Event::WrongBytes { manifest, source, shard, bytes };
        self.event(Level::Warn, event, text.as_deref());
    }

    /// Tells of an event of the model, where events are wanted; elsewhere this text.
    fn event<'a>(&self, level: Level, event: impl FnOnce(Option<Text>) -> Event<'a>, text: Option<&str>) {
        let manifest = lock(&self.state).manifest.map(Text::of);
        self.output.event(level, &event(manifest), text);
    }
}

impl Observer for FetchProgress {
    fn on_event(&self, event: &loader::Event<'_>) {
        match *event {
            loader::Event::Manifest { digest, manifest } => self.begin(digest, manifest),
            loader::Event::Wanted { bytes } => lock(&self.state).on_wanted(bytes),
            loader::Event::Waiting { holders } => {
                lock(&self.state).is_waiting = true;
                let holders = holders.to_string();
                let text = format!("another process fetches this model: waiting for {holders}");
                self.event(Level::Info, |manifest| Event::Waiting { manifest, holders }, Some(&text));
            }
            loader::Event::Filling { .. } => lock(&self.state).is_waiting = false,
            loader::Event::Claimed { bytes } => {
                let text = format!(
                    "{} are here from an earlier run: they are checked beside the fetching of the rest",
                    show_size(bytes)
                );
                self.event(Level::Info, |manifest| Event::Claimed { manifest, bytes }, Some(&text));
            }
            loader::Event::Resumed { bytes } | loader::Event::Reused { bytes } => {
                lock(&self.state).on_resumed(bytes);
            }
            loader::Event::SourceUp { source } => {
                let source = source.as_str();
                lock(&self.state).on_source(source, true);
                self.event(Level::Info, |manifest| Event::SourceUp { manifest, source }, None);
            }
            loader::Event::SourceDown { source, reason } => {
                let source = source.as_str();
                lock(&self.state).on_source(source, false);
                self.event(Level::Info, |manifest| Event::SourceDown { manifest, source, reason }, None);
            }
            loader::Event::PieceFetched { shard, bytes, .. } => {
                lock(&self.state).on_piece(shard, bytes);
                self.tick();
            }
            loader::Event::PieceRebuilt { shard, bytes, .. } => {
                lock(&self.state).on_rebuilt(shard, bytes);
                self.tick();
            }
            loader::Event::WrongBytes { shard, source, bytes } => {
                self.on_wrong_bytes(shard, source.as_str(), bytes);
            }
            loader::Event::ShardWrong { shard } => {
                lock(&self.state).on_shard_wrong(shard);
                let text = format!("shard {shard} has not its digest: fetching it again");
                self.event(Level::Warn, |manifest| Event::ShardWrong { manifest, shard }, Some(&text));
            }
            loader::Event::Finishing => {
                self.tell_events();
                self.finish();
            }
            // The enum grows; what is new needs no bar.
            _ => {}
        }
    }
}

impl State {
    /// What is to be told now where events are wanted.
    fn events(&mut self) -> Vec<Event<'static>> {
        let Some(bar) = &self.bar else { return Vec::new() };
        let manifest = || self.manifest.map(Text::of);
        let progress = Event::Progress(Progress {
            activity: "fetching",
            manifest: manifest(),
            done_bytes: self.tally.done_bytes(),
            total_bytes: self.tally.total_bytes(),
            bytes_per_s: bar.bytes_per_s(),
            sources: Some(self.sources.len()),
        });
        let (shards, bytes) = std::mem::take(&mut self.rebuilt);
        let shards = shards.into_iter().collect();
        let rebuilt = (bytes > 0).then(|| Event::Rebuilt { manifest: manifest(), shards, bytes });
        rebuilt.into_iter().chain([progress]).collect()
    }

    fn on_wanted(&mut self, bytes: u64) {
        self.tally.limit(bytes);
        self.show();
    }

    fn on_resumed(&mut self, bytes: u64) {
        self.tally.add_resumed(bytes);
        self.pace.skip(self.tally.done_bytes());
        self.show();
        // What was there before says nothing about the rate.
        if let Some(bar) = &self.bar {
            bar.reset_rate();
        }
    }

    fn on_source(&mut self, source: &str, is_up: bool) {
        match is_up {
            true => drop(self.sources.insert(source.to_owned())),
            false => drop(self.sources.remove(source)),
        }
        if let Some(bar) = &self.bar {
            bar.show(|shown| shown.sources = Some(self.sources.len()));
        }
    }

    fn on_piece(&mut self, shard: u32, bytes: u64) {
        self.tally.add(shard, bytes);
        self.show_shard(shard);
    }

    fn on_rebuilt(&mut self, shard: u32, bytes: u64) {
        self.rebuilt.0.insert(shard);
        self.rebuilt.1 += bytes;
        self.on_piece(shard, bytes);
    }

    fn on_shard_wrong(&mut self, shard: u32) {
        self.tally.forget(shard);
        self.show_shard(shard);
    }

    fn show_shard(&self, shard: u32) {
        if let Some(bar) = &self.bar {
            let done_bytes = self.tally.shard_done_bytes(shard);
            bar.show(|shown| shown.set_part(shard, done_bytes));
        }
        self.show();
    }

    fn show(&self) {
        if let Some(bar) = &self.bar {
            bar.set(self.tally.done_bytes(), self.tally.total_bytes());
        }
    }
}

/// When something is to be told of how far it is.
struct Pace {
    lines: Lines,
    told: Instant,
}

/// What is to be told.
enum Due {
    Line(String),
    Event,
}

impl Pace {
    fn new() -> Self {
        let now = Instant::now();
        Self { lines: Lines::new(now), told: now }
    }

    fn next(&mut self, shown: Shown, done_bytes: u64, total_bytes: u64) -> Option<Due> {
        let now = Instant::now();
        match shown {
            Shown::Lines => self.lines.next(now, done_bytes, total_bytes).map(Due::Line),
            Shown::Events if now.saturating_duration_since(self.told) >= EVENT_EVERY => {
                self.told = now;
                Some(Due::Event)
            }
            Shown::Events | Shown::Bars | Shown::Nothing => None,
        }
    }

    /// This much is done, but says nothing about the rate.
    fn skip(&mut self, done_bytes: u64) {
        self.lines.skip(done_bytes);
    }
}

/// A panic elsewhere leaves counters behind that are still good enough to show.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use manifest::SourceId;

    use super::*;
    use crate::args::CommandLine;

    #[test]
    fn only_peers_that_were_up_are_counted_when_they_go_down() {
        let flags = CommandLine::try_parse_from(["loader", "status"]).unwrap().common;
        let progress = FetchProgress::idle(&Output::new(&flags));
        let (peer, never_reached) = (SourceId::new("peer"), SourceId::new("/ip4/192.0.2.1/tcp/1"));
        let count = || lock(&progress.state).sources.len();
        progress.on_event(&loader::Event::SourceUp { source: &peer });
        progress.on_event(&loader::Event::SourceDown { source: &never_reached, reason: "refused" });
        assert_eq!(count(), 1);
        progress.on_event(&loader::Event::SourceDown { source: &peer, reason: "gone" });
        assert_eq!(count(), 0);
    }
}
