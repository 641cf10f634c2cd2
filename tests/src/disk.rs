//! Disks of the test's own: small file systems of their own, and layers over a folder. They need root.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use tempfile::TempDir;

/// What a disk is formatted with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileSystem {
    /// As `mkfs.ext4` makes it, with nothing kept for root.
    Ext4,
}

/// A file system in a file, mounted until it is dropped.
#[derive(Debug)]
pub struct Disk {
    mounted: Mounted,
}

/// A file system that shows a folder, and keeps every change to it elsewhere. Mounted until it is dropped.
#[derive(Debug)]
pub struct Overlay {
    mounted: Mounted,
}

/// A mount point in a directory that also has what it is made of.
#[derive(Debug)]
struct Mounted {
    dir: TempDir,
}

impl Disk {
    /// Makes one of this size, which holds a little less.
    ///
    /// # Panics
    /// When that fails, as it does without root and e2fsprogs.
    pub fn new(size_bytes: u64, file_system: FileSystem) -> Self {
        let dir = directory();
        let image = dir.path().join("image");
        File::create_new(&image).unwrap().set_len(size_bytes).unwrap();
        let FileSystem::Ext4 = file_system;
        // Nothing is left to be written later, so that free space changes only by what a test does.
        let at_once = "lazy_itable_init=0,lazy_journal_init=0";
        run("mkfs.ext4", &["-q", "-F", "-m", "0", "-E", at_once].map(OsStr::new), &[&image]);
        // The loop device goes with the mount.
        run("mount", &["-t", "ext4", "-o", "loop"].map(OsStr::new), &[&image, &dir.path().join(MOUNT_POINT)]);
        Self { mounted: Mounted { dir } }
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.mounted.path()
    }

    /// How much fits.
    ///
    /// # Panics
    /// When the system does not tell.
    pub fn free_bytes(&self) -> u64 {
        let space = rustix::fs::statvfs(self.path()).unwrap();
        space.f_bavail * space.f_frsize
    }

    /// Writes a file that takes all the space there is. Removing it gives that back.
    ///
    /// # Panics
    /// When the disk does not get full.
    pub fn fill(&self, name: &str) -> PathBuf {
        let path = self.path().join(name);
        let mut file = File::create_new(&path).unwrap();
        let mut chunk: &[u8] = &[7; 64 << 10];
        while !chunk.is_empty() {
            match file.write(chunk) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::StorageFull => chunk = &chunk[..chunk.len() / 2],
                Err(error) => panic!("{}: {error}", path.display()),
            }
        }
        file.sync_all().unwrap();
        path
    }
}

impl Overlay {
    /// Shows this folder.
    ///
    /// # Panics
    /// When that fails, as it does without root.
    pub fn over(lower: &Path) -> Self {
        let dir = directory();
        let [upper, work] = ["upper", "work"].map(|name| dir.path().join(name));
        fs::create_dir(&upper).unwrap();
        fs::create_dir(&work).unwrap();
        let mut layers = OsStr::new("lowerdir=").to_owned();
        for part in
            [lower.as_os_str(), ",upperdir=".as_ref(), upper.as_ref(), ",workdir=".as_ref(), work.as_ref()]
        {
            layers.push(part);
        }
        let options = ["-t", "overlay", "overlay", "-o"].map(OsStr::new);
        run("mount", &options, &[layers.as_ref(), &dir.path().join(MOUNT_POINT)]);
        Self { mounted: Mounted { dir } }
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.mounted.path()
    }
}

const MOUNT_POINT: &str = "mounted";

fn directory() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join(MOUNT_POINT)).unwrap();
    dir
}

impl Mounted {
    fn path(&self) -> PathBuf {
        self.dir.path().join(MOUNT_POINT)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // At once for everybody who looks, and for processes that are being killed once they are gone.
        let unmounted = Command::new("umount").arg("--lazy").arg(self.path()).status();
        let is_unmounted = unmounted.as_ref().is_ok_and(ExitStatus::success);
        assert!(
            is_unmounted || std::thread::panicking(),
            "cannot unmount {}: {unmounted:?}",
            self.path().display()
        );
    }
}

/// Runs a program of the system that only root may.
fn run(program: &str, options: &[&OsStr], paths: &[&Path]) {
    let needs = "disks of tests need root, and mkfs.ext4 (e2fsprogs) and mount (util-linux) installed";
    let output = Command::new(program).args(options).args(paths).output();
    let output = output.unwrap_or_else(|error| panic!("cannot run {program}: {error}; {needs}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} failed ({}): {said}; {needs}", output.status);
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE_BYTES: u64 = 8 << 20;

    #[test]
    fn a_disk_gets_full_and_is_gone_when_it_is_dropped() {
        let disk = Disk::new(SIZE_BYTES, FileSystem::Ext4);
        let (path, free_bytes) = (disk.path(), disk.free_bytes());
        assert!(free_bytes > SIZE_BYTES / 4 && free_bytes < SIZE_BYTES, "{free_bytes}");
        let filled = disk.fill("everything");
        assert_eq!(disk.free_bytes(), 0);
        fs::remove_file(filled).unwrap();
        assert_eq!(disk.free_bytes(), free_bytes);
        // Somebody may still have a file open.
        let _open = File::create(path.join("open")).unwrap();
        drop(disk);
        assert!(!path.exists());
    }

    #[test]
    fn a_disk_is_gone_when_its_test_fails() {
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        let failed = std::thread::spawn(move || {
            let disk = Disk::new(SIZE_BYTES, FileSystem::Ext4);
            sender.send(disk.path()).unwrap();
            panic!("as wanted");
        });
        assert!(failed.join().is_err());
        assert!(!receiver.recv().unwrap().exists());
    }

    #[test]
    fn an_overlay_shows_a_folder_and_leaves_it_as_it_is() {
        let lower = tempfile::tempdir().unwrap();
        crate::put(&lower.path().join("file"), b"below");
        let overlay = Overlay::over(lower.path());
        assert_eq!(fs::read(overlay.path().join("file")).unwrap(), b"below");
        crate::put(&overlay.path().join("file"), b"above");
        assert_eq!(fs::read(overlay.path().join("file")).unwrap(), b"above");
        assert_eq!(fs::read(lower.path().join("file")).unwrap(), b"below");
    }
}
