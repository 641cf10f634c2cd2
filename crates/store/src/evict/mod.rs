//! Room: which models go when the cache is to take no more than so much, and which never do.
//!
//! The one that was used longest ago goes first, partial ones among them. What is pinned, linked to now or before, the newest
//! or the live one of a series, or in use by a process stays. One process at a time makes room: it holds the lock until what
//! it made room for is reserved, and writes down how much that will be, so that the next one counts it.

mod used;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use manifest::Digest;

use super::entries::{disk_bytes, disk_bytes_but};
use super::keep::Keep;
use super::layout::digest_named;
use super::lock::{self, Guard, LockFile};
use super::stamp::Verdict;
use super::{Cache, CacheError, atomic, stamp};

/// What the files of a model take beside its weights and its index, at most: a journal, stamps, names of folders.
const MARGIN_BYTES: u64 = 1 << 20;

/// How much is to go.
#[derive(Debug, Clone, Copy, Default)]
pub struct Limit {
    /// The cache may take so much of the disk.
    pub max_bytes: Option<u64>,
    /// What was used so long ago goes, however much room there is.
    pub older_than: Option<Duration>,
}

/// What went, and what stayed though more was to go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Evicted {
    /// The models that went, with the disk space that each took, the one that was used longest ago first.
    pub removed: Vec<(Digest, u64)>,
    /// The models that stayed, with their disk space, and why.
    pub kept: Vec<(Digest, u64, Keep)>,
    /// What the cache takes now.
    pub left_bytes: u64,
}

/// Nobody else makes room until this is dropped.
#[derive(Debug)]
pub(super) struct RoomLock(#[expect(dead_code, reason = "it is held")] Guard);

/// What the cache takes of the disk, or will.
#[derive(Clone, Default)]
struct Taken {
    bytes: u64,
    /// What stays, and why.
    kept: Vec<(Digest, u64, Keep)>,
    /// What may go, the one that was used longest ago first.
    candidates: Vec<Candidate>,
}

/// A model that may go.
#[derive(Clone)]
struct Candidate {
    digest: Digest,
    bytes: u64,
    used: SystemTime,
}

impl Cache {
    /// Removes models until the cache is within the limit, or, as a `trial`, only says which would go.
    ///
    /// # Errors
    /// [`CacheError::ReadOnly`], [`CacheError::Io`].
    pub fn evict(&self, limit: Limit, trial: bool) -> Result<Evicted, CacheError> {
        self.check_writable()?;
        let _lock = LockFile::room(&self.layout().locks()).exclusive()?;
        self.make_room(self.taken(None)?, limit, 0, trial)
    }

    /// Makes room for the model that is about to be filled, if the cache has a limit. The result is held until the space is
    /// reserved.
    ///
    /// # Errors
    /// [`CacheError::OverLimit`] when too much has to stay; then nothing is removed.
    pub(super) fn room_for(&self, digest: &Digest, bytes: u64) -> Result<Option<RoomLock>, CacheError> {
        let Some(max_bytes) = self.max_bytes() else { return Ok(None) };
        let lock = RoomLock(LockFile::room(&self.layout().locks()).exclusive()?);
        let needed_bytes = bytes.saturating_add(MARGIN_BYTES);
        let limit = Limit { max_bytes: Some(max_bytes), older_than: None };
        let taken = self.taken(Some(digest))?;
        let planned = self.make_room(taken.clone(), limit, needed_bytes, true)?;
        if planned.left_bytes.saturating_add(needed_bytes) > max_bytes {
            let kept = planned.kept;
            return Err(CacheError::OverLimit { digest: *digest, needed_bytes, max_bytes, kept });
        }
        let made = self.make_room(taken, limit, needed_bytes, false)?;
        for (removed, bytes) in &made.removed {
            tracing::info!(digest = %removed, bytes, "removed to make room");
        }
        if made.left_bytes.saturating_add(needed_bytes) > max_bytes {
            // Somebody has begun to use one in between.
            let kept = made.kept;
            return Err(CacheError::OverLimit { digest: *digest, needed_bytes, max_bytes, kept });
        }
        self.promise(digest, needed_bytes)?;
        Ok(Some(lock))
    }

    /// What there is, under the lock; `wanted` stays. Others fill and finish models meanwhile: never less than there is.
    fn taken(&self, wanted: Option<&Digest>) -> Result<Taken, CacheError> {
        let kept = self.kept()?;
        let mut taken = Taken::default();
        // A model that is finished meanwhile is in the first list.
        let mut all = self.begun_all()?;
        all.extend(self.finished()?);
        let parents = [self.layout().partials(), self.layout().models()];
        taken.bytes = disk_bytes_but(self.dir(), &|path| parents.iter().any(|parent| path == parent))?;
        for parent in &parents {
            taken.bytes += disk_bytes_but(parent, &|path| path.file_name().is_some_and(is_listed(&all)))?;
        }
        for digest in all {
            let was_filled = self.is_being_filled(&digest)?;
            // In the order in which files move: one may be counted twice, and none is missed.
            let bytes =
                disk_bytes(&self.layout().partial(&digest))? + disk_bytes(&self.layout().model(&digest))?;
            let is_filled = was_filled || self.is_being_filled(&digest)?;
            taken.bytes += bytes;
            if wanted == Some(&digest) {
                continue;
            }
            if is_filled {
                taken.bytes += self.promised(&digest).saturating_sub(bytes);
            }
            match kept.get(&digest).and_then(|reasons| reasons.first()) {
                Some(keep) => taken.kept.push((digest, bytes, keep.clone())),
                None if is_filled => taken.kept.push((digest, bytes, Keep::InUse)),
                None => taken.candidates.push(Candidate { digest, bytes, used: self.last_used(&digest) }),
            }
        }
        taken.candidates.sort_by_key(|candidate| (candidate.used, candidate.digest));
        Ok(taken)
    }

    /// Under the lock: so many bytes will be `needed`.
    fn make_room(
        &self,
        taken: Taken,
        limit: Limit,
        needed_bytes: u64,
        trial: bool,
    ) -> Result<Evicted, CacheError> {
        let now = SystemTime::now();
        let Taken { bytes: mut left_bytes, kept, candidates } = taken;
        let mut evicted = Evicted { kept, ..Evicted::default() };
        for Candidate { digest, bytes, used } in candidates {
            let is_old = limit.older_than.is_some_and(|age| used + age <= now);
            let is_over = limit.max_bytes.is_some_and(|max| left_bytes.saturating_add(needed_bytes) > max);
            if !is_old && !is_over {
                continue;
            }
            let freed_bytes = match trial {
                true => (!self.is_used(&digest)?).then_some(bytes),
                false => {
                    self.release(&digest);
                    match self.remove(&digest) {
                        Ok(removed) => Some(removed.freed_bytes),
                        Err(CacheError::NotCached { .. }) => Some(0),
                        Err(
                            CacheError::InUse { .. } | CacheError::Linked { .. } | CacheError::Pinned { .. },
                        ) => None,
                        Err(error) => return Err(error),
                    }
                }
            };
            match freed_bytes {
                Some(freed_bytes) => {
                    left_bytes = left_bytes.saturating_sub(freed_bytes);
                    evicted.removed.push((digest, freed_bytes));
                }
                None => evicted.kept.push((digest, bytes, Keep::InUse)),
            }
        }
        evicted.left_bytes = left_bytes;
        Ok(evicted)
    }

    /// Why models are never evicted, whoever uses them or not: all reasons for each, pins first, then links, then series.
    ///
    /// # Errors
    /// [`CacheError::Io`].
    pub fn kept(&self) -> Result<HashMap<Digest, Vec<Keep>>, CacheError> {
        let pinned = self.pinned()?.into_iter().map(|digest| (digest, Keep::Pinned));
        let linked = self.linked()?.into_iter().map(|(digest, path)| (digest, Keep::Linked(path)));
        let series = self.newest_of_series()?.into_iter();
        let followed = series.map(|(digest, series)| (digest, Keep::Followed(series)));
        let mut kept: HashMap<Digest, Vec<Keep>> = HashMap::new();
        for (digest, keep) in pinned.chain(linked).chain(followed) {
            let reasons = kept.entry(digest).or_default();
            if !reasons.contains(&keep) {
                reasons.push(keep);
            }
        }
        Ok(kept)
    }

    /// Whether another process uses a model, or this one beyond serving it.
    fn is_used(&self, digest: &Digest) -> Result<bool, CacheError> {
        let mine = self.holds(digest);
        let usage = LockFile::usage(&self.layout().locks(), digest);
        Ok(match mine {
            // It would be released; who else has it shows then.
            true => usage.holders().iter().any(|holder| *holder != std::process::id()),
            false => usage.try_exclusive()?.is_none(),
        })
    }

    /// Notes how much a model that is being filled will take.
    fn promise(&self, digest: &Digest, bytes: u64) -> Result<(), CacheError> {
        let taken = disk_bytes(&self.layout().partial(digest))? + disk_bytes(&self.layout().model(digest))?;
        let path = self.promise_path(digest);
        atomic::create_dir(path.parent().unwrap_or(&path))?;
        atomic::write(&path, (bytes + taken).to_string().as_bytes(), 0o644)
    }

    /// What was noted; 0 when nothing was.
    fn promised(&self, digest: &Digest) -> u64 {
        let noted = atomic::read(&self.promise_path(digest), 32).ok().flatten().unwrap_or_default();
        String::from_utf8_lossy(&noted).trim().parse().unwrap_or(0)
    }

    fn promise_path(&self, digest: &Digest) -> PathBuf {
        self.layout().promise(digest)
    }

    /// Removes the parity shards of a finished model, of which nothing is needed here: the disk space that they took.
    ///
    /// # Errors
    /// [`CacheError::NotCached`]; [`CacheError::InUse`] while somebody fills or heals it; [`CacheError::Corrupt`];
    /// [`CacheError::Io`].
    pub fn drop_parity(&self, digest: &Digest) -> Result<u64, CacheError> {
        self.check_writable()?;
        let locks = self.layout().locks();
        let in_use = |lock: &LockFile| CacheError::InUse { digest: *digest, holders: lock.holders() };
        let _filling =
            lock::try_fill(&locks, digest)?.ok_or_else(|| in_use(&LockFile::fill(&locks, digest)))?;
        let not_cached = || CacheError::NotCached { digest: *digest, path: self.dir().to_owned() };
        let model = self.model(digest)?.ok_or_else(not_cached)?;
        let before = stamp::of(model.dir(), model.list())?;
        let is_stamped = stamp::verdict(model.dir(), model.list())? == Verdict::Good;
        let before_bytes = disk_bytes(model.dir())?;
        for shard in model.parity_kept() {
            atomic::remove_file(&model.parity_path(*shard))?;
        }
        // Killed here, or when a file has changed meanwhile, the model is hashed when it is used next.
        let after = stamp::of(model.dir(), model.list())?;
        let known: HashSet<&str> = before.lines().collect();
        if after.lines().all(|line| known.contains(line)) {
            match is_stamped {
                true => stamp::write_good(model.dir(), &after)?,
                false => drop(self.known().insert(*digest, (after, Verdict::Good))),
            }
        }
        Ok(before_bytes.saturating_sub(disk_bytes(model.dir())?))
    }
}

/// Whether a name is that of one of these models.
fn is_listed(all: &BTreeSet<Digest>) -> impl Fn(&OsStr) -> bool {
    |name| digest_named(name).is_some_and(|digest| all.contains(&digest))
}

#[cfg(test)]
mod tests;
