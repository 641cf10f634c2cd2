//! The results as Markdown, for people.

use std::fmt::Write as _;

use super::results::{Report, Row, Scenario, Spread};

const HEAD: [&str; 11] = [
    "",
    "not synced, s",
    "MB/s",
    "× loader",
    "on disk, s",
    "MB/s",
    "× loader",
    "CPU-s/GB fetching",
    "seeding",
    "both",
    "peak MiB",
];

const LEGEND: &str = "\
Medians, and the smallest and largest in parentheses; MB and GB are powers of ten. Every output was compared with the
source byte for byte, outside of the time. Before each fetch as much memory was touched and freed as the file takes.

- **not synced**: from the start of the fetching process to its end, nobody waiting for the disk. `loader` does wait,
  and is here with `--no-fsync`.
- **on disk**: until the file would survive a power cut. `loader` syncs by itself; to the time of each other one,
  `loader --no-fsync` too, is added what the recipe then needs to fsync its file and the file's directory.
- **× loader**: the time in relation to ours in the same column, `loader --no-fsync` or `loader`; above 1 is slower.
- **CPU-s/GB**: user and system time of the fetching processes, and of all seeders during the fetch.
- **peak MiB**: anonymous memory (`RssAnon`) of the fetching process, sampled every 20 ms; mapped files do not count.
- loader, 4 rows nowhere: the seeder has ten of fourteen shards, and the rest is rebuilt from parity.
- libtorrent: a BitTorrent v2 torrent, 1 MiB pieces, plain TCP. It dials its peers half a second after its start.
- curl: from nginx with sendfile, then `openssl dgst -sha256`; both count.
- tcp-copy: reads, sends, receives and writes, and verifies nothing: the floor.
";

/// The whole page.
pub(crate) fn page(report: &Report) -> String {
    let mut page =
        format!("{}.\n{} MiB; rounds: {}.\n", report.machine, report.size_bytes >> 20, report.rounds);
    for scenario in &report.scenarios {
        let plural = if scenario.seeders == 1 { "seeder" } else { "seeders" };
        let _ = write!(page, "\n## {} {plural}\n\n{}", scenario.seeders, table(scenario, report.size_bytes));
        if !scenario.left_out.is_empty() {
            page.push_str("\nLeft out:\n\n");
        }
        for left_out in &scenario.left_out {
            let _ = writeln!(page, "- {}: {}", left_out.name, left_out.why);
        }
    }
    let _ = write!(page, "\n{LEGEND}\nVersions: {}.\n", versions(report));
    page
}

fn table(scenario: &Scenario, size_bytes: u64) -> String {
    let ours_not_synced = scenario.ours_not_synced().and_then(Row::not_synced_s);
    let ours = scenario.ours().and_then(Row::on_disk_s);
    let gigabytes = size_bytes as f64 / 1e9;
    let mut lines = vec![HEAD.map(str::to_owned)];
    for row in &scenario.rows {
        let (not_synced, on_disk) = (row.not_synced_s(), row.on_disk_s());
        let per_gb = |cpu: Option<Spread>| cell(cpu.map(|cpu| format!("{:.2}", cpu.median / gigabytes)));
        lines.push([
            row.name.to_owned(),
            seconds(not_synced),
            rate(not_synced, gigabytes),
            ratio(not_synced, ours_not_synced),
            seconds(on_disk),
            rate(on_disk, gigabytes),
            ratio(on_disk, ours),
            per_gb(row.fetch_cpu_s()),
            per_gb(row.seed_cpu_s()),
            per_gb(row.both_cpu_s()),
            cell(row.peak_mib().map(|peak| format!("{:.0}", peak.median))),
        ]);
    }
    markdown(&lines)
}

fn cell(text: Option<String>) -> String {
    text.unwrap_or_else(|| "–".to_owned())
}

fn seconds(time: Option<Spread>) -> String {
    cell(time.map(|time| format!("{:.2} ({:.2}–{:.2})", time.median, time.min, time.max)))
}

fn rate(time: Option<Spread>, gigabytes: f64) -> String {
    cell(time.map(|time| format!("{:.0}", gigabytes * 1e3 / time.median)))
}

fn ratio(time: Option<Spread>, ours: Option<Spread>) -> String {
    cell(time.zip(ours).map(|(time, ours)| format!("{:.2}", time.median / ours.median)))
}

/// The first line is the head. Columns have one width, so that it can be read as it is.
pub(crate) fn markdown<const COLUMNS: usize>(lines: &[[String; COLUMNS]]) -> String {
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; COLUMNS] = std::array::from_fn(width);
    let mut text = String::new();
    for (index, line) in lines.iter().enumerate() {
        for (column, (cell, width)) in line.iter().zip(widths).enumerate() {
            let _ = if column == 0 {
                write!(text, "| {cell:<width$} ")
            } else {
                write!(text, "| {cell:>width$} ")
            };
        }
        text.push_str("|\n");
        if index == 0 {
            for (column, width) in widths.into_iter().enumerate() {
                let end = if column == 0 { '-' } else { ':' };
                let _ = write!(text, "|{}{end}", "-".repeat(width + 1));
            }
            text.push_str("|\n");
        }
    }
    text
}

fn versions(report: &Report) -> String {
    let mut versions: Vec<&str> = Vec::new();
    for row in report.scenarios.iter().flat_map(|scenario| &scenario.rows) {
        if !versions.contains(&row.version.as_str()) {
            versions.push(&row.version);
        }
    }
    versions.join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::contenders::{OURS, OURS_NOT_SYNCED};
    use super::super::results::LeftOut;
    use super::super::results::tests::row;
    use super::*;

    #[test]
    fn each_is_compared_with_ours_in_the_same_column() {
        let rows = vec![row(OURS, 4, true), row(OURS_NOT_SYNCED, 2, false), row("other", 6, false)];
        let scenario = Scenario { seeders: 1, rows, left_out: Vec::new() };
        let table = table(&scenario, 3_000_000_000);
        let lines: Vec<Vec<&str>> =
            table.lines().map(|line| line.split('|').map(str::trim).collect()).collect();
        assert_eq!(lines[2][1..8], ["loader", "–", "–", "–", "6.00 (4.00–8.00)", "500", "1.00"]);
        assert_eq!(lines[3][2..5], ["3.00 (2.00–4.00)", "1000", "1.00"]);
        assert_eq!(lines[4][2..5], ["9.00 (6.00–12.00)", "333", "3.00"]);
        assert_eq!(lines[4][5..8], ["10.00 (7.00–13.00)", "300", "1.67"]);
        assert_eq!(lines[4][8..12], ["0.67", "0.33", "1.00", "5"]);
        let widths: Vec<_> = table.lines().map(|line| line.chars().count()).collect();
        assert!(widths.iter().all(|width| *width == widths[0]), "{table}");
    }

    #[test]
    fn without_ours_there_is_no_ratio() {
        let left_out = vec![LeftOut { name: OURS, why: "because".into() }];
        let scenario = Scenario { seeders: 1, rows: vec![row("other", 6, false)], left_out };
        assert!(table(&scenario, 1 << 30).contains(" – |"));
    }
}
