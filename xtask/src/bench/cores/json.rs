//! The results as JSON, with every round, for programs.

use serde_json::{Value, json};

use super::results::{Report, Row, Run, SERIES};
use crate::bench::compare::json::machine;

/// Times are seconds, sizes are bytes; `null` where there is nothing.
pub(super) fn document(report: &Report) -> Value {
    let cpus =
        report.cpus.iter().map(|cpu| json!({"number": cpu.number, "package": cpu.package, "core": cpu.core}));
    json!({
        "machine": machine(&report.machine),
        "cpus": cpus.collect::<Vec<_>>(),
        "pinning_holds": report.pinning_holds,
        "version": report.version,
        "size_bytes": report.size_bytes,
        "cut_short": report.cut_short,
        "rows": report.rows.iter().map(|one| row(report, one)).collect::<Vec<_>>(),
    })
}

fn row(report: &Report, row: &Row) -> Value {
    let results = SERIES.iter().zip(&row.results).map(|(series, runs)| {
        let figures = report.figures(row, *series);
        json!({
            "what": series.what.name(),
            "fetches_at_once": series.fetches,
            "median_mb_per_s": figures.map(|figures| figures.mb_per_s.median),
            "ratio_to_one_core": report.ratio(row, *series),
            "median_fetch_cpu_s_per_gb": figures.map(|figures| figures.fetch_cpu_per_gb),
            "median_seed_cpu_s_per_gb": figures.map(|figures| figures.seed_cpu_per_gb),
            "rounds": runs.iter().map(run).collect::<Vec<_>>(),
        })
    });
    json!({
        "cores": row.placement.cores,
        "physical_cores": row.placement.physical_cores,
        "seeding_cpus": row.placement.seeding,
        "fetching_cpus": row.placement.fetching,
        "results": results.collect::<Vec<_>>(),
    })
}

fn run(run: &Run) -> Value {
    json!({
        "wall_s": run.wall.as_secs_f64(),
        "fetch_cpu_s": run.fetch_cpu.as_secs_f64(),
        "seed_cpu_s": run.seed_cpu.as_secs_f64(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::results::tests::report;
    use super::*;

    #[test]
    fn every_round_is_kept() {
        let value = document(&report(&[2000, 1000]));
        let result = &value["rows"][1]["results"][2];
        assert_eq!((&result["what"], &result["fetches_at_once"]), (&json!("loader"), &json!(1)));
        assert_eq!(result["rounds"][0]["wall_s"], 1.0);
        assert_eq!(result["ratio_to_one_core"], 2.0);
        assert_eq!(value["rows"][1]["results"][0]["median_mb_per_s"], Value::Null);
    }
}
