//! The journal of one partial model: which pieces were verified.
//!
//! Format, all integers big-endian. A header of 40 bytes: `"RPBJ"`, version `u32`, the manifest's digest. Then records
//! of 28 bytes: kind `u32`, 16 bytes that depend on the kind, and a checksum `u64` over both, seeded with the digest.
//!
//! Records are appended, never changed. What was written before a `kill -9` is in the page cache and is read back; a
//! torn record has a wrong checksum, and the journal is cut there when it is opened: what stands behind it must not come
//! to stand behind new records. A power cut can lose *data* whose record survived, a snapshot or a copy can hold one
//! without the other, and disks flip bits: so all of it is only a claim to the next process, which hashes again.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use manifest::Digest;

use super::{CacheError, atomic, space};

const MAGIC: [u8; 4] = *b"RPBJ";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 40;
const RECORD_BYTES: usize = 28;

/// Kind 1 named a boot of the machine in earlier versions, within which the journal was believed.
const BOOT: u32 = 1;
const PIECE: u32 = 2;
const FORGET: u32 = 3;
const VOID: u32 = 4;

/// One entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Record {
    /// This piece of this shard was verified after it was written.
    Piece(u32, u32),
    /// Earlier records of this shard are void.
    Forget(u32),
    /// Earlier records of this piece of this shard are void.
    Void(u32, u32),
}

impl Record {
    fn encode(self, seed: u64) -> [u8; RECORD_BYTES] {
        let (kind, a, b) = match self {
            Self::Piece(shard, piece) => (PIECE, shard, piece),
            Self::Forget(shard) => (FORGET, shard, 0),
            Self::Void(shard, piece) => (VOID, shard, piece),
        };
        let mut bytes = [0; RECORD_BYTES];
        bytes[..4].copy_from_slice(&kind.to_be_bytes());
        bytes[4..8].copy_from_slice(&a.to_be_bytes());
        bytes[8..12].copy_from_slice(&b.to_be_bytes());
        seal(bytes, seed)
    }
}

/// A decoded record.
enum Found {
    Record(Record),
    /// Nothing of interest.
    Nothing,
    /// A torn write.
    Torn,
}

impl Found {
    fn decode(bytes: &[u8; RECORD_BYTES], seed: u64) -> Self {
        if *bytes != seal(*bytes, seed) {
            return Self::Torn;
        }
        let word = |at: usize| bytes[at..].first_chunk().map_or(0, |word| u32::from_be_bytes(*word));
        match word(0) {
            BOOT => Self::Nothing,
            PIECE => Self::Record(Record::Piece(word(4), word(8))),
            FORGET => Self::Record(Record::Forget(word(4))),
            VOID => Self::Record(Record::Void(word(4), word(8))),
            _ => Self::Torn,
        }
    }
}

/// A journal, open for appending by the holder of the model's fill lock.
#[derive(Debug)]
pub(super) struct Journal {
    file: File,
    path: PathBuf,
    seed: u64,
    end_bytes: u64,
}

impl Journal {
    /// Opens or creates the journal of the model `digest` and reads it, calling `on_record` for each record in order. It is
    /// cut at the first bad one. Space for the records of so many pieces is reserved where the file system can, so that
    /// pieces on a disk that has become full can still be recorded.
    pub(super) fn open(
        path: &Path,
        digest: &Digest,
        reserved_pieces: u32,
        on_record: impl FnMut(Record),
    ) -> Result<Self, CacheError> {
        let fail = |source| CacheError::io("open", path, source);
        let file = files::open_or_create(atomic::place(path)).map_err(fail)?;
        let mut end_bytes = scan(&file, digest, on_record).map_err(fail)?;
        file.set_len(end_bytes).map_err(fail)?;
        space::reserve_beyond(&file, size_bytes(reserved_pieces))
            .map_err(|source| CacheError::io("reserve space for", path, source))?;
        if end_bytes == 0 {
            file.write_all_at(&header(digest), 0).map_err(|source| CacheError::io("write", path, source))?;
            end_bytes = HEADER_BYTES as u64;
        }
        Ok(Self { file, path: path.to_owned(), seed: seed(digest), end_bytes })
    }

    /// Releases reserved space that was not written.
    pub(super) fn give_back(&self) {
        if let Err(error) = self.file.set_len(self.end_bytes) {
            tracing::warn!(%error, path = %self.path.display(), "cannot give back reserved space");
        }
    }

    /// Appends records. A failure may leave half a record at the end; the next append overwrites it.
    pub(super) fn append(&mut self, records: impl IntoIterator<Item = Record>) -> Result<(), CacheError> {
        let bytes: Vec<u8> = records.into_iter().flat_map(|record| record.encode(self.seed)).collect();
        let written = self.file.write_all_at(&bytes, self.end_bytes);
        written.map_err(|source| CacheError::io("write", &self.path, source))?;
        self.end_bytes += bytes.len() as u64;
        Ok(())
    }
}

/// About how long the journal of a model with so many pieces gets.
pub(super) fn size_bytes(pieces: u32) -> u64 {
    HEADER_BYTES as u64 + u64::from(pieces) * RECORD_BYTES as u64
}

/// Reads the journal at `path` without changing it; fine when there is none.
pub(super) fn read(path: &Path, digest: &Digest, on_record: impl FnMut(Record)) -> Result<(), CacheError> {
    let fail = |source| CacheError::io("read", path, source);
    let Some(file) = atomic::open_if_there(path).map_err(fail)? else { return Ok(()) };
    scan(&file, digest, on_record).map(drop).map_err(fail)
}

/// How many bytes of `file` are a header and whole records; 0 when it is no journal of this model.
fn scan(file: &File, digest: &Digest, mut on_record: impl FnMut(Record)) -> io::Result<u64> {
    let mut reader = BufReader::new(file);
    let mut found = [0; HEADER_BYTES];
    if !fill(&mut reader, &mut found)? || found != header(digest) {
        return Ok(0);
    }
    let seed = seed(digest);
    let mut end_bytes = HEADER_BYTES as u64;
    let mut bytes = [0; RECORD_BYTES];
    while fill(&mut reader, &mut bytes)? {
        match Found::decode(&bytes, seed) {
            Found::Record(record) => on_record(record),
            Found::Nothing => {}
            Found::Torn => break,
        }
        end_bytes += RECORD_BYTES as u64;
    }
    Ok(end_bytes)
}

/// Whether there were enough bytes left to fill `buffer`.
fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match reader.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn header(digest: &Digest) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[..4].copy_from_slice(&MAGIC);
    bytes[4..8].copy_from_slice(&VERSION.to_be_bytes());
    bytes[8..].copy_from_slice(digest.as_bytes());
    bytes
}

fn seal(mut bytes: [u8; RECORD_BYTES], seed: u64) -> [u8; RECORD_BYTES] {
    let (content, checksum) = bytes.split_at_mut(20);
    checksum.copy_from_slice(&fnv1a(content, seed).to_be_bytes());
    bytes
}

fn seed(digest: &Digest) -> u64 {
    fnv1a(digest.as_bytes(), 0xcbf2_9ce4_8422_2325)
}

/// FNV-1a with 64 bits: detects torn records, not attacks.
fn fnv1a(bytes: &[u8], seed: u64) -> u64 {
    bytes.iter().fold(seed, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RECORDS: [Record; 4] =
        [Record::Void(3, 9), Record::Piece(0, 7), Record::Forget(u32::MAX), Record::Piece(u32::MAX, 0)];

    fn records(path: &Path, digest: &Digest) -> Vec<Record> {
        let mut all = Vec::new();
        read(path, digest, |record| all.push(record)).unwrap();
        all
    }

    fn written(dir: &Path, digest: &Digest) -> PathBuf {
        let path = dir.join("journal");
        let mut journal = Journal::open(&path, digest, 0, |_| panic!("it is new")).unwrap();
        journal.append(RECORDS).unwrap();
        path
    }

    #[test]
    fn records_survive_reopening_and_go_on() {
        let (dir, digest) = (tempfile::tempdir().unwrap(), Digest::of(b"m"));
        let path = written(dir.path(), &digest);
        assert_eq!(records(&path, &digest), RECORDS);
        let mut seen = 0;
        let mut journal = Journal::open(&path, &digest, 0, |_| seen += 1).unwrap();
        assert_eq!(seen, RECORDS.len());
        journal.append([Record::Piece(1, 1)]).unwrap();
        assert_eq!(records(&path, &digest).last(), Some(&Record::Piece(1, 1)));
    }

    #[test]
    fn a_journal_torn_anywhere_keeps_its_whole_records_and_goes_on() {
        let digest = Digest::of(b"m");
        let dir = tempfile::tempdir().unwrap();
        let path = written(dir.path(), &digest);
        let whole = std::fs::read(&path).unwrap();
        for length in 0..whole.len() {
            File::create(&path).unwrap().write_all_at(&whole[..length], 0).unwrap();
            let kept = length.saturating_sub(HEADER_BYTES) / RECORD_BYTES;
            let mut journal = Journal::open(&path, &digest, 0, |_| ()).unwrap();
            journal.append([Record::Piece(5, 5)]).unwrap();
            let mut expected = RECORDS[..kept].to_vec();
            expected.push(Record::Piece(5, 5));
            assert_eq!(records(&path, &digest), expected, "torn after {length} bytes");
        }
    }

    #[test]
    fn another_models_journal_is_not_believed() {
        let (dir, digest) = (tempfile::tempdir().unwrap(), Digest::of(b"m"));
        let path = written(dir.path(), &digest);
        assert_eq!(records(&path, &Digest::of(b"other")), []);
        drop(Journal::open(&path, &Digest::of(b"other"), 0, |_| panic!("not ours")).unwrap());
        assert_eq!(records(&path, &digest), []);
    }

    #[test]
    fn records_behind_a_bad_one_are_gone_for_good() {
        let (dir, digest) = (tempfile::tempdir().unwrap(), Digest::of(b"m"));
        let path = written(dir.path(), &digest);
        let file = File::options().write(true).open(&path).unwrap();
        // The second of four is lost to a power cut.
        file.write_all_at(&[0; RECORD_BYTES], (HEADER_BYTES + RECORD_BYTES) as u64).unwrap();
        let mut journal = Journal::open(&path, &digest, 0, |_| ()).unwrap();
        assert_eq!(file.metadata().unwrap().len(), (HEADER_BYTES + RECORD_BYTES) as u64);
        journal.append([Record::Piece(5, 5)]).unwrap();
        assert_eq!(records(&path, &digest), [RECORDS[0], Record::Piece(5, 5)]);
    }

    #[test]
    fn journals_of_earlier_versions_are_read_but_for_their_boots() {
        let (dir, digest) = (tempfile::tempdir().unwrap(), Digest::of(b"m"));
        let path = written(dir.path(), &digest);
        let mut boot = [7; RECORD_BYTES];
        boot[..4].copy_from_slice(&BOOT.to_be_bytes());
        let file = File::options().write(true).open(&path).unwrap();
        file.write_all_at(&seal(boot, seed(&digest)), HEADER_BYTES as u64).unwrap();
        assert_eq!(records(&path, &digest), RECORDS[1..]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_is_reserved_is_not_read_and_given_back() {
        use std::os::unix::fs::MetadataExt as _;

        let (dir, digest) = (tempfile::tempdir().unwrap(), Digest::of(b"m"));
        let path = written(dir.path(), &digest);
        let size = || std::fs::metadata(&path).map(|found| (found.len(), found.blocks() * 512)).unwrap();
        let (before, _) = size();
        let journal = Journal::open(&path, &digest, 10_000, |_| ()).unwrap();
        assert!(size().0 == before && size().1 >= 280_000, "{:?}", size());
        assert_eq!(records(&path, &digest), RECORDS);
        journal.give_back();
        assert!(size().0 == before && size().1 < 10_000, "{:?}", size());
    }

    #[test]
    fn zeros_are_no_record() {
        assert!(matches!(Found::decode(&[0; RECORD_BYTES], seed(&Digest::of(b"m"))), Found::Torn));
    }

    proptest! {
        #[test]
        fn any_flipped_bit_voids_a_record(shard: u32, piece: u32, bit in 0..RECORD_BYTES * 8) {
            let seed = seed(&Digest::of(b"m"));
            let record = Record::Piece(shard, piece);
            let mut bytes = record.encode(seed);
            prop_assert!(matches!(Found::decode(&bytes, seed), Found::Record(found) if found == record));
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(matches!(Found::decode(&bytes, seed), Found::Torn));
        }
    }
}
