//! Whole folders: in memory, to be published, and finished.

use std::fs::{self, File};
use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};

use manifest::Codec;
use store::Cache;

use super::listing::*;
use super::*;
use crate::Selection;
use crate::encode::Folder;
use crate::encode::{Input, publish, tests::options};

/// A safetensors file without tensors that nothing is wrong with.
pub(crate) const WEIGHTS: &[u8] = b"\x20\0\0\0\0\0\0\0{\"__metadata__\":{\"format\":\"pt\"}}";

/// A file of this header.
pub(crate) fn safetensors(header: &[u8], data_bytes: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header);
    bytes.resize(bytes.len() + data_bytes, 0);
    bytes
}

/// Files in memory.
#[derive(Default)]
pub(crate) struct Memory {
    files: Vec<MemoryFile>,
    reads: AtomicUsize,
}

struct MemoryFile {
    path: String,
    size_bytes: u64,
    bytes: Option<Vec<u8>>,
}

impl Memory {
    pub(crate) fn new(files: &[(&str, &[u8])]) -> Self {
        files.iter().fold(Self::default(), |folder, (path, bytes)| folder.with(path, bytes))
    }

    pub(crate) fn with(mut self, path: &str, bytes: &[u8]) -> Self {
        let (path, size_bytes) = (path.to_owned(), bytes.len() as u64);
        self.files.push(MemoryFile { path, size_bytes, bytes: Some(bytes.to_vec()) });
        self
    }

    fn find(&mut self, path: &str) -> &mut MemoryFile {
        self.files.iter_mut().find(|file| file.path == path).unwrap()
    }

    /// With a file that cannot be read.
    pub(crate) fn unreadable(mut self, path: &str) -> Self {
        self.find(path).bytes = None;
        self
    }

    /// With a file that has another size than bytes.
    pub(crate) fn claiming(mut self, path: &str, size_bytes: u64) -> Self {
        self.find(path).size_bytes = size_bytes;
        self
    }

    pub(crate) fn troubles(&self) -> Vec<String> {
        troubles(self)
    }
}

impl ModelFolder for Memory {
    fn paths(&self) -> Vec<(&str, u64)> {
        self.files.iter().map(|file| (file.path.as_str(), file.size_bytes)).collect()
    }

    fn read_start(&self, file: usize, limit_bytes: u64) -> Option<Vec<u8>> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let bytes = self.files.get(file)?.bytes.as_ref()?;
        let limit = usize::try_from(limit_bytes).unwrap().min(bytes.len());
        Some(bytes[..limit].to_vec())
    }
}

/// The one trouble that there is.
pub(crate) fn only(folder: &Memory) -> String {
    let mut found = folder.troubles();
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

#[test]
fn gguf_without_its_magic_is_told() {
    for bytes in [&b""[..], b"GGU", b"gguf", b"<html>"] {
        assert!(only(&Memory::new(&[("a/q4.gguf", bytes)])).contains("a/q4.gguf is not a GGUF file"));
    }
    assert!(Memory::new(&[("q4.gguf", b"GGUF")]).troubles().is_empty());
    assert!(only(&Memory::new(&[("q4.gguf", b"GGUF")]).unreadable("q4.gguf")).contains("cannot be read"));
}

#[test]
fn troubles_are_counted_when_there_are_many() {
    let folder = |count: usize| {
        (0..count).fold(Memory::default(), |folder, file| folder.with(&format!("{file}.gguf"), b""))
    };
    assert_eq!(folder(20).troubles().len(), 20);
    let many = folder(25).troubles();
    assert_eq!((many.len(), many[20].as_str()), (21, "and 5 more"));
}

#[test]
fn only_candidates_are_read_and_as_many_files_as_there_may_be_are_fine() {
    let mut folder = Memory::new(&[("model.safetensors", WEIGHTS)]);
    for file in 1..manifest::MAX_FILES {
        folder = folder.with(&format!("{}/{file}.txt", file % 300), b"x");
    }
    assert!(folder.troubles().is_empty() && executable(&folder).is_empty());
    assert_eq!(folder.reads.load(Ordering::Relaxed), 2);
}

#[test]
fn as_many_weights_as_there_may_be_are_fine() {
    let files = (0..manifest::MAX_FILES).fold(Memory::default(), |folder, file| {
        folder.with(&format!("{:05}-{file}-of-65536.safetensors", file % 2), WEIGHTS)
    });
    let troubles = files.troubles();
    assert_eq!(troubles.len(), 5, "{troubles:?}");
}

#[test]
fn texts_from_files_are_shown_short_and_escaped() {
    assert_eq!(short("a\u{1b}[0m\n"), "a\\u{1b}[0m\\n");
    assert_eq!(short(&"é".repeat(120)), "é".repeat(120));
    assert_eq!(short(&"é".repeat(121)), format!("{}…", "é".repeat(120)));
}

#[test]
fn lists_of_names_are_short() {
    assert_eq!(some_of(&["a"]), "a");
    assert_eq!(some_of(&["a", "b", "c"]), "a, b, c");
    assert_eq!(some_of(&["a", "b", "c", "d", "e"]), "a, b, c and 2 more");
}

fn published(files: &[(&str, &[u8])]) -> (Folder, store::Model, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    for (path, bytes) in files {
        let path = dir.path().join("folder").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        File::create(path).unwrap().write_all(bytes).unwrap();
    }
    let folder = Folder::list(&dir.path().join("folder"), &Selection::default()).unwrap();
    let cache = Cache::open(&dir.path().join("cache")).unwrap();
    let input = Input::Folder(folder.clone());
    let model = publish(&cache, &input, &options(2, 1, Codec::Rs), &|_, _| ()).unwrap().model;
    (folder, model, dir)
}

#[test]
fn a_folder_and_the_model_of_it_say_the_same() {
    let (folder, model, _dir) = published(&[
        ("a/model.safetensors", b"short"),
        ("config.json", br#"{"auto_map": {}}"#),
        ("empty.gguf", b""),
        ("model.safetensors", WEIGHTS),
    ]);
    let expected = [
        "a/model.safetensors has 5 bytes, too few for a safetensors file",
        "empty.gguf is not a GGUF file: it does not begin with GGUF",
    ];
    for found in [&folder as &dyn ModelFolder, &model] {
        let mut troubles = troubles(found);
        troubles.sort();
        assert_eq!(troubles, expected);
        assert_eq!(executable(found).len(), 1);
        let config = found.paths().iter().position(|(path, _)| *path == "config.json").unwrap();
        assert_eq!(found.read_start(config, 6).unwrap(), b"{\"auto");
        assert_eq!(found.read_start(config, 0).unwrap(), b"");
        assert_eq!(found.read_start(4, 1), None);
    }
}

#[test]
fn a_model_of_one_file_is_looked_at_with_and_without_a_name() {
    let (folder, model, dir) = published(&[("x/q4.gguf", b"bad")]);
    for found in [&folder as &dyn ModelFolder, &model] {
        assert_eq!(troubles(found).len(), 1);
        assert_eq!(found.read_start(1, 1), None);
    }
    let cache = Cache::open(&dir.path().join("cache")).unwrap();
    let input = Input::File(dir.path().join("folder/x/q4.gguf"));
    let model = publish(&cache, &input, &options(1, 1, Codec::Rs), &|_, _| ()).unwrap().model;
    assert_eq!(model.read_start(0, 9).unwrap(), b"bad");
    assert_eq!((model.paths().len(), troubles(&model).len(), model.read_start(1, 9)), (1, 0, None));
}

#[test]
fn what_is_no_file_any_more_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(read_start(dir.path(), 1), None);
    assert_eq!(read_start(&dir.path().join("gone"), 1), None);
    let pipe = dir.path().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).unwrap();
    assert_eq!(read_start(&pipe, 1), None);
}
