//! Recipes of the project, run as `cargo xtask NAME`. Each does its own set-up.
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command for a person at a terminal")]

mod bench;
mod chart;
mod circles;
mod dist;
mod flags;
mod full;
mod image;
mod kills;
mod kubernetes;
mod layers;
mod recipes;
mod runtimes;
mod setup;
mod sim;
mod soak;
mod tool;
mod wheel;

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

const HELP: &str = "\
Recipes of the project. Each does its own set-up, and may be run at any time.

  cargo xtask demo [ARGS]   Build `loader` and `loader-demo` with optimisations and run that: the whole story on this machine.
                            ARGS go to it, for instance `--size 1GiB`; `cargo xtask demo --help` lists them.
  cargo xtask test          Set up, build, and run all tests: unit, property, real EVM node, real binary, Python peers.
  cargo xtask ci            What must pass before a change goes in: formatting, lints, tests (runs `.ci/run`).
  cargo xtask bench         Run the benchmarks of the crates.
  cargo xtask bench compare [--size 2GiB] [--rounds 5] [--dir DIR] [--only NAME,NAME…]
                            Fetch one file with `loader`, libtorrent, rqbit, sendme, curl and a bare TCP copy, in turn:
                            time, CPU and memory side by side. Leaves out, and names, what is not installed. Writes
                            compare.md, .json and .svg to DIR (target/bench), and needs about eight times --size there
                            meanwhile. Needs Linux. `--redraw FILE.json` only draws such results again, beside them.
  cargo xtask bench cores   Fetch with `loader` on 1, 2, 4 … cores of this machine, one fetch and eight at once, in memory.
                            `cargo xtask bench cores --help` says how, and how to run it on a machine without anything.
                            Needs Linux.
  cargo xtask bench crowd [--size 16MiB] [--rounds 3] [--dir DIR] [--loader FILE]
                            Start 60 fetches of one small model at the same moment, with one seeder, on this machine: as
                            they are, and where each asks nobody but the seeder. Writes crowd.md to DIR (target/bench).
                            Needs Linux.
  cargo xtask bench far     Fetch with `loader` and libtorrent over distance: through a relay with a round trip and the
                            speed of a line. `cargo xtask bench far --help` lists what can be varied. Needs Linux.
  cargo xtask bench swarm [--size 512MiB] [--rounds 3] [--dir DIR]
                            Fetch from real processes behind lines of limited speed, each in a network namespace: with
                            a seeder that is slow, and with seeders that stall. Writes swarm.md to DIR (target/bench).
                            Needs Linux, root, and iproute2.
  cargo xtask bench sharing [--size 512MiB] [--rounds 3] [--dir DIR]
                            Fetch while eight others fetch from the fetching node, and without them: what sharing costs
                            it. Writes sharing.md to DIR (target/bench). Needs Linux, root, iproute2, and two cores.
  cargo xtask bench folder [--size 2GiB] [--rounds 3] [--dir DIR] [--loader FILE]
                            Publish and fetch folders beside one file of as many bytes: four large files, and thousands of
                            small ones; and the four with `hf download` from a stand-in of the hub, libtorrent and rqbit.
                            Leaves out, and names, what is not installed. Writes folder.md to DIR (target/bench). FILE is
                            used in place of the `loader` that is built here. Needs Linux.
  cargo xtask sim [--nodes 10,100,1000,5000] [--seed 1] [--dir DIR]
                            Simulate flash crowds with the real planner in virtual time; docs/simulation.md says how.
                            Writes a table and plots to DIR (docs/simulation). The largest takes some minutes.
  cargo xtask soak [--seconds 300] [--seed N]
                            Two `loader watch` for so long on a chain that changes and is reorganised, through endpoints
                            that fail and lie by turns. Fails when one ends on another model than the last, loads a lie,
                            grows, or shows a key; prints what they used, and the seed. Needs Linux.
  cargo xtask kills [--kills 200] [--seed N]
                            Kill `loader fetch`, `publish` and `cache rm` in place of each call that changes a file, and
                            fetches at so many random moments, with damage to what they leave. Fails when the next command
                            does not make all of it good; prints the seed. Needs Linux.
  cargo xtask full          What is too heavy for each change: combinations of features, licences and sources of all that
                            the product is built from (installs cargo-deny into target/tools), that two builds of `dist` are equal,
                            `image`, `kills`, and `soak`.
  cargo xtask dist          The archive of a release into target/dist: static binary, man pages, completions, units, licences,
                            bill of materials, checksums. Two builds of one commit are equal to the byte. Needs GNU tar.
  cargo xtask image         The container image of a release into target/image, tried before it is written. Needs root, and
                            buildah, which it installs with apt-get.
  cargo xtask kubernetes    Check deploy/kubernetes; `test` does, too.
  cargo xtask layers        Check that no crate depends on one it must not know, and that no files of one use each other
                            in a circle.
  cargo xtask runtimes      Open fetched folders with transformers, onnxruntime and others, and write docs/runtimes.md. Installs
                            some gigabytes from PyPI, each in an environment of its own.
  cargo xtask wheel         Build the Python wheel into target/wheels, and fail when it has grown too large.
  cargo xtask setup         Only the set-up: the EVM node into tests/evm/node_modules, the Python peers' packages into
                            tests/python/.venv, Chromium with apt-get and what drives it into tests/browser/node_modules. Does
                            nothing when all are up to date.

Needed: Rust, a C compiler, Node.js with npm, Python 3 with venv; for the tests on disks of their own Linux, root, and
e2fsprogs. `cargo nextest` is used when it is installed.
To use programs of your own instead of the ones set up, name them:

  LOADER_ANVIL    the EVM node (https://getfoundry.sh)
  LOADER_PYTHON   a Python with the packages of tests/python/requirements.txt
  LOADER_CHROMIUM a Chromium, or Chrome

`cargo xtask test` also builds the Python wheel with maturin, and installs it into target/wheel/venv.
";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut args = env::args_os().skip(1);
    let recipe = args.next().unwrap_or_else(|| "help".into());
    let rest: Vec<_> = args.collect();
    let recipe = recipe.to_string_lossy();
    if recipe == bench::CHILD {
        return bench::as_child(&rest);
    }
    // These explain their own.
    let is_bench = |name: &str| recipe == "bench" && rest.first().is_some_and(|what| what == name);
    let explains = recipe == "demo" || is_bench("cores") || is_bench("far");
    if !explains && rest.iter().any(|arg| arg == "--help" || arg == "-h") {
        print!("{HELP}");
        return Ok(());
    }
    // That one is carried to machines where there is no repository.
    let root = if is_bench("cores") { root().or_else(|_| here())? } else { root()? };
    if !rest.is_empty() && !matches!(&*recipe, "demo" | "bench" | "kills" | "sim" | "soak") {
        bail!("`{recipe}` takes no arguments; see `cargo xtask help`");
    }
    match &*recipe {
        "demo" => recipes::demo(&root, &rest),
        "test" => recipes::test(&root),
        "ci" => recipes::ci(&root),
        "bench" => bench::run(&root, &rest),
        "kills" => kills::run(&root, &rest),
        "sim" => sim::run(&root, &rest),
        "soak" => soak::run(&root, &rest),
        "full" => full::run(&root),
        "dist" => dist::run(&root),
        "image" => image::run(&root),
        "kubernetes" => kubernetes::check(&root),
        "layers" => layers::check(&root),
        "setup" => setup::everything(&root).map(drop),
        "wheel" => wheel::release(&root),
        "runtimes" => runtimes::run(&root),
        "help" | "--help" | "-h" => {
            print!("{HELP}");
            Ok(())
        }
        other => bail!("there is no recipe `{other}`; see `cargo xtask help`"),
    }
}

fn here() -> Result<PathBuf> {
    env::current_dir().context("there is no current directory")
}

/// The repository: the parent of this package.
fn root() -> Result<PathBuf> {
    let package = env::var_os("CARGO_MANIFEST_DIR").context("run this as `cargo xtask`")?;
    let root = PathBuf::from(package).join("..");
    root.canonicalize().with_context(|| format!("cannot find the repository at {}", root.display()))
}
