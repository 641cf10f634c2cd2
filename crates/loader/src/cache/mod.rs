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
//!   models/<manifest digest>/stamp   what the files looked like when they were verified
//!   partial/<manifest digest>/       the same files being filled, and a journal of verified pieces
//!   partial/staging-*                being published, or being removed; a dead process's are swept at the next opening
//!   locks/                           never deleted
//!   series/<name>                    models that were loaded for a series, oldest first
//!   run/                             sockets of running nodes, kept by them
//! ```
//!
//! A shard is stored once: data shards are ranges of `weights`, and a parity shard with the digest of a data shard has
//! no file of its own. A finished file is never written, truncated or linked again.
//!
//! Everything here blocks; asynchronous callers use a blocking thread.

mod atomic;
mod availability;
mod bans;
mod blob_dir;
mod blobs;
mod boot;
mod donors;
mod entries;
mod error;
mod journal;
pub(crate) mod layout;
mod lock;
mod model;
mod offer;
mod partial;
mod progress;
mod retention;
mod staging;
mod stamp;
mod writeback;

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::available_parallelism;

use manifest::{Digest, MAX_MANIFEST_BYTES, Manifest};
use rustix::io::Errno;

pub(crate) use atomic::allocate;
pub use blob_dir::BlobDir;
pub use blobs::Blobs;
pub use entries::{Entry, EntryState, Removed};
pub use error::CacheError;
pub use lock::FillLock;
pub use model::{Held, Model, Weights};
pub use offer::{Offer, Offered};
pub use partial::{Partial, Resumed};
pub(crate) use staging::Staging;
pub(crate) use writeback::Writeback;

use crate::recheck::{RecheckReport, recheck};
use boot::BootId;
use layout::{Layout, PARITY, PIECES, WEIGHTS};
use lock::LockFile;
use stamp::Holds;

/// What `VERSION` says.
const LAYOUT_VERSION: &str = "1";
const TAG: &[u8] =
    b"Signature: 8a477f597d28d172789f06886806bc55\n# Models fetched by `loader`; can be fetched again.\n";
const MANIFEST_LIMIT_BYTES: u64 = MAX_MANIFEST_BYTES as u64;

/// A handle on the cache; clones share it.
#[derive(Debug, Clone)]
pub struct Cache(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    layout: Layout,
    boot: BootId,
}

impl Cache {
    /// Opens the cache in `dir`, creating what is missing, and sweeps what killed processes have left half done.
    ///
    /// # Errors
    /// [`CacheError::UnknownVersion`] when the directory has another layout; [`CacheError::Io`].
    pub fn open(dir: &Path) -> Result<Self, CacheError> {
        Self::open_in_boot(dir, BootId::current())
    }

    fn open_in_boot(dir: &Path, boot: BootId) -> Result<Self, CacheError> {
        let root = std::path::absolute(dir).map_err(|source| CacheError::io("find", dir, source))?;
        let layout = Layout::new(root);
        atomic::create_dir(layout.root())?;
        check_version(&layout.version())?;
        for dir in [layout.manifests(), layout.models(), layout.partials(), layout.locks()] {
            atomic::create_dir(&dir)?;
        }
        if !layout.tag().exists() {
            atomic::write(&layout.tag(), TAG, 0o644)?;
        }
        staging::sweep(&layout)?;
        Ok(Self(Arc::new(Inner { layout, boot })))
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
            tracing::warn!(path = %path.display(), %found, "removing a corrupt manifest");
            fs::remove_file(&path).map_err(|source| CacheError::io("remove", &path, source))?;
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
        let Some(manifest) = self.manifest(digest)? else { return Ok(None) };
        match self.open_model(digest, &manifest)? {
            Some(model) => check(&model, threads, progress).map(Some),
            None => Ok(None),
        }
    }

    /// The exclusive right to fill this model; waits while another process, or another thread, has it. When it is
    /// got, that one may have finished: look at [`Self::model`] again.
    ///
    /// # Errors
    /// [`CacheError::Io`].
    pub fn lock_fill(&self, digest: &Digest) -> Result<FillLock, CacheError> {
        lock::fill(&self.layout().locks(), digest)
    }

    /// As [`Self::lock_fill`], but `None` instead of waiting.
    ///
    /// # Errors
    /// [`CacheError::Io`].
    pub fn try_lock_fill(&self, digest: &Digest) -> Result<Option<FillLock>, CacheError> {
        lock::try_fill(&self.layout().locks(), digest)
    }

    /// Creates the partial model that `lock` is for, or goes on with what an earlier run has left of it. Disk space
    /// for the weights is reserved where the file system can. Whoever wants the finished model to be `durable` waits
    /// for the disk in [`Partial::finish`].
    ///
    /// # Errors
    /// [`CacheError::DiskFull`], [`CacheError::Io`].
    pub fn partial(
        &self,
        lock: FillLock,
        manifest: Arc<Manifest>,
        durable: bool,
    ) -> Result<Partial, CacheError> {
        Partial::open(self.clone(), lock, manifest, durable)
    }

    fn layout(&self) -> &Layout {
        &self.0.layout
    }

    fn boot(&self) -> BootId {
        self.0.boot
    }

    fn open_model(&self, digest: &Digest, manifest: &Arc<Manifest>) -> Result<Option<Model>, CacheError> {
        let lock = LockFile::usage(&self.layout().locks(), digest).shared()?;
        Model::open(&self.layout().model(digest), digest, Arc::clone(manifest), lock)
    }

    fn load(&self, digest: &Digest, manifest: &Arc<Manifest>) -> Result<Option<Model>, CacheError> {
        loop {
            let Some(model) = self.open_model(digest, manifest)? else { return Ok(None) };
            if stamp::matches(model.dir(), self.boot())? {
                return Ok(Some(model));
            }
            tracing::info!(%digest, "the files of this model have changed since they were verified: hashing them");
            let threads = available_parallelism().map_or(1, usize::from);
            let report = check(&model, threads, &|_, _| ())?;
            if report.is_good() {
                return Ok(Some(model));
            }
            if !report.weights_are_good() {
                let path = model.dir().to_owned();
                return Err(CacheError::Corrupt { digest: *digest, path, damage: report.to_string() });
            }
            tracing::warn!(%digest, damage = %report, "dropping bad files of this model; its weights are good");
            drop_damaged(&model, &report)?;
        }
    }

    /// Makes the model in `dir`, whose bytes have all been verified, read-only and stamped, and moves it to its final
    /// name; if it is to be `durable`, waits until all of it is on the disk. When there is one already, that one is
    /// checked, and is the result.
    pub(crate) fn install(
        &self,
        dir: &Path,
        lock: &FillLock,
        manifest: Arc<Manifest>,
        durable: bool,
    ) -> Result<Model, CacheError> {
        for file in data_files(dir)? {
            make_read_only(&file)?;
        }
        if durable {
            sync(dir).inspect_err(|error| writeback::void(&dir.join(layout::JOURNAL), error))?;
        }
        let holds = if durable { Holds::Always } else { Holds::InBoot(self.boot()) };
        stamp::write(dir, &stamp::of(dir, holds)?, durable)?;
        let path = self.layout().model(lock.digest());
        let is_first = match rustix::fs::rename(dir, &path) {
            Ok(()) => true,
            Err(Errno::NOTEMPTY | Errno::EXIST) => false,
            Err(error) => return Err(CacheError::io("move into place", dir, error.into())),
        };
        if is_first {
            if durable {
                atomic::sync_dir(&self.layout().models())?;
                atomic::sync_dir(&self.layout().partials())?;
            }
            remove_file(&path.join(layout::JOURNAL))?;
        }
        let model = self.load_existing(lock.digest(), &manifest)?;
        if !is_first {
            fs::remove_dir_all(dir).map_err(|source| CacheError::io("remove", dir, source))?;
        }
        Ok(model)
    }

    /// Adds to a finished model the parity shards and the piece index of `dir` that it does not have.
    pub(crate) fn complete(&self, model: Model, dir: &Path) -> Result<Model, CacheError> {
        let mut moves = Vec::new();
        for shard in stamp::parity_kept(dir)? {
            moves.push((dir.join(PARITY).join(shard.to_string()), model.parity_path(shard)));
        }
        moves.push((dir.join(PIECES), model.index_path()));
        moves.retain(|(from, to)| from.exists() && !to.exists());
        if moves.is_empty() {
            return Ok(model);
        }
        atomic::create_dir(&model.dir().join(PARITY))?;
        for (from, to) in moves {
            make_read_only(&from)?;
            fs::rename(&from, &to).map_err(|source| CacheError::io("move into place", &from, source))?;
        }
        // The stamp does not fit any more, so that loading verifies and syncs the whole before it stamps it again.
        self.load_existing(model.digest(), model.manifest())
    }

    fn load_existing(&self, digest: &Digest, manifest: &Arc<Manifest>) -> Result<Model, CacheError> {
        let gone = || CacheError::Corrupt {
            digest: *digest,
            path: self.layout().model(digest),
            damage: "it has no weights".to_owned(),
        };
        self.load(digest, manifest)?.ok_or_else(gone)
    }
}

fn parse(digest: &Digest, bytes: &[u8]) -> Result<Arc<Manifest>, CacheError> {
    let manifest = Manifest::parse(bytes);
    manifest.map(Arc::new).map_err(|source| CacheError::Manifest { digest: *digest, source })
}

fn check_version(path: &Path) -> Result<(), CacheError> {
    let Some(found) = atomic::read(path, 64)? else {
        return atomic::write(path, format!("{LAYOUT_VERSION}\n").as_bytes(), 0o644);
    };
    let found = String::from_utf8_lossy(&found).trim().to_owned();
    if found == LAYOUT_VERSION {
        return Ok(());
    }
    Err(CacheError::UnknownVersion { path: path.to_owned(), found, expected: LAYOUT_VERSION })
}

/// Hashes a model, and stamps it as it was before that, or takes its stamp away. A good one is on the disk after that.
fn check(
    model: &Model,
    threads: usize,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<RecheckReport, CacheError> {
    let before = stamp::of(model.dir(), Holds::Always)?;
    let report = recheck(model, threads, progress)?;
    if !report.is_good() {
        stamp::remove(model.dir())?;
    } else if let Err(error) = sync(model.dir()).and_then(|()| stamp::write(model.dir(), &before, true)) {
        tracing::warn!(%error, "the model is good, but will be hashed again at the next start");
    }
    Ok(report)
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

fn make_read_only(path: &Path) -> Result<(), CacheError> {
    let changed = fs::set_permissions(path, Permissions::from_mode(0o444));
    changed.map_err(|source| CacheError::io("protect", path, source))
}

/// Waits until all files of a model are on the disk, and their names.
fn sync(model_dir: &Path) -> Result<(), CacheError> {
    for path in data_files(model_dir)? {
        let synced = File::open(&path).and_then(|file| file.sync_all());
        synced.map_err(|source| CacheError::io("sync", &path, source))?;
    }
    let parity = model_dir.join(PARITY);
    if parity.exists() {
        atomic::sync_dir(&parity)?;
    }
    atomic::sync_dir(model_dir)
}

/// The files of a model that hold something of it: all but stamp and journal.
fn data_files(model_dir: &Path) -> Result<Vec<PathBuf>, CacheError> {
    let parity = model_dir.join(PARITY);
    let mut files = vec![model_dir.join(WEIGHTS), model_dir.join(PIECES)];
    files.extend(stamp::parity_kept(model_dir)?.into_iter().map(|shard| parity.join(shard.to_string())));
    files.retain(|file| file.exists());
    Ok(files)
}

#[cfg(test)]
mod tests;
