//! What the tests and the demo need besides Rust: an EVM node from npm, packages for the Python peers from PyPI, a browser
//! from Debian.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::tool::{self, C_COMPILER, NODE, NPM, PYTHON};

/// Names of the variables in which the tests are told.
pub(crate) const ANVIL: &str = "LOADER_ANVIL";
pub(crate) const INTERPRETER: &str = "LOADER_PYTHON";
pub(crate) const CHROMIUM: &str = "LOADER_CHROMIUM";

/// Where Debian puts it.
const DEBIAN_CHROMIUM: &str = "/usr/bin/chromium";

/// What was set up.
pub(crate) struct Tools {
    pub(crate) anvil: PathBuf,
    pub(crate) python: PathBuf,
    pub(crate) chromium: PathBuf,
}

/// Everything the tests need.
pub(crate) fn everything(root: &Path) -> Result<Tools> {
    tool::require(&[C_COMPILER, NODE, NPM, PYTHON])?;
    Ok(Tools { anvil: anvil(root)?, python: python(root)?, chromium: chromium(root)? })
}

/// The EVM node: the caller's own, or the one of tests/evm.
pub(crate) fn anvil(root: &Path) -> Result<PathBuf> {
    if let Some(own) = named(ANVIL)? {
        return Ok(own);
    }
    let dir = root.join("tests/evm");
    let lock = dir.join("package-lock.json");
    let installed = dir.join("node_modules/.installed-lock.json");
    let anvil = dir.join("node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil");
    if !(same(&lock, &installed) && anvil.exists()) {
        tool::require(&[NODE, NPM])?;
        let mut npm = Command::new("npm");
        npm.args(["ci", "--no-audit", "--no-fund", "--loglevel=error"]).current_dir(&dir);
        tool::run(&mut npm).with_context(|| {
            format!("cannot install the EVM node; elsewhere than on x86-64 Linux set {ANVIL} to your own")
        })?;
        copy(&lock, &installed)?;
    }
    if !anvil.exists() {
        bail!("npm has installed no EVM node at {}; set {ANVIL} to your own", anvil.display());
    }
    Ok(anvil)
}

/// A browser for the page of a node, the caller's own or Debian's, and what drives it.
fn chromium(root: &Path) -> Result<PathBuf> {
    let dir = root.join("tests/browser");
    let lock = dir.join("package-lock.json");
    let installed = dir.join("node_modules/.installed-lock.json");
    if !same(&lock, &installed) {
        let mut npm = Command::new("npm");
        npm.args(["ci", "--no-audit", "--no-fund", "--loglevel=error"]).current_dir(&dir);
        tool::run(&mut npm).context("cannot install what drives the browser")?;
        copy(&lock, &installed)?;
    }
    if let Some(own) = named(CHROMIUM)? {
        return Ok(own);
    }
    let chromium = PathBuf::from(DEBIAN_CHROMIUM);
    if !chromium.exists() {
        let how = || {
            format!(
                "cannot install Chromium: do it with `apt-get install chromium`, or set {CHROMIUM} to your own"
            )
        };
        tool::run(Command::new("apt-get").args(["update", "-qq"])).with_context(how)?;
        let mut install = Command::new("apt-get");
        install.args(["install", "-y", "-qq", "--no-install-recommends", "chromium"]);
        tool::run(install.env("DEBIAN_FRONTEND", "noninteractive")).with_context(how)?;
    }
    Ok(chromium)
}

/// The interpreter of the Python peers: the caller's own, or that of a virtual environment in tests/python.
pub(crate) fn python(root: &Path) -> Result<PathBuf> {
    if let Some(own) = named(INTERPRETER)? {
        return Ok(own);
    }
    let dir = root.join("tests/python");
    let requirements = dir.join("requirements.txt");
    if !requirements.exists() {
        return Ok(PathBuf::from(PYTHON.name));
    }
    virtual_environment(&dir.join(".venv"), &requirements)
}

/// Beside a requirements file: packages of which only the files are wanted, as what they depend on takes gigabytes.
const WITHOUT_DEPENDENCIES: &str = "requirements-no-deps.txt";

/// The interpreter of a virtual environment with what the requirements file lists.
pub(crate) fn virtual_environment(environment: &Path, requirements: &Path) -> Result<PathBuf> {
    let installed = environment.join("installed-requirements.txt");
    let alone = requirements.with_file_name(WITHOUT_DEPENDENCIES);
    let alone_installed = environment.join("installed-requirements-no-deps.txt");
    let python = environment.join("bin/python");
    let is_current = same(requirements, &installed) && (!alone.exists() || same(&alone, &alone_installed));
    if !(is_current && python.exists()) {
        tool::require(&[PYTHON])?;
        let mut create = Command::new(PYTHON.name);
        tool::run(create.args(["-m", "venv", "--clear"]).arg(environment)).context(
            "cannot make a virtual environment; Debian and Ubuntu need `apt install python3-venv`",
        )?;
        let mut pip = Command::new(&python);
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"]);
        tool::run(pip.arg(requirements))
            .with_context(|| format!("cannot install the packages of {}", requirements.display()))?;
        if alone.exists() {
            let mut pip = Command::new(&python);
            pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]);
            tool::run(pip.arg("--requirement").arg(&alone))
                .with_context(|| format!("cannot install the packages of {}", alone.display()))?;
            copy(&alone, &alone_installed)?;
        }
        copy(requirements, &installed)?;
    }
    Ok(python)
}

/// The program that a variable names, if it is set.
fn named(variable: &str) -> Result<Option<PathBuf>> {
    let Some(path) = env::var_os(variable).filter(|path| !path.is_empty()).map(PathBuf::from) else {
        return Ok(None);
    };
    if !path.is_file() {
        bail!("{variable} names {}, which is not a file", path.display());
    }
    // Tests run in directories of their own.
    path.canonicalize().map(Some).with_context(|| format!("cannot find {}", path.display()))
}

/// What is installed is known by a copy of the file that says what to install, made when all of it succeeded.
fn same(wanted: &Path, installed: &Path) -> bool {
    let read = |path: &Path| fs::read(path).ok();
    read(wanted).is_some_and(|wanted| read(installed) == Some(wanted))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_installation_is_current_only_while_its_file_is_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        copy(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")), &at("wanted")).unwrap();
        assert!(!same(&at("wanted"), &at("installed")), "nothing installed");
        copy(&at("wanted"), &at("installed")).unwrap();
        assert!(same(&at("wanted"), &at("installed")));
        fs::remove_file(at("wanted")).unwrap();
        assert!(!same(&at("wanted"), &at("installed")), "nothing wanted is no reason to be content");
    }
}
