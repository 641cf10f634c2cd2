//! Throughput over time: how fast a fetch begins, how full it keeps the line, and how it ends.

use std::time::Duration;

use super::contenders::NAMES;
use super::relay::Record;
use super::results::{Report, Row, Run};
use super::table;
use crate::chart::lines::{self, Line, Plot};

/// Rows that are drawn, if they were measured: round trip in milliseconds, bytes per second of the line.
const SHOWN: [(u64, u64); 2] = [(60, 125_000_000), (150, 500_000_000)];
/// The most that is drawn: of more, the beginning and the end are too small to be seen.
const MOST_BYTES: u64 = 512 << 20;

/// One run of each in two rows.
pub(super) fn svg(report: &Report) -> String {
    let mut lines = Vec::new();
    for row in shown(report) {
        for name in NAMES {
            if let Some(run) = row.middle_run(name) {
                lines.push(Line { label: format!("{name}: {}", table::name(row)), points: points(row, run) });
            }
        }
    }
    let end_of = |line: &Line| line.points.last().map_or(0.0, |(x, _)| *x);
    lines::svg(&Plot {
        title: "What came over the line in a round trip, of what it can carry".into(),
        x_label: "seconds".into(),
        y_label: "%".into(),
        x_end: lines.iter().map(end_of).fold(1.0, f64::max).ceil(),
        // Room for the names above a full line.
        y_end: 150.0,
        lines,
    })
}

/// The largest of each shown distance; if none of them was measured, the last row.
fn shown(report: &Report) -> Vec<&Row> {
    let rows = || report.rows.iter().filter(|row| row.size_bytes <= MOST_BYTES);
    let at = |(round_trip_ms, bytes_per_s)| {
        let is_there = move |row: &&Row| {
            row.distance.round_trip == Duration::from_millis(round_trip_ms)
                && row.distance.bytes_per_s == bytes_per_s
                && row.distance.window_bytes.is_none()
        };
        // Of equal ones the first would be as good, and has fewer seeders.
        rows().filter(is_there).rev().max_by_key(|row| row.size_bytes)
    };
    let shown: Vec<_> = SHOWN.into_iter().filter_map(at).collect();
    if shown.is_empty() { rows().next_back().into_iter().collect() } else { shown }
}

/// The middle of each step, and how much of the line was used in the round trip around it: a window that is smaller than
/// the line is long comes in one piece each round trip.
fn points(row: &Row, run: &Run) -> Vec<(f64, f64)> {
    let step_s = Record::STEP.as_secs_f64();
    let full = row.distance.bytes_per_s as f64 * step_s;
    let around =
        usize::try_from(row.distance.round_trip.as_millis() / Record::STEP.as_millis()).unwrap_or(0) / 2;
    let steps =
        (0..run.delivered_bytes.len()).map(|step| mean(&run.delivered_bytes, step, around)).zip(0_u32..);
    let middle = steps.map(|(bytes, step)| ((f64::from(step) + 0.5) * step_s, 100.0 * bytes / full));
    let end = run.delivered_bytes.len() as f64 * step_s;
    [(0.0, 0.0)].into_iter().chain(middle).chain([(end, 0.0)]).collect()
}

/// Of so many steps before and after this one, too, as far as there are.
fn mean(steps: &[u64], step: usize, around: usize) -> f64 {
    let from = step.saturating_sub(around);
    let to = (step + around + 1).min(steps.len());
    steps[from..to].iter().sum::<u64>() as f64 / (to - from) as f64
}

#[cfg(test)]
mod tests {
    use super::super::results::tests::row;
    use super::*;

    #[test]
    fn a_full_line_is_a_hundred_percent() {
        let row = row(&[("loader", &[1000])]);
        let points = points(&row, row.middle_run("loader").unwrap());
        let heights: Vec<_> = points.iter().map(|(_, percent)| *percent).collect();
        assert_eq!(heights, [0.0, 0.0, 50.0, 100.0, 0.0]);
        assert_eq!([0, 1, 2].map(|step| mean(&[3, 6, 9], step, 1)), [4.5, 6.0, 7.5]);
        assert!((points[2].0 - 0.075).abs() < 1e-9, "{points:?}");
    }
}
