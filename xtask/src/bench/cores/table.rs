//! The results as Markdown, for people.

use std::fmt::Write as _;

use super::cpus::count_physical;
use super::results::{Figures, MANY, ONE, Report, Row, SERIES, Series, What};
use crate::bench::compare::results::Spread;
use crate::bench::compare::table::markdown;

const HEAD: [&str; 11] = [
    "cores: seeding + fetching",
    "physical",
    "loader, MB/s",
    "× one core",
    "CPU-s/GB fetching",
    "seeding",
    "both",
    "in use, %: fetching, seeding",
    "tcp-copy, MB/s",
    "× one core",
    "CPU-s/GB both",
];

const LEGEND: &str = "\
Medians, and the smallest and largest in parentheses. MB/s: the bytes of all fetches together, from the start of the first to
the end of the last, verified by `loader`, by tcp-copy not. In use: how much of the cores of its half an end had work for.
";

/// The whole page.
pub(super) fn page(report: &Report) -> String {
    let (cpus, physical) = (report.cpus.len(), count_physical(&report.cpus));
    let mib = report.size_bytes >> 20;
    let mut page = format!(
        "{}; {cpus} CPUs on {physical} physical cores are used. {mib} MiB, rounds: {}.\n",
        report.machine,
        rounds(report)
    );
    if !report.pinning_holds {
        page.push_str(
            "\n**These rows say nothing: this system takes the wish to stay on a CPU, and ignores it.**\n",
        );
    }
    for (title, fetches) in [("One fetch", ONE), ("Eight fetches at once", MANY)] {
        let mut lines = vec![HEAD.map(str::to_owned)];
        lines.extend(report.rows.iter().map(|row| line(report, row, fetches)));
        let _ = write!(page, "\n{title}:\n\n{}\n", markdown(&lines));
        for what in [What::Loader, What::TcpCopy] {
            page.push_str(&growth(report, Series { what, fetches }));
        }
    }
    let _ = write!(page, "\n{LEGEND}");
    if let Some(why) = &report.cut_short {
        let _ = write!(page, "\nNot everything was measured as often as was asked for: {why}.\n");
    }
    let _ = write!(page, "\nVersion: {}.\n", report.version);
    page
}

/// How often everything was measured, and what was measured most often.
fn rounds(report: &Report) -> String {
    let counts = || report.rows.iter().flat_map(|row| row.results.iter().map(Vec::len));
    let (least, most) = (counts().min().unwrap_or(0), counts().max().unwrap_or(0));
    if least == most { least.to_string() } else { format!("{least} to {most}") }
}

fn line(report: &Report, row: &Row, fetches: usize) -> [String; HEAD.len()] {
    let placement = &row.placement;
    let of = |what| {
        let series = Series { what, fetches };
        (report.figures(row, series), cell(report.ratio(row, series).map(|ratio| format!("{ratio:.2}"))))
    };
    let ((ours, our_ratio), (copy, copy_ratio)) = (of(What::Loader), of(What::TcpCopy));
    let figure = |figures: Option<Figures>, of: &dyn Fn(Figures) -> f64| {
        cell(figures.map(|figures| format!("{:.2}", of(figures))))
    };
    let both = |figures: Figures| figures.fetch_cpu_per_gb + figures.seed_cpu_per_gb;
    let percent = |of: f64| format!("{:.0}", 100.0 * of);
    let ends = if placement.cores == 1 {
        "1: shared".to_owned()
    } else {
        format!("{}: {} + {}", placement.cores, placement.seeding.len(), placement.fetching.len())
    };
    [
        ends,
        placement.physical_cores.to_string(),
        speed(ours),
        our_ratio,
        figure(ours, &|figures| figures.fetch_cpu_per_gb),
        figure(ours, &|figures| figures.seed_cpu_per_gb),
        figure(ours, &both),
        cell(ours.map(|ours| format!("{}, {}", percent(ours.fetch_in_use), percent(ours.seed_in_use)))),
        speed(copy),
        copy_ratio,
        figure(copy, &both),
    ]
}

fn growth(report: &Report, series: Series) -> String {
    let (name, count) =
        (series.what.name(), if series.fetches == ONE { "one fetch" } else { "eight fetches" });
    match report.end_of_growth(series) {
        None => String::new(),
        Some((cores, speed, true)) => format!(
            "- {name}, {count}: stops growing at {} ({speed:.0} MB/s); more bring less than a tenth.\n",
            in_words(cores)
        ),
        Some((cores, speed, false)) => {
            let cores = in_words(cores);
            format!("- {name}, {count}: still grows at {cores} ({speed:.0} MB/s), the most there are.\n")
        }
    }
}

/// A result in few words, while it is measured.
pub(super) fn short(report: &Report, row: &Row, series: Series) -> String {
    let last = SERIES.iter().position(|known| *known == series).and_then(|at| row.results[at].last());
    let gigabytes = report.size_bytes as f64 * series.fetches as f64 / 1e9;
    let seconds = last.map_or(0.0, |run| run.wall.as_secs_f64());
    format!(
        "{}: {} × {}: {seconds:.2} s, {:.0} MB/s",
        in_words(row.placement.cores),
        series.fetches,
        series.what.name(),
        1e3 * gigabytes / seconds
    )
}

pub(super) fn in_words(cores: usize) -> String {
    if cores == 1 { "1 core".to_owned() } else { format!("{cores} cores") }
}

fn speed(figures: Option<Figures>) -> String {
    let show = |Spread { median, min, max }| format!("{median:.0} ({min:.0}–{max:.0})");
    cell(figures.map(|figures| show(figures.mb_per_s)))
}

fn cell(text: Option<String>) -> String {
    text.unwrap_or_else(|| "–".to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::results::tests::report;
    use super::*;

    #[test]
    fn rows_have_both_ends_and_what_is_not_there() {
        let report = report(&[2000, 1000]);
        let cells = line(&report, &report.rows[1], ONE);
        assert_eq!(cells[..4], ["2: 1 + 1", "2", "1000 (1000–1000)", "2.00"]);
        assert_eq!(cells[4..9], ["1.00", "0.50", "1.50", "100, 50", "–"]);
        assert_eq!(line(&report, &report.rows[0], MANY)[..3], ["1: shared", "1", "–"]);
    }

    #[test]
    fn the_page_says_where_it_stops_and_what_is_wrong() {
        let mut report = report(&[2000, 1000, 990]);
        report.cut_short = Some("the time is up".to_owned());
        report.pinning_holds = false;
        let page = page(&report);
        assert!(page.contains("loader, one fetch: stops growing at 2 cores (1000 MB/s)"), "{page}");
        assert!(page.contains("as was asked for: the time is up.") && page.contains("say nothing"), "{page}");
        assert!(page.contains("rounds: 0 to 1."), "{page}");
    }
}
