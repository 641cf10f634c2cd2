//! Measurements: of single crates with `cargo bench`, and of the whole way beside what a user would pick instead.

#[cfg(target_os = "linux")]
mod blobs;
#[cfg(target_os = "linux")]
mod compare;
#[cfg(target_os = "linux")]
mod cores;
#[cfg(target_os = "linux")]
mod crowd;
#[cfg(target_os = "linux")]
mod far;
#[cfg(target_os = "linux")]
mod files;
#[cfg(target_os = "linux")]
mod folder;
#[cfg(target_os = "linux")]
mod helper;
#[cfg(target_os = "linux")]
mod options;
#[cfg(target_os = "linux")]
mod proc;
#[cfg(target_os = "linux")]
mod process;
#[cfg(target_os = "linux")]
mod swarm;

use std::ffi::OsString;
use std::path::Path;

use anyhow::{Result, bail};

use crate::tool;

/// The name under which this program starts itself, for [`as_child`].
pub(crate) const CHILD: &str = "bench-child";

/// The packages that have benchmarks.
const PACKAGES: [&str; 5] = ["sha256-lanes", "manifest", "planner", "loader", "p2p-blob"];

/// `cargo xtask bench`, alone and with `compare`, `cores`, `crowd`, `far`, `swarm`, `sharing` or `folder`.
pub(crate) fn run(root: &Path, args: &[OsString]) -> Result<()> {
    let Some((what, options)) = args.split_first() else {
        let packages = PACKAGES.iter().flat_map(|package| ["--package", package]);
        return tool::run(tool::cargo(root, &["bench"]).arg("--benches").args(packages));
    };
    match what.to_str() {
        Some("compare") => compare(root, options),
        Some("cores") => cores(root, options),
        Some("crowd") => crowd(root, options),
        Some("far") => far(root, options),
        Some("swarm") => swarm(root, options),
        Some("sharing") => sharing(root, options),
        Some("folder") => folder(root, options),
        _ => bail!(
            "`bench` takes nothing, `compare`, `cores`, `crowd`, `far`, `swarm`, `sharing` or `folder`, not `{}`",
            what.display()
        ),
    }
}

#[cfg(target_os = "linux")]
fn compare(root: &Path, options: &[OsString]) -> Result<()> {
    compare::run(root, options)
}

#[cfg(target_os = "linux")]
fn cores(root: &Path, options: &[OsString]) -> Result<()> {
    cores::run(root, options)
}

#[cfg(target_os = "linux")]
fn crowd(root: &Path, options: &[OsString]) -> Result<()> {
    crowd::run(root, options)
}

#[cfg(target_os = "linux")]
fn far(root: &Path, options: &[OsString]) -> Result<()> {
    far::run(root, options)
}

#[cfg(target_os = "linux")]
fn swarm(root: &Path, options: &[OsString]) -> Result<()> {
    swarm::run(root, options)
}

#[cfg(target_os = "linux")]
fn folder(root: &Path, options: &[OsString]) -> Result<()> {
    folder::run(root, options)
}

#[cfg(target_os = "linux")]
fn sharing(root: &Path, options: &[OsString]) -> Result<()> {
    swarm::sharing(root, options)
}

#[cfg(not(target_os = "linux"))]
fn cores(_: &Path, _: &[OsString]) -> Result<()> {
    bail!("`bench cores` pins processes to cores, as Linux does")
}

#[cfg(not(target_os = "linux"))]
fn crowd(_: &Path, _: &[OsString]) -> Result<()> {
    bail!("`bench crowd` reads what processes use from /proc, as Linux has it")
}

#[cfg(not(target_os = "linux"))]
fn far(_: &Path, _: &[OsString]) -> Result<()> {
    bail!("`bench far` reads what processes use from /proc, as Linux has it")
}

#[cfg(not(target_os = "linux"))]
fn swarm(_: &Path, _: &[OsString]) -> Result<()> {
    bail!("`bench swarm` makes network namespaces, as Linux has them")
}

#[cfg(not(target_os = "linux"))]
fn sharing(_: &Path, _: &[OsString]) -> Result<()> {
    bail!("`bench sharing` makes network namespaces, as Linux has them")
}

#[cfg(not(target_os = "linux"))]
fn folder(_: &Path, _: &[OsString]) -> Result<()> {
    bail!("`bench folder` reads what processes use from /proc, as Linux has it")
}

/// What this program does as a child of itself, while it measures.
#[cfg(target_os = "linux")]
pub(crate) fn as_child(args: &[OsString]) -> Result<()> {
    helper::run(args)
}

#[cfg(not(target_os = "linux"))]
fn compare(_: &Path, _: &[OsString]) -> Result<()> {
    bail!("`bench compare` reads what processes use from /proc, as Linux has it")
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn as_child(_: &[OsString]) -> Result<()> {
    bail!(
        "`{CHILD}` is for `bench compare`, `cores`, `far`, `swarm`, `sharing` and `folder`, which need Linux"
    )
}
