//! Listing and removing the models of the cache.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use manifest::{Digest, Geometry};

use super::layout::{JOURNAL, digest_named};
use super::lock::LockFile;
use super::piece_states::{PieceState, PieceStates};
use super::{Cache, CacheError, WeightsFiles, atomic, journal, lock};

/// One model in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// Digest of its manifest.
    pub digest: Digest,
    /// What the manifest calls it; `None` when the manifest is not there.
    pub model_kind: Option<String>,
    /// How long the weights are; `None` when the manifest is not there.
    pub total_size_bytes: Option<u64>,
    /// Its state.
    pub state: EntryState,
    /// How much of the disk it takes.
    pub disk_bytes: u64,
    /// Its directory.
    pub path: PathBuf,
    /// How many files it has; `None` when the manifest is not there.
    pub files: Option<usize>,
    /// The name of its only file, where it has one.
    pub name: Option<String>,
    /// When it was finished, or last written to.
    pub changed: Option<SystemTime>,
    /// The series that it was loaded for, such as contracts.
    pub series: Vec<String>,
    /// When it was last used, or else finished or written to.
    pub last_used: SystemTime,
    /// Whether it is pinned.
    pub is_pinned: bool,
}

/// The state of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryState {
    /// All there.
    Finished,
    /// Being filled, or left partial by a run that ended early.
    Partial {
        /// Bytes of shards that its journal records as verified.
        verified_bytes: u64,
    },
}

/// What removing a model gave back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Removed {
    /// Disk space.
    pub freed_bytes: u64,
}

impl Cache {
    /// All finished and partial models, by digest.
    ///
    /// # Errors
    /// [`CacheError::Io`].
    pub fn list(&self) -> Result<Vec<Entry>, CacheError> {
        let (mut entries, mut series, pinned) = (Vec::new(), self.all_series()?, self.pinned()?);
        for digest in self.finished()? {
            let path = self.layout().model(&digest);
            entries.extend(self.entry(digest, path, EntryState::Finished)?);
        }
        for digest in self.begun_all()? {
            let path = self.layout().partial(&digest);
            let state = EntryState::Partial { verified_bytes: self.claimed_bytes(&digest)? };
            entries.extend(self.entry(digest, path, state)?);
        }
        for entry in &mut entries {
            entry.series = series.remove(&entry.digest).unwrap_or_default();
            entry.series.sort();
            entry.is_pinned = pinned.contains(&entry.digest);
        }
        entries.sort_by_key(|entry| entry.digest);
        Ok(entries)
    }

    /// Removes a model, finished or partial, and its manifest.
    ///
    /// # Errors
    /// [`CacheError::Pinned`]; [`CacheError::Linked`] while a link leads to it; [`CacheError::InUse`] while somebody maps, serves or fills it;
    /// [`CacheError::NotCached`]; [`CacheError::Io`].
    pub fn remove(&self, digest: &Digest) -> Result<Removed, CacheError> {
        self.check_writable()?;
        if let Some((_, path)) = self.linked()?.into_iter().rev().find(|(linked, _)| linked == digest)
            && self.leads_to(&path, digest)
        {
            return Err(CacheError::Linked { digest: *digest, path });
        }
        if self.pinned()?.contains(digest) {
            return Err(CacheError::Pinned { digest: *digest });
        }
        let locks = self.layout().locks();
        let usage = LockFile::usage(&locks, digest);
        let in_use = |lock: &LockFile| CacheError::InUse { digest: *digest, holders: lock.holders() };
        let _filling =
            lock::try_fill(&locks, digest)?.ok_or_else(|| in_use(&LockFile::fill(&locks, digest)))?;
        let _using = usage.try_exclusive()?.ok_or_else(|| in_use(&usage))?;
        let manifest = self.layout().manifest(digest);
        let mut found = manifest.exists();
        let mut freed_bytes = 0;
        for dir in [self.layout().model(digest), self.layout().partial(digest)] {
            let bytes = disk_bytes(&dir)?;
            if self.remove_dir(&dir)? {
                (found, freed_bytes) = (true, freed_bytes + bytes);
            }
        }
        atomic::remove_file(&manifest)?;
        atomic::remove_file(&self.layout().used(digest))?;
        atomic::remove_file(&self.layout().promise(digest))?;
        if found {
            return Ok(Removed { freed_bytes });
        }
        Err(CacheError::NotCached { digest: *digest, path: self.dir().to_owned() })
    }

    /// Removes a partial model without a verified piece, and its manifest; not one that is being filled or finished.
    pub fn remove_unverified(&self, digest: &Digest) -> Result<(), CacheError> {
        let Some(_filling) = lock::try_fill(&self.layout().locks(), digest)? else { return Ok(()) };
        if self.layout().model(digest).exists() || self.claimed_bytes(digest)? > 0 {
            return Ok(());
        }
        let dir = self.layout().partial(digest);
        // A process that still has a file open would keep its space.
        if let Some(manifest) = self.manifest(digest)? {
            for file in WeightsFiles::of(&manifest).iter() {
                let path = dir.join(&file.path);
                match files::open_to_change(atomic::place(&path)).and_then(|file| file.set_len(0)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(CacheError::io("empty", &path, error));
                    }
                    _ => {}
                }
            }
        }
        self.remove_dir(&dir)?;
        atomic::remove_file(&self.layout().manifest(digest))
    }

    /// The model, finished or not, whose digest begins like this: all of the digest, or at least four characters.
    ///
    /// # Errors
    /// [`CacheError::Ambiguous`] when there is no such model, or more than one; [`CacheError::Io`].
    pub fn find(&self, prefix: &str) -> Result<Digest, CacheError> {
        if let Ok(digest) = prefix.parse() {
            return Ok(digest);
        }
        let mut found = self.begun_all()?;
        found.extend(self.finished()?);
        found.retain(|digest| digest.to_string().starts_with(prefix));
        let hint = if found.is_empty() { "`loader cache ls` lists what there is" } else { "give more of it" };
        let (prefix, path, count) = (prefix.to_owned(), self.dir().to_owned(), found.len());
        let only = found.pop_first().filter(|_| count == 1);
        only.ok_or(CacheError::Ambiguous { prefix, found: count, hint, path })
    }

    /// Digests of the models that are being filled, or were left so, by their directories.
    pub fn begun(&self) -> Result<Vec<Digest>, CacheError> {
        digests_in(&self.layout().partials())
    }

    /// Digests of the models that are finished, by their directories.
    pub fn finished(&self) -> Result<Vec<Digest>, CacheError> {
        let mut found = digests_in(&self.layout().models())?;
        found.retain(|digest| !self.is_incomplete(digest));
        Ok(found)
    }

    /// Those that are begun, and those of which some files are in place.
    pub(super) fn begun_all(&self) -> Result<BTreeSet<Digest>, CacheError> {
        let mut found: BTreeSet<Digest> = self.begun()?.into_iter().collect();
        found.extend(
            digests_in(&self.layout().models())?.into_iter().filter(|digest| self.is_incomplete(digest)),
        );
        Ok(found)
    }

    /// Removes what an earlier run left of a model that is finished now. The caller holds its fill lock.
    pub fn discard_partial(&self, lock: &lock::FillLock) -> Result<(), CacheError> {
        let dir = self.layout().partial(lock.digest());
        match fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(CacheError::io("remove", &dir, error))
            }
            _ => Ok(()),
        }
    }

    /// `None` when it has gone meanwhile.
    fn entry(&self, digest: Digest, path: PathBuf, state: EntryState) -> Result<Option<Entry>, CacheError> {
        let is_incomplete = state != EntryState::Finished && self.is_incomplete(&digest);
        if !path.exists() && !is_incomplete {
            return Ok(None);
        }
        let manifest = self.manifest(&digest)?;
        let model_kind = manifest.as_ref().map(|manifest| manifest.model_kind().to_owned());
        let total_size_bytes = manifest.as_ref().map(|manifest| manifest.total_size_bytes());
        let placed_bytes = if is_incomplete { disk_bytes(&self.layout().model(&digest))? } else { 0 };
        let disk_bytes = disk_bytes(&path)? + placed_bytes;
        let files = manifest.as_ref().map(|manifest| manifest.files().len().max(1));
        let name = manifest.as_ref().and_then(|manifest| match manifest.files() {
            [one] => Some(one.path().to_string()),
            _ => None,
        });
        let changed = fs::metadata(&path).and_then(|found| found.modified()).ok();
        let series = Vec::new();
        Ok(Some(Entry {
            digest,
            model_kind,
            total_size_bytes,
            state,
            disk_bytes,
            path,
            files,
            name,
            changed,
            series,
            last_used: self.last_used(&digest),
            is_pinned: false,
        }))
    }

    /// Bytes of shards that the journal of a partial model records as verified; 0 when there is none.
    fn claimed_bytes(&self, digest: &Digest) -> Result<u64, CacheError> {
        let Some(manifest) = self.manifest(digest)? else { return Ok(0) };
        let geometry = Geometry::new(manifest);
        let mut progress = PieceStates::new(&geometry);
        let path = self.layout().partial(digest).join(JOURNAL);
        journal::read(&path, digest, |record| progress.apply(&geometry, record, PieceState::Claimed))?;
        Ok(progress.bytes(&geometry))
    }
}

pub(super) fn digests_in(dir: &Path) -> Result<Vec<Digest>, CacheError> {
    let fail = |source| CacheError::io("list", dir, source);
    let mut digests = Vec::new();
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(digests),
        entries => entries.map_err(fail)?,
    };
    for entry in entries {
        digests.extend(digest_named(&entry.map_err(fail)?.file_name()));
    }
    Ok(digests)
}

/// Disk space that the files of a model take; 0 when it is not there.
pub(super) fn disk_bytes(dir: &Path) -> Result<u64, CacheError> {
    disk_bytes_but(dir, &|_| false)
}

/// The same without what is in the directory and left out.
pub(super) fn disk_bytes_but(dir: &Path, is_left_out: &dyn Fn(&Path) -> bool) -> Result<u64, CacheError> {
    let fail = |source| CacheError::io("list", dir, source);
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(fail(error)),
    };
    let mut bytes = 0;
    for entry in entries {
        let entry = entry.map_err(fail)?;
        if is_left_out(&entry.path()) {
            continue;
        }
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes += disk_bytes(&entry.path())?,
            Ok(metadata) => bytes += metadata.blocks() * 512,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(fail(error)),
        }
    }
    Ok(bytes)
}
