//! Bars at a terminal: as many lines of them as it has room for, none wider than it is, and the whole of the work always.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressState, ProgressStyle};
use rustix::termios::tcgetwinsize;

use crate::units::{show_count, show_duration, show_rate, show_size};

/// How often bars are drawn again when nothing happens, so that the time left is right, and so is the width of the terminal.
const REDRAW_EVERY: Duration = Duration::from_millis(500);
/// No more parts than that have a line.
const MAX_PARTS: usize = 24;
/// Lines of the terminal that parts leave free: for the whole, and for what else is told.
const FREE_ROWS: u16 = 4;
/// A bar is so long, if there is room.
const BAR_COLUMNS: std::ops::RangeInclusive<usize> = 8..=30;
/// Names are padded to so much where the terminal is this wide, so that bars stand below each other.
const NAME_COLUMNS: usize = 12;
const WIDE_COLUMNS: usize = 60;

/// The bars of one process: those of several pieces of work share the terminal.
#[derive(Debug, Clone)]
pub(crate) struct Bars {
    terminal: MultiProgress,
    /// How many pieces of work have some.
    shared_by: Arc<AtomicU16>,
}

impl Bars {
    /// Drawn to this.
    pub(crate) fn new(terminal: MultiProgress) -> Self {
        Self { terminal, shared_by: Arc::default() }
    }

    /// Does this with the bars out of the way.
    pub(crate) fn suspend<T>(&self, work: impl FnOnce() -> T) -> T {
        self.terminal.suspend(work)
    }

    /// Those of a piece of work; dropping them takes them away.
    pub(crate) fn add(&self, what: &'static str) -> Bar {
        let shown = Arc::new(Mutex::new(Shown { what, ..Shown::default() }));
        self.shared_by.fetch_add(1, Ordering::Relaxed);
        let (drawn, shared_by) = (Arc::clone(&shown), Arc::clone(&self.shared_by));
        let write = move |state: &ProgressState, text: &mut dyn fmt::Write| {
            let (columns, rows) = size();
            let rows = rows / shared_by.load(Ordering::Relaxed).max(1);
            let lines = lines(&lock(&drawn), &Pace::of(state), columns.into(), rows);
            // Writing to a string cannot fail.
            let _ = text.write_str(&lines.join("\n"));
        };
        // The template is constant, and sound: the tests of what is drawn go through it.
        let style = ProgressStyle::with_template("{lines}").unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = self.terminal.add(ProgressBar::new(0).with_style(style.with_key("lines", write)));
        if !bar.is_hidden() {
            bar.enable_steady_tick(REDRAW_EVERY);
        }
        Bar { bar, shown, shared_by: Arc::clone(&self.shared_by) }
    }
}

/// The bars of one piece of work: of the whole, and of its parts.
#[derive(Debug)]
pub(crate) struct Bar {
    bar: ProgressBar,
    shown: Arc<Mutex<Shown>>,
    shared_by: Arc<AtomicU16>,
}

impl Bar {
    /// `done_bytes` of `total_bytes` are done; of 0 when that is not known yet.
    pub(crate) fn set(&self, done_bytes: u64, total_bytes: u64) {
        self.bar.set_length(total_bytes);
        self.bar.set_position(done_bytes);
    }

    /// What was done up to now says nothing about the rate.
    pub(crate) fn reset_rate(&self) {
        self.bar.reset_eta();
    }

    /// The bytes that are done.
    pub(crate) fn done_bytes(&self) -> u64 {
        self.bar.position()
    }

    /// All bytes; 0 while that is not known.
    pub(crate) fn total_bytes(&self) -> u64 {
        self.bar.length().unwrap_or(0)
    }

    /// Bytes a second, lately.
    pub(crate) fn bytes_per_s(&self) -> u64 {
        whole(self.bar.per_sec())
    }

    /// Changes what else is shown.
    pub(crate) fn show(&self, change: impl FnOnce(&mut Shown)) {
        change(&mut lock(&self.shown));
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
        self.shared_by.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What is shown beside the bytes of the whole.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    what: &'static str,
    /// In order; those that are done are left out first.
    pub(crate) parts: Vec<Part>,
    /// Connected sources, of work that has some.
    pub(crate) sources: Option<usize>,
}

impl Shown {
    /// So much of a part is done.
    pub(crate) fn set_part(&mut self, shard: u32, done_bytes: u64) {
        if let Ok(at) = self.parts.binary_search_by_key(&shard, |part| part.shard) {
            self.parts[at].done_bytes = done_bytes;
        }
    }
}

/// A part of the work.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part {
    pub(crate) shard: u32,
    pub(crate) done_bytes: u64,
    pub(crate) size_bytes: u64,
}

/// How far the whole is, and how fast.
struct Pace {
    done_bytes: u64,
    total_bytes: u64,
    bytes_per_s: f64,
}

impl Pace {
    fn of(state: &ProgressState) -> Self {
        let total_bytes = state.len().unwrap_or(0);
        Self { done_bytes: state.pos().min(total_bytes), total_bytes, bytes_per_s: state.per_sec() }
    }

    /// The rate and the time left; `None` while nothing moves.
    fn rate_and_left(&self) -> Option<(String, String)> {
        let left_s = (self.total_bytes - self.done_bytes) as f64 / self.bytes_per_s;
        let left = Duration::try_from_secs_f64(left_s).ok()?;
        let rate = show_rate(whole(self.bytes_per_s), Duration::from_secs(1));
        Some((rate, format!("{} left", show_duration(left))))
    }
}

/// Columns and rows of the terminal at stderr. One that does not know is taken for an ordinary one.
fn size() -> (u16, u16) {
    let size = tcgetwinsize(io::stderr()).ok().filter(|size| size.ws_col > 0 && size.ws_row > 0);
    size.map_or((80, 24), |size| (size.ws_col, size.ws_row))
}

/// What is drawn: the parts as far as they fit, and the whole.
fn lines(shown: &Shown, pace: &Pace, columns: usize, rows: u16) -> Vec<String> {
    let room = usize::from(rows.saturating_sub(FREE_ROWS)).min(MAX_PARTS);
    let fits = shown.parts.len() <= room;
    let unfinished = |part: &&Part| fits || part.done_bytes < part.size_bytes;
    let parts = shown.parts.iter().filter(unfinished).take(room);
    parts.map(|part| part_line(part, columns)).chain([whole_line(shown, pace, columns)]).collect()
}

fn part_line(part: &Part, columns: usize) -> String {
    let Part { shard, done_bytes, size_bytes } = *part;
    let percent = percent(done_bytes, size_bytes);
    let amount = format!("{} of {}", show_size(done_bytes), show_size(size_bytes));
    let name = padded(&format!("shard {shard}"), columns);
    line(
        columns,
        done_bytes,
        size_bytes,
        &[(format!("{name} {percent}"), amount), (format!("{name} {percent}"), String::new())],
    )
}

fn whole_line(shown: &Shown, pace: &Pace, columns: usize) -> String {
    let Pace { done_bytes, total_bytes, .. } = *pace;
    let name = padded(shown.what, columns);
    let peers = shown.sources.map_or(String::new(), |count| format!(", {}", show_count(count, "peer")));
    if total_bytes == 0 {
        return cut(&format!("{name} nothing yet{peers}"), columns);
    }
    let percent = percent(done_bytes, total_bytes);
    let (done, total) = (show_size(done_bytes), show_size(total_bytes));
    let (rate, left) = pace
        .rate_and_left()
        .map_or_else(Default::default, |(rate, left)| (format!(", {rate}"), format!(", {left}")));
    let named = format!("{name} {percent}");
    // From the fullest to the shortest.
    line(
        columns,
        done_bytes,
        total_bytes,
        &[
            (named.clone(), format!("{done} of {total}{rate}{left}{peers}")),
            (named.clone(), format!("{done} of {total}{rate}{left}")),
            (named.clone(), format!("{done} of {total}{left}")),
            (named.clone(), format!("of {total}{left}")),
            (percent.clone(), format!("of {total}{left}")),
            (named, format!("of {total}")),
            (percent, format!("of {total}")),
        ],
    )
}

/// The first of these texts that leaves room for a bar between its halves; else the last, with none.
fn line(columns: usize, done: u64, total: u64, texts: &[(String, String)]) -> String {
    let taken =
        |(before, after): &(String, String)| before.chars().count() + after.chars().count() + " [] ".len();
    let fitting = texts.iter().find(|text| taken(text) + BAR_COLUMNS.start() <= columns);
    match (fitting, texts.last()) {
        (Some(text), _) => {
            let bar = bar(done, total, (columns - taken(text)).min(*BAR_COLUMNS.end()));
            format!("{} [{bar}] {}", text.0, text.1)
        }
        (None, Some((before, after))) => {
            let text = format!("{} {after}", before.trim());
            if text.chars().count() <= columns { text } else { cut(before.trim(), columns) }
        }
        (None, None) => String::new(),
    }
}

fn bar(done: u64, total: u64, columns: usize) -> String {
    let full = (u128::from(done) * columns as u128).checked_div(u128::from(total));
    let full = full.and_then(|full| usize::try_from(full).ok()).map_or(0, |full| full.min(columns));
    let tip = if full < columns { ">" } else { "" };
    format!("{:<columns$}", format!("{}{tip}", "=".repeat(full)))
}

#[expect(clippy::cast_possible_truncation, reason = "what is no number of bytes becomes the nearest one")]
fn whole(bytes_per_s: f64) -> u64 {
    bytes_per_s as u64
}

fn percent(done: u64, total: u64) -> String {
    let percent = (u128::from(done) * 100).checked_div(u128::from(total)).unwrap_or(100);
    format!("{percent:>3} %")
}

fn padded(name: &str, columns: usize) -> String {
    let width = if columns < WIDE_COLUMNS { 0 } else { NAME_COLUMNS };
    format!("{name:<width$}")
}

fn cut(text: &str, columns: usize) -> String {
    text.chars().take(columns).collect()
}

/// A panic elsewhere leaves behind what is still good enough to show.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn shown(parts: u32) -> Shown {
        let part = |shard| Part {
            shard,
            done_bytes: if shard < 3 { 26 * MIB } else { 9 * MIB },
            size_bytes: 26 * MIB,
        };
        Shown { what: "total", parts: (0..parts).map(part).collect(), sources: Some(3) }
    }

    fn pace(done_bytes: u64, total_bytes: u64) -> Pace {
        Pace { done_bytes, total_bytes, bytes_per_s: 1e7 }
    }

    #[test]
    fn no_line_is_wider_than_the_terminal_and_the_last_tells_of_the_whole() {
        let paces = [
            pace(0, 0),
            pace(0, 1),
            pace(123 * MIB, 260 * MIB),
            pace(u64::MAX, u64::MAX),
            Pace { bytes_per_s: 0.0, ..pace(1, 900 * MIB) },
        ];
        for (pace, columns) in paces.iter().flat_map(|pace| (1..200).map(move |columns| (pace, columns))) {
            for rows in 0..40 {
                let lines = lines(&shown(14), pace, columns, rows);
                assert!(lines.iter().all(|line| line.len() <= columns), "{columns}: {lines:#?}");
                assert!(lines.len() == 1 || lines.len() <= usize::from(rows) - 3, "{rows} rows: {lines:#?}");
                let last = lines.last().unwrap();
                assert!(columns < 5 || last.contains('%') || last.starts_with("total"), "{last}");
            }
        }
    }

    #[test]
    fn what_matters_most_is_kept_longest() {
        let whole = |columns| lines(&shown(0), &pace(123 * MIB, 260 * MIB), columns, 20).pop().unwrap();
        assert_eq!(
            whole(100),
            "total         47 % [==============>               ] 123 MiB of 260 MiB, 10 MB/s, 14 s left, 3 peers"
        );
        assert_eq!(
            whole(80),
            "total         47 % [=====>     ] 123 MiB of 260 MiB, 10 MB/s, 14 s left, 3 peers"
        );
        assert_eq!(whole(40), " 47 % [====>     ] of 260 MiB, 14 s left");
        assert_eq!(whole(20), "47 % of 260 MiB");
        assert_eq!(whole(6), "47 %");
    }

    #[test]
    fn parts_that_are_done_make_room_for_others() {
        let names = |rows| -> Vec<String> {
            let drawn = lines(&shown(10), &pace(1, 2), 80, rows);
            drawn.iter().map(|line| line[..8].trim().to_owned()).collect()
        };
        assert_eq!(names(14).len(), 11);
        assert_eq!(names(8), ["shard 3", "shard 4", "shard 5", "shard 6", "total"]);
        assert_eq!(names(4), ["total"]);
        assert_eq!(lines(&shown(1000), &pace(1, 2), 80, 200).len(), MAX_PARTS + 1);
    }

    #[test]
    fn a_bar_is_full_only_at_the_end() {
        assert_eq!(bar(0, 10, 4), ">   ");
        assert_eq!(bar(9, 10, 4), "===>");
        assert_eq!(bar(10, 10, 4), "====");
        assert_eq!(bar(11, 10, 4), "====");
    }
}
