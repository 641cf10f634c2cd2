//! Stamps: the metadata of a finished model's files when they were hashed, and the verdict.
//!
//! A stamp is text: a first line, a line `bad` with what is wrong if something is, and one line per file: name, inode,
//! size in bytes, time of last modification, time of last change. Equal lines mean that nobody wrote to the files since;
//! anything else, a missing or torn stamp included, means that they are hashed again. A model is stamped as good once
//! all of it is on the disk: a power cut may lose what files hold that were not synced, but not their size or times.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::layout::{PARITY, PIECES, STAMP, WEIGHTS, index_named};
use super::{CacheError, atomic};

/// One line per parity shard at most.
const LIMIT_BYTES: u64 = 64 << 10;
const FIRST_LINE: &str = "loader stamp 2\n";
const BAD: &str = "bad ";
/// The longest description of damage.
const MAX_DAMAGE_CHARS: usize = 1000;

/// The verdict on files that did not change since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// They are right, and on the disk.
    Good,
    /// They are corrupt; and what is wrong.
    Bad(String),
    /// Nothing.
    Unknown,
}

/// The model's files as they are now.
pub(super) fn of(model_dir: &Path) -> Result<String, CacheError> {
    let mut text = String::new();
    line(&mut text, model_dir, WEIGHTS)?;
    line(&mut text, model_dir, PIECES)?;
    for index in parity_kept(model_dir)? {
        line(&mut text, model_dir, &format!("{PARITY}/{index}"))?;
    }
    Ok(text)
}

/// The verdict of the stamp, if the files have not changed since.
pub(super) fn verdict(model_dir: &Path) -> Result<Verdict, CacheError> {
    let Some(stamped) = atomic::read(&model_dir.join(STAMP), LIMIT_BYTES)? else {
        return Ok(Verdict::Unknown);
    };
    let Ok(stamped) = String::from_utf8(stamped) else { return Ok(Verdict::Unknown) };
    let Some(mut files) = stamped.strip_prefix(FIRST_LINE) else { return Ok(Verdict::Unknown) };
    let mut verdict = Verdict::Good;
    if let Some((damage, rest)) = files.strip_prefix(BAD).and_then(|rest| rest.split_once('\n')) {
        (verdict, files) = (Verdict::Bad(damage.to_owned()), rest);
    }
    let is_same = of(model_dir).is_ok_and(|current| current == files);
    Ok(if is_same { verdict } else { Verdict::Unknown })
}

/// Stamps the files as right, and synced, with the metadata `files`.
pub(super) fn write_good(model_dir: &Path, files: &str) -> Result<(), CacheError> {
    atomic::write(&model_dir.join(STAMP), format!("{FIRST_LINE}{files}").as_bytes(), 0o644)
}

/// Stamps the files as corrupt, with the metadata `files`.
pub(super) fn write_bad(model_dir: &Path, files: &str, damage: &str) -> Result<(), CacheError> {
    let damage: String = damage.chars().filter(|c| !c.is_control()).take(MAX_DAMAGE_CHARS).collect();
    let text = format!("{FIRST_LINE}{BAD}{damage}\n{files}");
    atomic::write(&model_dir.join(STAMP), text.as_bytes(), 0o644)
}

/// Removes the stamp: the files are not trusted.
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
    match fs::symlink_metadata(&path) {
        Ok(file) => {
            let (inode, size_bytes) = (file.ino(), file.size());
            let (modified, changed) = ((file.mtime(), file.mtime_nsec()), (file.ctime(), file.ctime_nsec()));
            // Writing to a string does not fail.
            let _ = writeln!(
                text,
                "{name} {inode} {size_bytes} {}.{:09} {}.{:09}",
                modified.0, modified.1, changed.0, changed.1
            );
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(CacheError::io("inspect", &path, error)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::*;

    fn model() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(PARITY)).unwrap();
        for name in [WEIGHTS, PIECES, "parity/10", "parity/9"] {
            atomic::write(&dir.path().join(name), b"bytes", 0o644).unwrap();
        }
        write_good(dir.path(), &of(dir.path()).unwrap()).unwrap();
        dir
    }

    #[test]
    fn an_untouched_model_matches_and_any_change_does_not() {
        let dir = model();
        assert_eq!(verdict(dir.path()).unwrap(), Verdict::Good);
        assert_eq!(parity_kept(dir.path()).unwrap(), [9, 10]);
        for name in [WEIGHTS, PIECES, "parity/9"] {
            let dir = model();
            atomic::write(&dir.path().join(name), b"bytes", 0o644).unwrap();
            assert_eq!(verdict(dir.path()).unwrap(), Verdict::Unknown, "{name} is another file now");
            let dir = model();
            fs::remove_file(dir.path().join(name)).unwrap();
            assert_eq!(verdict(dir.path()).unwrap(), Verdict::Unknown, "{name} is gone");
        }
    }

    /// As `rsync --times`, or an intruder, does.
    #[test]
    fn bytes_that_were_changed_are_noticed_though_their_time_was_put_back() {
        let dir = model();
        let path = dir.path().join(WEIGHTS);
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.write_all_at(b"B", 0).unwrap();
        file.set_modified(modified).unwrap();
        assert_eq!(verdict(dir.path()).unwrap(), Verdict::Unknown);
    }

    #[test]
    fn what_was_found_bad_is_remembered_until_a_file_changes() {
        let dir = model();
        write_bad(dir.path(), &of(dir.path()).unwrap(), "shard 1 is\nwrong").unwrap();
        assert_eq!(verdict(dir.path()).unwrap(), Verdict::Bad("shard 1 iswrong".to_owned()));
        atomic::write(&dir.path().join(WEIGHTS), b"bytes", 0o644).unwrap();
        assert_eq!(verdict(dir.path()).unwrap(), Verdict::Unknown);
    }

    #[test]
    fn a_missing_or_torn_stamp_and_one_of_an_earlier_version_match_nothing() {
        let dir = model();
        let whole = fs::read_to_string(dir.path().join(STAMP)).unwrap();
        for text in [&whole[..whole.len() - 3], &whole.replace("stamp 2", "stamp 1"), "", "\u{1}"] {
            atomic::write(&dir.path().join(STAMP), text.as_bytes(), 0o644).unwrap();
            assert_eq!(verdict(dir.path()).unwrap(), Verdict::Unknown, "{text}");
        }
        remove(dir.path()).unwrap();
        remove(dir.path()).unwrap();
        assert_eq!(verdict(dir.path()).unwrap(), Verdict::Unknown);
    }
}
