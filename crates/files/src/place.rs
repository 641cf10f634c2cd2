//! Where a file is, and whose it may be.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::process::geteuid;

use crate::Refused;

/// The path of a file, and how much of it may lead through links.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    base: Base<'a>,
    /// No link is followed here.
    below: &'a Path,
}

#[derive(Debug, Clone, Copy)]
enum Base<'a> {
    /// Wherever it leads to.
    Path(&'a Path),
    Open(&'a Dir),
}

/// A directory that is open, so that many files in it are found without walking there each time. Clones share it.
#[derive(Debug, Clone)]
pub struct Dir {
    fd: Arc<OwnedFd>,
    base_owner: u32,
}

impl Dir {
    /// Opens a directory; with `to_write`, one in which files can be created and changed: see [`Place::within`].
    ///
    /// # Errors
    /// What the system says; [`Refused`] inside for a link, and for what belongs to somebody else.
    pub fn open(place: Place<'_>, to_write: bool) -> io::Result<Self> {
        let parent = place.parent(to_write)?;
        let fd = parent.open_dir()?;
        if to_write {
            parent.check_owner(rustix::fs::fstat(&fd)?.st_uid)?;
        }
        Ok(Self { fd: Arc::new(fd), base_owner: parent.base_owner })
    }
}

impl<'a> Place<'a> {
    /// A file in a directory that may be a link, or behind one.
    pub fn of(path: &'a Path) -> Self {
        let base = path.parent().filter(|base| !base.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Self { base: Base::Path(base), below: path.file_name().map_or(Path::new(""), Path::new) }
    }

    /// A file in a directory that is open.
    pub fn in_dir(dir: &'a Dir, name: &'a OsStr) -> Self {
        Self { base: Base::Open(dir), below: Path::new(name) }
    }

    /// A file somewhere in the directory `base`, below which nothing may be a link.
    pub fn within(base: &'a Path, path: &'a Path) -> Self {
        match path.strip_prefix(base) {
            Ok(below) => Self { base: Base::Path(base), below },
            Err(_) => Self::of(path),
        }
    }

    /// The directory, opened. Where something is to be written, those below the base must belong to whoever writes, to root
    /// or to the owner of the base.
    pub(crate) fn parent(&self, to_write: bool) -> io::Result<Parent<'a>> {
        let name = self.below.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let (mut dir, base_owner) = match self.base {
            Base::Open(Dir { fd, base_owner }) => (Arc::clone(fd), *base_owner),
            Base::Path(base) => {
                let dir = rustix::fs::openat(CWD, base, DIRECTORY, Mode::empty())?;
                let owner = rustix::fs::fstat(&dir)?.st_uid;
                (Arc::new(dir), owner)
            }
        };
        for component in self.below.parent().into_iter().flat_map(Path::components) {
            let Component::Normal(name) = component else { return Err(io::ErrorKind::InvalidInput.into()) };
            let parent = Parent { dir, name, base_owner };
            let opened = parent.open_dir()?;
            if to_write {
                parent.check_owner(rustix::fs::fstat(&opened)?.st_uid)?;
            }
            dir = Arc::new(opened);
        }
        Ok(Parent { dir, name, base_owner })
    }
}

/// Search permission is enough.
#[cfg(target_os = "linux")]
const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
#[cfg(not(target_os = "linux"))]
const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// A name in a directory that is open.
pub(crate) struct Parent<'a> {
    pub(crate) dir: Arc<OwnedFd>,
    pub(crate) name: &'a OsStr,
    base_owner: u32,
}

impl Parent<'_> {
    /// The directory of this name, which is no link.
    pub(crate) fn open_dir(&self) -> io::Result<OwnedFd> {
        let opened = rustix::fs::openat(
            &self.dir,
            self.name,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        );
        let opened = match opened {
            // It need not be listed.
            Err(Errno::ACCESS) => {
                rustix::fs::openat(&self.dir, self.name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())
            }
            opened => opened,
        };
        opened.map_err(|error| identify(self, error))
    }

    /// Those of the owner, and of a group that may write here on purpose.
    pub(crate) fn dir_mode(&self) -> io::Result<Mode> {
        let above = Mode::from_raw_mode(rustix::fs::fstat(&self.dir)?.st_mode);
        let is_shared = above.contains(Mode::WGRP) && !above.intersects(Mode::WOTH | Mode::SVTX);
        Ok(Mode::from_raw_mode(if is_shared { 0o775 } else { 0o755 }))
    }

    pub(crate) fn check_changeable(&self, file: &File) -> io::Result<()> {
        let found = file.metadata()?;
        if found.nlink() > 1 {
            return Err(Refused::ManyNames { names: found.nlink() }.into());
        }
        self.check_owner(found.uid())
    }

    fn check_owner(&self, owner: u32) -> io::Result<()> {
        let user = geteuid().as_raw();
        let is_ours = owner == user || owner == self.base_owner || owner == 0;
        if is_ours { Ok(()) } else { Err(Refused::Foreign { owner, user }.into()) }
    }

    /// Gives what has this name to the owner of the directory, if root has created it.
    pub(crate) fn adopt_dir(&self) -> io::Result<()> {
        if let Some(owner) = heir(&self.dir) {
            let (user, group) = (Some(owner.0), Some(owner.1));
            // Without the right to it, root keeps what it has made.
            let _ = rustix::fs::chownat(&self.dir, self.name, user, group, AtFlags::SYMLINK_NOFOLLOW);
        }
        Ok(())
    }
}

/// Gives a file to the owner of the directory, if root has created it there.
pub(crate) fn adopt(dir: &OwnedFd, file: &impl AsFd) {
    if let Some((user, group)) = heir(dir) {
        let _ = rustix::fs::fchown(file, Some(user), Some(group));
    }
}

/// Whom things belong to that this process creates in a directory, if not to itself.
fn heir(dir: &OwnedFd) -> Option<(rustix::fs::Uid, rustix::fs::Gid)> {
    let Stat { st_uid, st_gid, .. } = rustix::fs::fstat(dir).ok()?;
    let is_foreign = geteuid().is_root() && st_uid != 0;
    is_foreign.then(|| (rustix::fs::Uid::from_raw(st_uid), rustix::fs::Gid::from_raw(st_gid)))
}

/// Refuses a link that anybody may have put there.
pub(crate) fn check_link(dir: &Path) -> io::Result<()> {
    let found = fs::symlink_metadata(dir)?;
    let above = dir.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let owners = [0, geteuid().as_raw(), fs::metadata(above)?.uid()];
    if found.is_symlink() && !owners.contains(&found.uid()) { Err(Refused::Link.into()) } else { Ok(()) }
}

/// What the system says of something that is not what was to be opened, in words.
pub(crate) fn identify(parent: &Parent<'_>, error: Errno) -> io::Error {
    if !matches!(error, Errno::LOOP | Errno::NOTDIR | Errno::NXIO | Errno::ISDIR | Errno::MLINK) {
        return error.into();
    }
    let Ok(found) = rustix::fs::statat(&parent.dir, parent.name, AtFlags::SYMLINK_NOFOLLOW) else {
        return error.into();
    };
    let refused = match rustix::fs::FileType::from_raw_mode(found.st_mode) {
        rustix::fs::FileType::Symlink => Refused::Link,
        rustix::fs::FileType::Directory => Refused::Kind("a directory"),
        rustix::fs::FileType::Fifo => Refused::Kind("a FIFO"),
        rustix::fs::FileType::Socket => Refused::Kind("a socket"),
        _ => return error.into(),
    };
    refused.into()
}
