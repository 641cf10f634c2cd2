//! Names inside a cache directory.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use manifest::{Digest, Geometry};

use super::CacheError;

/// The file of a model's weights.
pub(super) const WEIGHTS: &str = "weights";
/// The folder of the weights' files, where the manifest names them.
pub(super) const FILES: &str = "files";
/// The folder of its parity shards, each named by its number.
pub const PARITY: &str = "parity";
/// Its piece index.
pub const PIECES: &str = "pieces";
pub(super) const STAMP: &str = "stamp";
/// In the directory of a model of which only some files are there.
pub(super) const INCOMPLETE: &str = "incomplete";
pub(super) const JOURNAL: &str = "journal";
/// What the names of staging directories begin with.
pub(super) const STAGING: &str = "staging-";

/// The paths of one cache, as listed in the documentation of [`crate`].
#[derive(Debug)]
pub(super) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub(super) fn in_dir(dir: &Path) -> Result<Self, CacheError> {
        let root = std::path::absolute(dir).map_err(|source| CacheError::io("find", dir, source))?;
        Ok(Self { root })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn version(&self) -> PathBuf {
        self.root.join("VERSION")
    }

    pub(super) fn tag(&self) -> PathBuf {
        self.root.join("CACHEDIR.TAG")
    }

    pub(super) fn identity(&self) -> PathBuf {
        self.root.join("identity")
    }

    pub(super) fn bans(&self) -> PathBuf {
        self.root.join("bans")
    }

    pub(super) fn manifests(&self) -> PathBuf {
        self.root.join("manifests")
    }

    pub(super) fn manifest(&self, digest: &Digest) -> PathBuf {
        self.manifests().join(format!("{digest}.json"))
    }

    pub(super) fn models(&self) -> PathBuf {
        self.root.join("models")
    }

    pub(super) fn model(&self, digest: &Digest) -> PathBuf {
        self.models().join(digest.to_string())
    }

    pub(super) fn partials(&self) -> PathBuf {
        self.root.join("partial")
    }

    pub(super) fn partial(&self, digest: &Digest) -> PathBuf {
        self.partials().join(digest.to_string())
    }

    pub(super) fn series(&self) -> PathBuf {
        self.root.join("series")
    }

    pub(super) fn used(&self, digest: &Digest) -> PathBuf {
        self.root.join("used").join(digest.to_string())
    }

    pub(super) fn promises(&self) -> PathBuf {
        self.root.join("room")
    }

    pub(super) fn promise(&self, digest: &Digest) -> PathBuf {
        self.promises().join(digest.to_string())
    }

    pub(super) fn pins(&self) -> PathBuf {
        self.root.join("pins")
    }

    pub(super) fn links(&self) -> PathBuf {
        self.root.join("links")
    }

    pub(super) fn locks(&self) -> PathBuf {
        self.root.join("locks")
    }
}

/// The digest that a file or directory is named by; `None` for any other name, which is none of ours.
pub(super) fn digest_named(name: &OsStr) -> Option<Digest> {
    name.to_str()?.parse().ok()
}

/// The parity shard index that a file is named by.
pub(super) fn index_named(name: &OsStr) -> Option<u32> {
    let text = name.to_str()?;
    let index: u32 = text.parse().ok()?;
    (index.to_string() == text).then_some(index)
}

pub(super) fn is_data(geometry: &Geometry, shard: u32) -> bool {
    shard < geometry.manifest().data_shard_count()
}

pub(super) fn parity_path(dir: &Path, shard: u32) -> PathBuf {
    dir.join(PARITY).join(shard.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_names_are_followed() {
        let digest = Digest::of(b"x");
        assert_eq!(digest_named(OsStr::new(&digest.to_string())), Some(digest));
        for other in ["", "publish-1", "..", &format!("{digest}.json"), &digest.to_string().to_uppercase()] {
            assert_eq!(digest_named(OsStr::new(other)), None, "{other}");
        }
        assert_eq!(index_named(OsStr::new("12")), Some(12));
        for other in ["", "012", "+1", "-1", "1.tmp", "4294967296"] {
            assert_eq!(index_named(OsStr::new(other)), None, "{other}");
        }
    }
}
