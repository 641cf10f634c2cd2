//! The file that is fetched, and what is done with files outside of the measured time.

use std::fs::{self, File};
use std::io::{BufWriter, Read, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result, bail};

const BUFFER_BYTES: usize = 1 << 20;

/// Writes `size_bytes` of what no program can compress; the same bytes each time.
pub(crate) fn make_source(path: &Path, size_bytes: u64) -> Result<()> {
    let file = make_source_unsynced(path, size_bytes, 0x9e37_79b9_7f4a_7c15)?;
    file.sync_all().with_context(|| format!("cannot sync {}", path.display()))
}

/// The same, not on the disk yet, and others for another seed, which is not 0.
pub(crate) fn make_source_unsynced(path: &Path, size_bytes: u64, seed: u64) -> Result<File> {
    let mut file = create(path)?;
    let mut state = seed;
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut left = size_bytes;
    while left > 0 {
        for word in buffer.chunks_exact_mut(8) {
            // xorshift64, Marsaglia 2003, "Xorshift RNGs".
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        let count = usize::try_from(left).map_or(BUFFER_BYTES, |left| left.min(BUFFER_BYTES));
        file.write_all(&buffer[..count]).with_context(|| format!("cannot write {}", path.display()))?;
        left -= count as u64;
    }
    Ok(file)
}

/// Fails when the files differ.
pub(crate) fn require_same(wanted: &Path, got: &Path) -> Result<()> {
    let (mut a, mut b) = (open(wanted)?, open(got)?);
    let (mut from_a, mut from_b) = (Vec::new(), Vec::new());
    loop {
        next(&mut a, &mut from_a).with_context(|| format!("cannot read {}", wanted.display()))?;
        next(&mut b, &mut from_b).with_context(|| format!("cannot read {}", got.display()))?;
        if from_a != from_b {
            bail!("{} is not the file that was to be fetched", got.display());
        }
        if from_a.is_empty() {
            return Ok(());
        }
    }
}

fn next(file: &mut File, buffer: &mut Vec<u8>) -> Result<()> {
    buffer.clear();
    file.take(BUFFER_BYTES as u64).read_to_end(buffer)?;
    Ok(())
}

/// Returns when the file would survive a power cut: its bytes, and its name.
pub(crate) fn make_durable(path: &Path) -> Result<()> {
    let dir = path.parent().with_context(|| format!("{} has no directory", path.display()))?;
    for path in [path, dir] {
        open(path)?.sync_all().with_context(|| format!("cannot sync {}", path.display()))?;
    }
    Ok(())
}

/// Makes an empty directory, and waits until its file system has nothing left to write: one contender's pages are
/// not written in the time of the next.
pub(crate) fn fresh_dir(dir: &Path) -> Result<()> {
    remove_dir(dir)?;
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    rustix::fs::syncfs(open(dir)?)
        .with_context(|| format!("cannot sync the file system of {}", dir.display()))
}

pub(crate) fn remove_dir(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}

/// Copies a directory with all that is in it, but nothing named `except`.
pub(crate) fn copy_dir(from: &Path, to: &Path, except: &str) -> Result<()> {
    let context = || format!("cannot copy {} to {}", from.display(), to.display());
    fs::create_dir_all(to).with_context(context)?;
    for entry in fs::read_dir(from).with_context(context)? {
        let entry = entry.with_context(context)?;
        let target = to.join(entry.file_name());
        if entry.file_name() == except {
        } else if entry.file_type().with_context(context)?.is_dir() {
            copy_dir(&entry.path(), &target, except)?;
        } else {
            fs::copy(entry.path(), target).with_context(context)?;
        }
    }
    Ok(())
}

/// Writes a small file for people or programs to read.
pub(crate) fn save(path: &Path, text: &str) -> Result<()> {
    let mut file = BufWriter::new(create(path)?);
    let written = file.write_all(text.as_bytes()).and_then(|()| file.flush());
    written.with_context(|| format!("cannot write {}", path.display()))
}

fn create(path: &Path) -> Result<File> {
    File::create(path).with_context(|| format!("cannot create {}", path.display()))
}

fn open(path: &Path) -> Result<File> {
    File::open(path).with_context(|| format!("cannot open {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_has_its_size_and_differs_from_any_other_file() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let size = BUFFER_BYTES as u64 + 5;
        make_source(&at("a"), size).unwrap();
        make_source(&at("b"), size).unwrap();
        assert_eq!(fs::metadata(at("a")).unwrap().len(), size);
        require_same(&at("a"), &at("b")).unwrap();
        make_source(&at("b"), size - 1).unwrap();
        assert!(require_same(&at("a"), &at("b")).is_err(), "shorter");
        let mut bytes = fs::read(at("a")).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        save(&at("b"), "").unwrap();
        File::create(at("b")).unwrap().write_all(&bytes).unwrap();
        assert!(require_same(&at("a"), &at("b")).is_err(), "one bit");
    }

    #[test]
    fn a_directory_is_copied_but_for_one_name() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("from/deep")).unwrap();
        save(&at("from/deep/file"), "text").unwrap();
        save(&at("from/identity"), "key").unwrap();
        copy_dir(&at("from"), &at("to"), "identity").unwrap();
        assert_eq!(fs::read_to_string(at("to/deep/file")).unwrap(), "text");
        assert!(!at("to/identity").exists());
        fresh_dir(&at("to")).unwrap();
        assert_eq!(fs::read_dir(at("to")).unwrap().count(), 0);
    }
}
