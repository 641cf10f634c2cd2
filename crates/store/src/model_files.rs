//! The files of one model's weights, opened as they are needed: a bounded number at a time.

use std::collections::{BTreeSet, VecDeque};
use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use files::{Dir, OpenFiles, Place};
use manifest::ByteRange;

use super::layout::STAMP;
use super::weights_files::{Stretch, WeightsFiles};
use super::{CacheError, atomic, lock, space};
use crate::mmap::Map;

/// Files of one model that stay open.
const MAX_OPEN: usize = 32;
/// Folders of one model that stay open.
const MAX_OPEN_DIRS: usize = 8;
/// Above so many files the whole file system is synced, once.
const MANY_FILES: usize = 256;

/// The files of one model's weights, for reading and, while it is filled, for writing by position.
#[derive(Debug)]
pub struct ModelFiles {
    list: WeightsFiles,
    dir: PathBuf,
    /// Where the model is once it is finished, while it is filled in `dir`.
    final_dir: Option<PathBuf>,
    /// Whether some files are there already.
    has_placed: bool,
    /// Whether files are opened for writing, too.
    is_for_writing: bool,
    open: OpenFiles,
    state: Mutex<State>,
    /// Made when they are first asked for; of finished models only.
    maps: Box<[OnceLock<Arc<Map>>]>,
    /// Keeps a finished model from being removed.
    _lock: Option<lock::Guard>,
}

#[derive(Debug, Default)]
struct State {
    /// Folders that are open, by their paths. The last that was opened is the first.
    dirs: VecDeque<(PathBuf, Dir)>,
    /// Written to since they were last synced.
    written: BTreeSet<usize>,
}

/// What the system said of one file.
#[derive(Debug)]
pub(crate) struct Failed {
    file: usize,
    pub(crate) source: io::Error,
}

impl ModelFiles {
    /// Those of a finished model.
    pub(crate) fn finished(list: WeightsFiles, dir: PathBuf, lock: lock::Guard) -> Self {
        let maps = (0..list.len()).map(|_| OnceLock::new()).collect();
        Self {
            list,
            dir,
            final_dir: None,
            has_placed: false,
            is_for_writing: false,
            open: OpenFiles::new(MAX_OPEN),
            state: Mutex::default(),
            maps,
            _lock: Some(lock),
        }
    }

    /// Those of a model that is filled in `dir`, and may be finished elsewhere while they are still read. A file is created,
    /// with its size, when it is first written to.
    pub(crate) fn filling(list: WeightsFiles, dir: PathBuf, final_dir: Option<PathBuf>) -> Self {
        Self {
            list,
            dir,
            final_dir,
            has_placed: false,
            is_for_writing: true,
            open: OpenFiles::new(MAX_OPEN),
            state: Mutex::default(),
            maps: Box::default(),
            _lock: None,
        }
    }

    /// Those that were left in `dir` by who filled them, for reading.
    pub(crate) fn left(list: WeightsFiles, dir: PathBuf, final_dir: PathBuf) -> Self {
        Self { is_for_writing: false, ..Self::filling(list, dir, Some(final_dir)) }
    }

    /// The same of a model of which some files are in place, where it will be.
    pub(crate) fn with_placed(self, has_placed: bool) -> Self {
        Self { has_placed, ..self }
    }

    pub(crate) fn list(&self) -> &WeightsFiles {
        &self.list
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn path(&self, file: usize) -> PathBuf {
        self.dir.join(&self.list.get(file).path)
    }

    /// Fills `buffer` with the weights from `start` on.
    ///
    /// # Errors
    /// [`CacheError::Io`].
    pub fn read_at(&self, start: u64, buffer: &mut [u8]) -> Result<(), CacheError> {
        self.read(start, buffer).map_err(|failed| self.error("read", failed))
    }

    pub(crate) fn read(&self, start: u64, buffer: &mut [u8]) -> Result<(), Failed> {
        let range = ByteRange::new(start, start + buffer.len() as u64);
        self.each(range, false, |file, Stretch { offset, bytes, .. }| {
            file.read_exact_at(&mut buffer[bytes], offset)
        })
    }

    /// Writes to the weights from `start` on.
    ///
    /// # Errors
    /// [`CacheError::Io`], [`CacheError::DiskFull`].
    pub fn write_at(&self, start: u64, bytes: &[u8]) -> Result<(), CacheError> {
        let range = ByteRange::new(start, start + bytes.len() as u64);
        let written = self.each(range, true, |file, stretch| {
            self.state().written.insert(stretch.file);
            files::write_all_at(file, &bytes[stretch.bytes], stretch.offset)
        });
        written.map_err(|failed| self.error("write", failed))
    }

    /// Copies to a range of the weights, which is in one file, within the system, which shares blocks where it can. False: not
    /// all of it was copied.
    pub(crate) fn copy_from(&self, range: ByteRange, from: &File, from_at: u64) -> Result<bool, CacheError> {
        let mut all = true;
        let copied = self.each(range, true, |file, Stretch { file: index, offset, bytes }| {
            self.state().written.insert(index);
            all &= copy_range(from, from_at + bytes.start as u64, file, offset, bytes.len());
            Ok(())
        });
        copied.map(|()| all).map_err(|failed| self.error("write", failed))
    }

    /// Calls `act` for each part of a range, with its file; if need be, one that is created.
    pub(crate) fn each(
        &self,
        range: ByteRange,
        create: bool,
        mut act: impl FnMut(&File, Stretch) -> io::Result<()>,
    ) -> Result<(), Failed> {
        for stretch in self.list.stretches(range) {
            let index = stretch.file;
            let done = self.file(index, create).and_then(|file| act(&file, stretch));
            done.map_err(|source| Failed { file: index, source })?;
        }
        Ok(())
    }

    /// The only file that a range is in, and where; `None` when it is in several, or cannot be opened.
    pub(crate) fn in_one_file(&self, range: ByteRange) -> Option<(Arc<File>, u64)> {
        let mut stretches = self.list.stretches(range);
        let (stretch, None) = (stretches.next()?, stretches.next()) else { return None };
        Some((self.file(stretch.file, false).ok()?, stretch.offset))
    }

    /// A file, if it is open.
    pub(crate) fn opened(&self, file: usize) -> Option<Arc<File>> {
        self.open.get(file, false)
    }

    pub(crate) fn file(&self, file: usize, create: bool) -> io::Result<Arc<File>> {
        self.open.get_or_open(file, create, || self.open(file, create))
    }

    fn open(&self, file: usize, create: bool) -> io::Result<File> {
        let path = self.path(file);
        let name = path.file_name().unwrap_or_default();
        if self.is_finished() {
            return files::open(Place::in_dir(&self.folder(&path, false)?, name));
        }
        if create {
            return self.create(file);
        }
        let open = if self.is_for_writing { files::open_to_change } else { files::open };
        match self.folder(&path, false).and_then(|dir| open(Place::in_dir(&dir, name))) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            opened => return opened,
        }
        match &self.final_dir {
            Some(dir) => atomic::open(&dir.join(&self.list.get(file).path)),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// A file, created with its size if it is not there. One that is in place already is never written to: what is wrong in
    /// it is put right in a copy.
    fn create(&self, file: usize) -> io::Result<File> {
        let path = self.path(file);
        let placed = self.final_dir.as_ref().filter(|_| self.has_placed && !path.exists());
        if let Some(dir) = placed
            && let placed = dir.join(&self.list.get(file).path)
            && let Some(source) = atomic::open_if_there(&placed)?
        {
            atomic::remove_file(&dir.join(STAMP)).map_err(CacheError::into_io)?;
            let copy = self.create_new(file, &path)?;
            if !files::try_clone(&source, &copy) {
                io::copy(&mut &source, &mut &copy)?;
            }
            atomic::remove_file(&placed).map_err(CacheError::into_io)?;
            return Ok(copy);
        }
        self.create_new(file, &path)
    }

    fn create_new(&self, file: usize, path: &Path) -> io::Result<File> {
        let dir = self.folder(path, true)?;
        let place = Place::in_dir(&dir, path.file_name().unwrap_or_default());
        // Nearly always there is none.
        let created = match files::create_new(place) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => files::open_to_change(place)?,
            created => created?,
        };
        let size_bytes = self.list.get(file).range.len();
        if created.metadata()?.len() != size_bytes {
            created.set_len(size_bytes)?;
        }
        Ok(created)
    }

    /// The folder of a file, open; if need be, one that is created.
    fn folder(&self, file: &Path, create: bool) -> io::Result<Dir> {
        let path = file.parent().unwrap_or(file);
        if let Some((_, dir)) = self.state().dirs.iter().find(|(open, _)| open == path) {
            return Ok(dir.clone());
        }
        let open = || Dir::open(atomic::place(path), self.is_for_writing);
        let dir = match open() {
            Err(error) if create && error.kind() == io::ErrorKind::NotFound => {
                atomic::create_dir(path).map_err(CacheError::into_io)?;
                open()?
            }
            opened => opened?,
        };
        let mut state = self.state();
        state.dirs.push_front((path.to_owned(), dir.clone()));
        state.dirs.truncate(MAX_OPEN_DIRS);
        Ok(dir)
    }

    /// Makes all files read-only.
    ///
    /// # Errors
    /// [`CacheError::Io`].
    pub(crate) fn protect(&self) -> Result<(), CacheError> {
        (0..self.list.len()).try_for_each(|file| self.protect_one(file))
    }

    /// Makes a file read-only; an empty one is created.
    ///
    /// # Errors
    /// [`CacheError::Io`].
    pub(crate) fn protect_one(&self, file: usize) -> Result<(), CacheError> {
        let path = self.path(file);
        let is_empty = self.list.get(file).range.is_empty();
        let protect = || {
            if is_empty {
                self.create_new(file, &path)?;
            }
            let place = self.folder(&path, false)?;
            let open = files::open(Place::in_dir(&place, path.file_name().unwrap_or_default()))?;
            open.set_permissions(Permissions::from_mode(0o444))
        };
        protect().map_err(|source| self.error("protect", Failed { file, source }))
    }

    /// A file of a finished model, mapped.
    pub(crate) fn map(&self, file: usize) -> io::Result<&Arc<Map>> {
        let place = &self.maps[file];
        if let Some(map) = place.get() {
            return Ok(map);
        }
        let map = Arc::new(Map::of(&*self.file(file, false)?)?);
        Ok(place.get_or_init(|| map))
    }

    /// Whether files can be mapped.
    pub(crate) fn is_finished(&self) -> bool {
        self._lock.is_some()
    }

    /// Makes a file share the blocks of another one, all of it. False: the file system cannot.
    ///
    /// # Errors
    /// [`CacheError::Io`] when it cannot be created.
    pub fn clone_file(&self, file: usize, from: &File) -> Result<bool, CacheError> {
        let target = self.file(file, true).map_err(|source| self.error("create", Failed { file, source }))?;
        self.state().written.insert(file);
        Ok(files::try_clone(from, &target))
    }

    /// Makes the large files, and reserves their space.
    ///
    /// # Errors
    /// [`CacheError::NoRoom`], [`CacheError::DiskFull`], [`CacheError::FileTooLarge`], [`CacheError::Io`].
    pub fn reserve(&self) -> Result<(), CacheError> {
        for (index, file) in self.list.iter().enumerate().filter(|(index, _)| self.list.is_large(*index)) {
            let open = self.file(index, true);
            let open = open.map_err(|source| self.error("create", Failed { file: index, source }))?;
            space::reserve(&open, &self.path(index), file.range.len())?;
        }
        Ok(())
    }

    /// Waits until what was written so far is on the disk.
    ///
    /// # Errors
    /// [`CacheError::Io`].
    pub fn sync_written(&self) -> Result<(), CacheError> {
        let written = std::mem::take(&mut self.state().written);
        if is_many(written.len()) && sync_file_system(&self.dir)? {
            return Ok(());
        }
        for file in written {
            let synced = self.file(file, false).and_then(|open| open.sync_data());
            synced.map_err(|source| self.error("sync", Failed { file, source }))?;
        }
        Ok(())
    }

    pub(crate) fn error(&self, action: &'static str, Failed { file, source }: Failed) -> CacheError {
        CacheError::io(action, &self.path(file), source)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Copies bytes between files within the system, which shares blocks where it can. False: not all of them were copied.
#[cfg(target_os = "linux")]
fn copy_range(from: &File, mut from_at: u64, to: &File, mut to_at: u64, mut left: usize) -> bool {
    while left > 0 {
        match rustix::fs::copy_file_range(from, Some(&mut from_at), to, Some(&mut to_at), left) {
            Ok(copied) if copied > 0 => left -= copied,
            _ => return false,
        }
    }
    true
}

/// Only Linux can.
#[cfg(not(target_os = "linux"))]
fn copy_range(_: &File, _: u64, _: &File, _: u64, _: usize) -> bool {
    false
}

/// Waits until the file system of a directory has written everything. False: the system cannot.
#[cfg(target_os = "linux")]
pub(crate) fn sync_file_system(dir: &Path) -> Result<bool, CacheError> {
    let synced = File::open(dir).and_then(|dir| Ok(rustix::fs::syncfs(&dir)?));
    synced.map(|()| true).map_err(|source| CacheError::io("sync", dir, source))
}

/// Only Linux can sync one file system.
#[cfg(not(target_os = "linux"))]
pub(crate) fn sync_file_system(_: &Path) -> Result<bool, CacheError> {
    Ok(false)
}

/// Whether one sync of the file system is cheaper than one for each of so many files.
pub(crate) fn is_many(files: usize) -> bool {
    files > MANY_FILES
}

#[cfg(test)]
mod tests {
    use manifest::FilePath;

    use super::*;

    fn many(count: usize) -> (tempfile::TempDir, ModelFiles) {
        let dir = tempfile::tempdir().unwrap();
        let names: Vec<FilePath> =
            (0..count).map(|n| format!("folder {}/f{n}", n % 7).parse().unwrap()).collect();
        let list = WeightsFiles::named(names.iter().map(|name| (name, 3)));
        let files = ModelFiles::filling(list, dir.path().to_owned(), None);
        (dir, files)
    }

    fn descriptors() -> usize {
        std::fs::read_dir("/proc/self/fd").unwrap().count()
    }

    #[test]
    fn a_range_over_more_files_than_stay_open_is_written_and_read_back() {
        for count in [1, MAX_OPEN, 300] {
            let (dir, files) = many(count);
            let bytes: Vec<u8> = (0..=250).cycle().take(count * 3).collect();
            let before = descriptors();
            files.write_at(0, &bytes).unwrap();
            // Other tests of this process open files, too: far fewer.
            assert!(descriptors() < before + MAX_OPEN + 100);
            files.sync_written().unwrap();
            let mut read = vec![0; count * 3 - 2];
            files.read_at(1, &mut read).unwrap();
            assert_eq!(read, bytes[1..bytes.len() - 1]);
            let last = dir.path().join("files").join(format!("folder {}/f{}", (count - 1) % 7, count - 1));
            assert_eq!(std::fs::read(last).unwrap(), bytes[bytes.len() - 3..]);
        }
    }

    #[test]
    fn a_full_disk_is_one_also_where_a_folder_is_made() {
        let full = CacheError::io("create", Path::new("folder"), io::ErrorKind::StorageFull.into());
        let again = CacheError::io("write", Path::new("folder/file"), full.into_io());
        assert!(again.is_disk_full(), "{again:?}");
    }

    #[test]
    fn reading_finds_the_files_where_the_finished_model_is_and_creates_none() {
        let (dir, files) = many(2);
        let elsewhere = tempfile::tempdir().unwrap();
        let files = ModelFiles { final_dir: Some(elsewhere.path().to_owned()), ..files };
        let failed = files.read_at(0, &mut [0]).unwrap_err();
        assert!(matches!(failed, CacheError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound));
        assert!(!dir.path().join("files").exists());
        files.write_at(0, b"abcdef").unwrap();
        std::fs::rename(dir.path().join("files"), elsewhere.path().join("files")).unwrap();
        let files = ModelFiles { open: OpenFiles::new(MAX_OPEN), state: Mutex::default(), ..files };
        let mut read = [0; 6];
        files.read_at(0, &mut read).unwrap();
        assert_eq!(&read, b"abcdef");
    }
}
