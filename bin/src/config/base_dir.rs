//! Where files of a user are.

use std::env;
use std::path::PathBuf;

/// The user's directory for this purpose. A relative path in the variable does not count.
///
/// Source: XDG Base Directory Specification, version 0.8.
pub(super) fn base_dir(variable: &str, in_home: &str) -> Option<PathBuf> {
    let named = env::var_os(variable).map(PathBuf::from).filter(|dir| dir.is_absolute());
    named.or_else(|| env::home_dir().filter(|home| home.is_absolute()).map(|home| home.join(in_home)))
}
