//! Files of models for the tests.

use manifest::{Digest, FileEntry};

/// Files with these paths and bytes.
pub(crate) fn files(files: &[(&str, &[u8])]) -> Vec<FileEntry> {
    let entry = |(path, bytes): &(&str, &[u8])| FileEntry {
        path: path.parse().unwrap(),
        size_bytes: bytes.len() as u64,
        sha256: Digest::of(bytes),
    };
    files.iter().map(entry).collect()
}
