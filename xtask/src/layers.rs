//! Which crate may not know which others.

use std::path::Path;

use anyhow::{Result, bail};

use crate::{circles, tool};

/// A crate of ours, and packages that must not be among its dependencies, however far down: these, and those whose
/// names go on from one of these with a hyphen.
const FORBIDDEN: [(&str, &[&str]); 12] = [
    ("sha256-lanes", &["manifest", "tokio", "libp2p", "alloy"]),
    ("manifest", &["tokio", "libp2p", "alloy"]),
    ("chain-reader", &["libp2p", "planner", "store", "loader", "p2p-blob"]),
    ("p2p-blob", &["alloy", "planner", "store", "loader", "chain-reader"]),
    (
        "planner",
        &["tokio", "futures", "libp2p", "alloy", "files", "rustix", "tempfile", "tracing", "store", "loader"],
    ),
    ("store", &["tokio", "futures", "libp2p", "alloy", "planner", "loader", "p2p-blob", "chain-reader"]),
    ("loader", &["libp2p", "alloy", "p2p-blob", "chain-reader"]),
    ("node", &["clap", "indicatif", "panel", "prometheus-client"]),
    ("panel", &["clap", "indicatif", "sim", "demo"]),
    ("loader-cli", &["sim", "demo"]),
    ("libp2p-loader", &["clap", "indicatif", "sim", "demo"]),
    ("sim", &["tokio", "libp2p", "alloy", "p2p-blob", "chain-reader", "store", "loader", "node"]),
];

/// Of this one without its features: whoever loads by digest compiles nothing of Ethereum.
const WITHOUT_FEATURES: (&str, &[&str]) = ("node", &["alloy", "chain-reader", "clap", "indicatif"]);

/// Fails when a crate depends on one that it must not know, or files of one use each other in a circle.
pub(crate) fn check(root: &Path) -> Result<()> {
    let default: &[&str] = &[];
    let all = FORBIDDEN.into_iter().map(|forbidden| (forbidden, default));
    for ((package, forbidden), flags) in all.chain([(WITHOUT_FEATURES, &["--no-default-features"][..])]) {
        let mut tree = tool::cargo(root, &["tree"]);
        tree.args(["--package", package, "--edges", "normal,build", "--prefix", "none", "--format", "{p}"]);
        tree.args(flags);
        if let Some(found) = first_forbidden(&tool::output(&mut tree)?, forbidden) {
            bail!(
                "`{package}` depends on `{found}`, which it must not know; \
                 `cargo tree --package {package} --edges normal,build --invert {found}` shows through whom"
            );
        }
    }
    circles::check(root)
}

/// `tree` has one package a line: its name, a space, and its version.
fn first_forbidden<'a>(tree: &'a str, forbidden: &[&str]) -> Option<&'a str> {
    let names = tree.lines().skip(1).filter_map(|line| line.split(' ').next());
    names.into_iter().find(|name| {
        forbidden
            .iter()
            .any(|bad| name.strip_prefix(bad).is_some_and(|rest| rest.is_empty() || rest.starts_with('-')))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_found_by_their_name_or_their_family() {
        let tree = "loader v0.1.0 (/somewhere)\nbytes v1.12.2\nlibp2p-core v0.1.0 (*)\nalloyed v1.0.0\n";
        assert_eq!(first_forbidden(tree, &["libp2p"]), Some("libp2p-core"));
        assert_eq!(
            first_forbidden(tree, &["alloy", "loader"]),
            None,
            "neither another word nor the crate itself"
        );
        assert_eq!(first_forbidden(tree, &["bytes"]), Some("bytes"));
    }
}
