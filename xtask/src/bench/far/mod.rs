//! `cargo xtask bench far`: fetches over distance, through a relay on this machine that is as long as a line.

mod contenders;
mod json;
mod options;
mod plot;
mod relay;
mod results;
mod simulation;
mod table;

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use self::contenders::{Contender, FILE, Ground, MEASURED, OURS, SIMULATION};
use self::options::Options;
use self::relay::{Distance, Pool, Relay};
use self::results::{Report, Row, Run};
use super::compare::machine::Machine;
use super::{files, helper, process};
use crate::recipes;

/// Of the file's bytes, so many of a hundred must have come through the relay.
const THROUGH_RELAY_PERCENT: u64 = 95;

pub(crate) fn run(root: &Path, args: &[OsString]) -> Result<()> {
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        print!("{}", options::HELP);
        return Ok(());
    }
    let options = Options::parse(args)?;
    // The working directories of children are others.
    let here = env::current_dir().context("there is no current directory")?;
    let dir = options.dir.as_ref().map_or_else(|| root.join("target/bench"), |dir| here.join(dir));
    let out = options.out.as_ref().map_or_else(|| dir.join("far.json"), |out| here.join(out));
    let ground = lay_out(root, &dir.join("far-work"), &here, &options)?;
    let machine = Machine::look(&ground.work)?;
    let pool = Arc::default();
    let mut report = Report { machine, rounds: options.rounds, versions: Vec::new(), rows: Vec::new() };
    for size_bytes in options.sizes_bytes.iter().copied() {
        measure_size(&ground, &options, size_bytes, &pool, &mut report)?;
    }
    files::remove_dir(&ground.work)?;
    save(&report, &out)
}

/// Makes the directories, empty, and builds our own program if it takes part and no other was named.
fn lay_out(root: &Path, work: &Path, here: &Path, options: &Options) -> Result<Ground> {
    let loader = match &options.loader {
        _ if !options.wants(OURS) => None,
        Some(loader) => Some(here.join(loader)),
        None => Some(recipes::release_loader(root)?),
    };
    let sim = if options.wants(SIMULATION) { Some(recipes::release(root, "sim", "sim")?) } else { None };
    files::fresh_dir(work)?;
    let at = |name: &str| -> Result<PathBuf> {
        let dir = work.join(name);
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        Ok(dir)
    };
    Ok(Ground {
        root: root.to_owned(),
        loader,
        sim,
        source: at("source")?.join(FILE),
        out: at("out")?,
        work: work.to_owned(),
    })
}

/// All rows with one size. Seeders run all the time; with fewer than there are, the others are idle.
fn measure_size(
    ground: &Ground,
    options: &Options,
    size_bytes: u64,
    pool: &Arc<Pool>,
    report: &mut Report,
) -> Result<()> {
    files::fresh_dir(&ground.work.join("seeds"))?;
    files::make_source(&ground.source, size_bytes)?;
    let most_seeders = options.seeders.iter().copied().max().unwrap_or(1);
    let mut contenders = Vec::new();
    for name in MEASURED.into_iter().filter(|name| options.wants(name)) {
        let started = contenders::start(name, ground, most_seeders);
        contenders.push(started.with_context(|| format!("cannot start {name}"))?);
    }
    report.versions = contenders.iter().map(|contender| contender.version.clone()).collect();
    for seeders in options.seeders.iter().copied() {
        for distance in options.distances() {
            let none = contenders.iter().map(|one| results::Result { name: one.name, runs: Vec::new() });
            let mut row = Row { distance, seeders, size_bytes, results: none.collect(), simulated_s: None };
            if let Some(sim) = &ground.sim {
                row.simulated_s = simulation::seconds(sim, &row)?;
            }
            measure_row(ground, options.rounds, &contenders, pool, &mut row)?;
            report.rows.push(row);
        }
    }
    Ok(())
}

/// All take turns.
fn measure_row(
    ground: &Ground,
    rounds: usize,
    contenders: &[Contender],
    pool: &Arc<Pool>,
    row: &mut Row,
) -> Result<()> {
    for _ in 0..rounds {
        for (index, contender) in contenders.iter().enumerate() {
            let run = fetch_once(ground, contender, pool, row)
                .with_context(|| format!("{}: {}", table::name(row), contender.name))?;
            eprintln!(
                "xtask: {}: {}: {}, of which the line {}; first dialled after {} ms",
                table::name(row),
                contender.name,
                table::short(run.wall),
                table::short(row.line_time()),
                run.connected_after.unwrap_or_default().as_millis(),
            );
            row.results[index].runs.push(run);
        }
    }
    Ok(())
}

/// One fetch into an empty directory, on a quiet disk, with memory that was just used: a virtual machine may have to
/// get other memory from its host first.
fn fetch_once(ground: &Ground, contender: &Contender, pool: &Arc<Pool>, row: &Row) -> Result<Run> {
    files::fresh_dir(&ground.out)?;
    let mut touch = process::ours(&ground.out, helper::TOUCH);
    let bytes = row.size_bytes * 5 / 4;
    process::answer(touch.arg(bytes.to_string()), &ground.log(helper::TOUCH), Duration::from_secs(60))?;
    pool.provide(row.distance.travelling_bytes());
    let seeders = &contender.addresses[..row.seeders.min(contender.addresses.len())];
    let relay = Relay::start(row.distance, seeders, pool)?;
    let fetched = contender.fetch(ground, &relay.addresses, limit(&row.distance, row.size_bytes))?;
    let record = relay.record();
    drop(relay);
    let came_bytes = record.total_bytes();
    if came_bytes < row.size_bytes / 100 * THROUGH_RELAY_PERCENT {
        bail!("only {came_bytes} of {} bytes came through the relay: there is another way", row.size_bytes);
    }
    files::require_same(&ground.source, &contender.output(ground))?;
    Ok(Run {
        wall: fetched.wall,
        cpu: fetched.cpu,
        relay_cpu: fetched.relay_cpu,
        connected_after: record.connected_after,
        delivered_bytes: record.delivered_bytes,
    })
}

/// Longer than this is taken for stuck: ten times what one connection with its window needs.
fn limit(distance: &Distance, size_bytes: u64) -> Duration {
    let windows = distance.window_bytes.map_or(0, |window_bytes| size_bytes.div_ceil(window_bytes));
    let by_window = distance.round_trip * u32::try_from(windows).unwrap_or(u32::MAX);
    Duration::from_secs(60) + 10 * distance.time_for(size_bytes).max(by_window)
}

fn save(report: &Report, out: &Path) -> Result<()> {
    let page = table::page(report);
    let document = format!("{:#}\n", json::document(report));
    for (extension, text) in [("md", &page), ("json", &document), ("svg", &plot::svg(report))] {
        files::save(&out.with_extension(extension), text)?;
    }
    println!("{page}");
    eprintln!("xtask: the table, the results and the plot are in {}, .md and .svg", out.display());
    Ok(())
}
