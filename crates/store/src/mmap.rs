//! Read-only memory maps: the only unsafe code of this crate.
#![expect(unsafe_code, reason = "a file can be mapped in no other way")]

use std::fs::File;
use std::io;
use std::ops::Range;

use memmap2::Advice;

/// How a runtime wants the pages of its weights. None of it changes what the bytes are, or hashes anything.
///
/// Pages that are asked for beforehand may be huge ones, where the file system has those: fewer faults, and fewer
/// misses of the TLB afterwards. Lazy ones are not, so that touching one byte does not read 2 MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pages {
    /// Each is read from the disk when it is first touched. For those who touch some of the weights only, or want
    /// their map at once.
    #[default]
    Lazy,
    /// Reading all of them begins now, in the background as far as the system's queues are long: touching one seldom
    /// waits for the disk, but still faults.
    Prefetched,
    /// All of them are read and mapped before going on: touching one waits for nothing, until memory gets scarce.
    /// Takes as long as the disk does, or about 0.1 s for each GiB that is in the page cache. Where the system cannot
    /// (before Linux 5.14, and on others) they are prefetched.
    Populated,
}

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

    /// Asks for all pages.
    pub(crate) fn advise(&self, pages: Pages) -> io::Result<()> {
        if pages == Pages::Lazy {
            return Ok(());
        }
        #[cfg(target_os = "linux")]
        {
            // Systems and file systems without huge pages refuse, which does not matter.
            let _ = self.0.advise(Advice::HugePage);
            if pages == Pages::Populated {
                match self.0.advise(Advice::PopulateRead) {
                    Err(error) if error.kind() == io::ErrorKind::InvalidInput => {}
                    done => return done,
                }
            }
        }
        self.0.advise(Advice::WillNeed)
    }

    /// Some of the bytes, once all of them are in memory and touching them faults no more; `None` when the disk does
    /// not give them, there are none such, or the system cannot tell. Reading says why.
    #[cfg(target_os = "linux")]
    pub(crate) fn resident(&self, bytes: Range<usize>) -> Option<&[u8]> {
        let found = self.0.get(bytes.clone())?;
        self.0.advise_range(Advice::PopulateRead, bytes.start, bytes.len()).ok()?;
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

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const BYTES: usize = 8 << 20;

    fn mapped() -> (tempfile::NamedTempFile, Map) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&vec![7; BYTES]).unwrap();
        let map = Map::of(file.as_file()).unwrap();
        (file, map)
    }

    /// How many bytes of the file this process has mapped pages for.
    #[cfg(target_os = "linux")]
    fn mapped_bytes(file: &tempfile::NamedTempFile) -> usize {
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let (_, of_file) = maps.split_once(file.path().to_str().unwrap()).unwrap();
        let rss = of_file.lines().find_map(|line| line.strip_prefix("Rss:")).unwrap();
        rss.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() << 10
    }

    #[test]
    fn the_bytes_are_the_same_whatever_is_asked_for() {
        for pages in [Pages::Lazy, Pages::Prefetched, Pages::Populated] {
            let (_file, map) = mapped();
            map.advise(pages).unwrap();
            assert!(map.as_ref() == vec![7; BYTES], "{pages:?}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn populated_pages_are_mapped_before_they_are_touched_and_lazy_ones_are_not() {
        let (file, map) = mapped();
        map.advise(Pages::Lazy).unwrap();
        assert_eq!(mapped_bytes(&file), 0);
        map.advise(Pages::Populated).unwrap();
        assert_eq!(mapped_bytes(&file), BYTES);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn only_what_is_asked_for_becomes_resident() {
        let (file, map) = mapped();
        assert_eq!(map.resident(4096..4096 + 5000), Some(&[7; 5000][..]));
        assert!((5000..BYTES / 2).contains(&mapped_bytes(&file)));
        assert_eq!(map.resident(BYTES - 1..BYTES + 1), None);
        file.as_file().set_len(4096).unwrap();
        assert_eq!(map.resident(BYTES - 4096..BYTES), None, "lost bytes are not touched");
    }
}
