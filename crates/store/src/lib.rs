//! One directory of models, safe for several processes at once, that never trusts its own content blindly.
//!
//! ```text
//! CACHE/
//!   VERSION                          of this layout; another one is refused
//!   CACHEDIR.TAG                     tells backup programs to leave it out
//!   identity                         the node's key, kept by the network
//!   bans                             peers that sent wrong bytes, and when
//!   manifests/<digest>.json
//!   models/<manifest digest>/weights mode 0444: what a runtime maps
//!   models/<manifest digest>/parity/<index>
//!   models/<manifest digest>/pieces  the piece index blob
//!   models/<manifest digest>/stamp   what the files looked like when they were hashed, and what came of it
//!   partial/<manifest digest>/       the same files being filled, and a journal of verified pieces
//!   partial/staging-*                being published, moved or removed; a dead process's are swept at the next opening;
//!                                    in models/, too
//!   locks/                           never deleted
//!   series/<name>                    models that were loaded for a series, oldest first
//!   series/<name>.live               the one of them that is known to be in use
//!   run/                             sockets of running nodes, kept by them
//! ```
//!
//! A shard is stored once: data shards are ranges of `weights`, and a parity shard with the digest of a data shard has
//! no file of its own. A finished file is never written, truncated or linked again.
//!
//! Everything here blocks; asynchronous callers use a blocking thread.
#![deny(unsafe_code)]

mod atomic;
mod availability;
mod ban_list;
mod bans;
mod blob_dir;
mod blobs;
mod donors;
mod entries;
mod error;
mod heal;
mod holder;
mod install;
mod journal;
mod layout;
mod lock;
mod mmap;
mod model;
mod offer;
mod partial;
mod progress;
mod recheck;
mod relocate;
mod retention;
mod space;
mod staging;
mod stamp;
mod turn;
mod writeback;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::available_parallelism;

use manifest::{Digest, Geometry, MAX_MANIFEST_BYTES, Manifest};

pub use atomic::create_new;
pub use ban_list::Bans;
pub use blob_dir::BlobDir;
pub use blobs::Blobs;
pub use entries::{Entry, EntryState, Removed};
pub use error::CacheError;
pub use holder::{Holder, Holders};
pub use layout::{PARITY, PIECES, WEIGHTS};
pub use lock::FillLock;
pub use mmap::{Map, Pages};
pub use model::{Held, Model, Weights};
pub use offer::{Offer, Offered};
pub use partial::{CheckedShard, Partial, Rechecked};
pub use recheck::{BadShard, IndexState, RecheckReport, bytes, on_threads, recheck};
pub use space::{Free, require, require_files, reserve};
pub use staging::Staging;
pub use turn::{Look, PAUSE, Turn};
pub use writeback::{Right, Writeback};

use layout::Layout;
use lock::LockFile;
use recheck::recheck_until;
use stamp::Verdict;

/// What `VERSION` says.
const LAYOUT_VERSION: &str = "1";
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
    /// What cannot be written to, if that is so.
    denied: Option<Denied>,
    /// What this process knows of files that may not be on the disk, or about which nothing could be written down: what
    /// they looked like, and what that came to.
    known: Mutex<HashMap<Digest, (String, Verdict)>>,
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
        Ok(Self(Arc::new(Inner { layout, denied, known: Mutex::default() })))
    }

    /// The same for those who only look into a cache: nothing is created where there is none. `None` when there is no such
    /// directory, or nothing in it.
    ///
    /// # Errors
    /// [`CacheError::NotACache`] when there is something else; those of [`Self::open`].
    pub fn open_existing(dir: &Path) -> Result<Option<Self>, CacheError> {
        let layout = Layout::in_dir(dir)?;
        let root = layout.root();
        if !is_cache(&layout)? {
            let mut entries = match fs::read_dir(root) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                entries => entries.map_err(|source| CacheError::io("list", root, source))?,
            };
            let is_empty = entries.next().is_none();
            return if is_empty { Ok(None) } else { Err(CacheError::NotACache { path: root.to_owned() }) };
        }
        Self::open(dir).map(Some)
    }

    /// Whether nothing can be written here. What is finished can be loaded and served; unless it is known to be right, it is
    /// hashed by each process.
    pub fn is_read_only(&self) -> bool {
        self.0.denied.is_some()
    }

    /// What stands in the way of writing.
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

    /// Keeps a manifest, once it has been read as one.
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

    /// The manifest with this digest, if it is kept. It is hashed again; a file that is not what its name says is
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

    /// The finished model, mapped; `None` when there is none.
    ///
    /// Its files are trusted when they look as they did when they were verified. Otherwise all of them are hashed
    /// first, which takes time; parity shards and a piece index that turn out bad are dropped, with a warning.
    ///
    /// # Errors
    /// [`CacheError::Corrupt`] when the weights are not what the manifest says; [`CacheError::Io`].
    pub fn model(&self, digest: &Digest) -> Result<Option<Model>, CacheError> {
        match self.manifest(digest)? {
            Some(manifest) => self.load(digest, &manifest),
            None => Ok(None),
        }
    }

    /// Hashes all files of a finished model, whatever its stamp says. `progress` is told how many bytes of how many
    /// are done, from several threads. A model found bad is not trusted by the next [`Self::model`].
    ///
    /// # Errors
    /// As [`Self::model`], but for what the report tells.
    pub fn verify(
        &self,
        digest: &Digest,
        threads: usize,
        progress: &(dyn Fn(u64, u64) + Sync),
    ) -> Result<Option<RecheckReport>, CacheError> {
        let is_there = self.layout().model(digest).exists();
        let corrupt = |damage: &str| {
            let (path, damage) = (self.layout().model(digest), damage.to_owned());
            Err(CacheError::Corrupt { digest: *digest, path, damage })
        };
        let Some(manifest) = self.manifest(digest)? else {
            return if is_there { corrupt("its manifest is gone") } else { Ok(None) };
        };
        match self.open_model(digest, &manifest)? {
            Some(model) => self.check(&model, threads, progress, &AtomicBool::new(false)).map(Some),
            None if is_there => corrupt("its weights are gone"),
            None => Ok(None),
        }
    }

    /// The exclusive right to fill this model; waits while another process, or another thread, has it and gets on. When
    /// it is got, that one may have finished: look at [`Self::model`] again.
    ///
    /// # Errors
    /// [`CacheError::Held`], [`CacheError::Io`].
    pub fn lock_fill(&self, digest: &Digest) -> Result<FillLock, CacheError> {
        self.check_writable()?;
        lock::fill(self, digest)
    }

    /// As [`Self::lock_fill`], but `None` instead of waiting.
    ///
    /// # Errors
    /// [`CacheError::Io`].
    pub fn try_lock_fill(&self, digest: &Digest) -> Result<Option<FillLock>, CacheError> {
        self.check_writable()?;
        lock::try_fill(&self.layout().locks(), digest)
    }

    /// Creates the partial model that `lock` is for, or goes on with what an earlier run has left of it. Disk space
    /// for the weights is reserved where the file system can. Whoever wants the finished model to be `durable` waits
    /// for the disk in [`Partial::finish`].
    ///
    /// # Errors
    /// [`CacheError::DiskFull`], [`CacheError::Io`].
    pub fn partial(&self, lock: FillLock, geometry: Geometry, durable: bool) -> Result<Partial, CacheError> {
        Partial::open(self.clone(), lock, geometry, durable)
    }

    fn layout(&self) -> &Layout {
        &self.0.layout
    }

    fn open_model(&self, digest: &Digest, manifest: &Arc<Manifest>) -> Result<Option<Model>, CacheError> {
        let lock = LockFile::usage(&self.layout().locks(), digest).shared()?;
        Model::open(&self.layout().model(digest), digest, Arc::clone(manifest), lock)
    }

    fn load(&self, digest: &Digest, manifest: &Arc<Manifest>) -> Result<Option<Model>, CacheError> {
        let threads = available_parallelism().map_or(1, usize::from);
        self.load_until(digest, manifest, threads, &AtomicBool::new(false))
    }

    /// The finished model, hashed if need be, unless told to stop.
    pub(crate) fn hashed(&self, digest: &Digest, stop: &AtomicBool) -> Result<Option<Model>, CacheError> {
        match self.manifest(digest)? {
            Some(manifest) => self.load_until(digest, &manifest, 1, stop),
            None => Ok(None),
        }
    }

    fn load_until(
        &self,
        digest: &Digest,
        manifest: &Arc<Manifest>,
        threads: usize,
        stop: &AtomicBool,
    ) -> Result<Option<Model>, CacheError> {
        loop {
            let Some(model) = self.open_model(digest, manifest)? else { return Ok(None) };
            match self.verdict(&model)? {
                Verdict::Good => return Ok(Some(model)),
                Verdict::Bad(damage) => return Err(corrupt(&model, damage)),
                Verdict::Unknown => {}
            }
            tracing::info!(%digest, "nobody knows whether the files of this model are right: hashing them");
            let report = self.check(&model, threads, &|_, _| (), stop)?;
            if report.is_good() {
                return Ok(Some(model));
            }
            if !report.weights_are_good() {
                return Err(corrupt(&model, report.to_string()));
            }
            if self.is_read_only() {
                tracing::warn!(%digest, damage = %report, "files of this model are bad; its weights are good");
                return Ok(Some(model.bare()));
            }
            tracing::warn!(%digest, damage = %report, "dropping bad files of this model; its weights are good");
            drop_damaged(&model, &report)?;
        }
    }

    /// The finished model, if it is known to be right: nothing is hashed.
    pub(crate) fn trusted(&self, digest: &Digest) -> Result<Trust, CacheError> {
        let Some(manifest) = self.manifest(digest)? else { return Ok(Trust::Nothing) };
        let Some(model) = self.open_model(digest, &manifest)? else { return Ok(Trust::Nothing) };
        Ok(match self.verdict(&model)? {
            Verdict::Good => Trust::Good(model),
            Verdict::Bad(damage) => return Err(corrupt(&model, damage)),
            Verdict::Unknown => Trust::Unknown,
        })
    }

    /// Whether the model is still what it was when it was found right.
    pub(crate) fn is_trusted(&self, model: &Model) -> bool {
        self.verdict(model).is_ok_and(|verdict| verdict == Verdict::Good)
    }

    fn verdict(&self, model: &Model) -> Result<Verdict, CacheError> {
        let verdict = stamp::verdict(model.dir())?;
        if verdict != Verdict::Unknown {
            return Ok(verdict);
        }
        let files = stamp::of(model.dir())?;
        let known = self.known().get(model.digest()).filter(|(known, _)| *known == files).cloned();
        Ok(known.map_or(Verdict::Unknown, |(_, verdict)| verdict))
    }

    /// Hashes a model, and stamps it as it was before that. A good one is on the disk after that.
    fn check(
        &self,
        model: &Model,
        threads: usize,
        progress: &(dyn Fn(u64, u64) + Sync),
        stop: &AtomicBool,
    ) -> Result<RecheckReport, CacheError> {
        let before = stamp::of(model.dir())?;
        let report = recheck_until(model, threads, progress, stop)?;
        let (stamped, verdict) = if report.is_good() {
            let synced = install::sync(model.dir()).and_then(|()| stamp::write_good(model.dir(), &before));
            (synced, Verdict::Good)
        } else if report.weights_are_good() {
            (stamp::remove(model.dir()), Verdict::Unknown)
        } else {
            let damage = report.to_string();
            (stamp::write_bad(model.dir(), &before, &damage), Verdict::Bad(damage))
        };
        self.known().insert(*model.digest(), (before, verdict));
        if self.is_read_only() {
            tracing::info!(digest = %model.digest(), "each process that uses this cache hashes the model: it is read-only");
        } else if let Err(error) = stamped {
            tracing::warn!(%error, "what was found cannot be written down: another process will hash the model again");
        }
        Ok(report)
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Digest, (String, Verdict)>> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is known of a finished model.
pub(crate) enum Trust {
    /// It is right.
    Good(Model),
    /// It has to be hashed.
    Unknown,
    /// There is none.
    Nothing,
}

fn corrupt(model: &Model, damage: String) -> CacheError {
    CacheError::Corrupt { digest: *model.digest(), path: model.dir().to_owned(), damage }
}

fn parse(digest: &Digest, bytes: &[u8]) -> Result<Arc<Manifest>, CacheError> {
    let manifest = Manifest::parse(bytes);
    manifest.map(Arc::new).map_err(|source| CacheError::Manifest { digest: *digest, source })
}

/// Creates what is missing, sweeps, and makes sure that all of it can be written to.
fn prepare(layout: &Layout) -> Result<(), CacheError> {
    atomic::create_dir(layout.root())?;
    if !is_cache(layout)? {
        atomic::write(&layout.version(), format!("{LAYOUT_VERSION}\n").as_bytes(), 0o644)?;
    }
    for dir in [layout.manifests(), layout.models(), layout.partials(), layout.locks()] {
        atomic::create_dir(&dir)?;
        files::check_writable(&dir).map_err(|source| CacheError::io("write to", &dir, source))?;
    }
    if !layout.tag().exists() {
        atomic::write(&layout.tag(), TAG, 0o644)?;
    }
    if let Err(error) = staging::sweep(layout) {
        // It may be somebody else's, and is in nobody's way.
        tracing::warn!(%error, "what a killed process has left cannot be removed");
    }
    Ok(())
}

/// Whether there is a cache.
fn is_cache(layout: &Layout) -> Result<bool, CacheError> {
    let path = layout.version();
    let Some(found) = atomic::read(&path, MAX_VERSION_BYTES)? else { return Ok(false) };
    let found = String::from_utf8_lossy(&found).trim().to_owned();
    if found == LAYOUT_VERSION {
        return Ok(true);
    }
    Err(CacheError::UnknownVersion { path, found, expected: LAYOUT_VERSION })
}

fn is_denied(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

fn drop_damaged(model: &Model, report: &RecheckReport) -> Result<(), CacheError> {
    for bad in &report.bad {
        remove_file(&model.parity_path(bad.shard))?;
    }
    if !report.index.is_good() {
        remove_file(&model.index_path())?;
    }
    Ok(())
}

fn remove_file(path: &Path) -> Result<(), CacheError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(CacheError::io("remove", path, error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
