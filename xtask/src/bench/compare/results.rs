//! What was measured, and the figures that are drawn from it.

use std::time::Duration;

use super::contenders::{OURS, OURS_NOT_SYNCED};
use super::machine::Machine;

/// All of it.
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) size_bytes: u64,
    pub(crate) rounds: usize,
    pub(crate) scenarios: Vec<Scenario>,
}

/// All contenders with one number of seeders.
pub(crate) struct Scenario {
    pub(crate) seeders: usize,
    pub(crate) rows: Vec<Row>,
    pub(crate) left_out: Vec<LeftOut>,
}

/// One that was not measured, or failed.
pub(crate) struct LeftOut {
    pub(crate) name: &'static str,
    pub(crate) why: String,
}

/// One contender.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) version: String,
    /// Whether its own time includes waiting for the disk.
    pub(crate) is_durable: bool,
    /// One for each round that counts.
    pub(crate) runs: Vec<Run>,
}

/// One fetch.
#[derive(Clone)]
pub(crate) struct Run {
    /// From the start of the fetching process to its end.
    pub(crate) wall: Duration,
    /// What it then took to make its output durable; nothing if it does that itself.
    pub(crate) fsync: Duration,
    pub(crate) fetch_cpu: Duration,
    pub(crate) seed_cpu: Duration,
    pub(crate) peak_anonymous_bytes: u64,
}

/// A figure over all rounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// `None` of nothing.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            *values.get(middle)?
        } else {
            f64::midpoint(*values.get(middle - 1)?, *values.get(middle)?)
        };
        Some(Self { median, min, max })
    }
}

impl Row {
    fn spread(&self, of: impl Fn(&Run) -> f64) -> Option<Spread> {
        Spread::of(self.runs.iter().map(of))
    }

    /// Seconds until the file is there, perhaps only in memory.
    pub(crate) fn not_synced_s(&self) -> Option<Spread> {
        if self.is_durable { None } else { self.spread(|run| run.wall.as_secs_f64()) }
    }

    /// Seconds until the file would survive a power cut.
    pub(crate) fn on_disk_s(&self) -> Option<Spread> {
        self.spread(|run| (run.wall + run.fsync).as_secs_f64())
    }

    pub(crate) fn fetch_cpu_s(&self) -> Option<Spread> {
        self.spread(|run| run.fetch_cpu.as_secs_f64())
    }

    pub(crate) fn seed_cpu_s(&self) -> Option<Spread> {
        self.spread(|run| run.seed_cpu.as_secs_f64())
    }

    pub(crate) fn both_cpu_s(&self) -> Option<Spread> {
        self.spread(|run| (run.fetch_cpu + run.seed_cpu).as_secs_f64())
    }

    pub(crate) fn peak_mib(&self) -> Option<Spread> {
        // Far below 2^52, from where on a float would be inexact.
        self.spread(|run| run.peak_anonymous_bytes as f64 / f64::from(1 << 20))
    }
}

impl Scenario {
    /// The row that others are compared with when nobody waits for the disk.
    pub(crate) fn ours_not_synced(&self) -> Option<&Row> {
        self.rows.iter().find(|row| row.name == OURS_NOT_SYNCED)
    }

    /// The row that others are compared with when all do.
    pub(crate) fn ours(&self) -> Option<&Row> {
        self.rows.iter().find(|row| row.name == OURS)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A row of one run of so many seconds, and one of twice as many.
    pub(crate) fn row(name: &str, wall_s: u64, is_durable: bool) -> Row {
        let run = |wall_s| Run {
            wall: Duration::from_secs(wall_s),
            fsync: Duration::from_secs(if is_durable { 0 } else { 1 }),
            fetch_cpu: Duration::from_secs(2),
            seed_cpu: Duration::from_secs(1),
            peak_anonymous_bytes: 5 << 20,
        };
        Row { name: name.into(), version: "1".into(), is_durable, runs: vec![run(wall_s), run(2 * wall_s)] }
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([3.0]), Some(Spread { median: 3.0, min: 3.0, max: 3.0 }));
        assert_eq!(Spread::of([3.0, 1.0, 9.0]), Some(Spread { median: 3.0, min: 1.0, max: 9.0 }));
        assert_eq!(Spread::of([4.0, 1.0, 9.0, 2.0]), Some(Spread { median: 3.0, min: 1.0, max: 9.0 }));
    }

    #[test]
    fn who_syncs_by_itself_has_no_time_without() {
        let durable = row(OURS, 4, true);
        assert_eq!(durable.not_synced_s(), None);
        assert_eq!(durable.on_disk_s().unwrap().median, 6.0);
        let other = row("other", 4, false);
        assert_eq!(other.not_synced_s().unwrap().median, 6.0);
        assert_eq!(other.on_disk_s().unwrap().median, 7.0);
        assert_eq!(other.both_cpu_s().unwrap().median, 3.0);
    }
}
