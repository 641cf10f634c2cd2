//! Read-only memory maps: the only unsafe code of this crate.
#![expect(unsafe_code, reason = "a file can be mapped in no other way")]

use std::fs::File;
use std::io;
use std::ops::Range;

/// A whole file, mapped read-only.
///
/// **Contract.** The file behind a map must not be changed or truncated while it is mapped. The cache keeps it for its
/// own files: a finished file has mode 0444, is never written again, and goes away only by being unlinked, which
/// leaves its bytes where they are. When *somebody else* truncates such a file, or the disk under it fails, touching
/// the lost pages raises SIGBUS, which ends the process unless it handles the signal.
#[derive(Debug)]
pub struct Map(memmap2::Mmap);

impl Map {
    /// Maps all of `file`, which may be closed afterwards.
    pub(crate) fn of(file: &File) -> io::Result<Self> {
        // SAFETY: the bytes are only ever handed out as `&[u8]`. That nobody changes them is the contract above: the
        // cache maps files only once they are complete, and never writes to them again.
        unsafe { memmap2::Mmap::map(file) }.map(Self)
    }

    /// Some of the bytes, once all of them are in memory and touching them faults no more; `None` when the disk does
    /// not give them, there are none such, or the system cannot tell. Reading says why.
    #[cfg(target_os = "linux")]
    pub(crate) fn resident(&self, bytes: Range<usize>) -> Option<&[u8]> {
        let found = self.0.get(bytes.clone())?;
        self.0.advise_range(memmap2::Advice::PopulateRead, bytes.start, bytes.len()).ok()?;
        Some(found)
    }

    /// Only Linux can tell.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn resident(&self, _: Range<usize>) -> Option<&[u8]> {
        None
    }
}

impl AsRef<[u8]> for Map {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
