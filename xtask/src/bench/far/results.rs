//! What was measured, and the figures that are drawn from it.

use std::time::Duration;

use super::relay::Distance;
use crate::bench::compare::machine::Machine;
use crate::bench::compare::results::Spread;

/// Round trips that any fetch is granted besides the line's time.
const GRANTED_ROUND_TRIPS: u32 = 8;

/// All of it.
pub(super) struct Report {
    pub(super) machine: Machine,
    pub(super) rounds: usize,
    /// What each contender says it is.
    pub(super) versions: Vec<String>,
    pub(super) rows: Vec<Row>,
}

/// One case.
pub(super) struct Row {
    pub(super) distance: Distance,
    pub(super) seeders: usize,
    pub(super) size_bytes: u64,
    pub(super) results: Vec<Result>,
    /// Of ours in virtual time, if that was asked for and can be.
    pub(super) simulated_s: Option<f64>,
}

/// One contender in one case.
pub(super) struct Result {
    pub(super) name: &'static str,
    pub(super) runs: Vec<Run>,
}

/// One fetch.
#[derive(Clone)]
pub(super) struct Run {
    pub(super) wall: Duration,
    pub(super) cpu: Duration,
    /// Of the relay.
    pub(super) relay_cpu: Duration,
    /// From the relay's start, just before that of the process, to the first connection.
    pub(super) connected_after: Option<Duration>,
    /// In each step of time since the relay's start.
    pub(super) delivered_bytes: Vec<u64>,
}

impl Row {
    /// What the line alone takes: all bytes, and one way.
    pub(super) fn line_time(&self) -> Duration {
        self.distance.time_for(self.size_bytes) + self.distance.round_trip / 2
    }

    /// The line's time for the bytes, and some round trips.
    pub(super) fn granted(&self) -> Duration {
        self.distance.time_for(self.size_bytes) + self.distance.round_trip * GRANTED_ROUND_TRIPS
    }

    pub(super) fn seconds(&self, name: &str) -> Option<Spread> {
        let result = self.results.iter().find(|result| result.name == name)?;
        Spread::of(result.runs.iter().map(|run| run.wall.as_secs_f64()))
    }

    /// The run in the middle, of an even number the faster of both.
    pub(super) fn middle_run(&self, name: &str) -> Option<&Run> {
        let result = self.results.iter().find(|result| result.name == name)?;
        let mut runs: Vec<_> = result.runs.iter().collect();
        runs.sort_by_key(|run| run.wall);
        runs.get(runs.len().saturating_sub(1) / 2).copied()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// 125 MB at a gigabit, 60 ms.
    pub(in super::super) fn row(walls_ms: &[(&'static str, &[u64])]) -> Row {
        let run = |wall_ms: &u64| Run {
            wall: Duration::from_millis(*wall_ms),
            cpu: Duration::from_secs(1),
            relay_cpu: Duration::ZERO,
            connected_after: Some(Duration::from_millis(25)),
            delivered_bytes: vec![0, 3_125_000, 6_250_000],
        };
        Row {
            distance: Distance {
                round_trip: Duration::from_millis(60),
                bytes_per_s: 125_000_000,
                window_bytes: None,
            },
            seeders: 1,
            size_bytes: 125_000_000,
            simulated_s: None,
            results: walls_ms
                .iter()
                .map(|(name, walls)| Result { name, runs: walls.iter().map(run).collect() })
                .collect(),
        }
    }

    #[test]
    fn the_line_alone_takes_its_time() {
        let row = row(&[("loader", &[1700, 1500, 1900, 1600])]);
        assert_eq!(row.line_time(), Duration::from_millis(1030));
        assert_eq!(row.granted(), Duration::from_millis(1480));
        assert_eq!(row.seconds("loader").map(|spread| spread.median), Some(1.65));
        assert_eq!(row.middle_run("loader").map(|run| run.wall.as_millis()), Some(1600));
        assert!(row.seconds("libtorrent").is_none() && row.middle_run("libtorrent").is_none());
    }
}
