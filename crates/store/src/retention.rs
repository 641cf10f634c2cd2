//! Keeping the last models of a series, such as those that one contract has named.
//!
//! `series/<name>` in the cache lists the models that were loaded for a series, a digest a line, oldest first, and
//! `series/<name>.live` has the one that is known to be in use, where that is known.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use manifest::Digest;

use super::lock::LockFile;
use super::{Cache, CacheError, atomic};

/// What the name of the file ends with that names the model in use.
const LIVE: &str = ".live";
/// A series remembers at most so many models; the oldest are forgotten, not removed.
const MAX_REMEMBERED: usize = 1024;
/// No list is longer.
const MAX_LIST_BYTES: u64 = 65 * MAX_REMEMBERED as u64;

impl Cache {
    /// Notes that the model was loaded for `series`, a word fit for a file name, and removes the models that were
    /// loaded for it before the last `keep`, this one included. The one that was noted as live stays, and
    /// what links lead to, or led to before. What is in use, or in
    /// another series, stays, too; the next call tries again. `release` is told of each model before: this process shall no longer use it. Returns what was
    /// removed.
    ///
    /// # Errors
    /// [`CacheError::Io`], [`CacheError::DiskFull`]; then nothing is forgotten.
    pub fn keep_last(
        &self,
        series: &str,
        digest: &Digest,
        keep: usize,
        release: &dyn Fn(&Digest),
    ) -> Result<Vec<Digest>, CacheError> {
        self.check_writable()?;
        let dir = self.layout().series();
        atomic::create_dir(&dir)?;
        let _lock = LockFile::series(&self.layout().locks()).exclusive()?;
        let path = dir.join(series);
        let mut listed = read(&path)?;
        listed.retain(|other| other != digest);
        listed.push(*digest);
        let live = self.live(series)?;
        let excess = listed.len().saturating_sub(keep.max(1));
        let (mut removed, mut kept) = (Vec::new(), Vec::new());
        let linked: HashSet<Digest> = self.linked()?.into_iter().map(|(linked, _)| linked).collect();
        let pinned = self.pinned()?;
        for candidate in listed.drain(..excess) {
            if live == Some(candidate) || linked.contains(&candidate) || pinned.contains(&candidate) {
                kept.push(candidate);
                continue;
            }
            if self.is_in_other_series(series, &candidate)? {
                continue;
            }
            release(&candidate);
            match self.remove(&candidate) {
                Ok(_) => removed.push(candidate),
                Err(CacheError::NotCached { .. }) => {}
                Err(CacheError::InUse { .. }) => kept.push(candidate),
                Err(error) => return Err(error),
            }
        }
        kept.extend(listed);
        kept.drain(..kept.len().saturating_sub(MAX_REMEMBERED));
        let text: String = kept.iter().map(|digest| format!("{digest}\n")).collect();
        atomic::write(&path, text.as_bytes(), 0o644)?;
        Ok(removed)
    }

    /// The newest model of each series, and the one that is known to be in use, with the name of the series.
    pub(crate) fn newest_of_series(&self) -> Result<Vec<(Digest, String)>, CacheError> {
        let mut newest = Vec::new();
        for series in self.series_names()? {
            let listed = read(&self.layout().series().join(&series))?.pop();
            let live = self.live(&series)?;
            newest.extend(listed.into_iter().chain(live).map(|digest| (digest, series.clone())));
        }
        Ok(newest)
    }

    /// The series that each model is in.
    ///
    /// # Errors
    /// [`CacheError::Io`].
    pub(crate) fn all_series(&self) -> Result<HashMap<Digest, Vec<String>>, CacheError> {
        let mut found: HashMap<Digest, Vec<String>> = HashMap::new();
        for name in self.series_names()? {
            for digest in read(&self.layout().series().join(&name))? {
                found.entry(digest).or_default().push(name.clone());
            }
        }
        Ok(found)
    }

    fn series_names(&self) -> Result<Vec<String>, CacheError> {
        let dir = self.layout().series();
        let fail = |source| CacheError::io("list", &dir, source);
        let entries = match fs::read_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(fail)?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(fail)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_list = entry.file_type().map_err(fail)?.is_file();
            if is_list && !name.starts_with('.') && !name.ends_with(LIVE) {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// The model of a series that is known to be in use; `None` while none ever was.
    ///
    /// # Errors
    /// [`CacheError::Io`].
    pub fn live(&self, series: &str) -> Result<Option<Digest>, CacheError> {
        Ok(read(&self.live_path(series))?.pop())
    }

    /// Records that this model is in use, and the one before is not any more.
    ///
    /// # Errors
    /// [`CacheError::Io`], [`CacheError::DiskFull`].
    pub fn set_live(&self, series: &str, digest: &Digest) -> Result<(), CacheError> {
        atomic::create_dir(&self.layout().series())?;
        atomic::write(&self.live_path(series), format!("{digest}\n").as_bytes(), 0o644)
    }

    fn live_path(&self, series: &str) -> PathBuf {
        self.layout().series().join(format!("{series}{LIVE}"))
    }

    fn is_in_other_series(&self, series: &str, digest: &Digest) -> Result<bool, CacheError> {
        let dir = self.layout().series();
        let fail = |source| CacheError::io("list", &dir, source);
        for entry in fs::read_dir(&dir).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let (path, is_list) = (entry.path(), entry.file_type().map_err(fail)?.is_file());
            let is_ours = is_list && !entry.file_name().as_encoded_bytes().starts_with(b".");
            let is_other = path != dir.join(series) && path != self.live_path(series);
            if is_ours && is_other && read(&path)?.contains(digest) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The digests of a list; lines that are none are passed over.
fn read(path: &Path) -> Result<Vec<Digest>, CacheError> {
    let bytes = atomic::read(path, MAX_LIST_BYTES)?.unwrap_or_default();
    Ok(String::from_utf8_lossy(&bytes).lines().filter_map(|line| line.parse().ok()).collect())
}

#[cfg(test)]
mod tests {
    use manifest::Codec;

    use super::*;
    use crate::tests::publish::{options, publish_bytes, sample};

    fn model(cache: &Cache, seed: u64) -> Digest {
        publish_bytes(cache, &sample(1000, seed), &options(3, 2, Codec::Rs)).digest
    }

    fn cached(cache: &Cache) -> Vec<Digest> {
        let mut digests: Vec<_> = cache.list().unwrap().into_iter().map(|entry| entry.digest).collect();
        digests.sort();
        digests
    }

    #[test]
    fn the_last_ones_stay_and_models_of_nobody_too() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let own = model(&cache, 0);
        let [a, b, c] = [1, 2, 3].map(|seed| model(&cache, seed));
        assert!(cache.keep_last("one", &a, 2, &|_| ()).unwrap().is_empty());
        assert!(cache.keep_last("one", &b, 2, &|_| ()).unwrap().is_empty());
        assert!(cache.keep_last("one", &a, 2, &|_| ()).unwrap().is_empty(), "the same two");
        assert_eq!(cache.keep_last("one", &c, 2, &|_| ()).unwrap(), [b]);
        let mut expected = vec![own, a, c];
        expected.sort();
        assert_eq!(cached(&cache), expected);
        assert_eq!(cache.keep_last("one", &c, 1, &|_| ()).unwrap(), [a]);
        assert!(cache.keep_last("one", &c, 0, &|_| ()).unwrap().is_empty(), "the newest always stays");
    }

    #[test]
    fn what_is_mapped_goes_later_and_what_another_series_has_stays() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let [a, b, c] = [1, 2, 3].map(|seed| model(&cache, seed));
        cache.keep_last("one", &a, 1, &|_| ()).unwrap();
        let mapped = cache.model(&a).unwrap().unwrap();
        assert!(cache.keep_last("one", &b, 1, &|_| ()).unwrap().is_empty(), "it is mapped");
        drop(mapped);
        cache.keep_last("two", &b, 1, &|_| ()).unwrap();
        assert_eq!(cache.keep_last("one", &c, 1, &|_| ()).unwrap(), [a]);
        assert_eq!(cached(&cache).len(), 2);
    }

    #[test]
    fn what_is_no_list_keeps_no_model() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let [a, b] = [1, 2].map(|seed| model(&cache, seed));
        cache.keep_last("one", &a, 1, &|_| ()).unwrap();
        let series = cache.layout().series();
        for name in [".tmp-a1B2c3", ".one.swp"] {
            fs::copy(series.join("one"), series.join(name)).unwrap();
        }
        fs::create_dir(series.join("folder")).unwrap();
        assert_eq!(cache.keep_last("one", &b, 1, &|_| ()).unwrap(), [a]);
    }

    #[test]
    fn what_is_live_stays_however_few_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let [a, b, c, d] = [1, 2, 3, 4].map(|seed| model(&cache, seed));
        assert_eq!(cache.live("one").unwrap(), None);
        cache.keep_last("one", &a, 1, &|_| ()).unwrap();
        cache.set_live("one", &a).unwrap();
        assert!(cache.keep_last("one", &b, 1, &|_| ()).unwrap().is_empty());
        // As after a restart.
        let cache = Cache::open(dir.path()).unwrap();
        assert_eq!(cache.live("one").unwrap(), Some(a));
        assert_eq!(cache.keep_last("one", &c, 1, &|old| assert_eq!(*old, b)).unwrap(), [b]);
        cache.set_live("one", &c).unwrap();
        assert_eq!(cache.keep_last("one", &d, 1, &|_| ()).unwrap(), [a]);
        let mut expected = vec![c, d];
        expected.sort();
        assert_eq!(cached(&cache), expected);
    }

    #[test]
    fn a_broken_list_is_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let a = model(&cache, 1);
        cache.keep_last("one", &a, 1, &|_| ()).unwrap();
        let path = cache.layout().series().join("one");
        for garbage in [vec![0xff; 100], vec![b'x'; 1 << 20]] {
            atomic::write(&path, &garbage, 0o644).unwrap();
            assert!(cache.keep_last("one", &a, 1, &|_| ()).unwrap().is_empty());
            assert_eq!(read(&path).unwrap(), [a]);
        }
    }
}
