//! Healing: a corrupt finished model becomes a partial one again, of which all pieces are claims.
//!
//! Never in place, as it may be mapped. When it is not in use, its directory is renamed; else its files are cloned where
//! the file system can, or copied where there is space.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use manifest::Geometry;

use super::journal::{Journal, Record};
use super::layout::{INCOMPLETE, JOURNAL, PARITY, is_data};
use super::lock::{Guard, LockFile};
use super::piece_states;
use super::sync::data_files;
use super::{Cache, CacheError, FillLock, WeightsFiles, atomic, space, stamp};

/// Nodes that serve a model release it within a second or two after it is known to be bad.
const HOLDERS_WAIT: Duration = Duration::from_secs(3);
const HOLDERS_PAUSE: Duration = Duration::from_millis(50);

impl Cache {
    /// Turns a corrupt finished model into a partial one, if there is none. Each of its pieces is a claim: see
    /// [`Partial::claims`](super::Partial::claims). Waits a little for nodes that serve the model to release it.
    ///
    /// # Errors
    /// [`CacheError::NoRoomToHeal`] when the model is in use and there is no space for another one;
    /// [`CacheError::Io`], [`CacheError::DiskFull`].
    pub fn heal(&self, lock: &FillLock, geometry: &Geometry) -> Result<(), CacheError> {
        let (bad, partial) = (self.layout().model(lock.digest()), self.layout().partial(lock.digest()));
        if !bad.exists() || partial.exists() {
            return Ok(());
        }
        tracing::warn!(digest = %lock.digest(), "taking what is right of a model that is corrupt");
        let weights = WeightsFiles::of(geometry.manifest());
        if let Some(_guard) = self.try_exclusive(lock)? {
            for file in data_files(&bad, &weights)? {
                atomic::set_mode(&file, 0o644).map_err(|source| CacheError::io("open up", &file, source))?;
            }
            stamp::remove(&bad)?;
            atomic::remove_file(&bad.join(INCOMPLETE))?;
            claim(&bad, lock, geometry, &weights)?;
            self.rename_dir(&bad, &partial)?;
            atomic::sync_dir(&self.layout().partials())?;
            return atomic::sync_dir(&self.layout().models());
        }
        let staging = self.staging()?;
        for file in data_files(&bad, &weights)? {
            let target = staging.path().join(file.strip_prefix(&bad).unwrap_or(&file));
            atomic::create_dir(target.parent().unwrap_or(&target))?;
            self.copy(lock, &file, &target)?;
        }
        claim(staging.path(), lock, geometry, &weights)?;
        // The staging directory is moved away, so that dropping it removes nothing.
        fs::rename(staging.path(), &partial).map_err(|source| CacheError::io("move", &partial, source))
    }

    /// The exclusive lock of a model, if it is not in use.
    fn try_exclusive(&self, lock: &FillLock) -> Result<Option<Guard>, CacheError> {
        let (usage, started) = (LockFile::usage(&self.layout().locks(), lock.digest()), Instant::now());
        loop {
            let alone = usage.try_exclusive()?;
            if alone.is_some() || started.elapsed() > HOLDERS_WAIT {
                return Ok(alone);
            }
            std::thread::sleep(HOLDERS_PAUSE);
        }
    }

    fn copy(&self, lock: &FillLock, from: &Path, to: &Path) -> Result<(), CacheError> {
        let fail = |source| CacheError::io("copy", from, source);
        let source = atomic::open(from).map_err(fail)?;
        let target = atomic::create_new(to).map_err(fail)?;
        if files::try_clone(&source, &target) {
            return Ok(());
        }
        match space::require(to, source.metadata().map_err(fail)?.len()) {
            Err(CacheError::NoRoom { needed_bytes, free_bytes, .. }) => {
                let holders = LockFile::usage(&self.layout().locks(), lock.digest()).holders();
                let digest = *lock.digest();
                Err(CacheError::NoRoomToHeal { digest, holders, needed_bytes, free_bytes })
            }
            room => room.and_then(|()| io::copy(&mut &source, &mut &target).map(drop).map_err(fail)),
        }
    }
}

/// Writes a journal that claims all pieces that can be there.
fn claim(dir: &Path, lock: &FillLock, geometry: &Geometry, weights: &WeightsFiles) -> Result<(), CacheError> {
    atomic::create_dir(&dir.join(PARITY))?;
    let mut any = false;
    for file in weights.iter() {
        let path = dir.join(&file.path);
        match fs::metadata(&path) {
            // Truncated or appended bytes fail their check; the rest may be right.
            Ok(found) if found.len() != file.range.len() && found.len() != 0 => {
                let resized = files::open_to_change(atomic::place(&path))
                    .and_then(|open| open.set_len(file.range.len()));
                resized.map_err(|source| CacheError::io("resize", &path, source))?;
                any = true;
            }
            Ok(found) => any |= found.len() > 0,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(CacheError::io("inspect", &path, error)),
        }
    }
    let kept = stamp::parity_kept(dir)?;
    let is_there = |shard: &u32| if is_data(geometry, *shard) { any } else { kept.contains(shard) };
    let shards = piece_states::first_shards(geometry).filter(is_there);
    let pieces = shards.flat_map(|shard| {
        (0..geometry.manifest().piece_count(shard)).map(move |piece| Record::Piece(shard, piece))
    });
    Journal::open(&dir.join(JOURNAL), lock.digest(), 0, |_| ())?.append(pieces)
}
