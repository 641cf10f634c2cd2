//! The recipes that build and run something.

use std::env;
use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::tool::{self, C_COMPILER, NODE, NPM};
use crate::{kubernetes, layers, setup, wheel};

/// Builds everything once, then runs all tests of the workspace against it.
pub(crate) fn test(root: &Path) -> Result<()> {
    let tools = setup::everything(root)?;
    layers::check(root)?;
    kubernetes::check(root)?;
    let loader = build_for_tests(root)?;
    let wheel = wheel::for_tests(root)?;
    let with_tools = |command: &mut Command| {
        command
            .env(setup::ANVIL, &tools.anvil)
            .env(setup::INTERPRETER, &tools.python)
            .env(setup::CHROMIUM, &tools.chromium)
            .env("LOADER_WHEEL_PYTHON", &wheel)
            .env("LOADER_BIN", &loader);
        tool::run(command)
    };
    let has_nextest = tool::answers(Command::new("cargo-nextest").args(["nextest", "--version"]));
    let runner: &[&str] = if has_nextest { &["nextest", "run"] } else { &["test"] };
    with_tools(tool::cargo(root, runner).args(["--workspace", "--tests"]))?;
    with_tools(tool::cargo(root, &["test"]).args(["--workspace", "--doc"]))
}

/// Builds what tests run; gives our own program.
pub(crate) fn build_for_tests(root: &Path) -> Result<PathBuf> {
    // The packages and kinds of targets that are tested: another choice would compile the dependencies again.
    tool::run(tool::cargo(root, &["build"]).args(["--workspace", "--tests", "--bins"]))?;
    Ok(profile_dir()?.join("loader"))
}

/// Becomes the demo, so that signals reach it as they would without us.
pub(crate) fn demo(root: &Path, args: &[OsString]) -> Result<()> {
    tool::require(&[C_COMPILER, NODE, NPM])?;
    let anvil = setup::anvil(root)?;
    tool::run(tool::cargo(root, &["build"]).args([
        "--release",
        "--package",
        "loader-cli",
        "--package",
        "demo",
    ]))?;
    let demo = profile_dir()?.with_file_name("release").join("loader-demo");
    let error = Command::new(&demo).arg("--anvil").arg(anvil).args(args).exec();
    Err(error).with_context(|| format!("cannot run {}", demo.display()))
}

/// Builds our own program with optimisations.
pub(crate) fn release_loader(root: &Path) -> Result<PathBuf> {
    release(root, "loader-cli", "loader")
}

/// Builds a package with optimisations; gives its program.
pub(crate) fn release(root: &Path, package: &str, program: &str) -> Result<PathBuf> {
    tool::run(tool::cargo(root, &["build"]).args(["--release", "--package", package]))?;
    Ok(profile_dir()?.with_file_name("release").join(program))
}

/// The script that decides whether a change goes in.
pub(crate) fn ci(root: &Path) -> Result<()> {
    tool::run(&mut Command::new(root.join(".ci/run")))
}

/// Where cargo has put our own program, and so those of the same profile.
fn profile_dir() -> Result<PathBuf> {
    let program = env::current_exe().context("cannot find this program")?;
    Ok(program.parent().context("this program has no directory")?.to_owned())
}
