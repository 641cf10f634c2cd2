//! The results as JSON, with every round, for programs.

use serde_json::{Value, json};

use super::relay::Record;
use super::results::{Report, Row, Run};
use crate::bench::compare::json::machine;

/// Times are seconds, sizes are bytes. `null` where there is nothing.
pub(super) fn document(report: &Report) -> Value {
    json!({
        "machine": machine(&report.machine),
        "versions": report.versions,
        "rounds": report.rounds,
        "step_s": Record::STEP.as_secs_f64(),
        "rows": report.rows.iter().map(row).collect::<Vec<_>>(),
    })
}

fn row(row: &Row) -> Value {
    let contenders = row.results.iter().map(|result| {
        json!({
            "name": result.name,
            "median_s": row.seconds(result.name).map(|spread| spread.median),
            "rounds": result.runs.iter().map(run).collect::<Vec<_>>(),
        })
    });
    json!({
        "round_trip_s": row.distance.round_trip.as_secs_f64(),
        "line_bytes_per_s": row.distance.bytes_per_s,
        "window_bytes": row.distance.window_bytes,
        "seeders": row.seeders,
        "size_bytes": row.size_bytes,
        "line_s": row.line_time().as_secs_f64(),
        "line_and_8_round_trips_s": row.granted().as_secs_f64(),
        "simulated_s": row.simulated_s,
        "contenders": contenders.collect::<Vec<_>>(),
    })
}

fn run(run: &Run) -> Value {
    json!({
        "wall_s": run.wall.as_secs_f64(),
        "fetch_cpu_s": run.cpu.as_secs_f64(),
        "relay_cpu_s": run.relay_cpu.as_secs_f64(),
        "dialled_after_s": run.connected_after.map(|after| after.as_secs_f64()),
        "delivered_bytes": run.delivered_bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::super::results::tests;
    use super::*;

    #[test]
    fn every_round_is_kept() {
        let value = row(&tests::row(&[("loader", &[1000, 2000])]));
        assert_eq!(value["contenders"][0]["rounds"][1]["wall_s"], 2.0);
        assert_eq!(value["contenders"][0]["median_s"], 1.5);
        assert_eq!(value["window_bytes"], Value::Null);
    }
}
