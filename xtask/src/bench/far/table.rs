//! The results as Markdown, for people.

use std::fmt::Write as _;
use std::time::Duration;

use super::contenders::{LIBTORRENT, OURS, TCP_COPY};
use super::results::{Report, Row};
use crate::bench::compare::results::Spread;
use crate::bench::compare::table::markdown;

const HEAD: [&str; 13] = [
    "round trip, ms",
    "line, Gbit/s",
    "window",
    "seeders",
    "size",
    "line's time, s",
    "tcp-copy, s",
    "simulated, s",
    "loader, s",
    "libtorrent, s",
    "libtorrent / loader",
    "loader / (line + 8 round trips)",
    "libtorrent / (line + 8 round trips)",
];

const LEGEND: &str = "\
Medians, and the smallest and largest in parentheses. The line's time is that of the file's bytes and one way. `loader`: the
whole command, until the file is on the disk. libtorrent: from adding the torrent to its last piece being verified and
written, the disk not waited for. Simulated: the planner of this repository in virtual time, with all peers known.
";

/// The whole page.
pub(super) fn page(report: &Report) -> String {
    let mut page = format!("{}.\nRounds: {}.\n\n", report.machine, report.rounds);
    let mut lines = vec![HEAD.map(str::to_owned)];
    lines.extend(report.rows.iter().map(line));
    let _ = write!(page, "{}\n{LEGEND}\nVersions: {}.\n", markdown(&lines), report.versions.join(", "));
    page
}

fn line(row: &Row) -> [String; 13] {
    let (ours, libtorrent) = (row.seconds(OURS), row.seconds(LIBTORRENT));
    let over = |time: Option<Spread>, by: Option<f64>| {
        cell(time.zip(by).map(|(time, by)| format!("{:.2}", time.median / by)))
    };
    let granted = Some(row.granted().as_secs_f64());
    [
        row.distance.round_trip.as_millis().to_string(),
        gbit_per_s(row),
        row.distance.window_bytes.map_or("none".to_owned(), size),
        row.seeders.to_string(),
        size(row.size_bytes),
        format!("{:.2}", row.line_time().as_secs_f64()),
        seconds(row.seconds(TCP_COPY)),
        cell(row.simulated_s.map(|seconds| format!("{seconds:.2}"))),
        seconds(ours),
        seconds(libtorrent),
        over(libtorrent, ours.map(|ours| ours.median)),
        over(ours, granted),
        over(libtorrent, granted),
    ]
}

/// The row in few words.
pub(super) fn name(row: &Row) -> String {
    let round_trip_ms = row.distance.round_trip.as_millis();
    let mut name = format!("{round_trip_ms} ms, {} Gbit/s, {}", gbit_per_s(row), size(row.size_bytes));
    if let Some(window_bytes) = row.distance.window_bytes {
        let _ = write!(name, ", window {}", size(window_bytes));
    }
    if row.seeders > 1 {
        let _ = write!(name, ", {} seeders", row.seeders);
    }
    name
}

fn gbit_per_s(row: &Row) -> String {
    (row.distance.bytes_per_s as f64 / 125e6).to_string()
}

fn size(bytes: u64) -> String {
    if bytes.is_multiple_of(1 << 30) {
        format!("{} GiB", bytes >> 30)
    } else if bytes.is_multiple_of(1 << 20) {
        format!("{} MiB", bytes >> 20)
    } else {
        format!("{} KiB", bytes >> 10)
    }
}

fn seconds(time: Option<Spread>) -> String {
    cell(time.map(|time| format!("{:.2} ({:.2}–{:.2})", time.median, time.min, time.max)))
}

pub(super) fn short(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

fn cell(text: Option<String>) -> String {
    text.unwrap_or_else(|| "–".to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::results::tests::row;
    use super::*;

    #[test]
    fn times_are_beside_what_the_line_takes() {
        let cells = line(&row(&[(OURS, &[1480, 1480]), (LIBTORRENT, &[2960, 2960])]));
        assert_eq!(cells[..2], ["60", "1"]);
        assert_eq!(cells[5..11], ["1.03", "–", "–", "1.48 (1.48–1.48)", "2.96 (2.96–2.96)", "2.00"]);
        assert_eq!(cells[11..], ["1.00", "2.00"]);
        assert_eq!(line(&row(&[(OURS, &[1480])]))[9..11], ["–", "–"]);
        assert_eq!(size(3 << 20), "3 MiB");
    }
}
