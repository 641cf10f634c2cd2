//! `cargo xtask full`: what is too heavy for each change.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::{dist, image, kills, setup, soak, tool};

/// The version that `deny.toml` is for.
const DENY: &str = "0.20.2";
/// What finds unused dependencies.
const MACHETE: &str = "0.9.2";

/// Packages and the features that they must do with.
const FEATURES: [(&str, &[&str]); 8] = [
    ("p2p-blob", &[]),
    ("p2p-blob", &["dht"]),
    ("p2p-blob", &["mdns"]),
    ("p2p-blob", &["nat"]),
    ("p2p-blob", &["quic"]),
    ("node", &[]),
    ("node", &["chain"]),
    ("node", &["dht", "mdns", "nat", "quic"]),
];

pub(crate) fn run(root: &Path) -> Result<()> {
    for (package, features) in FEATURES {
        let mut clippy = tool::cargo(root, &["clippy", "--package", package, "--no-default-features"]);
        clippy.args(["--features", &features.join(","), "--", "-D", "warnings"]);
        tool::run(&mut clippy)?;
    }
    deny(root)?;
    unused(root)?;
    candle(root)?;
    dist::check(root)?;
    image::run(root)?;
    kills::run(root, &[])?;
    soak::run(root, &[])
}

/// Licences, sources and banned crates. Advisories where their database can be had.
fn deny(root: &Path) -> Result<()> {
    let deny = installed(root, "cargo-deny", DENY)?;
    let check = |what: &[&str]| {
        let mut check = Command::new(&deny);
        check.current_dir(root).args(["--locked", "check", "--allow", "duplicate"]).args(what);
        check
    };
    tool::run(&mut check(&["licenses", "bans", "sources"]))?;
    if tool::answers(Command::new(&deny).current_dir(root).args(["--locked", "fetch", "db"])) {
        return tool::run(&mut check(&["advisories"]));
    }
    eprintln!("xtask: the database of advisories cannot be had: NOT CHECKED whether there are any");
    Ok(())
}

/// Dependencies that no source names.
fn unused(root: &Path) -> Result<()> {
    tool::run(Command::new(installed(root, "cargo-machete", MACHETE)?).current_dir(root))
}

/// Runs a real model from the files that its package carries, and compares what it says with what the package's own library
/// said.
fn candle(root: &Path) -> Result<()> {
    let python = setup::everything(root)?.python;
    let mut script = Command::new(&python);
    script.arg(root.join("tests/python/real_inputs.py")).arg("minilm-path");
    let model = tool::output(&mut script)?;
    let example = root.join("examples/candle");
    let mut run = tool::cargo(&example, &["run"]);
    run.arg("--target-dir").arg(root.join("target/candle")).args(["--", "--check"]);
    tool::run(run.arg(root.join("tests/python/minilm_reference.json")).arg(model.trim()))
}

/// A tool of cargo in this version, which is built when it is not there yet.
fn installed(root: &Path, name: &str, version: &str) -> Result<PathBuf> {
    let tools = root.join("target/tools");
    let path = tools.join("bin").join(name);
    let is_ours = |command: &mut Command| tool::output(command).is_ok_and(|said| said.contains(version));
    if !path.exists() || !is_ours(Command::new(&path).arg("--version")) {
        let mut install = tool::cargo(root, &["install", name, "--version", version, "--force"]);
        tool::run(install.arg("--root").arg(&tools))?;
    }
    Ok(path)
}
