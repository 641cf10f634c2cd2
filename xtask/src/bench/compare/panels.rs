//! Which figures are drawn.

use super::contenders::{OURS, OURS_NOT_SYNCED};
use super::results::{Row, Scenario, Spread};
use crate::chart::bars::{Bar, Panel};

/// One column: time, CPU time and memory with one number of seeders.
pub(crate) fn column(scenario: &Scenario, size_bytes: u64) -> Vec<Panel> {
    let gigabytes = size_bytes as f64 / 1e9;
    let from =
        if scenario.seeders == 1 { "1 seeder".into() } else { format!("{} seeders", scenario.seeders) };
    let panel = |title: &str, parts: &dyn Fn(&Row) -> [f64; 2]| Panel {
        title: format!("{from}: {title}"),
        bars: bars(scenario, parts),
    };
    vec![
        panel("seconds, fetching + fsync", &|row| time(scenario, row)),
        panel("CPU-s/GB, fetching + seeding", &|row| {
            [row.fetch_cpu_s(), row.seed_cpu_s()].map(|cpu| median(cpu) / gigabytes)
        }),
        panel("peak memory of the fetching process, MiB", &|row| [median(row.peak_mib()), 0.0]),
    ]
}

/// Ours is one bar: what it takes without waiting for the disk is the first part of it.
fn bars(scenario: &Scenario, parts: &dyn Fn(&Row) -> [f64; 2]) -> Vec<Bar> {
    let has_ours = scenario.ours().is_some();
    let rows = scenario.rows.iter().filter(|row| !(has_ours && row.name == OURS_NOT_SYNCED));
    rows.map(|row| Bar { label: row.name.to_owned(), parts: parts(row), is_ours: row.name.starts_with(OURS) })
        .collect()
}

fn time(scenario: &Scenario, row: &Row) -> [f64; 2] {
    let on_disk = median(row.on_disk_s());
    let same = if row.is_durable { scenario.ours_not_synced() } else { Some(row) };
    let written = same.and_then(Row::not_synced_s).map_or(on_disk, |written| written.median.min(on_disk));
    [written, on_disk - written]
}

fn median(spread: Option<Spread>) -> f64 {
    spread.map_or(0.0, |spread| spread.median)
}

#[cfg(test)]
mod tests {
    use super::super::results::tests::row;
    use super::*;

    #[test]
    fn ours_is_one_bar_of_both_ways() {
        let rows = vec![row(OURS, 4, true), row(OURS_NOT_SYNCED, 2, false), row("other", 4, false)];
        let panels = column(&Scenario { seeders: 1, rows, left_out: Vec::new() }, 1_000_000_000);
        let parts: Vec<_> = panels[0].bars.iter().map(|bar| (bar.label.as_str(), bar.parts)).collect();
        assert_eq!(parts, [("loader", [3.0, 3.0]), ("other", [6.0, 1.0])]);
        assert_eq!(panels[1].bars[1].parts, [2.0, 1.0]);
    }
}
