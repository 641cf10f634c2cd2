//! The same cases in virtual time: what the planner alone makes of a line, with the peers known, nothing encrypted, and
//! every piece checked in 3 ms.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::results::Row;
use crate::tool;

/// Seconds until the model is there; `None` of what cannot be simulated.
pub(super) fn seconds(sim: &Path, row: &Row) -> Result<Option<f64>> {
    // A scenario has one first seeder.
    if row.seeders > 1 {
        return Ok(None);
    }
    let answer = tool::output(Command::new(sim).arg(scenario(row)))?;
    let outcome: Value = serde_json::from_str(&answer).context("a simulation has not answered with JSON")?;
    ensure!(outcome["unfinished"] == 0, "a simulated fetch has not ended");
    Ok(outcome["p99_s"].as_f64())
}

/// One node that fetches from one seeder, at once, and nothing of the congestion control that the relay has not either.
fn scenario(row: &Row) -> String {
    let (pieces, line) = (row.size_bytes.div_ceil(1 << 20), row.distance.bytes_per_s);
    let window_bytes = row.distance.connection_bytes();
    let one_way_ms = row.distance.round_trip.as_millis() / 2;
    format!(
        "nodes=1,start_ms=0,pieces={pieces},seeder={line},up={line},down={line},latency_ms={one_way_ms},\
         window={window_bytes}"
    )
}

#[cfg(test)]
mod tests {
    use super::super::results::tests::row;
    use super::*;

    #[test]
    fn a_row_is_a_swarm_of_one() {
        let wanted = "nodes=1,start_ms=0,pieces=120,seeder=125000000,up=125000000,down=125000000,latency_ms=30,\
                      window=13750000";
        assert_eq!(scenario(&row(&[])), wanted);
    }
}
