//! Checks of deploy/kubernetes, in Python, where the schemas come in a package.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::{setup, tool};

/// Validates the files against the schemas of Kubernetes, and checks what every pod has to be.
pub(crate) fn check(root: &Path) -> Result<()> {
    let dir = root.join("tests/python/kubernetes");
    let python =
        setup::virtual_environment(&root.join("target/kubernetes/venv"), &dir.join("requirements.txt"))?;
    tool::run(Command::new(python).arg(dir.join("check.py")).arg(root.join("deploy/kubernetes")))
}
