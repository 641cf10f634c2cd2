//! `cargo xtask kills`: the end-to-end tests of that name, with more kills at random moments.

use std::ffi::OsString;
use std::path::Path;

use anyhow::Result;

use crate::{flags, recipes, tool};

pub(crate) fn run(root: &Path, args: &[OsString]) -> Result<()> {
    let [kills, seed] = flags::numbers("kills", ["--kills", "--seed"], args)?;
    let kills = kills.unwrap_or(200);
    tool::require(&[tool::C_COMPILER])?;
    let loader = recipes::build_for_tests(root)?;
    let mut test = tool::cargo(root, &["test"]);
    test.args(["--workspace", "--test", "e2e", "--", "--nocapture", "kills::"])
        .env("LOADER_BIN", loader)
        .env("LOADER_KILLS", kills.to_string());
    if let Some(seed) = seed {
        test.env("LOADER_KILLS_SEED", seed.to_string());
    }
    tool::run(&mut test)
}
