//! A folder that is published.

use std::fs;
use std::path::Path;

use crate::{Home, Model, PIECE_BYTES, Process, made_up, put};

/// Files by their paths in a folder.
#[derive(Debug, Clone)]
pub struct Tree(pub Vec<(String, Vec<u8>)>);

impl Tree {
    /// Made-up files of these sizes, all of them different.
    pub fn of_sizes<'a>(sizes: impl IntoIterator<Item = (&'a str, usize)>) -> Self {
        let sizes: Vec<_> = sizes.into_iter().collect();
        let bytes = made_up(sizes.iter().map(|(_, bytes)| bytes).sum());
        let mut rest = bytes.as_slice();
        let cut = |(path, bytes): (&str, usize)| {
            let (file, after) = rest.split_at(bytes);
            rest = after;
            (path.to_owned(), file.to_vec())
        };
        Self(sizes.into_iter().map(cut).collect())
    }

    /// As a model may be: configurations, several files of weights, an empty file, folders, names that need care.
    pub fn sample() -> Self {
        Self::of_sizes([
            ("config.json", 612),
            ("model-00001-of-00003.safetensors", 700_001),
            ("model-00002-of-00003.safetensors", 640_000),
            ("model-00003-of-00003.safetensors", 512_345),
            ("empty", 0),
            ("1_Pooling/config.json", 190),
            ("deep/er/and/deeper/x.bin", PIECE_BYTES),
            ("a name with spaces, \"quotes\" and 'more'", 33),
            ("emoji 🦀/ünïcode.txt", 1),
            (&"n".repeat(255), 7),
        ])
    }

    /// The files of a folder.
    ///
    /// # Panics
    /// When one cannot be read.
    pub fn read(dir: &Path) -> Self {
        let (mut files, mut dirs) = (Vec::new(), vec![dir.to_owned()]);
        while let Some(next) = dirs.pop() {
            for entry in fs::read_dir(next).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    dirs.push(path);
                } else {
                    let name = path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
                    files.push((name, fs::read(&path).unwrap()));
                }
            }
        }
        Self(files)
    }

    /// Writes the files to a folder.
    ///
    /// # Panics
    /// When that fails.
    pub fn write_to(&self, dir: &Path) {
        for (path, bytes) in &self.0 {
            let path = dir.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            put(&path, bytes);
        }
    }

    /// Publishes the folder with these flags, ten rows and four parity shards.
    ///
    /// # Panics
    /// When that fails.
    pub async fn publish(&self, flags: &[&str]) -> Model {
        let home = Home::new();
        self.write_to(&home.path("folder"));
        let mut command = home.command(["--json", "publish", "--model-kind", "llm-backbone"]);
        command.args(["--piece-size", &PIECE_BYTES.to_string()]).args(flags).arg("folder");
        let published = Process::start(command).outcome().await.answer();
        Model::of_folder(&home, published["manifest"].as_str().unwrap(), self)
    }

    /// Fails the test unless a folder has these files and no other, each of its own, read-only, and no links.
    ///
    /// # Panics
    /// When that is not so.
    pub fn assert_is(&self, dir: &Path) {
        use std::os::unix::fs::MetadataExt as _;
        let mut left: std::collections::HashMap<&str, &[u8]> =
            self.0.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice())).collect();
        let mut dirs = vec![dir.to_owned()];
        while let Some(next) = dirs.pop() {
            for entry in fs::read_dir(next).unwrap() {
                let path = entry.unwrap().path();
                let found = path.symlink_metadata().unwrap();
                if found.is_dir() {
                    dirs.push(path);
                    continue;
                }
                let name = path.strip_prefix(dir).unwrap().to_str().unwrap();
                let expected = left.remove(name).unwrap_or_else(|| panic!("{name} should not be there"));
                assert!(found.is_file() && found.nlink() == 1, "{name} is a link");
                assert_eq!(found.mode() & 0o777, 0o444, "{name}");
                assert!(fs::read(&path).unwrap() == expected, "{name} has other bytes than were published");
            }
        }
        assert!(left.is_empty(), "not there: {:?}", left.keys());
    }
}
