//! Free space on a disk.

use std::fmt;
use std::path::Path;

/// What this user may still write to a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Free {
    /// Bytes.
    pub bytes: u64,
    /// New files and directories; `None` where they are not counted.
    pub files: Option<u64>,
}

impl fmt::Display for Free {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.files {
            Some(files) => write!(f, "{} bytes and {files} new files", self.bytes),
            None => write!(f, "{} bytes", self.bytes),
        }
    }
}

/// What is free where this path is, or will be; `None` when the system does not tell.
pub(super) fn free(path: &Path) -> Option<Free> {
    let found = path.ancestors().find_map(|path| rustix::fs::statvfs(path).ok())?;
    let files = (found.f_files > 0).then_some(found.f_favail);
    // Some file systems over a network count nothing.
    (found.f_blocks > 0).then(|| Free { bytes: found.f_bavail.saturating_mul(found.f_frsize), files })
}
