//! `cargo xtask bench compare`: the whole way, from a seeder's file to a verified file, beside what a user would pick
//! instead. The same bytes, the same file system, the same minutes.

pub(super) mod contenders;
pub(super) mod json;
pub(super) mod machine;
pub(super) mod options;
mod panels;
pub(super) mod results;
pub(super) mod table;

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use self::contenders::{Contender, FILE, Ground, NAMES, OURS};
use self::machine::Machine;
use self::options::Options;
use self::results::{LeftOut, Report, Row, Run, Scenario};
use crate::bench::{files, helper, process};
use crate::chart::bars;
use crate::recipes;

/// How many seeders there are, in one table after the other.
const SEEDERS: [usize; 2] = [1, 4];
/// Slower than this is taken for stuck.
const SLOWEST_BYTES_PER_S: u64 = 10_000_000;

pub(crate) fn run(root: &Path, args: &[OsString]) -> Result<()> {
    let options = Options::parse(args)?;
    if let Some(document) = &options.redraw {
        return redraw(document);
    }
    let results = match &options.dir {
        // The working directories of children are others.
        Some(dir) => env::current_dir().context("there is no current directory")?.join(dir),
        None => root.join("target/bench"),
    };
    let work = results.join("compare-work");
    let ground = lay_out(root, &work, &options)?;
    let machine = Machine::look(&work)?;
    eprintln!("xtask: making {} MiB that cannot be compressed", options.size_bytes >> 20);
    files::make_source(&ground.source, options.size_bytes)?;

    let mut scenarios = Vec::new();
    for seeders in SEEDERS {
        scenarios.push(compare(&ground, &options, seeders)?);
    }
    files::remove_dir(&work)?;
    if scenarios.iter().all(|scenario| scenario.rows.is_empty()) {
        let left_out = scenarios.iter().flat_map(|scenario| &scenario.left_out);
        let why: Vec<_> = left_out.map(|one| format!("{}: {}", one.name, one.why)).collect();
        bail!("there is nothing to compare; {}", why.join("; "));
    }
    let report = Report { machine, size_bytes: options.size_bytes, rounds: options.rounds, scenarios };
    save(&report, &results)
}

/// Makes the directories, empty, and builds our own program if it takes part.
fn lay_out(root: &Path, work: &Path, options: &Options) -> Result<Ground> {
    let takes_part = [OURS, "rebuild"].iter().any(|name| options.wants(name));
    let loader = if takes_part { Some(recipes::release_loader(root)?) } else { None };
    files::fresh_dir(work)?;
    let at = |name: &str| -> Result<PathBuf> {
        let dir = work.join(name);
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        Ok(dir)
    };
    Ok(Ground {
        root: root.to_owned(),
        loader,
        source: at("source")?.join(FILE),
        seeds: at("seeds")?,
        out: at("out")?,
        logs: at("logs")?,
        limit: Duration::from_secs(30 + options.size_bytes / SLOWEST_BYTES_PER_S),
    })
}

/// Measures everybody with so many seeders: a round that warms up, and then those that count. All seeders run all the
/// time; each round begins with another contender.
fn compare(ground: &Ground, options: &Options, seeders: usize) -> Result<Scenario> {
    files::fresh_dir(&ground.seeds)?;
    let mut scenario = Scenario { seeders, rows: Vec::new(), left_out: Vec::new() };
    let mut contenders = Vec::new();
    for name in NAMES.into_iter().filter(|name| options.wants(name)) {
        eprintln!("xtask: starting {seeders} of {name}");
        match contenders::start(name, ground, seeders) {
            Ok(started) => contenders.extend(started),
            Err(error) => leave_out(&mut scenario, name, &error),
        }
    }
    let row = |one: &Contender| Row {
        name: one.name.to_owned(),
        version: one.version.clone(),
        is_durable: one.is_durable,
        runs: Vec::new(),
    };
    let mut entries: Vec<_> = contenders.into_iter().map(|one| (row(&one), one)).collect();
    for round in 0..=options.rounds {
        let count = entries.len();
        let mut failed = Vec::new();
        for index in (0..count).map(|index| (index + round) % count) {
            let (row, contender) = &mut entries[index];
            match fetch_once(ground, contender) {
                Ok(run) => {
                    eprintln!("xtask: round {round}: {}: {}", row.name, seconds(&run));
                    if round > 0 {
                        row.runs.push(run);
                    }
                }
                Err(error) => failed.push((contender.name, error)),
            }
        }
        for (name, error) in failed {
            entries.retain(|(row, _)| row.name != name);
            leave_out(&mut scenario, name, &error.context(format!("failed in round {round}")));
        }
    }
    scenario.rows = entries.into_iter().map(|(row, _)| row).collect();
    Ok(scenario)
}

fn leave_out(scenario: &mut Scenario, name: &'static str, error: &anyhow::Error) {
    eprintln!("xtask: leaving out {name}: {error:#}");
    scenario.left_out.push(LeftOut { name, why: format!("{error:#}") });
}

fn seconds(run: &Run) -> String {
    format!("{:.2} s, then fsync {:.2} s", run.wall.as_secs_f64(), run.fsync.as_secs_f64())
}

/// One fetch into an empty directory, on a quiet disk, with memory that was just used: a virtual machine may have to
/// get other memory from its host first.
fn fetch_once(ground: &Ground, contender: &mut Contender) -> Result<Run> {
    files::fresh_dir(&ground.out)?;
    let bytes = fs::metadata(&ground.source).context("the source is gone")?.len() * 5 / 4;
    let mut touch = process::ours(&ground.out, helper::TOUCH);
    process::answer(touch.arg(bytes.to_string()), &ground.log(helper::TOUCH), ground.limit)?;
    let seed_cpu = || -> Result<Duration> { contender.seeders.iter().map(process::Service::cpu).sum() };
    let before = seed_cpu()?;
    let log = ground.log(contender.name);
    let usage = process::measure(&mut contender.fetch, &log, ground.limit)?;
    let seed_cpu = seed_cpu()?.saturating_sub(before);
    let mut fsync = Duration::ZERO;
    if !contender.is_durable {
        let started = Instant::now();
        files::make_durable(&contender.output)?;
        fsync = started.elapsed();
    }
    files::require_same(&ground.source, &contender.output)?;
    let process::Usage { wall, cpu: fetch_cpu, peak_anonymous_bytes } = usage;
    Ok(Run { wall, fsync, fetch_cpu, seed_cpu, peak_anonymous_bytes })
}

/// Draws results of an earlier run, beside them.
fn redraw(document: &Path) -> Result<()> {
    let text = fs::read_to_string(document).with_context(|| format!("cannot read {}", document.display()))?;
    let results = serde_json::from_str(&text).map_err(anyhow::Error::from);
    let (size_bytes, scenarios) = results
        .and_then(|results| json::read(&results))
        .with_context(|| format!("{} holds no results of `bench compare`", document.display()))?;
    let columns: Vec<_> = scenarios.iter().map(|scenario| panels::column(scenario, size_bytes)).collect();
    files::save(&document.with_extension("svg"), &bars::svg(&columns))
}

fn save(report: &Report, results: &Path) -> Result<()> {
    let page = table::page(report);
    let columns: Vec<_> =
        report.scenarios.iter().map(|scenario| panels::column(scenario, report.size_bytes)).collect();
    let document = format!("{:#}\n", json::document(report));
    for (name, text) in
        [("compare.md", &page), ("compare.json", &document), ("compare.svg", &bars::svg(&columns))]
    {
        files::save(&results.join(name), text)?;
    }
    println!("{page}");
    eprintln!("xtask: compare.md, compare.json and compare.svg are in {}", results.display());
    Ok(())
}
