//! The files of a model, folder by folder, and sentences about them.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::OFlags;
use store::Model;

use crate::encode::Folder;

/// Most troubles that are spelled out.
const MAX_TROUBLES: usize = 20;
/// Most names that one of them lists.
const MAX_NAMES: usize = 3;
/// Most characters of a text from inside of a file that are shown.
const MAX_SHOWN_CHARS: usize = 120;
/// Files of a model, as they can be looked at.
pub trait ModelFolder: Sync {
    /// The path of each file within the model, and its size in bytes. The order stays the same.
    fn paths(&self) -> Vec<(&str, u64)>;

    /// The first bytes of a file, `limit_bytes` at most. `None` when it cannot be read.
    ///
    /// `file` is its place in [`Self::paths`]: looking up a path for each of 65,536 files would take long.
    fn read_start(&self, file: usize, limit_bytes: u64) -> Option<Vec<u8>>;
}

impl ModelFolder for Folder {
    fn paths(&self) -> Vec<(&str, u64)> {
        self.files().iter().map(|file| (file.path.as_str(), file.size_bytes)).collect()
    }

    fn read_start(&self, file: usize, limit_bytes: u64) -> Option<Vec<u8>> {
        read_start(&self.files().get(file)?.source, limit_bytes)
    }
}

impl ModelFolder for Model {
    fn paths(&self) -> Vec<(&str, u64)> {
        match self.manifest().files() {
            [] => self.files().map(|file| (file.path, file.size_bytes)).collect(),
            files => files.iter().map(|file| (file.path().as_str(), file.size_bytes())).collect(),
        }
    }

    /// Reads the file instead of mapping it: a model keeps its maps, and a process has fewer of those than a model files.
    fn read_start(&self, file: usize, limit_bytes: u64) -> Option<Vec<u8>> {
        match self.manifest().files() {
            [] | [_] if file == 0 => read_start(&self.path(), limit_bytes),
            files => read_start(&self.path().join(files.get(file)?.path()), limit_bytes),
        }
    }
}

pub(super) fn read_start(path: &Path, limit_bytes: u64) -> Option<Vec<u8>> {
    // Opening a pipe that took the file's place must not wait for somebody to write to it.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
    let found = file.metadata().ok().filter(std::fs::Metadata::is_file)?;
    let mut bytes = Vec::with_capacity(usize::try_from(found.len().min(limit_bytes)).ok()?);
    file.take(limit_bytes).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// The files of one folder of the model.
pub(super) struct Dir<'a> {
    /// Its path with a `/` at its end; empty for the model's own folder.
    pub(super) prefix: &'a str,
    pub(super) files: Vec<DirFile<'a>>,
}

impl Dir<'_> {
    /// What it is called in a sentence.
    pub(super) fn shown(&self) -> &str {
        if self.prefix.is_empty() { "the model's folder" } else { self.prefix }
    }
}

#[derive(Clone, Copy)]
pub(super) struct DirFile<'a> {
    /// Where it is in [`ModelFolder::paths`].
    pub(super) place: usize,
    pub(super) path: &'a str,
    /// The last part of its path.
    pub(super) name: &'a str,
    pub(super) size_bytes: u64,
}

pub(super) fn by_dir<'a>(paths: &[(&'a str, u64)]) -> Vec<Dir<'a>> {
    let mut dirs: BTreeMap<&str, Vec<DirFile<'_>>> = BTreeMap::new();
    for (place, (path, size_bytes)) in paths.iter().enumerate() {
        let (prefix, name) = path.split_at(path.rfind('/').map_or(0, |slash| slash + 1));
        dirs.entry(prefix).or_default().push(DirFile { place, path, name, size_bytes: *size_bytes });
    }
    let sorted = |(prefix, mut files): (_, Vec<DirFile<'a>>)| {
        files.sort_by_key(|file| file.name);
        Dir { prefix, files }
    };
    dirs.into_iter().map(sorted).collect()
}

/// A bounded list of sentences.
#[derive(Default)]
pub(super) struct Troubles {
    list: Vec<String>,
    more: u64,
}

impl Troubles {
    pub(super) fn add(&mut self, trouble: String) {
        if self.list.len() < MAX_TROUBLES { self.list.push(trouble) } else { self.more += 1 }
    }

    pub(super) fn into_list(mut self) -> Vec<String> {
        if self.more > 0 {
            self.list.push(format!("and {} more", self.more));
        }
        self.list
    }
}

/// `a, b, c and 4 more`.
pub(super) fn some_of<S: AsRef<str>>(names: &[S]) -> String {
    let first: Vec<&str> = names.iter().take(MAX_NAMES).map(AsRef::as_ref).collect();
    match names.len() - first.len() {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

/// A text from inside of a file: short, and without what a terminal acts on.
pub(super) fn short(text: &str) -> String {
    let mut shown: String = text.chars().take(MAX_SHOWN_CHARS).flat_map(char::escape_debug).collect();
    if text.chars().nth(MAX_SHOWN_CHARS).is_some() {
        shown.push('…');
    }
    shown
}
