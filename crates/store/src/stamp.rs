//! Stamps: the metadata of a finished model's files when they were hashed, and the verdict.
//!
//! A stamp is text: a first line, a line `bad` with what is wrong if something is, and one line per file: name, inode,
//! size in bytes, time of last modification, time of last change. It is compared and never parsed. Equal lines mean that nobody wrote to the files since;
//! anything else, a missing or torn stamp included, means that they are hashed again. A model is stamped as good once
//! all of it is on the disk: a power cut may lose what files hold that were not synced, but not their size or times.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::layout::{PARITY, PIECES, STAMP, index_named};
use super::{CacheError, WeightsFiles, atomic};

/// One line per parity shard at most, and the first two.
const LIMIT_BYTES: u64 = 64 << 10;
/// A line without its name.
const LINE_BYTES: u64 = 128;
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
pub(super) fn of(model_dir: &Path, weights: &WeightsFiles) -> Result<String, CacheError> {
    let mut text = String::new();
    // Names are looked up below the open directory: no file is opened.
    let opened = fs::File::open(model_dir);
    let dir = match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(text),
        opened => opened.map_err(|source| CacheError::io("open", model_dir, source))?,
    };
    let mut add = |name: &Path| {
        line(&mut text, &dir, name).map_err(|source| CacheError::io("inspect", &model_dir.join(name), source))
    };
    weights.iter().try_for_each(|file| add(&file.path))?;
    add(Path::new(PIECES))?;
    for index in parity_kept(model_dir)? {
        add(&Path::new(PARITY).join(index.to_string()))?;
    }
    Ok(text)
}

/// No stamp of these files is longer.
fn limit_bytes(weights: &WeightsFiles) -> u64 {
    let names = weights.iter().map(|file| file.path.as_os_str().len() as u64 + LINE_BYTES);
    names.fold(LIMIT_BYTES, u64::saturating_add)
}

/// The verdict of the stamp, if the files have not changed since.
pub(super) fn verdict(model_dir: &Path, weights: &WeightsFiles) -> Result<Verdict, CacheError> {
    let Some(stamped) = atomic::read(&model_dir.join(STAMP), limit_bytes(weights))? else {
        return Ok(Verdict::Unknown);
    };
    let Ok(stamped) = String::from_utf8(stamped) else { return Ok(Verdict::Unknown) };
    let Some(mut files) = stamped.strip_prefix(FIRST_LINE) else { return Ok(Verdict::Unknown) };
    let mut verdict = Verdict::Good;
    if let Some((damage, rest)) = files.strip_prefix(BAD).and_then(|rest| rest.split_once('\n')) {
        (verdict, files) = (Verdict::Bad(damage.to_owned()), rest);
    }
    let is_same = of(model_dir, weights).is_ok_and(|current| current == files);
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

/// Adds the line of a file, if it is there.
fn line(text: &mut String, dir: &fs::File, name: &Path) -> io::Result<()> {
    let file = match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(()),
        file => file?,
    };
    let _ = writeln!(
        text,
        "{} {} {} {}.{:09} {}.{:09}",
        name.display(),
        file.st_ino,
        file.st_size,
        file.st_mtime,
        file.st_mtime_nsec,
        file.st_ctime,
        file.st_ctime_nsec
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::*;
    use crate::layout::WEIGHTS;

    fn list() -> WeightsFiles {
        WeightsFiles::unnamed(5)
    }

    fn model() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(PARITY)).unwrap();
        for name in [WEIGHTS, PIECES, "parity/10", "parity/9"] {
            atomic::write(&dir.path().join(name), b"bytes", 0o644).unwrap();
        }
        write_good(dir.path(), &of(dir.path(), &list()).unwrap()).unwrap();
        dir
    }

    #[test]
    fn an_untouched_model_matches_and_any_change_does_not() {
        let dir = model();
        assert_eq!(verdict(dir.path(), &list()).unwrap(), Verdict::Good);
        assert_eq!(parity_kept(dir.path()).unwrap(), [9, 10]);
        for name in [WEIGHTS, PIECES, "parity/9"] {
            let dir = model();
            atomic::write(&dir.path().join(name), b"bytes", 0o644).unwrap();
            assert_eq!(verdict(dir.path(), &list()).unwrap(), Verdict::Unknown, "{name} is another file now");
            let dir = model();
            fs::remove_file(dir.path().join(name)).unwrap();
            assert_eq!(verdict(dir.path(), &list()).unwrap(), Verdict::Unknown, "{name} is gone");
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
        assert_eq!(verdict(dir.path(), &list()).unwrap(), Verdict::Unknown);
    }

    #[test]
    fn what_was_found_bad_is_remembered_until_a_file_changes() {
        let dir = model();
        write_bad(dir.path(), &of(dir.path(), &list()).unwrap(), "shard 1 is\nwrong").unwrap();
        assert_eq!(verdict(dir.path(), &list()).unwrap(), Verdict::Bad("shard 1 iswrong".to_owned()));
        atomic::write(&dir.path().join(WEIGHTS), b"bytes", 0o644).unwrap();
        assert_eq!(verdict(dir.path(), &list()).unwrap(), Verdict::Unknown);
    }

    #[test]
    fn a_missing_or_torn_stamp_and_one_of_an_earlier_version_match_nothing() {
        let dir = model();
        let whole = fs::read_to_string(dir.path().join(STAMP)).unwrap();
        for text in [&whole[..whole.len() - 3], &whole.replace("stamp 2", "stamp 1"), "", "\u{1}"] {
            atomic::write(&dir.path().join(STAMP), text.as_bytes(), 0o644).unwrap();
            assert_eq!(verdict(dir.path(), &list()).unwrap(), Verdict::Unknown, "{text}");
        }
        remove(dir.path()).unwrap();
        remove(dir.path()).unwrap();
        assert_eq!(verdict(dir.path(), &list()).unwrap(), Verdict::Unknown);
    }
}
