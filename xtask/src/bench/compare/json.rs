//! The results as JSON, with every round, for programs.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::machine::Machine;
use super::results::{Report, Row, Run, Scenario, Spread};

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

/// The size, and what can be drawn, of a document that [`document`] has made.
pub(crate) fn read(document: &Value) -> Result<(u64, Vec<Scenario>)> {
    let size_bytes = document["size_bytes"].as_u64().context("there is no size")?;
    let scenarios = list(&document["scenarios"])?.iter().map(read_scenario).collect::<Result<_>>()?;
    Ok((size_bytes, scenarios))
}

fn read_scenario(value: &Value) -> Result<Scenario> {
    let seeders = value["seeders"].as_u64().and_then(|seeders| usize::try_from(seeders).ok());
    let rows = list(&value["contenders"])?.iter().map(read_contender).collect::<Result<_>>()?;
    Ok(Scenario { seeders: seeders.context("there is no number of seeders")?, rows, left_out: Vec::new() })
}

fn read_contender(value: &Value) -> Result<Row> {
    let text = |name: &str| value[name].as_str().with_context(|| format!("a contender has no {name}"));
    Ok(Row {
        name: text("name")?.to_owned(),
        version: text("version")?.to_owned(),
        is_durable: value["syncs_itself"].as_bool().context("it is not said whether a contender syncs")?,
        runs: list(&value["rounds"])?.iter().map(read_run).collect::<Result<_>>()?,
    })
}

fn read_run(value: &Value) -> Result<Run> {
    let seconds = |name: &str| {
        let seconds = value[name].as_f64().with_context(|| format!("a round has no {name}"))?;
        Duration::try_from_secs_f64(seconds).with_context(|| format!("{name} is no time"))
    };
    Ok(Run {
        wall: seconds("wall_s")?,
        // Who syncs by itself has none.
        fsync: if value["fsync_s"].is_null() { Duration::ZERO } else { seconds("fsync_s")? },
        fetch_cpu: seconds("fetch_cpu_s")?,
        seed_cpu: seconds("seed_cpu_s")?,
        peak_anonymous_bytes: value["peak_anonymous_bytes"].as_u64().context("a round has no memory")?,
    })
}

fn list(value: &Value) -> Result<&Vec<Value>> {
    value.as_array().context("something is no list")
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

    #[test]
    fn what_was_written_is_read() {
        let rows = vec![row("loader", 4, true), row("other", 4, false)];
        let written = scenario(&Scenario { seeders: 4, rows, left_out: Vec::new() });
        let (size_bytes, read) = read(&json!({"size_bytes": 7, "scenarios": [written]})).unwrap();
        assert_eq!((size_bytes, read[0].seeders), (7, 4));
        assert_eq!(scenario(&read[0]), written);
        assert!(super::read(&json!({})).is_err());
    }
}
