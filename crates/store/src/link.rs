//! Links to models, for runtimes that are told one path: `links/` in the cache remembers where they are.
//!
//! A file of it is named by the digest of the link's path, and has three lines: the path, the model that it leads to, and the
//! one that it led to before, of which a runtime may still run. Neither of them is evicted.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use manifest::Digest;

use super::layout::digest_named;
use super::{Cache, CacheError, Model, atomic};

/// A path and two digests.
const MAX_NOTE_BYTES: u64 = 8192;

/// What is known of a link.
struct Note {
    path: PathBuf,
    current: Digest,
    previous: Option<Digest>,
}

impl Cache {
    /// Makes `path` a link to what a runtime opens of this model, in one step. A link into this cache is replaced, and nothing
    /// else.
    ///
    /// # Errors
    /// [`CacheError::NotALink`] when there is something else; [`CacheError::ReadOnly`], [`CacheError::Io`].
    pub fn link(&self, path: &Path, model: &Model) -> Result<(), CacheError> {
        self.check_writable()?;
        let fail = |source| CacheError::io("link", path, source);
        let path = std::path::absolute(path).map_err(fail)?;
        let target = model.path();
        let before = self.linked_by(&path)?;
        let notes = self.layout().links();
        atomic::create_dir(&notes)?;
        let note_path = notes.join(Digest::of(path.as_os_str().as_bytes()).to_string());
        let previous = match (&before, read(&note_path)?) {
            (Some(current), _) if current != model.digest() => Some(*current),
            (_, Some(note)) => note.previous,
            _ => None,
        };
        // Noted first: what it leads to must not be removed in between.
        let lines = [path.as_os_str().as_bytes(), model.digest().to_string().as_bytes()].join(&b'\n');
        let previous = previous.map_or(String::new(), |digest| format!("\n{digest}"));
        atomic::write(&note_path, &[&lines[..], previous.as_bytes(), b"\n"].concat(), 0o644)?;
        if before == Some(*model.digest()) && fs::read_link(&path).is_ok_and(|found| found == target) {
            return Ok(());
        }
        let dir = path.parent().unwrap_or(&path);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let new = dir.join(format!(".{name}.{:08x}", std::process::id()));
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail(error)),
            _ => {}
        }
        symlink(&target, &new).map_err(fail)?;
        // Whatever came meanwhile is not replaced, but for a link.
        let renamed = self.linked_by(&path).and_then(|_| fs::rename(&new, &path).map_err(fail));
        if renamed.is_err() {
            let _ = fs::remove_file(&new);
        }
        renamed?;
        atomic::sync_dir(dir)
    }

    /// Whether [`Self::link`] may make a link there.
    ///
    /// # Errors
    /// [`CacheError::NotALink`] when there is something else, [`CacheError::Io`].
    pub fn check_link(&self, path: &Path) -> Result<(), CacheError> {
        self.linked_by(path).map(drop)
    }

    /// The model that a link leads to; `None` when nothing is there.
    fn linked_by(&self, path: &Path) -> Result<Option<Digest>, CacheError> {
        let refused = || CacheError::NotALink { path: path.to_owned(), cache: self.dir().to_owned() };
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(CacheError::io("inspect", path, error)),
            Ok(found) if !found.is_symlink() => return Err(refused()),
            Ok(_) => {}
        }
        self.model_of(path).map(Some).ok_or_else(refused)
    }

    /// The model into which a link leads, whether or not it is there. The cache may be known by several paths.
    fn model_of(&self, link: &Path) -> Option<Digest> {
        let target = fs::read_link(link).ok()?;
        let models = fs::canonicalize(self.layout().models()).ok()?;
        target.ancestors().find_map(|dir| {
            let digest = digest_named(dir.file_name()?)?;
            (fs::canonicalize(dir.parent()?).ok()? == models).then_some(digest)
        })
    }

    /// Whether a link leads to this model now.
    pub(crate) fn leads_to(&self, link: &Path, digest: &Digest) -> bool {
        self.model_of(link) == Some(*digest)
    }

    /// The models that links lead to, and those they led to before: with the link.
    pub(crate) fn linked(&self) -> Result<Vec<(Digest, PathBuf)>, CacheError> {
        let dir = self.layout().links();
        let fail = |source| CacheError::io("list", &dir, source);
        let entries = match fs::read_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(fail)?,
        };
        let mut linked = Vec::new();
        for entry in entries {
            let path = entry.map_err(fail)?.path();
            // What no link leads to any more may go.
            let note = read(&path)?.filter(|note| self.model_of(&note.path) == Some(note.current));
            if let Some(Note { path, current, previous }) = note {
                linked.extend(previous.map(|digest| (digest, path.clone())));
                linked.push((current, path));
            }
        }
        Ok(linked)
    }
}

/// What a note says; `None` when it is none.
fn read(path: &Path) -> Result<Option<Note>, CacheError> {
    let Some(bytes) = atomic::read(path, MAX_NOTE_BYTES)? else { return Ok(None) };
    let mut lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    let digest = |line: &[u8]| std::str::from_utf8(line).ok()?.parse::<Digest>().ok();
    let found: Vec<Digest> = lines.iter().rev().map_while(|line| digest(line)).take(2).collect();
    lines.truncate(lines.len() - found.len());
    let path = PathBuf::from(std::ffi::OsStr::from_bytes(&lines.join(&b'\n')));
    Ok(match found[..] {
        [previous, current] => Some(Note { path, current, previous: Some(previous) }),
        [current] => Some(Note { path, current, previous: None }),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use manifest::Codec;

    use super::*;
    use crate::tests::publish::{options, publish_bytes, sample};

    fn setup() -> (tempfile::TempDir, Cache, [Model; 3]) {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(&dir.path().join("cache")).unwrap();
        let models =
            [1, 2, 3].map(|seed| publish_bytes(&cache, &sample(1000, seed), &options(3, 2, Codec::Rs)).model);
        (dir, cache, models)
    }

    #[test]
    fn a_link_leads_to_the_last_model_and_it_and_the_one_before_stay() {
        let (dir, cache, models) = setup();
        let path = dir.path().join("current");
        let digests = models.each_ref().map(|model| *model.digest());
        for (model, digest) in models.iter().zip(digests) {
            cache.link(&path, model).unwrap();
            cache.link(&path, model).unwrap();
            assert_eq!(fs::read_link(&path).unwrap(), model.path());
            cache.keep_last("one", &digest, 9, &|_| ()).unwrap();
        }
        drop(models);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing is left beside it");
        let linked: Vec<Digest> = cache.linked().unwrap().into_iter().map(|(digest, _)| digest).collect();
        assert_eq!(linked, [digests[1], digests[2]]);
        assert_eq!(cache.keep_last("one", &digests[2], 1, &|_| ()).unwrap(), [digests[0]]);
        let error = cache.remove(&digests[2]).unwrap_err();
        assert!(error.to_string().contains("current"), "{error}");
        // Once the link is gone, nothing holds them.
        fs::remove_file(&path).unwrap();
        assert!(cache.linked().unwrap().is_empty());
        cache.remove(&digests[2]).unwrap();
    }

    #[test]
    fn nothing_of_the_users_is_replaced() {
        let (dir, cache, models) = setup();
        let path = dir.path().join("link");
        let refuse = || {
            let error = cache.link(&path, &models[0]).unwrap_err();
            assert!(matches!(error, CacheError::NotALink { .. }), "{error}");
        };
        fs::File::create(&path).unwrap();
        refuse();
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        refuse();
        fs::remove_dir(&path).unwrap();
        symlink("/etc/hosts", &path).unwrap();
        refuse();
        assert_eq!(fs::read_link(&path).unwrap(), Path::new("/etc/hosts"));
    }

    #[test]
    fn what_is_no_note_keeps_nothing() {
        let (dir, cache, models) = setup();
        cache.link(&dir.path().join("a\nb"), &models[0]).unwrap();
        assert_eq!(cache.linked().unwrap().len(), 1, "a path may have any bytes");
        atomic::write(&cache.layout().links().join("x"), &[0xff; 100], 0o644).unwrap();
        assert_eq!(cache.linked().unwrap().len(), 1);
    }
}
