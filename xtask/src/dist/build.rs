//! The binary of a release: static, and without a path of the machine that built it.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::tool;

/// What releases are built for.
pub(crate) const TRIPLE: &str = "x86_64-unknown-linux-gnu";

/// Builds it in a target directory of its own.
pub(super) fn binary(root: &Path, target_dir: &Path) -> Result<PathBuf> {
    let paths = named_paths(root, target_dir)?;
    let text = |path: &Path| -> Result<String> {
        Ok(path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?.to_owned())
    };
    // The last one that fits counts, for both compilers.
    let (mut rust, mut c) = (vec!["-Ctarget-feature=+crt-static".to_owned()], Vec::new());
    for (path, name) in &paths {
        rust.push(format!("--remap-path-prefix={}={name}", text(path)?));
        c.push(format!("-ffile-prefix-map={}={name}", text(path)?));
    }
    let c = c[1..].join(" ");
    let mut build = tool::cargo(root, &["build", "--release", "--package", "loader-cli"]);
    // With --target, the flags are not for what runs while building, which cannot be static.
    build.args(["--target", TRIPLE, "--target-dir"]).arg(target_dir);
    build.env("CARGO_ENCODED_RUSTFLAGS", rust.join("\x1f"));
    build.env("CFLAGS", &c).env("CXXFLAGS", &c).env("SOURCE_DATE_EPOCH", "0");
    tool::run(&mut build)?;
    let binary = target_dir.join(TRIPLE).join("release/loader");
    check(&binary, paths.iter().map(|(path, _)| path.as_path()))?;
    Ok(binary)
}

/// Directories whose names get into what is compiled, and what stands for them.
fn named_paths(root: &Path, target_dir: &Path) -> Result<[(PathBuf, &'static str); 4]> {
    let sysroot = tool::output(Command::new("rustc").current_dir(root).args(["--print", "sysroot"]))?;
    let std_source = Path::new(sysroot.trim()).join("lib/rustlib/src/rust");
    let cargo_home = match env::var_os("CARGO_HOME") {
        Some(home) => PathBuf::from(home),
        None => {
            PathBuf::from(env::var_os("HOME").context("neither CARGO_HOME nor HOME is set")?).join(".cargo")
        }
    };
    Ok([
        (std_source, "/rust"),
        (cargo_home, "/cargo"),
        (root.to_owned(), "/loader"),
        (target_dir.to_owned(), "/target"),
    ])
}

/// Fails when one of the paths is in the binary, or it needs others to run.
fn check<'a>(binary: &Path, paths: impl Iterator<Item = &'a Path>) -> Result<()> {
    let bytes = fs::read(binary).with_context(|| format!("cannot read {}", binary.display()))?;
    for path in paths {
        let wanted = path.as_os_str().as_encoded_bytes();
        if let Some(at) = bytes.windows(wanted.len()).position(|window| window == wanted) {
            let around = bytes.get(at..(at + 200).min(bytes.len())).unwrap_or_default();
            bail!("the binary names a path of this machine: {}", String::from_utf8_lossy(around));
        }
    }
    // The program that loads shared libraries is named in each binary that needs some.
    if bytes.windows(9).any(|window| window == b"/ld-linux") {
        bail!("{} is not static", binary.display());
    }
    Ok(())
}
