//! A cache directory as such: its version, whether it can be written to, and the manifests in it.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use manifest::{Digest, MAX_MANIFEST_BYTES, Manifest};

use super::error::is_denied;
use super::free::{Free, free};
use super::layout::Layout;
use super::stamp::Verdict;
use super::sweep::{is_temporary, sweep};
use super::{CacheError, atomic};

/// What `VERSION` says.
const LAYOUT_VERSION: &str = "2";
/// The one before, whose models have one file each: all that it has is right in this one.
const TAKEN_OVER: &str = "1";
/// So much of a `VERSION` is looked at and shown.
const MAX_VERSION_BYTES: u64 = 64;
const TAG: &[u8] =
    b"Signature: 8a477f597d28d172789f06886806bc55\n# Models fetched by `loader`; can be fetched again.\n";
const MANIFEST_LIMIT_BYTES: u64 = MAX_MANIFEST_BYTES as u64;

/// A handle on the cache; clones share it.
#[derive(Debug, Clone)]
pub struct Cache(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    layout: Layout,
    /// The path that cannot be written to, if the cache is read-only.
    denied: Option<Denied>,
    /// Verdicts of this process on models without a stamp, because they may not be synced, or it could not be written: their
    /// files' metadata, and the verdict.
    known: Mutex<HashMap<Digest, (String, Verdict)>>,
    /// What the cache may take of the disk; `u64::MAX`: no limit.
    max_bytes: AtomicU64,
    /// Who serves models in this process, and lets go of them when they are to be removed.
    holders: Mutex<Vec<Weak<dyn Holder>>>,
}

/// Serves models of the cache, and lets go of them.
pub(crate) trait Holder: fmt::Debug + Send + Sync {
    /// Whether it has this model.
    fn holds(&self, digest: &Digest) -> bool;

    /// Serves it no more, unless it finds it again.
    fn release(&self, digest: &Digest);
}

/// Where, and how, the system refused to write.
#[derive(Debug)]
struct Denied {
    path: PathBuf,
    kind: io::ErrorKind,
}

impl Cache {
    /// Opens the cache in `dir`, creating what is missing, and sweeps what killed processes have left half done. A cache that
    /// this process may only read, or that is on a read-only file system, is opened for reading: see
    /// [`Self::is_read_only`].
    ///
    /// # Errors
    /// [`CacheError::UnknownVersion`] when the directory has another layout; [`CacheError::Io`].
    pub fn open(dir: &Path) -> Result<Self, CacheError> {
        let layout = Layout::in_dir(dir)?;
        let denied = match prepare(&layout) {
            Err(CacheError::Io { path, source, .. }) if is_denied(&source) && is_cache(&layout)? => {
                Some(Denied { path, kind: source.kind() })
            }
            prepared => prepared.map(|()| None)?,
        };
        let (known, holders) = (Mutex::default(), Mutex::default());
        let max_bytes = AtomicU64::new(u64::MAX);
        Ok(Self(Arc::new(Inner { layout, denied, known, max_bytes, holders })))
    }

    /// Like [`Self::open`], but creates no cache where there is none. `None` when there is no such directory, nothing in
    /// it, or a process is only just creating it, or was killed doing so.
    ///
    /// # Errors
    /// [`CacheError::NotACache`] when there is something else; those of [`Self::open`].
    pub fn open_existing(dir: &Path) -> Result<Option<Self>, CacheError> {
        let layout = Layout::in_dir(dir)?;
        let root = layout.root();
        if !is_cache(&layout)? {
            let entries = match fs::read_dir(root) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                entries => entries.map_err(|source| CacheError::io("list", root, source))?,
            };
            // `VERSION` is written first: until it has its name, a cache that is being created has nothing else.
            let is_other =
                |entry: io::Result<fs::DirEntry>| !entry.is_ok_and(|entry| is_temporary(&entry.path()));
            let has_others = entries.into_iter().any(is_other);
            // Another process may have created it in between.
            if !is_cache(&layout)? {
                return if has_others {
                    Err(CacheError::NotACache { path: root.to_owned() })
                } else {
                    Ok(None)
                };
            }
        }
        Self::open(dir).map(Some)
    }

    /// What is free on its disk; `None` when the system does not tell.
    pub fn free(&self) -> Option<Free> {
        free(self.dir())
    }

    /// Whether the cache is read-only. Finished models can be loaded and served; without a stamp, each process hashes them.
    pub fn is_read_only(&self) -> bool {
        self.0.denied.is_some()
    }

    /// Fails when the cache is read-only.
    pub fn check_writable(&self) -> Result<(), CacheError> {
        let Some(Denied { path, kind }) = &self.0.denied else { return Ok(()) };
        let owner = fs::metadata(path).map(|found| std::os::unix::fs::MetadataExt::uid(&found)).ok();
        Err(CacheError::ReadOnly {
            cache: self.dir().to_owned(),
            path: path.clone(),
            user: rustix::process::geteuid().as_raw(),
            owner,
            source: (*kind).into(),
        })
    }

    /// The directory, as an absolute path.
    pub fn dir(&self) -> &Path {
        self.layout().root()
    }

    /// Where the node's key is kept.
    pub fn identity_path(&self) -> PathBuf {
        self.layout().identity()
    }

    /// What the cache may take of the disk from now on, by what this handle and its clones fetch: other models go before one
    /// is begun ([`Self::evict`] says which), and one for which there is no room is not begun.
    pub fn limit(&self, max_bytes: u64) {
        self.0.max_bytes.store(max_bytes, Ordering::Relaxed);
    }

    pub(crate) fn max_bytes(&self) -> Option<u64> {
        Some(self.0.max_bytes.load(Ordering::Relaxed)).filter(|max_bytes| *max_bytes < u64::MAX)
    }

    pub(crate) fn add_holder(&self, holder: Weak<dyn Holder>) {
        self.holders().push(holder);
    }

    /// Whether somebody in this process serves a model.
    pub(crate) fn holds(&self, digest: &Digest) -> bool {
        self.holders().iter().filter_map(Weak::upgrade).any(|holder| holder.holds(digest))
    }

    /// Has everybody in this process serve a model no more.
    pub(crate) fn release(&self, digest: &Digest) {
        self.holders().iter().filter_map(Weak::upgrade).for_each(|holder| holder.release(digest));
    }

    fn holders(&self) -> MutexGuard<'_, Vec<Weak<dyn Holder>>> {
        self.0.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores a manifest, if it is valid.
    ///
    /// # Errors
    /// [`CacheError::Manifest`] when it is not valid, and then nothing is kept; [`CacheError::DiskFull`],
    /// [`CacheError::Io`].
    pub fn store_manifest(&self, bytes: &[u8]) -> Result<(Digest, Arc<Manifest>), CacheError> {
        self.check_writable()?;
        let digest = Digest::of(bytes);
        let manifest = parse(&digest, bytes)?;
        let path = self.layout().manifest(&digest);
        if atomic::read(&path, MANIFEST_LIMIT_BYTES).ok().flatten().as_deref() != Some(bytes) {
            atomic::write(&path, bytes, 0o444)?;
        }
        Ok((digest, manifest))
    }

    /// The manifest with this digest, if it is stored. It is hashed again; a file with another digest than its name is
    /// removed.
    ///
    /// # Errors
    /// [`CacheError::Manifest`] when its content, though it has the digest, is not valid; [`CacheError::Io`].
    pub fn manifest(&self, digest: &Digest) -> Result<Option<Arc<Manifest>>, CacheError> {
        let path = self.layout().manifest(digest);
        let Some(bytes) = atomic::read(&path, MANIFEST_LIMIT_BYTES)? else { return Ok(None) };
        let found = Digest::of(&bytes);
        if found != *digest {
            tracing::warn!(path = %path.display(), %found, "this manifest is corrupt");
            if !self.is_read_only() {
                fs::remove_file(&path).map_err(|source| CacheError::io("remove", &path, source))?;
            }
            return Ok(None);
        }
        parse(digest, &bytes).map(Some)
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.0.layout
    }

    pub(crate) fn known(&self) -> MutexGuard<'_, HashMap<Digest, (String, Verdict)>> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn parse(digest: &Digest, bytes: &[u8]) -> Result<Arc<Manifest>, CacheError> {
    let manifest = Manifest::parse(bytes);
    manifest.map(Arc::new).map_err(|source| CacheError::Manifest { digest: *digest, source })
}

/// Creates what is missing, sweeps, and makes sure that all of it can be written to.
fn prepare(layout: &Layout) -> Result<(), CacheError> {
    atomic::create_dir(layout.root())?;
    if version(layout)?.is_none_or(|found| found != LAYOUT_VERSION) {
        atomic::write(&layout.version(), format!("{LAYOUT_VERSION}\n").as_bytes(), 0o644)?;
    }
    for dir in [layout.manifests(), layout.models(), layout.partials(), layout.locks()] {
        atomic::create_dir(&dir)?;
        files::check_writable(&dir).map_err(|source| CacheError::io("write to", &dir, source))?;
    }
    if !layout.tag().exists() {
        atomic::write(&layout.tag(), TAG, 0o644)?;
    }
    if let Err(error) = sweep(layout) {
        // It may belong to another user, and does no harm.
        tracing::warn!(%error, "what a killed process has left cannot be removed");
    }
    Ok(())
}

/// Whether there is a cache.
fn is_cache(layout: &Layout) -> Result<bool, CacheError> {
    Ok(version(layout)?.is_some())
}

/// The version of the cache; `None` when there is none.
fn version(layout: &Layout) -> Result<Option<String>, CacheError> {
    let path = layout.version();
    let Some(found) = atomic::read(&path, MAX_VERSION_BYTES)? else { return Ok(None) };
    let found = String::from_utf8_lossy(&found).trim().to_owned();
    if [LAYOUT_VERSION, TAKEN_OVER].contains(&found.as_str()) {
        return Ok(Some(found));
    }
    Err(CacheError::UnknownVersion { path, found, expected: LAYOUT_VERSION })
}
