//! Which CPUs there are, which of them a row uses, and whether a process that is pinned to them stays there.

use std::fs;
use std::path::Path;
use std::thread::available_parallelism;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::thread::{CpuSet, sched_getaffinity};

use crate::bench::{helper, process};

/// One, as the kernel counts them: a thread of a physical core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cpu {
    pub(super) package: u32,
    pub(super) core: u32,
    pub(super) number: usize,
}

/// A row: which CPUs each end is pinned to.
#[derive(Debug, PartialEq)]
pub(super) struct Placement {
    pub(super) seeding: Vec<usize>,
    pub(super) fetching: Vec<usize>,
    /// How many CPUs that are.
    pub(super) cores: usize,
    pub(super) physical_cores: usize,
}

/// Those that this process may use; no more than its container is given time for.
pub(super) fn usable() -> Result<Vec<Cpu>> {
    let set = sched_getaffinity(None).context("cannot ask which CPUs may be used")?;
    let count = available_parallelism().context("cannot count the cores")?.get();
    let numbers = (0..CpuSet::MAX_CPU).filter(|number| set.is_set(*number));
    let cpus = numbers.map(|number| {
        let topology = format!("/sys/devices/system/cpu/cpu{number}/topology");
        let read = |name| fs::read_to_string(Path::new(&topology).join(name)).ok()?.trim().parse().ok();
        // Where nothing is known, each is a core.
        let unknown = || u32::try_from(number).unwrap_or(u32::MAX);
        Cpu {
            package: read("physical_package_id").unwrap_or(0),
            core: read("core_id").unwrap_or_else(unknown),
            number,
        }
    });
    let mut cpus = in_order(cpus.collect());
    cpus.truncate(count);
    Ok(cpus)
}

/// One of each physical core first.
fn in_order(mut cpus: Vec<Cpu>) -> Vec<Cpu> {
    cpus.sort_unstable();
    let same_core = |one: &Cpu, other: &Cpu| (one.package, one.core) == (other.package, other.core);
    let rank = |cpu: &Cpu| cpus.iter().filter(|other| same_core(cpu, other) && *other < cpu).count();
    let mut ranked: Vec<_> = cpus.iter().map(|cpu| (rank(cpu), *cpu)).collect();
    ranked.sort_unstable();
    ranked.into_iter().map(|(_, cpu)| cpu).collect()
}

pub(super) fn count_physical(cpus: &[Cpu]) -> usize {
    let mut cores: Vec<_> = cpus.iter().map(|cpu| (cpu.package, cpu.core)).collect();
    cores.sort_unstable();
    cores.dedup();
    cores.len()
}

/// 1, 2, 4, 8 … and all.
pub(super) fn placements(cpus: &[Cpu]) -> Vec<Placement> {
    let doubled = std::iter::successors(Some(1), |count| Some(count * 2));
    let mut counts: Vec<usize> = doubled.take_while(|count| *count < cpus.len()).collect();
    counts.push(cpus.len());
    counts.into_iter().map(|count| placement(&cpus[..count])).collect()
}

/// The two threads of a core go to the same end.
fn placement(cpus: &[Cpu]) -> Placement {
    let (cores, physical_cores) = (cpus.len(), count_physical(cpus));
    let mut cpus = cpus.to_vec();
    cpus.sort_unstable();
    let numbers: Vec<usize> = cpus.iter().map(|cpu| cpu.number).collect();
    let (seeding, fetching) =
        if cores == 1 { (&numbers[..], &numbers[..]) } else { numbers.split_at(cores / 2) };
    Placement { seeding: seeding.to_vec(), fetching: fetching.to_vec(), cores, physical_cores }
}

/// Whether two threads pinned to one CPU get the time of one: some sandboxes take the wish and do nothing.
pub(super) fn pinning_holds(cpu: &Cpu, dir: &Path) -> Result<bool> {
    let mut spin = process::ours_on(&[cpu.number], dir, helper::SPIN);
    spin.arg("500");
    let usage = process::measure(&mut [spin], &dir.join("spin.log"), Duration::from_secs(30))?;
    Ok(usage.cpu.as_secs_f64() < 1.5 * usage.wall.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four cores of two threads, numbered as most machines do.
    fn eight() -> Vec<Cpu> {
        in_order((0..8).map(|number| Cpu { package: 0, core: number % 4, number: number as usize }).collect())
    }

    #[test]
    fn second_threads_come_last_and_stay_with_the_first() {
        let rows = placements(&eight());
        let ends = |row: &Placement| (row.seeding.clone(), row.fetching.clone());
        assert_eq!(rows.iter().map(|row| row.cores).collect::<Vec<_>>(), [1, 2, 4, 8]);
        assert_eq!(rows.iter().map(|row| row.physical_cores).collect::<Vec<_>>(), [1, 2, 4, 4]);
        assert_eq!(ends(&rows[0]), (vec![0], vec![0]));
        assert_eq!(ends(&rows[1]), (vec![0], vec![1]));
        assert_eq!(ends(&rows[2]), (vec![0, 1], vec![2, 3]));
        assert_eq!(ends(&rows[3]), (vec![0, 4, 1, 5], vec![2, 6, 3, 7]));
    }

    #[test]
    fn the_last_row_has_all() {
        let counts = |cpus: &[Cpu]| placements(cpus).iter().map(|row| row.cores).collect::<Vec<_>>();
        assert_eq!(counts(&eight()[..1]), [1]);
        assert_eq!(counts(&eight()[..6]), [1, 2, 4, 6]);
    }

    #[test]
    fn this_machine_has_cpus() {
        let cpus = usable().unwrap();
        assert!(!cpus.is_empty() && count_physical(&cpus) <= cpus.len());
    }
}
