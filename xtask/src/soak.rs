//! `cargo xtask soak`: the end-to-end test of that name, for minutes instead of seconds.

use std::ffi::OsString;
use std::path::Path;

use anyhow::Result;

use crate::{flags, recipes, setup, tool};

pub(crate) fn run(root: &Path, args: &[OsString]) -> Result<()> {
    let [seconds, seed] = flags::numbers("soak", ["--seconds", "--seed"], args)?;
    let seconds = seconds.unwrap_or(300);
    let tools = setup::everything(root)?;
    let loader = recipes::build_for_tests(root)?;
    let mut test = tool::cargo(root, &["test"]);
    test.args(["--workspace", "--test", "e2e", "--", "--nocapture", "soak::"])
        .env(setup::ANVIL, &tools.anvil)
        .env("LOADER_BIN", loader)
        .env("LOADER_SOAK_SECONDS", seconds.to_string());
    if let Some(seed) = seed {
        test.env("LOADER_SOAK_SEED", seed.to_string());
    }
    tool::run(&mut test)
}
