//! The results as JSON, with every round, for programs.

use serde_json::{Value, json};

use super::machine::Machine;
use super::results::{Report, Row, Scenario, Spread};

/// Times are seconds, in CPU time those of all threads; sizes are bytes. `null` where there is nothing.
pub(crate) fn document(report: &Report) -> Value {
    json!({
        "machine": machine(&report.machine),
        "size_bytes": report.size_bytes,
        "rounds": report.rounds,
        "scenarios": report.scenarios.iter().map(scenario).collect::<Vec<_>>(),
    })
}

/// Where it was measured.
pub(crate) fn machine(machine: &Machine) -> Value {
    json!({
        "cpu": machine.cpu,
        "cores": machine.cores,
        "memory_bytes": machine.memory_bytes,
        "kernel": machine.kernel,
        "file_system": machine.file_system,
        "load_at_start": machine.load,
    })
}

fn scenario(scenario: &Scenario) -> Value {
    let left_out = scenario.left_out.iter().map(|one| json!({"name": one.name, "why": one.why}));
    json!({
        "seeders": scenario.seeders,
        "contenders": scenario.rows.iter().map(contender).collect::<Vec<_>>(),
        "left_out": left_out.collect::<Vec<_>>(),
    })
}

fn contender(row: &Row) -> Value {
    let runs = row.runs.iter().map(|run| {
        json!({
            "wall_s": run.wall.as_secs_f64(),
            "fsync_s": if row.is_durable { None } else { Some(run.fsync.as_secs_f64()) },
            "fetch_cpu_s": run.fetch_cpu.as_secs_f64(),
            "seed_cpu_s": run.seed_cpu.as_secs_f64(),
            "peak_anonymous_bytes": run.peak_anonymous_bytes,
        })
    });
    json!({
        "name": row.name,
        "version": row.version,
        "syncs_itself": row.is_durable,
        "median": {
            "not_synced_s": median(row.not_synced_s()),
            "on_disk_s": median(row.on_disk_s()),
            "fetch_cpu_s": median(row.fetch_cpu_s()),
            "seed_cpu_s": median(row.seed_cpu_s()),
        },
        "rounds": runs.collect::<Vec<_>>(),
    })
}

fn median(spread: Option<Spread>) -> Option<f64> {
    spread.map(|spread| spread.median)
}

#[cfg(test)]
mod tests {
    use super::super::results::tests::row;
    use super::*;

    #[test]
    fn every_round_is_kept() {
        let value = contender(&row("other", 4, false));
        assert_eq!(value["rounds"][1]["wall_s"], 8.0);
        assert_eq!(value["median"]["on_disk_s"], 7.0);
        assert_eq!(contender(&row("loader", 4, true))["median"]["not_synced_s"], Value::Null);
    }
}
