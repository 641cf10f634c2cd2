//! Small files that appear whole or not at all.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::place::{Parent, adopt};
use crate::{GUARDED, Place};

/// How the temporary files begin that a killed process can leave behind.
pub const TEMPORARY_PREFIX: &str = ".tmp-";

/// Writes `bytes` with these permissions, less the umask, in the place of what was there. Waits for the disk if it is to be
/// `durable`.
///
/// # Errors
/// What the system says; then what was there is there still.
pub fn replace(place: Place<'_>, bytes: &[u8], mode: u32, durable: bool) -> io::Result<()> {
    let parent = place.parent(true)?;
    write_beside(&parent, bytes, mode, durable, |temporary| {
        rustix::fs::renameat(&parent.dir, temporary, &parent.dir, parent.name)
    })?;
    if durable { sync(&parent) } else { Ok(()) }
}

/// The same, but what is there already stays.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`]; what the system says.
pub fn create_whole(place: Place<'_>, bytes: &[u8], mode: u32) -> io::Result<()> {
    let parent = place.parent(true)?;
    write_beside(&parent, bytes, mode, true, |temporary| {
        let dir = &parent.dir;
        match rustix::fs::renameat_with(dir, temporary, dir, parent.name, RenameFlags::NOREPLACE) {
            // Not every file system can.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                rustix::fs::linkat(dir, temporary, dir, parent.name, AtFlags::empty())?;
                rustix::fs::unlinkat(dir, temporary, AtFlags::empty())
            }
            renamed => renamed,
        }
    })?;
    sync(&parent)
}

fn write_beside(
    parent: &Parent<'_>,
    bytes: &[u8],
    mode: u32,
    durable: bool,
    name: impl FnOnce(&OsString) -> rustix::io::Result<()>,
) -> io::Result<()> {
    let (temporary, file) = temporary(&parent.dir, mode)?;
    let mut file = File::from(file);
    adopt(&parent.dir, &file);
    let written = file.write_all(bytes).and_then(|()| if durable { file.sync_all() } else { Ok(()) });
    let named = written.and_then(|()| Ok(name(&temporary)?));
    if named.is_err() {
        // Whoever sweeps next removes it else.
        let _ = rustix::fs::unlinkat(&parent.dir, &temporary, AtFlags::empty());
    }
    named
}

fn temporary(dir: &OwnedFd, mode: u32) -> io::Result<(OsString, OwnedFd)> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | GUARDED;
    loop {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = OsString::from(format!("{TEMPORARY_PREFIX}{}-{count}", std::process::id()));
        match rustix::fs::openat(dir, &name, flags, Mode::from_raw_mode(mode)) {
            Ok(file) => return Ok((name, file)),
            // Left by a process of this id, perhaps in another container.
            Err(Errno::EXIST | Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn sync(parent: &Parent<'_>) -> io::Result<()> {
    let dir = rustix::fs::openat(
        &parent.dir,
        ".",
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    Ok(rustix::fs::fsync(dir)?)
}
