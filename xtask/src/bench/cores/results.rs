//! What was measured, and the figures that are drawn from it.

use std::time::Duration;

use super::cpus::{Cpu, Placement};
use crate::bench::compare::machine::Machine;
use crate::bench::compare::results::Spread;

/// With so much more in no larger row, a row is where it stops growing.
const GROWTH: f64 = 1.1;

pub(super) struct Report {
    pub(super) machine: Machine,
    pub(super) cpus: Vec<Cpu>,
    pub(super) pinning_holds: bool,
    pub(super) version: String,
    pub(super) size_bytes: u64,
    pub(super) rows: Vec<Row>,
    /// Why not everything was measured as often as was asked for.
    pub(super) cut_short: Option<String>,
}

/// One number of cores.
pub(super) struct Row {
    pub(super) placement: Placement,
    /// In the order of [`SERIES`].
    pub(super) results: [Vec<Run>; SERIES.len()],
}

/// What is measured in each row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Series {
    pub(super) what: What,
    /// How many at once.
    pub(super) fetches: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Loader,
    TcpCopy,
}

impl What {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Loader => "loader",
            Self::TcpCopy => "tcp-copy",
        }
    }
}

pub(super) const ONE: usize = 1;
pub(super) const MANY: usize = 8;

/// What needs most memory comes first: the others then have memory that was just used.
pub(super) const SERIES: [Series; 4] = [
    Series { what: What::Loader, fetches: MANY },
    Series { what: What::TcpCopy, fetches: MANY },
    Series { what: What::Loader, fetches: ONE },
    Series { what: What::TcpCopy, fetches: ONE },
];

/// So many fetches at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    /// From the start of the first to the end of the last.
    pub(super) wall: Duration,
    /// Of all that fetch.
    pub(super) fetch_cpu: Duration,
    pub(super) seed_cpu: Duration,
}

/// One series in one row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Figures {
    /// Of all fetches together.
    pub(super) mb_per_s: Spread,
    /// Medians, CPU-seconds for each gigabyte that arrived.
    pub(super) fetch_cpu_per_gb: f64,
    pub(super) seed_cpu_per_gb: f64,
    /// Medians, how much of the cores of each end was in use: 1 is all of them, all the time.
    pub(super) fetch_in_use: f64,
    pub(super) seed_in_use: f64,
}

impl Report {
    /// `None` when it was not measured.
    pub(super) fn figures(&self, row: &Row, series: Series) -> Option<Figures> {
        let at = SERIES.iter().position(|known| *known == series)?;
        let runs = row.results.get(at)?;
        let gigabytes = self.size_bytes as f64 * series.fetches as f64 / 1e9;
        let median = |of: &dyn Fn(&Run) -> f64| Spread::of(runs.iter().map(of)).map(|spread| spread.median);
        let in_use = |cpu: Duration, wall: Duration, cores: &[usize]| {
            cpu.as_secs_f64() / wall.as_secs_f64() / cores.len() as f64
        };
        Some(Figures {
            mb_per_s: Spread::of(runs.iter().map(|run| 1e3 * gigabytes / run.wall.as_secs_f64()))?,
            fetch_cpu_per_gb: median(&|run| run.fetch_cpu.as_secs_f64() / gigabytes)?,
            seed_cpu_per_gb: median(&|run| run.seed_cpu.as_secs_f64() / gigabytes)?,
            fetch_in_use: median(&|run| in_use(run.fetch_cpu, run.wall, &row.placement.fetching))?,
            seed_in_use: median(&|run| in_use(run.seed_cpu, run.wall, &row.placement.seeding))?,
        })
    }

    /// × the first row, which is that of one core.
    pub(super) fn ratio(&self, row: &Row, series: Series) -> Option<f64> {
        let first = self.figures(self.rows.first()?, series)?;
        Some(self.figures(row, series)?.mb_per_s.median / first.mb_per_s.median)
    }

    /// The fewest cores of which no larger row is a tenth faster, with their speed, and whether there is a larger row.
    pub(super) fn end_of_growth(&self, series: Series) -> Option<(usize, f64, bool)> {
        let speeds: Vec<(usize, f64)> = self
            .rows
            .iter()
            .filter_map(|row| Some((row.placement.cores, self.figures(row, series)?.mb_per_s.median)))
            .collect();
        let end = speeds.iter().enumerate().find(|(index, (_, speed))| {
            speeds[index + 1..].iter().all(|(_, larger)| *larger < GROWTH * speed)
        });
        end.map(|(index, (cores, speed))| (*cores, *speed, index + 1 < speeds.len()))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::cpus::placements;
    use super::*;

    pub(in super::super) const LOADER: Series = Series { what: What::Loader, fetches: ONE };

    /// Rows of one fetch each, of 1 GB, that took so many milliseconds.
    pub(in super::super) fn report(ms: &[u64]) -> Report {
        let cpus: Vec<_> = (0..1 << (ms.len() - 1))
            .map(|number| Cpu { package: 0, core: u32::try_from(number).unwrap(), number })
            .collect();
        let row = |(placement, ms): (Placement, &u64)| {
            let run = Run {
                wall: Duration::from_millis(*ms),
                fetch_cpu: Duration::from_millis(1000),
                seed_cpu: Duration::from_millis(500),
            };
            Row { placement, results: [Vec::new(), Vec::new(), vec![run], Vec::new()] }
        };
        Report {
            machine: Machine::look(std::path::Path::new("/")).unwrap(),
            rows: placements(&cpus).into_iter().zip(ms).map(row).collect(),
            cpus,
            pinning_holds: true,
            version: "loader 1".into(),
            size_bytes: 1_000_000_000,
            cut_short: None,
        }
    }

    #[test]
    fn speeds_are_of_all_fetches_and_beside_one_core() {
        let report = report(&[2000, 1000, 500]);
        let figures = report.figures(&report.rows[2], LOADER).unwrap();
        assert!((figures.mb_per_s.median - 2000.0).abs() < 1e-6);
        assert!(
            (figures.fetch_cpu_per_gb - 1.0).abs() < 1e-6 && (figures.seed_cpu_per_gb - 0.5).abs() < 1e-6
        );
        // One CPU-second in half a second, on two of four cores.
        assert!((figures.fetch_in_use - 1.0).abs() < 1e-6 && (figures.seed_in_use - 0.5).abs() < 1e-6);
        assert!((report.ratio(&report.rows[2], LOADER).unwrap() - 4.0).abs() < 1e-6);
        assert!(report.figures(&report.rows[0], SERIES[0]).is_none(), "not measured");
    }

    #[test]
    fn growth_ends_where_nothing_larger_is_a_tenth_faster() {
        let end = |ms: &[u64]| report(ms).end_of_growth(LOADER).map(|(cores, _, is_known)| (cores, is_known));
        assert_eq!(end(&[2000, 1000, 500]), Some((4, false)));
        assert_eq!(end(&[2000, 1000, 950, 990]), Some((2, true)));
        assert_eq!(end(&[2000, 1000, 1200, 500]), Some((8, false)), "a dip is no end");
        assert_eq!(report(&[1000]).end_of_growth(SERIES[0]), None);
    }
}
