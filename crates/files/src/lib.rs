//! Opens and creates files in directories that others may write to as well.
//!
//! - Nothing is opened through a link that somebody else may have put there, and nothing but regular files: a FIFO, which
//!   would be waited for without end, or a link to a private file is refused in words.
//! - What is written to has one name, and belongs to whoever writes or owns the directory.
//! - What root creates in a directory of somebody else's belongs to that one.
//! - What is created is for its owner to write, whatever the umask says; directories also for a group that may write
//!   above them.
//!
//! Everything here blocks.
#![forbid(unsafe_code)]

mod clone;
mod open_files;
mod place;
mod refused;
mod replace;

use std::fs::{File, TryLockError};
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};

pub use clone::try_clone;
pub use open_files::OpenFiles;
pub use place::{Dir, Place};
pub use refused::Refused;
pub use replace::{TEMPORARY_PREFIX, create_whole, replace};

use place::{Parent, adopt, identify};

/// Nothing of ours waits in `open`, and no link is followed.
const GUARDED: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);
/// The most that is written with one call. Linux takes as much memory in one block as is written at once, and on a virtual
/// machine free blocks of a MiB and more are the ones that the host has taken back: writing into them costs 3 to 10 times
/// as much (measured on ext4, 2 GiB in random order by the MiB: 1.3-4.7 s, and 0.35 s in parts).
const MAX_WRITE_BYTES: usize = 256 << 10;
/// How often it is looked whether a lock can be had.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Opens a file for reading.
///
/// # Errors
/// What the system says; [`Refused`] inside when there is something else than a regular file.
pub fn open(place: Place<'_>) -> io::Result<File> {
    let parent = place.parent(false)?;
    Ok(regular(&parent, OFlags::RDONLY)?.0)
}

/// Opens a file that is there for reading and writing.
///
/// # Errors
/// Those of [`open`]; [`Refused`] inside also for a file that has other names or belongs to somebody else.
pub fn open_to_change(place: Place<'_>) -> io::Result<File> {
    change(place, OFlags::RDWR)
}

/// The same; an empty file for its owner to write, and all to read, is created when there is none.
///
/// # Errors
/// Those of [`open_to_change`].
pub fn open_or_create(place: Place<'_>) -> io::Result<File> {
    change(place, OFlags::RDWR.union(OFlags::CREATE))
}

/// Creates a file for reading and writing.
///
/// # Errors
/// When there is something already; what the system says.
pub fn create_new(place: Place<'_>) -> io::Result<File> {
    change(place, OFlags::RDWR.union(OFlags::CREATE).union(OFlags::EXCL))
}

/// Writes all of `bytes` to a file from `offset` on, in parts.
///
/// # Errors
/// What the system says; some of the bytes may be written then.
pub fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    (offset..)
        .step_by(MAX_WRITE_BYTES)
        .zip(bytes.chunks(MAX_WRITE_BYTES))
        .try_for_each(|(offset, part)| file.write_all_at(part, offset))
}

/// Takes a lock that others may have, with `take` ([`File::try_lock`] or [`File::try_lock_shared`]), within `patience`: whoever
/// has one may have been stopped. False when it was not to be had. Blocks.
///
/// # Errors
/// When the file cannot be locked.
pub fn lock_within(
    file: &File,
    take: impl Fn(&File) -> Result<(), TryLockError>,
    patience: Duration,
) -> io::Result<bool> {
    let started = Instant::now();
    loop {
        match take(file) {
            Ok(()) => return Ok(true),
            Err(TryLockError::WouldBlock) if started.elapsed() < patience => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::WouldBlock) => return Ok(false),
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

/// Opens a file to lock it: one that cannot be written to will do, and one that is not there is created.
///
/// # Errors
/// Those of [`open`].
pub fn open_to_lock(place: Place<'_>) -> io::Result<File> {
    let parent = place.parent(false)?;
    let opened = regular(&parent, OFlags::RDWR.union(OFlags::CREATE));
    let refused = match opened {
        Ok((file, is_new)) => {
            if is_new {
                adopt(&parent.dir, &file);
            }
            return Ok(file);
        }
        Err(error) => error,
    };
    match refused.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            regular(&parent, OFlags::RDONLY).map(|(file, _)| file).map_err(|_| refused)
        }
        _ => Err(refused),
    }
}

/// Reads a file; `None` when there is none. Of one that is longer than `limit_bytes`, one byte more than that is read: then
/// it is none of ours.
///
/// # Errors
/// Those of [`open`].
pub fn read(place: Place<'_>, limit_bytes: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match open(place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut bytes = Vec::new();
    file.take(limit_bytes.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// Creates a directory; fine when it is there already.
///
/// # Errors
/// What the system says; [`Refused`] inside when there is something else, or a link.
pub fn create_dir(place: Place<'_>) -> io::Result<()> {
    let parent = place.parent(true)?;
    match rustix::fs::mkdirat(&parent.dir, parent.name, parent.dir_mode()?) {
        Ok(()) => parent.adopt_dir(),
        Err(Errno::EXIST) => parent.open_dir().map(drop),
        Err(error) => Err(error.into()),
    }
}

/// Creates a directory and those above it; fine when it is there already, also as a link of ours, of root's, or of the
/// owner of the directory that it is in.
///
/// # Errors
/// Those of [`create_dir`].
pub fn create_dir_all(dir: &Path) -> io::Result<()> {
    match std::fs::metadata(dir) {
        Ok(found) if found.is_dir() => return place::check_link(dir),
        Ok(_) => return Err(io::ErrorKind::NotADirectory.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    if let Some(above) = dir.parent().filter(|above| !above.as_os_str().is_empty()) {
        create_dir_all(above)?;
    }
    create_dir(Place::of(dir))
}

/// Creates a directory that only its owner can look into, or makes it one.
///
/// # Errors
/// Those of [`create_dir`].
pub fn create_private_dir(place: Place<'_>) -> io::Result<()> {
    create_dir(place)?;
    // A descriptor that is only a path cannot be used here.
    let dir = place.parent(true)?.open_dir()?;
    Ok(rustix::fs::fchmod(dir, Mode::RWXU)?)
}

/// Gives to the owner of the directory what root has created there by other means.
///
/// # Errors
/// When it cannot be looked at.
pub fn give_to_owner(place: Place<'_>) -> io::Result<()> {
    place.parent(false)?.adopt_dir()
}

/// Whether this process may create and remove files in a directory.
///
/// # Errors
/// What the system says if not.
pub fn check_writable(dir: &Path) -> io::Result<()> {
    use rustix::fs::{Access, CWD, accessat};
    Ok(accessat(CWD, dir, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)?)
}

fn change(place: Place<'_>, flags: OFlags) -> io::Result<File> {
    let parent = place.parent(true)?;
    let (file, is_new) = regular(&parent, flags)?;
    match is_new {
        true => adopt(&parent.dir, &file),
        false => parent.check_changeable(&file)?,
    }
    Ok(file)
}

/// The regular file, and whether it was created now.
fn regular(parent: &Parent<'_>, flags: OFlags) -> io::Result<(File, bool)> {
    let mode = Mode::from_raw_mode(0o644);
    let open = |flags: OFlags, mode| {
        retry_on_intr(|| rustix::fs::openat(&parent.dir, parent.name, flags | GUARDED, mode))
    };
    let create = || open(flags | OFlags::EXCL, mode).map(|file| (file, true));
    // Whether it is new decides whom it belongs to: so it is created by name only when there is nothing.
    let opened = loop {
        if flags.contains(OFlags::EXCL) {
            break create();
        }
        match open(flags.difference(OFlags::CREATE), Mode::empty()) {
            Err(Errno::NOENT) if flags.contains(OFlags::CREATE) => {}
            existing => break existing.map(|file| (file, false)),
        }
        match create() {
            Err(Errno::EXIST) => {}
            created => break created,
        }
    };
    let (file, is_new) = opened.map_err(|error| identify(parent, error))?;
    let file = File::from(file);
    let found = file.metadata()?.file_type();
    if !found.is_file() {
        return Err(Refused::kind(found).into());
    }
    Ok((file, is_new))
}

#[cfg(test)]
mod tests;
