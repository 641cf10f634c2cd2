//! What the files of a finished model looked like when they were verified.
//!
//! A stamp is text, one line per file: name, inode, size in bytes, and time of last change. Equal text means that
//! nobody wrote to the files since; anything else, a missing or torn stamp included, means that they are verified
//! again. Files that were not synced are stamped with a line `boot` and its id: a power cut may lose what they hold,
//! but not their size or time.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::boot::BootId;
use super::layout::{PARITY, PIECES, STAMP, WEIGHTS, index_named};
use super::{CacheError, atomic};

/// One line per parity shard at most.
const LIMIT_BYTES: u64 = 64 << 10;

/// How long files that do not change are believed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Holds {
    /// They are on the disk.
    Always,
    /// They are in the page cache of this boot; how much of them is on the disk is not known.
    InBoot(BootId),
}

/// The stamp that fits the model's files as they are now.
pub(super) fn of(model_dir: &Path, holds: Holds) -> Result<String, CacheError> {
    let mut text = "loader stamp 1\n".to_owned();
    if let Holds::InBoot(boot) = holds {
        // Writing to a string does not fail.
        let _ = writeln!(text, "boot {boot}");
    }
    line(&mut text, model_dir, WEIGHTS)?;
    line(&mut text, model_dir, PIECES)?;
    for index in parity_kept(model_dir)? {
        line(&mut text, model_dir, &format!("{PARITY}/{index}"))?;
    }
    Ok(text)
}

/// Whether the files still are what was stamped, in this boot.
pub(super) fn matches(model_dir: &Path, boot: BootId) -> Result<bool, CacheError> {
    let Some(stamped) = atomic::read(&model_dir.join(STAMP), LIMIT_BYTES)? else { return Ok(false) };
    let fits = |holds| of(model_dir, holds).is_ok_and(|current| current.as_bytes() == stamped);
    Ok(fits(Holds::Always) || fits(Holds::InBoot(boot)))
}

/// Says that the files were verified when they looked like `stamp`.
pub(super) fn write(model_dir: &Path, stamp: &str, durable: bool) -> Result<(), CacheError> {
    atomic::write_with(&model_dir.join(STAMP), stamp.as_bytes(), 0o644, durable)
}

/// Says that the files are not to be trusted.
pub(super) fn remove(model_dir: &Path) -> Result<(), CacheError> {
    let path = model_dir.join(STAMP);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(CacheError::io("remove", &path, error)),
        _ => Ok(()),
    }
}

/// Indices of the parity shards whose files are there, in order.
pub(super) fn parity_kept(model_dir: &Path) -> Result<Vec<u32>, CacheError> {
    let dir = model_dir.join(PARITY);
    let fail = |source| CacheError::io("list", &dir, source);
    let mut kept = Vec::new();
    match fs::read_dir(&dir) {
        Ok(entries) => {
            for entry in entries {
                kept.extend(index_named(&entry.map_err(fail)?.file_name()));
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(fail(error)),
    }
    kept.sort_unstable();
    Ok(kept)
}

fn line(text: &mut String, model_dir: &Path, name: &str) -> Result<(), CacheError> {
    let path = model_dir.join(name);
    match fs::metadata(&path) {
        Ok(file) => {
            let (inode, size_bytes) = (file.ino(), file.size());
            let (seconds, nanoseconds) = (file.mtime(), file.mtime_nsec());
            let _ = writeln!(text, "{name} {inode} {size_bytes} {seconds}.{nanoseconds:09}");
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(CacheError::io("inspect", &path, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(PARITY)).unwrap();
        for name in [WEIGHTS, PIECES, "parity/10", "parity/9"] {
            atomic::write(&dir.path().join(name), b"bytes", 0o644).unwrap();
        }
        write(dir.path(), &of(dir.path(), Holds::Always).unwrap(), true).unwrap();
        dir
    }

    #[test]
    fn an_untouched_model_matches_and_any_change_does_not() {
        let dir = model();
        assert!(matches(dir.path(), BootId::current()).unwrap());
        assert_eq!(parity_kept(dir.path()).unwrap(), [9, 10]);
        for name in [WEIGHTS, PIECES, "parity/9"] {
            let dir = model();
            atomic::write(&dir.path().join(name), b"bytes", 0o644).unwrap();
            assert!(!matches(dir.path(), BootId::current()).unwrap(), "{name} is another file now");
            let dir = model();
            fs::remove_file(dir.path().join(name)).unwrap();
            assert!(!matches(dir.path(), BootId::current()).unwrap(), "{name} is gone");
        }
    }

    #[test]
    fn a_stamp_of_one_boot_matches_in_no_other() {
        let dir = model();
        assert!(matches(dir.path(), BootId::other()).unwrap(), "this one holds in all");
        let stamp = of(dir.path(), Holds::InBoot(BootId::current())).unwrap();
        write(dir.path(), &stamp, false).unwrap();
        assert!(!matches(dir.path(), BootId::other()).unwrap());
        #[cfg(target_os = "linux")]
        assert!(matches(dir.path(), BootId::current()).unwrap());
    }

    #[test]
    fn a_missing_or_torn_stamp_matches_nothing() {
        let dir = model();
        let whole = fs::read(dir.path().join(STAMP)).unwrap();
        atomic::write(&dir.path().join(STAMP), &whole[..whole.len() - 3], 0o644).unwrap();
        assert!(!matches(dir.path(), BootId::current()).unwrap());
        remove(dir.path()).unwrap();
        remove(dir.path()).unwrap();
        assert!(!matches(dir.path(), BootId::current()).unwrap());
    }
}
