//! `cargo xtask sim`: swarms in virtual time, as tables and plots.

mod options;
mod report;

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use self::options::Options;
use self::report::{Case, Swarm};
use crate::{recipes, tool};

pub(crate) fn run(root: &Path, args: &[OsString]) -> Result<()> {
    let options = Options::parse(args)?;
    let dir = options.dir.clone().unwrap_or_else(|| root.join("docs/simulation"));
    let sim = recipes::release(root, "sim", "sim")?;
    let mut crowds = Vec::new();
    for nodes in &options.nodes {
        crowds.push(simulate(&sim, &format!("{nodes} nodes"), *nodes, options.seed, "")?);
    }
    let mut hard = Vec::new();
    for (name, differences) in [
        ("the first seeder at a fifth of the speed", "seeder=1000000"),
        ("four times as fast down as up", "down=20000000"),
        ("10 % leave", "leaving=10"),
        ("5 % lie, 5 % stall, 10 % leave", "lying=5,stalled=5,leaving=10"),
    ] {
        hard.push(simulate(&sim, name, options.hard_nodes, options.seed, differences)?);
    }
    let mut small = Vec::new();
    for (name, differences) in [
        ("16 MiB, 5 MB/s", "pieces=16"),
        ("16 MiB, 125 MB/s", "pieces=16,seeder=125000000,up=125000000,down=125000000"),
        ("16 MiB, the seeder at 10 Gbit/s", "pieces=16,seeder=1250000000,up=125000000,down=125000000"),
    ] {
        small.push(simulate(&sim, name, 60, options.seed, differences)?);
    }
    let mut readers = Vec::new();
    for (name, differences) in [
        ("no order", "read_ahead=0"),
        ("32 pieces ahead", "read_ahead=32"),
        ("8 pieces ahead", "read_ahead=8"),
    ] {
        readers.push(simulate(&sim, name, options.hard_nodes, options.seed, differences)?);
    }
    let page = report::page(&options, &crowds, &hard, &small, &readers);
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    for (name, text) in [
        ("results.md", &page),
        ("completion.svg", &report::completion(&crowds)),
        ("cost.svg", &report::cost(&crowds)),
    ] {
        let path = dir.join(name);
        let written = File::create(&path).and_then(|mut file| file.write_all(text.as_bytes()));
        written.with_context(|| format!("cannot write {}", path.display()))?;
    }
    println!("{page}");
    eprintln!("xtask: results.md, completion.svg and cost.svg are in {}", dir.display());
    Ok(())
}

fn simulate(sim: &Path, name: &str, nodes: u32, seed: u64, differences: &str) -> Result<Case> {
    eprintln!("xtask: simulating {nodes} nodes: {name}");
    let scenario = format!("nodes={nodes},seed={seed},{differences}");
    let answer = tool::output(Command::new(sim).arg(&scenario))?;
    let outcome = serde_json::from_str(&answer).context("a simulation has not answered with JSON")?;
    Swarm::parse(&outcome).map(|swarm| Case { name: name.to_owned(), swarm })
}
