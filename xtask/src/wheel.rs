//! The Python wheel: built with maturin, and installed into an environment of its own for the tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::setup;
use crate::tool::{self, PYTHON};

/// What a release's wheel may have. A larger one is a reason to look what came in.
const MAX_BYTES: u64 = 24 << 20;

/// `cargo xtask wheel`: of a release, into target/wheels.
pub(crate) fn release(root: &Path) -> Result<()> {
    let wheel = build(root, "release", &root.join("target/wheels"))?;
    let bytes = fs::metadata(&wheel).with_context(|| format!("cannot find {}", wheel.display()))?.len();
    println!("{}: {:.1} MiB", wheel.display(), bytes as f64 / f64::from(1 << 20));
    if bytes > MAX_BYTES {
        bail!(
            "a wheel has {} MiB at most; see what came in, or say more in xtask/src/wheel.rs",
            MAX_BYTES >> 20
        );
    }
    Ok(())
}

/// The interpreter of a fresh environment with the wheel as it is now, and what its tests use.
pub(crate) fn for_tests(root: &Path) -> Result<PathBuf> {
    let dir = root.join("target/wheel");
    let wheel = build(root, "dev", &dir.join("built"))?;
    let requirements = root.join("tests/python/wheel/requirements.txt");
    let python = setup::virtual_environment(&dir.join("venv"), &requirements)?;
    let mut pip = Command::new(&python);
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--force-reinstall",
    ]);
    tool::run(pip.arg(wheel)).context("cannot install the wheel")?;
    Ok(python)
}

/// Builds it; gives its file, the only one in `out`.
fn build(root: &Path, profile: &str, out: &Path) -> Result<PathBuf> {
    tool::require(&[PYTHON])?;
    let requirements = root.join("python/build-requirements.txt");
    let python = setup::virtual_environment(&root.join("target/wheel/maturin"), &requirements)?;
    if out.exists() {
        fs::remove_dir_all(out).with_context(|| format!("cannot remove {}", out.display()))?;
    }
    let mut maturin = Command::new(python);
    maturin.args(["-m", "maturin", "build", "--quiet", "--locked", "--strip", "--profile", profile]);
    maturin.arg("--manifest-path").arg(root.join("python/Cargo.toml")).arg("--out").arg(out);
    tool::run(maturin.current_dir(root)).context("cannot build the wheel")?;
    let mut wheels = fs::read_dir(out).with_context(|| format!("cannot list {}", out.display()))?;
    let wheel = wheels.next().context("maturin has built nothing")?;
    Ok(wheel.with_context(|| format!("cannot list {}", out.display()))?.path())
}
