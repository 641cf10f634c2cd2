//! The files of a model: how its weights are cut, and which names go together.
//!
//! The weights are the files' bytes, one after the other in the listed order, without gaps. Source: `docs/manifest.md`,
//! "Files".

use std::collections::HashMap;

use crate::path::{FilePath, key};
use crate::{ByteRange, Digest, ManifestError, limits};

/// Most files of a model, and most folders.
pub const MAX_FILES: usize = 1 << 16;

/// One file of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFile {
    path: FilePath,
    range: ByteRange,
    sha256: Digest,
}

impl ModelFile {
    /// Its path within the model.
    pub fn path(&self) -> &FilePath {
        &self.path
    }

    /// How many bytes it has; 0 too.
    pub fn size_bytes(&self) -> u64 {
        self.range.len()
    }

    /// Which bytes of the weights it is.
    pub fn range(&self) -> ByteRange {
        self.range
    }

    /// The flat SHA-256 by which others know it. The publisher's word, unless the file is one shard.
    pub fn sha256(&self) -> &Digest {
        &self.sha256
    }
}

/// What a manifest says of one file, before it is known to fit the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// Its path.
    pub path: FilePath,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// Its SHA-256.
    pub sha256: Digest,
}

/// Places the files one after the other, and checks that they are the weights and that no file system confuses them.
pub(crate) fn place(entries: Vec<FileEntry>, total_size_bytes: u64) -> Result<Vec<ModelFile>, ManifestError> {
    check_paths(entries.iter().map(|entry| &entry.path))?;
    let mut start: u64 = 0;
    let mut files = Vec::with_capacity(entries.len());
    for (index, FileEntry { path, size_bytes, sha256 }) in (0_u32..).zip(entries) {
        if size_bytes > limits::MAX_SIZE_BYTES {
            let field = format!("files[{index}].size");
            return Err(limits::out_of_range(field, size_bytes, &(0..=limits::MAX_SIZE_BYTES)));
        }
        let empty = Digest::of(b"");
        if size_bytes == 0 && sha256 != empty {
            return Err(ManifestError::FileDigest { file: index, found: sha256, expected: empty });
        }
        // At most 2^16 sizes of at most 2^48: no overflow.
        let end = start + size_bytes;
        files.push(ModelFile { path, range: ByteRange::new(start, end), sha256 });
        start = end;
    }
    if start != total_size_bytes {
        return Err(ManifestError::FileSizes { found_bytes: start, total_bytes: total_size_bytes });
    }
    Ok(files)
}

/// A name as it is written, whether it is a folder's, and of which entry.
type Name<'a> = (&'a str, bool, u32);

/// Whether files of these paths can be one model's: not too many, and no file system confuses them.
///
/// # Errors
/// [`ManifestError::FileCount`], [`ManifestError::FolderCount`], [`ManifestError::SameName`].
pub fn check_paths<'a>(
    paths: impl IntoIterator<Item = &'a FilePath, IntoIter: ExactSizeIterator>,
) -> Result<(), ManifestError> {
    let paths = paths.into_iter();
    let (found, max) = (paths.len() as u64, MAX_FILES as u64);
    if found > max {
        return Err(ManifestError::FileCount { found, max });
    }
    let mut names: HashMap<String, Name<'_>> = HashMap::new();
    let mut folders = 0;
    for (index, path) in (0_u32..).zip(paths) {
        // Folding moves no `/`.
        let (path, key) = (path.as_str(), key(path.as_str()));
        let ends = path.match_indices('/').zip(key.match_indices('/'));
        let ends = ends.map(|((end, _), (key_end, _))| (end, key_end, true));
        for (end, key_end, is_folder) in ends.chain([(path.len(), key.len(), false)]) {
            let name = &path[..end];
            match names.get(&key[..key_end]) {
                Some((first, true, _)) if is_folder && *first == name => {}
                Some((first, _, first_file)) => {
                    let (first, found) = (limits::excerpt(first), limits::excerpt(name));
                    return Err(ManifestError::SameName {
                        file: index,
                        found,
                        first_file: *first_file,
                        first,
                    });
                }
                None => {
                    names.insert(key[..key_end].to_owned(), (name, is_folder, index));
                    folders += u64::from(is_folder);
                }
            }
        }
        if folders > MAX_FILES as u64 {
            return Err(ManifestError::FolderCount { max: MAX_FILES as u64 });
        }
    }
    Ok(())
}
