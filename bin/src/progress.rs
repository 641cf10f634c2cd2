//! How far a long piece of work is: bars on a terminal, else a line every few seconds.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use loader::{Event, Observer};
use manifest::Manifest;

use crate::output::Output;
use crate::tally::{Lines, Tally};
use crate::units::show_size;

/// Models with more data shards get a bar for the whole only.
const MAX_SHARD_BARS: u32 = 24;
/// Of this many sources of wrong bytes each is told of once.
const MAX_NAMED: usize = 64;
/// How often bars are drawn again when nothing happens, so that the time left is right.
const REDRAW_EVERY: Duration = Duration::from_millis(500);

const TOTAL: &str =
    "{prefix:12} {bar:30} {binary_bytes:>10} of {binary_total_bytes:10}  {binary_bytes_per_sec}  {eta} left";
const SHARD: &str = "{prefix:12} {bar:30} {binary_bytes:>10} of {binary_total_bytes:10}";

/// Work of which only the number of bytes done is known, such as encoding.
pub(crate) struct ByteProgress<'a> {
    output: &'a Output,
    what: &'static str,
    bar: ProgressBar,
    lines: Mutex<Lines>,
}

impl<'a> ByteProgress<'a> {
    /// `what` is being done.
    pub(crate) fn new(output: &'a Output, what: &'static str) -> Self {
        let bar = output.bars().add(bar(0, TOTAL, what.to_owned()));
        Self { output, what, bar, lines: Mutex::new(Lines::new(Instant::now())) }
    }

    /// `done_bytes` of `total_bytes` are done. May be called from any thread, and out of order.
    pub(crate) fn update(&self, done_bytes: u64, total_bytes: u64) {
        let done_bytes = done_bytes.max(self.bar.position());
        self.bar.set_length(total_bytes);
        self.bar.set_position(done_bytes);
        if !self.output.shows_bars()
            && let Some(line) = lock(&self.lines).next(Instant::now(), done_bytes, total_bytes)
        {
            self.output.note(&format!("{}: {line}", self.what));
        }
    }
}

impl Drop for ByteProgress<'_> {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// A fetch, or one after the other: the whole of it, and each data shard.
pub(crate) struct FetchProgress {
    output: Output,
    state: Mutex<State>,
}

struct State {
    tally: Tally,
    lines: Lines,
    total: ProgressBar,
    shards: HashMap<u32, ProgressBar>,
    /// For another process: there is nothing to tell of this one.
    is_waiting: bool,
    /// Those that are up. One that was never reached goes down, too.
    sources: BTreeSet<String>,
    named: BTreeSet<String>,
}

impl FetchProgress {
    pub(crate) fn new(output: &Output) -> Self {
        let state = State {
            tally: Tally::default(),
            lines: Lines::new(Instant::now()),
            total: total(output),
            shards: HashMap::new(),
            is_waiting: false,
            sources: BTreeSet::new(),
            named: BTreeSet::new(),
        };
        Self { output: output.clone(), state: Mutex::new(state) }
    }

    /// One that shows nothing before a manifest is there.
    pub(crate) fn idle(output: &Output) -> Self {
        let progress = Self::new(output);
        progress.finish();
        progress
    }

    /// Writes a line when one is due. To be called now and then: a fetch that waits for peers has no events.
    pub(crate) fn tick(&self) {
        if self.output.shows_bars() {
            return;
        }
        let (line, sources) = {
            let mut state = lock(&self.state);
            if state.total.is_finished() || state.is_waiting {
                return;
            }
            let (done_bytes, total_bytes) = (state.tally.done_bytes(), state.tally.total_bytes());
            (state.lines.next(Instant::now(), done_bytes, total_bytes), state.sources.len())
        };
        if let Some(line) = line {
            self.output.note(&format!("fetching: {line}; peers: {sources}"));
        }
    }

    /// Takes the bars away.
    pub(crate) fn finish(&self) {
        lock(&self.state).end();
    }

    fn begin(&self, manifest: &Manifest) {
        let mut state = lock(&self.state);
        state.end();
        state.is_waiting = false;
        state.total = total(&self.output);
        state.lines = Lines::new(Instant::now());
        state.tally = Tally::new(manifest);
        state.total.set_length(state.tally.total_bytes());
        if !self.output.shows_bars() || manifest.data_shard_count() > MAX_SHARD_BARS {
            return;
        }
        let State { tally, total, shards, .. } = &mut *state;
        for (shard, size_bytes) in tally.shards() {
            let bar = bar(size_bytes, SHARD, format!("shard {shard}"));
            shards.insert(shard, self.output.bars().insert_before(total, bar));
        }
    }

    fn on_wrong_bytes(&self, shard: Option<u32>, source: &str) {
        let is_new = {
            let mut state = lock(&self.state);
            state.named.len() < MAX_NAMED && state.named.insert(source.to_owned())
        };
        if is_new {
            let what = shard.map_or("the manifest or its index".to_owned(), |shard| format!("shard {shard}"));
            self.output.note(&format!("peer {source} sent wrong bytes for {what}: dropped"));
        }
    }
}

impl Observer for FetchProgress {
    fn on_event(&self, event: &Event<'_>) {
        match event {
            Event::Manifest { manifest, .. } => self.begin(manifest),
            Event::Wanted { bytes } => {
                let mut state = lock(&self.state);
                state.tally.limit(*bytes);
                state.total.set_length(*bytes);
            }
            Event::Waiting { holders } => {
                lock(&self.state).is_waiting = true;
                self.output.note(&format!("another process fetches this model: waiting for {holders}"));
            }
            Event::Filling { .. } => lock(&self.state).is_waiting = false,
            Event::Claimed { bytes } => self.output.note(&format!(
                "{} are here from an earlier run: they are checked beside the fetching of the rest",
                show_size(*bytes)
            )),
            Event::Resumed { bytes } | Event::Reused { bytes } => lock(&self.state).on_resumed(*bytes),
            Event::SourceUp { source } => {
                lock(&self.state).sources.insert(source.to_string());
            }
            Event::SourceDown { source, .. } => {
                lock(&self.state).sources.remove(source.as_str());
            }
            Event::PieceFetched { shard, bytes, .. } | Event::PieceRebuilt { shard, bytes, .. } => {
                lock(&self.state).on_piece(*shard, *bytes);
                self.tick();
            }
            Event::WrongBytes { shard, source, .. } => self.on_wrong_bytes(*shard, source.as_str()),
            Event::ShardWrong { shard } => {
                self.output.note(&format!("shard {shard} has not its digest: fetching it again"));
                lock(&self.state).on_shard_wrong(*shard);
            }
            Event::Finishing => self.finish(),
            // The enum grows; what is new needs no bar.
            _ => {}
        }
    }
}

impl State {
    fn end(&mut self) {
        self.total.finish_and_clear();
        for (_, bar) in self.shards.drain() {
            bar.finish_and_clear();
        }
    }

    fn on_resumed(&mut self, bytes: u64) {
        self.tally.add_resumed(bytes);
        self.lines.skip(self.tally.done_bytes());
        // What was there before says nothing about the rate.
        self.total.set_position(self.tally.done_bytes());
        self.total.reset_eta();
    }

    fn on_piece(&mut self, shard: u32, bytes: u64) {
        self.tally.add(shard, bytes);
        self.show(shard);
    }

    fn on_shard_wrong(&mut self, shard: u32) {
        self.tally.forget(shard);
        self.show(shard);
    }

    fn show(&self, shard: u32) {
        self.total.set_position(self.tally.done_bytes());
        if let Some(bar) = self.shards.get(&shard) {
            bar.set_position(self.tally.shard_done_bytes(shard));
        }
    }
}

fn total(output: &Output) -> ProgressBar {
    let total = output.bars().add(bar(0, TOTAL, "total".to_owned()));
    total.enable_steady_tick(REDRAW_EVERY);
    total
}

fn bar(total_bytes: u64, template: &str, name: String) -> ProgressBar {
    // The templates are constants; a mistake in one shows in the first test.
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(total_bytes).with_style(style.progress_chars("=> ")).with_prefix(name)
}

/// A panic elsewhere leaves counters behind that are still good enough to show.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use manifest::SourceId;

    use super::*;

    #[test]
    fn only_peers_that_were_up_are_counted_when_they_go_down() {
        let progress = FetchProgress::new(&Output::new(true));
        let (peer, never_reached) = (SourceId::new("peer"), SourceId::new("/ip4/192.0.2.1/tcp/1"));
        let count = || lock(&progress.state).sources.len();
        progress.on_event(&Event::SourceUp { source: &peer });
        progress.on_event(&Event::SourceDown { source: &never_reached, reason: "refused" });
        assert_eq!(count(), 1);
        progress.on_event(&Event::SourceDown { source: &peer, reason: "gone" });
        assert_eq!(count(), 0);
    }

    #[test]
    fn the_templates_are_sound() {
        for template in [TOTAL, SHARD] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }
}
