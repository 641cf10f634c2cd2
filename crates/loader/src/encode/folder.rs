//! The files of a folder that is published: which, under which names, in which order.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use manifest::{FilePath, MAX_FILES, check_paths};

use super::PublishError;
use crate::selection::Selection;

/// Files under this size come before all others: a runtime reads configurations first.
const SMALL_BYTES: u64 = 1 << 20;
/// Left out unless they are asked for: what tools keep beside a model.
const LEFT_OUT: [&str; 3] = [".git", ".gitattributes", ".cache"];
const LOCK: &str = ".lock";

/// The files that are published.
#[derive(Debug, Clone)]
pub struct Folder {
    files: Vec<FolderFile>,
    left_out: Vec<String>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FolderFile {
    /// Its name in the model.
    pub path: FilePath,
    /// Where its bytes are: links are followed.
    pub source: PathBuf,
    /// Its size; 0 too.
    pub size_bytes: u64,
}

impl Folder {
    /// Lists a folder; or a file, which keeps its name. Nothing is read.
    ///
    /// Links to files are followed if they stay in the folder, or are those of a hub's cache to its blobs. In order: files under
    /// a megabyte, then the others, each by the bytes of their paths.
    ///
    /// # Errors
    /// [`PublishError::Read`], [`PublishError::NotAFile`], [`PublishError::BadName`], [`PublishError::BadLink`],
    /// [`PublishError::NoFiles`], [`PublishError::Names`].
    pub fn list(path: &Path, selection: &Selection) -> Result<Self, PublishError> {
        let fail = |source| PublishError::Read { path: path.to_owned(), source };
        let mut folder = Self { files: Vec::new(), left_out: Vec::new() };
        if fs::metadata(path).map_err(fail)?.is_dir() {
            let root = fs::canonicalize(path).map_err(fail)?;
            Lister { base: path, root: &root, selection }.list(&mut folder)?;
        } else {
            folder.add_one(path)?;
        }
        folder.files.sort_by(|a, b| {
            let key = |file: &FolderFile| file.size_bytes >= SMALL_BYTES;
            key(a).cmp(&key(b)).then_with(|| a.path.as_str().as_bytes().cmp(b.path.as_str().as_bytes()))
        });
        if folder.files.iter().all(|file| file.size_bytes == 0) {
            let (path, left_out) = (path.to_owned(), folder.left_out.len());
            return Err(PublishError::NoFiles { path, left_out });
        }
        let names = check_paths(folder.files.iter().map(|file| &file.path));
        names.map_err(|source| PublishError::Names { path: path.to_owned(), source })?;
        Ok(folder)
    }

    /// The files, in their order.
    pub fn files(&self) -> &[FolderFile] {
        &self.files
    }

    /// What was left out, by its path.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// Bytes of all files.
    pub fn total_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size_bytes).sum()
    }

    fn add_one(&mut self, path: &Path) -> Result<(), PublishError> {
        // `path/to/..` has no name of its own.
        let name =
            fs::canonicalize(path).map_err(|source| PublishError::Read { path: path.to_owned(), source });
        let name = path.file_name().map_or_else(|| name, |name| Ok(PathBuf::from(name)))?;
        let name = name.file_name().unwrap_or(name.as_os_str()).to_owned();
        self.add(path, Path::new(&name), path.to_owned())
    }

    /// Adds a file that is shown as `shown` and has a name in the model.
    fn add(&mut self, shown: &Path, name: &Path, source: PathBuf) -> Result<(), PublishError> {
        let found = fs::metadata(&source);
        let found = found.map_err(|source| PublishError::Read { path: shown.to_owned(), source })?;
        if !found.is_file() {
            return Err(PublishError::NotAFile { path: shown.to_owned() });
        }
        let bad = |reason: String| PublishError::BadName { path: shown.to_owned(), reason };
        let text = name.to_str().ok_or_else(|| bad("not UTF-8".to_owned()))?;
        let path = text.parse().map_err(|error: manifest::PathError| bad(error.to_string()))?;
        self.files.push(FolderFile { path, source, size_bytes: found.len() });
        match self.files.len() > MAX_FILES {
            true => Err(PublishError::TooMany {
                what: "files",
                found: self.files.len() as u64,
                max: MAX_FILES as u64,
                hint: "leave some out with --exclude",
            }),
            false => Ok(()),
        }
    }
}

/// A walk through a folder.
struct Lister<'a> {
    /// As it was given.
    base: &'a Path,
    /// Without links.
    root: &'a Path,
    selection: &'a Selection,
}

impl Lister<'_> {
    fn list(&self, folder: &mut Folder) -> Result<(), PublishError> {
        let mut dirs = vec![PathBuf::new()];
        while let Some(dir) = dirs.pop() {
            let shown = self.base.join(&dir);
            let fail = |source| PublishError::Read { path: shown.clone(), source };
            for entry in fs::read_dir(&shown).map_err(fail)? {
                let entry = entry.map_err(fail)?;
                let name = dir.join(entry.file_name());
                let kind = entry.file_type().map_err(fail)?;
                if kind.is_dir() && !self.is_left_out(&name) {
                    dirs.push(name);
                } else if self.is_left_out(&name)
                    || !(kind.is_dir() || self.selection.has(&name.to_string_lossy()))
                {
                    folder.left_out.push(name.to_string_lossy().into_owned());
                } else {
                    let shown = self.base.join(&name);
                    let source = if kind.is_symlink() { self.target(&shown)? } else { shown.clone() };
                    folder.add(&shown, &name, source)?;
                }
            }
        }
        folder.left_out.sort_unstable();
        Ok(())
    }

    /// Whether this is something that tools keep beside a model, and not asked for.
    fn is_left_out(&self, name: &Path) -> bool {
        let file = name.file_name().unwrap_or_default().to_string_lossy();
        let is_tools = LEFT_OUT.contains(&&*file) || file.ends_with(LOCK);
        is_tools && !self.selection.names(&name.to_string_lossy())
    }

    /// The file that a link leads to.
    fn target(&self, link: &Path) -> Result<PathBuf, PublishError> {
        let bad = |reason| PublishError::BadLink { path: link.to_owned(), reason };
        let target = match fs::canonicalize(link) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(bad("to nothing: finish the download, or leave it out with --exclude"));
            }
            target => target.map_err(|source| PublishError::Read { path: link.to_owned(), source })?,
        };
        if target.is_dir() {
            return Err(bad("to a folder, which cannot be published: put a copy in its place"));
        }
        if target.starts_with(self.root) || self.is_hub_blob(&target) {
            return Ok(target);
        }
        Err(bad("to a file outside of the folder: put a copy in its place, or leave it out with --exclude"))
    }

    /// Whether the folder is a snapshot of a hub's cache, `<model>/snapshots/<revision>`, and this one of its
    /// `<model>/blobs`.
    fn is_hub_blob(&self, target: &Path) -> bool {
        let snapshots = self.root.parent().filter(|dir| dir.file_name() == Some("snapshots".as_ref()));
        let blobs = snapshots.and_then(Path::parent).map(|model| model.join("blobs"));
        blobs.is_some_and(|blobs| target.starts_with(blobs))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::symlink;

    use super::*;

    fn write(path: PathBuf, bytes: usize) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::File::create(path).unwrap().write_all(&vec![7; bytes]).unwrap();
    }

    fn names(folder: &Folder) -> Vec<&str> {
        folder.files().iter().map(|file| file.path.as_str()).collect()
    }

    fn list(dir: &Path) -> Result<Folder, PublishError> {
        Folder::list(dir, &Selection::default())
    }

    fn refused(dir: &Path) -> String {
        list(dir).unwrap_err().to_string()
    }

    #[test]
    fn small_files_come_first_and_what_tools_keep_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path().join("b.safetensors"), 1 << 20);
        write(dir.path().join("z.json"), 2);
        write(dir.path().join("a/config.json"), 0);
        for left_out in [".git/HEAD", ".gitattributes", ".cache/huggingface/x", "download.lock"] {
            write(dir.path().join(left_out), 1);
        }
        let folder = list(dir.path()).unwrap();
        assert_eq!(names(&folder), ["a/config.json", "z.json", "b.safetensors"]);
        assert_eq!(folder.left_out(), [".cache", ".git", ".gitattributes", "download.lock"]);
        assert_eq!(folder.total_bytes(), (1 << 20) + 2);
        let selection = Selection::new(&["*.json".to_owned(), "*.lock".to_owned()], &["a/*".to_owned()]);
        let folder = Folder::list(dir.path(), &selection.unwrap()).unwrap();
        assert_eq!(names(&folder), ["download.lock", "z.json"]);
    }

    #[test]
    fn one_file_keeps_its_name() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path().join("q4.gguf"), 3);
        assert_eq!(names(&list(&dir.path().join("q4.gguf")).unwrap()), ["q4.gguf"]);
        symlink("q4.gguf", dir.path().join("latest.gguf")).unwrap();
        assert_eq!(names(&list(&dir.path().join("latest.gguf")).unwrap()), ["latest.gguf"]);
    }

    #[test]
    fn a_hubs_snapshot_is_published_as_it_is_and_other_links_stay_inside() {
        let dir = tempfile::tempdir().unwrap();
        let snapshot = dir.path().join("models--a--b/snapshots/0123");
        write(dir.path().join("models--a--b/blobs/aa"), 5);
        fs::create_dir_all(snapshot.join("sub")).unwrap();
        symlink("../../blobs/aa", snapshot.join("config.json")).unwrap();
        symlink("../../../blobs/aa", snapshot.join("sub/model.bin")).unwrap();
        symlink("config.json", snapshot.join("again.json")).unwrap();
        let folder = list(&snapshot).unwrap();
        assert_eq!(names(&folder), ["again.json", "config.json", "sub/model.bin"]);
        assert!(folder.files().iter().all(|file| file.size_bytes == 5));
        // The folder itself may be named by a link.
        symlink(&snapshot, dir.path().join("current")).unwrap();
        assert_eq!(names(&list(&dir.path().join("current")).unwrap()).len(), 3);

        for (target, word) in [("../../..", "folder"), ("/etc/passwd", "outside"), ("gone", "nothing")] {
            let link = snapshot.join("link");
            symlink(target, &link).unwrap();
            let error = refused(&snapshot);
            assert!(error.contains(word) && error.contains("link"), "{error}");
            let selection = Selection::new(&[], &["link".to_owned()]).unwrap();
            assert_eq!(Folder::list(&snapshot, &selection).unwrap().files().len(), 3);
            fs::remove_file(link).unwrap();
        }
    }

    #[test]
    fn what_cannot_be_a_path_or_has_no_bytes_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(refused(dir.path()).contains("no file"), "{}", refused(dir.path()));
        write(dir.path().join("empty"), 0);
        assert!(refused(dir.path()).contains("no file"));
        write(dir.path().join("model"), 1);
        for name in [&b"a\\b"[..], b"a\nb", b"\xff"] {
            let path = dir.path().join(std::ffi::OsStr::from_bytes(name));
            write(path.clone(), 1);
            let error = refused(dir.path());
            assert!(error.contains("cannot be the name"), "{error}");
            fs::remove_file(path).unwrap();
        }
        write(dir.path().join("Model"), 1);
        assert!(matches!(list(dir.path()), Err(PublishError::Names { .. })));
        fs::remove_file(dir.path().join("Model")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, dir.path().join("pipe"), rustix::fs::Mode::RWXU).unwrap();
        assert!(refused(dir.path()).contains("regular file"));
    }
}
