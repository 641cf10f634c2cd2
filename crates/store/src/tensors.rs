//! The tensors of a model, in the maps of its files.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use safetensors::{Dtype, SafeTensorError, SafeTensors};

use super::{CacheError, MappedFile, Model};

/// What the names of files with tensors end with.
const EXTENSION: &str = ".safetensors";
/// What the name of an index ends with, which says in which file each tensor is.
const INDEX: &str = ".safetensors.index.json";
const MAX_INDEX_BYTES: usize = 256 << 20;

/// The tensors of one folder of a model, by name.
#[derive(Debug, Clone, Default)]
pub struct Tensors(BTreeMap<String, Tensor>);

/// A tensor: its bytes are those of a mapped file, without a copy, and keep the model from being removed.
#[derive(Clone)]
pub struct Tensor {
    file: MappedFile,
    range: Range<usize>,
    dtype: Dtype,
    shape: Vec<usize>,
}

/// Why tensors cannot be told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TensorsError {
    /// A file is no safetensors file.
    #[error("{path} is no safetensors file")]
    File {
        /// Its path in the model.
        path: String,
        /// What is wrong.
        source: SafeTensorError,
    },
    /// An index is not what an index is.
    #[error("{path} is no index of tensors: {reason}")]
    Index {
        /// Its path in the model.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// Two files have a tensor of the same name, and no index says which is meant.
    #[error("{first} and {second} both have a tensor {name}, and no index says which is meant")]
    Twice {
        /// The name.
        name: String,
        /// One of the files.
        first: String,
        /// The other.
        second: String,
    },
    /// An index names a tensor that is not in its file.
    #[error("{path} has no tensor {name}, which the index {index} puts there")]
    NotInFile {
        /// The file.
        path: String,
        /// The tensor.
        name: String,
        /// The index.
        index: String,
    },
    /// The cache failed.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

impl Tensors {
    /// The tensor of this name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.0.get(name)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.0.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Tensor {
    /// The type of its elements.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Its lengths, the outermost first; none for a scalar.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Its bytes: little-endian elements, the last dimension innermost.
    pub fn data(&self) -> &[u8] {
        &self.file.as_ref()[self.range.clone()]
    }

    /// Where they are in the file.
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// The file that it is in.
    pub fn file(&self) -> &MappedFile {
        &self.file
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tensor")
            .field("dtype", &self.dtype)
            .field("shape", &self.shape)
            .finish_non_exhaustive()
    }
}

impl Model {
    /// The tensors of the safetensors files at the top of the model: see [`Self::tensors_in`].
    ///
    /// # Errors
    /// [`TensorsError`].
    pub fn tensors(&self) -> Result<Tensors, TensorsError> {
        self.tensors_in("")
    }

    /// The tensors of the safetensors files in a folder of the model, such as `text_encoder`; of files that are there. Where
    /// there is an index, it says which tensors there are, and in which files.
    ///
    /// # Errors
    /// [`TensorsError`].
    pub fn tensors_in(&self, folder: &str) -> Result<Tensors, TensorsError> {
        let folder = folder.trim_end_matches('/');
        let within = |path: &str| match path.rsplit_once('/') {
            Some((above, _)) => above == folder,
            None => folder.is_empty(),
        };
        let paths: Vec<String> =
            self.files().map(|file| file.path.to_owned()).filter(|path| within(path)).collect();
        if let Some(index) = paths.iter().find(|path| path.ends_with(INDEX)) {
            return self.indexed(folder, index);
        }
        let is_unnamed = self.manifest().files().is_empty();
        let mut tensors: BTreeMap<String, Tensor> = BTreeMap::new();
        let mut owners: BTreeMap<String, String> = BTreeMap::new();
        for path in paths.into_iter().filter(|path| is_unnamed || path.ends_with(EXTENSION)) {
            for (name, tensor) in self.tensors_of(&path)? {
                if let Some(first) = owners.insert(name.clone(), path.clone()) {
                    return Err(TensorsError::Twice { name, first, second: path });
                }
                tensors.insert(name, tensor);
            }
        }
        Ok(Tensors(tensors))
    }

    /// The tensors that an index names, of files that are there.
    fn indexed(&self, folder: &str, index: &str) -> Result<Tensors, TensorsError> {
        let bad = |reason: String| TensorsError::Index { path: index.to_owned(), reason };
        let Some(file) = self.file(index)? else { return Ok(Tensors::default()) };
        if file.len() > MAX_INDEX_BYTES {
            return Err(bad(format!("{} bytes, expected at most {MAX_INDEX_BYTES}", file.len())));
        }
        let parsed: Index = serde_json::from_slice(file.as_ref()).map_err(|error| bad(error.to_string()))?;
        let mut by_file: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (tensor, file) in parsed.weight_map {
            let path = if folder.is_empty() { file } else { format!("{folder}/{file}") };
            by_file.entry(path).or_default().push(tensor);
        }
        let mut tensors = BTreeMap::new();
        for (path, names) in by_file {
            if self.file(&path)?.is_none() {
                match self.is_complete() {
                    true => return Err(bad(format!("it names {path}, which is not there"))),
                    false => continue,
                }
            }
            let mut found: BTreeMap<String, Tensor> = self.tensors_of(&path)?.into_iter().collect();
            for name in names {
                let Some(tensor) = found.remove(&name) else {
                    return Err(TensorsError::NotInFile { path, name, index: index.to_owned() });
                };
                tensors.insert(name, tensor);
            }
        }
        Ok(Tensors(tensors))
    }

    fn tensors_of(&self, path: &str) -> Result<Vec<(String, Tensor)>, TensorsError> {
        let Some(file) = self.file(path)? else { return Ok(Vec::new()) };
        let bad = |source| TensorsError::File { path: path.to_owned(), source };
        let (header_bytes, metadata) = SafeTensors::read_metadata(file.as_ref()).map_err(bad)?;
        // The header's own length comes before it.
        let data_start = header_bytes + 8;
        let tensors = metadata.tensors();
        let place = |(name, info): (String, &safetensors::tensor::TensorInfo)| {
            let (start, end) = info.data_offsets;
            let range = data_start + start..data_start + end;
            let tensor = Tensor { file: file.clone(), range, dtype: info.dtype, shape: info.shape.clone() };
            (name, tensor)
        };
        Ok(tensors.into_iter().map(place).collect())
    }
}

/// What an index of tensors says.
#[derive(serde::Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}
