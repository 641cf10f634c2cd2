//! Measurements: of single crates with `cargo bench`, and of the whole way beside what a user would pick instead.

#[cfg(target_os = "linux")]
mod compare;

use std::ffi::OsString;
use std::path::Path;

use anyhow::{Result, bail};

use crate::tool;

/// The name under which this program starts itself, for [`as_child`].
pub(crate) const CHILD: &str = "bench-child";

/// The packages that have benchmarks.
const PACKAGES: [&str; 4] = ["sha256-lanes", "manifest", "loader", "p2p-blob"];

/// `cargo xtask bench`, and `cargo xtask bench compare`.
pub(crate) fn run(root: &Path, args: &[OsString]) -> Result<()> {
    let Some((what, options)) = args.split_first() else {
        let packages = PACKAGES.iter().flat_map(|package| ["--package", package]);
        return tool::run(tool::cargo(root, &["bench"]).arg("--benches").args(packages));
    };
    match what.to_str() {
        Some("compare") => compare(root, options),
        _ => bail!("`bench` takes nothing or `compare`, not `{}`", what.display()),
    }
}

#[cfg(target_os = "linux")]
fn compare(root: &Path, options: &[OsString]) -> Result<()> {
    compare::run(root, options)
}

/// What this program does as a child of itself, while it compares.
#[cfg(target_os = "linux")]
pub(crate) fn as_child(args: &[OsString]) -> Result<()> {
    compare::as_child(args)
}

#[cfg(not(target_os = "linux"))]
fn compare(_: &Path, _: &[OsString]) -> Result<()> {
    bail!("`bench compare` reads what processes use from /proc, as Linux has it")
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn as_child(_: &[OsString]) -> Result<()> {
    bail!("`{CHILD}` is for `bench compare`, which needs Linux")
}
