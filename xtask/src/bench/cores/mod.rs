//! `cargo xtask bench cores`: throughput against the number of cores, in memory, both ends pinned.

mod cpus;
mod ground;
mod json;
mod options;
mod results;
mod table;

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use self::ground::Ground;
use self::options::Options;
use self::results::{Report, Row, SERIES};
use super::compare::machine::Machine;
use super::files;
use crate::recipes;

pub(crate) fn run(root: &Path, args: &[OsString]) -> Result<()> {
    let started = Instant::now();
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        print!("{}", options::HELP);
        return Ok(());
    }
    let options = Options::parse(args)?;
    // The working directories of children are others.
    let here = env::current_dir().context("there is no current directory")?;
    let out = options.out.as_ref().map_or_else(|| root.join("target/bench/cores.json"), |out| here.join(out));
    if let Some(dir) = out.parent() {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    }
    let loader = match &options.loader {
        Some(loader) => here.join(loader),
        None => recipes::release_loader(root)?,
    };
    let until = started + options.limit;
    let work = here.join(&options.dir);
    let measured = measure_all(&options, loader, &work, until, &out);
    // Gigabytes of memory, whatever happened.
    files::remove_dir(&work)?;
    let report = measured?;
    println!("{}", table::page(&report));
    eprintln!("xtask: the table and the results are in {} and .md", out.display());
    Ok(())
}

fn measure_all(
    options: &Options,
    loader: PathBuf,
    work: &Path,
    until: Instant,
    out: &Path,
) -> Result<Report> {
    let ground = Ground::lay_out(loader, work.to_owned(), options.size_bytes, until)?;
    let cpus = cpus::usable()?;
    let first = cpus.first().context("no CPU may be used")?;
    let row = |placement| Row { placement, results: Default::default() };
    let mut report = Report {
        machine: Machine::look(work)?,
        pinning_holds: cpus::pinning_holds(first, work)?,
        version: ground.version.clone(),
        size_bytes: options.size_bytes,
        rows: cpus::placements(&cpus).into_iter().map(row).collect(),
        cpus,
        cut_short: None,
    };
    if !report.pinning_holds {
        eprintln!("xtask: pinning has no effect here: the rows will say nothing about cores");
    }
    for _ in 0..options.rounds {
        if let Err(why) = measure_round(&ground, until, &mut report, out) {
            // What was measured before counts, unless it is nothing.
            if report.rows.iter().all(|row| row.results.iter().all(Vec::is_empty)) {
                return Err(why);
            }
            // Whatever ran then was ended, and says so in its way.
            let is_over = Instant::now() >= until;
            let why =
                if is_over { "the seconds of --seconds-limit were over".into() } else { format!("{why:#}") };
            eprintln!("xtask: ending: {why}");
            report.cut_short = Some(why);
            break;
        }
    }
    save(&report, out)?;
    Ok(report)
}

/// Everything once. An error is why it ended before.
fn measure_round(ground: &Ground, until: Instant, report: &mut Report, out: &Path) -> Result<()> {
    for (index, series) in SERIES.into_iter().enumerate() {
        ground.touch(series, until).context("no time, or no memory, to go on")?;
        // Fewer cores take longer: nothing of this round takes longer than what came just before.
        let mut longest = Duration::ZERO;
        for at in 0..report.rows.len() {
            let began = Instant::now();
            anyhow::ensure!(
                began + longest < until,
                "the seconds of --seconds-limit are too few for what comes next"
            );
            let placement = &report.rows[at].placement;
            let run = ground.measure(placement, series, until).with_context(|| {
                let cores = table::in_words(placement.cores);
                format!("{cores}: {} × {}", series.fetches, series.what.name())
            })?;
            longest = began.elapsed();
            report.rows[at].results[index].push(run);
            eprintln!("xtask: {}", table::short(report, &report.rows[at], series));
            save(report, out)?;
        }
    }
    Ok(())
}

fn save(report: &Report, out: &Path) -> Result<()> {
    files::save(&out.with_extension("md"), &table::page(report))?;
    files::save(out, &format!("{:#}\n", json::document(report)))
}
