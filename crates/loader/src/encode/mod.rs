//! Publishing: from a file, or one file per layer, to a finished model in the cache and the digest of its manifest.
//!
//! Memory is bounded by 48 MiB of buffers, whatever the model's size and geometry, and the piece index: 64 bytes for
//! each piece while it is put together. Where the rows are the shards, the source is read once; where layers straddle
//! rows, the copy that was made of it is read again.

mod assemble;
mod error;
mod folder;
mod layers;
mod options;
mod pipeline;
mod rows;
mod shard_list;
mod source;

use std::collections::HashSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use manifest::piece_index::encode_index;
use manifest::{
    Codec, Digest, FileEntry, MAX_PIECES, MAX_SHARDS, Manifest, Pieces, Shard, TRANSFER_PIECE_BYTES,
};
use store::{
    Cache, CacheError, Model, ModelFiles, PARITY, PIECES, Staging, WeightsFiles, require, require_files,
    reserve,
};

pub use assemble::{Assembled, assemble};
pub use error::PublishError;
pub use folder::{Folder, FolderFile};
pub use options::{FileLayout, Input, Options};
pub use shard_list::{ShardList, ShardListError};

use options::check_options;
use pipeline::Values;
use rows::Job;
use source::{ReadAt, Source, Sources};

/// Above so many files, most are smaller than a piece: rows then have fewer pieces, and fewer shards to ask for.
const MAX_FILE_SHARDS: usize = 1024;

/// What a model has beside weights and parity: manifest, index, stamp; rather more than fewer.
const FILES_BESIDE: u64 = 8;

/// What was published.
#[derive(Debug)]
pub struct Published {
    /// Digest of the manifest: what is written on chain.
    pub digest: Digest,
    /// The manifest.
    pub manifest: Arc<Manifest>,
    /// What whoever publishes should know, one sentence each.
    pub warnings: Vec<String>,
    /// The finished model, with its parity.
    pub model: Model,
}

/// Encodes a model and stores it in the cache, with parity and piece index. Blocks, and uses a few threads.
///
/// Publishing what is in the cache already leaves the finished model as it is, and adds the parity shards and the
/// piece index where they are missing. Publishing that is killed leaves nothing that is trusted.
///
/// `progress` is told how many bytes of how many are done.
///
/// # Errors
/// - Before anything is read: [`PublishError::UnknownModelKind`], [`PublishError::BadGeometry`],
///   [`PublishError::BadPieceSize`], [`PublishError::TooMany`], [`PublishError::NoLayers`], [`PublishError::Empty`],
///   [`PublishError::NotAFile`].
/// - [`PublishError::Changed`]: the source was written to meanwhile.
/// - [`PublishError::Read`], [`PublishError::Cache`]: the disk.
pub fn publish(
    cache: &Cache,
    input: &Input,
    options: &Options,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<Published, PublishError> {
    let plan = Plan::new(input, options)?;
    let staging = cache.staging()?;
    let (shards, files) = plan.encode(&staging, progress)?;
    plan.sources.check_unchanged()?;
    let mut manifest = plan.store(&staging, shards)?;
    if !files.is_empty() {
        manifest = manifest.with_files(files)?;
    }
    let (digest, manifest) = cache.store_manifest(&manifest.to_json())?;
    let lock = cache.lock_fill(&digest)?;
    let model = match cache.model(&digest) {
        Ok(Some(model)) => cache.complete(model, &staging)?,
        Ok(None) | Err(CacheError::Corrupt { .. }) => {
            cache.install_encoded(&staging, &lock, Arc::clone(&manifest))?
        }
        Err(error) => return Err(error.into()),
    };
    cache.discard_partial(&lock)?;
    Ok(Published { digest, warnings: plan.warnings(), manifest, model })
}

/// The digest and the chaining values of each shard.
type Shards = Vec<(Digest, Values)>;

/// A checked input.
struct Plan<'a> {
    options: &'a Options,
    /// The input files, but for empty ones.
    sources: Sources,
    /// The files of a folder, empty ones too.
    folder: &'a [FolderFile],
    is_layers: bool,
    total_bytes: u64,
    row_bytes: u64,
}

impl<'a> Plan<'a> {
    fn new(input: &'a Input, options: &'a Options) -> Result<Self, PublishError> {
        check_options(options)?;
        let mut folder: &[FolderFile] = &[];
        let (paths, is_layers): (Vec<&Path>, bool) = match input {
            Input::File(path) => (vec![path], false),
            Input::Layers(paths) => (paths.iter().map(PathBuf::as_path).collect(), true),
            Input::Folder(found) => {
                folder = found.files();
                let with_bytes = folder.iter().filter(|file| file.size_bytes > 0);
                (with_bytes.map(|file| file.source.as_path()).collect(), is_file_by_file(folder, options))
            }
        };
        let shards = if is_layers { paths.len() } else { options.data as usize } + options.parity as usize;
        check_count("shards", shards as u64, MAX_SHARDS as u64, "merge some layers")?;
        if paths.is_empty() {
            return Err(PublishError::NoLayers);
        }
        let sources = Sources::new(paths)?;
        check_same(folder, &sources)?;
        let total_bytes = sources.total_bytes();
        let row_bytes = total_bytes.div_ceil(u64::from(options.data));
        let plan = Self { options, sources, folder, is_layers, total_bytes, row_bytes };
        let piece_bytes = u64::from(plan.piece_size_bytes());
        let pieces = |size_bytes: u64| size_bytes.div_ceil(piece_bytes);
        let data_pieces = if is_layers {
            plan.sources.list().iter().map(|source| pieces(source.size_bytes)).sum()
        } else {
            pieces(row_bytes) * u64::from(options.data)
        };
        let found = data_pieces + pieces(row_bytes) * u64::from(options.parity);
        check_count("pieces", found, MAX_PIECES, "use larger pieces")?;
        Ok(plan)
    }

    fn piece_size_bytes(&self) -> u32 {
        self.options.piece_size_bytes.unwrap_or(TRANSFER_PIECE_BYTES)
    }

    fn data_shards(&self) -> usize {
        if self.is_layers { self.sources.list().len() } else { self.options.data as usize }
    }

    /// How many parity shards are made. A copy of a row that is a shard is not: it is that shard.
    fn encoded_parity(&self) -> u32 {
        match (self.options.codec, self.is_layers) {
            (Codec::Rs, _) => self.options.parity,
            (Codec::Replica, true) => self.options.parity.min(self.options.data),
            (Codec::Replica, false) => 0,
        }
    }

    /// Writes weights and parity, and gives the digests and chaining values of all shards, and what a manifest says of the
    /// files that have names.
    fn encode(
        &self,
        staging: &Staging,
        progress: &(dyn Fn(u64, u64) + Sync),
    ) -> Result<(Shards, Vec<FileEntry>), PublishError> {
        let weights = Arc::new(staging.weights(self.weights_files()));
        let is_clone = self.clone_sources(&weights)?;
        self.make_room(staging, &weights, is_clone)?;
        let parity_files = self.create_parity(staging)?;
        let target = (!is_clone).then_some(&weights);
        let hashes_files = !self.folder.is_empty() && !self.is_layers;
        let (shards, digests) = thread::scope(|scope| {
            // Beside the pass over the rows, which sees no file from its beginning to its end.
            let start = || {
                thread::Builder::new().name("files".to_owned()).spawn_scoped(scope, || self.hash_sources())
            };
            let hashing = hashes_files.then(start).transpose().map_err(no_thread)?;
            let shards = match self.is_layers {
                false => self.encode_rows(&weights, target, &parity_files, progress),
                true => self.encode_layers(&weights, target, &parity_files, progress),
            };
            let join = |hashing: thread::ScopedJoinHandle<'_, _>| {
                hashing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            Ok::<_, PublishError>((shards, hashing.map(join)))
        })?;
        let mut shards = shards?;
        let digests = match digests {
            Some(digests) => digests?,
            None => shards.iter().take(self.data_shards()).map(|(digest, _)| *digest).collect(),
        };
        self.repeat_copies(&mut shards);
        Ok((shards, self.file_entries(&digests)))
    }

    /// Which files the weights become.
    fn weights_files(&self) -> WeightsFiles {
        match self.folder {
            [] => WeightsFiles::unnamed(self.total_bytes),
            files => WeightsFiles::named(files.iter().map(|file| (&file.path, file.size_bytes))),
        }
    }

    /// The digest of each input file.
    fn hash_sources(&self) -> Result<Vec<Digest>, PublishError> {
        let hashed = layers::copy(&self.sources, None, self.piece_size_bytes(), &|_| ())?;
        Ok(hashed.into_iter().map(|(digest, _)| digest).collect())
    }

    /// What a manifest says of the files, from the digests of those that are not empty.
    fn file_entries(&self, digests: &[Digest]) -> Vec<FileEntry> {
        let mut digests = digests.iter();
        let entry = |file: &FolderFile| FileEntry {
            path: file.path.clone(),
            size_bytes: file.size_bytes,
            sha256: match file.size_bytes {
                0 => Digest::of(b""),
                _ => digests.next().copied().unwrap_or(Digest::of(b"")),
            },
        };
        self.folder.iter().map(entry).collect()
    }

    /// Adds the parity shards that are copies of shards that are there.
    fn repeat_copies(&self, shards: &mut Shards) {
        if self.options.codec == Codec::Replica {
            let first_row = if self.is_layers { self.data_shards() } else { 0 };
            for copy in self.encoded_parity()..self.options.parity {
                shards.push(shards[first_row + (copy % self.options.data) as usize].clone());
            }
        }
    }

    /// Makes the weights share the blocks of the files that are published, where the file system can. False: it cannot.
    fn clone_sources(&self, weights: &ModelFiles) -> Result<bool, PublishError> {
        let targets: Vec<usize> = match (self.folder, self.sources.list()) {
            ([], [_]) => vec![0],
            ([], _) => return Ok(false),
            (files, _) => (0..files.len()).filter(|file| files[*file].size_bytes > 0).collect(),
        };
        for (source, target) in targets.into_iter().enumerate() {
            if !weights.clone_file(target, &*self.sources.file(source)?)? {
                return Ok(false);
            }
        }
        self.sources.check_unchanged()?;
        Ok(true)
    }

    /// Finds out that there is no room before anything is written.
    fn make_room(&self, staging: &Staging, weights: &ModelFiles, is_clone: bool) -> Result<(), PublishError> {
        let weights_bytes = if is_clone { 0 } else { self.total_bytes };
        let parity = u64::from(self.encoded_parity());
        let needed_bytes = weights_bytes.saturating_add(parity.saturating_mul(self.row_bytes));
        let path = staging.path().join("weights");
        require(&path, needed_bytes)?;
        require_files(&path, parity + FILES_BESIDE + 2 * self.folder.len() as u64)?;
        if !is_clone {
            weights.reserve()?;
        }
        Ok(())
    }

    /// One pass: the rows are the shards.
    fn encode_rows(
        &self,
        weights: &ModelFiles,
        target: Option<&Arc<ModelFiles>>,
        parity_files: &[(File, PathBuf)],
        progress: &(dyn Fn(u64, u64) + Sync),
    ) -> Result<Shards, PublishError> {
        let read = |offset, buffer: &mut [u8]| match target {
            Some(_) => self.sources.read_at(offset, buffer),
            None => Ok(weights.read_at(offset, buffer)?),
        };
        let job = Job { weights: target, ..self.job(&read, parity_files) };
        job.run(&|done| progress(done, self.total_bytes))
    }

    /// Two passes, unless there is no parity: layers straddle rows.
    fn encode_layers(
        &self,
        weights: &ModelFiles,
        target: Option<&Arc<ModelFiles>>,
        parity_files: &[(File, PathBuf)],
        progress: &(dyn Fn(u64, u64) + Sync),
    ) -> Result<Shards, PublishError> {
        let passes = if parity_files.is_empty() { 1 } else { 2 };
        let total_bytes = passes * self.total_bytes;
        let copied = |done| progress(done, total_bytes);
        let mut shards = layers::copy(&self.sources, target, self.piece_size_bytes(), &copied)?;
        if !parity_files.is_empty() {
            let read = |offset, buffer: &mut [u8]| Ok(weights.read_at(offset, buffer)?);
            let encoded = |done| progress(self.total_bytes + done, total_bytes);
            let job = Job { hash_rows: false, ..self.job(&read, parity_files) };
            shards.extend(job.run(&encoded)?);
        }
        Ok(shards)
    }

    fn job<'j>(&'j self, read: &'j ReadAt<'j>, parity_files: &'j [(File, PathBuf)]) -> Job<'j> {
        Job {
            data: self.options.data as usize,
            codec: self.options.codec,
            total_bytes: self.total_bytes,
            row_bytes: self.row_bytes,
            piece_size_bytes: self.piece_size_bytes(),
            hash_rows: true,
            read,
            weights: None,
            parity_files,
        }
    }

    fn create_parity(&self, staging: &Staging) -> Result<Vec<(File, PathBuf)>, PublishError> {
        let indices = (self.data_shards()..).take(self.encoded_parity() as usize);
        let created = indices.map(|index| {
            let path = staging.path().join(PARITY).join(index.to_string());
            let file = create(&path)?;
            reserve(&file, &path, self.row_bytes)?;
            Ok((file, path))
        });
        created.collect()
    }

    /// Writes the piece index and makes the manifest.
    fn store(&self, staging: &Staging, encoded: Shards) -> Result<Manifest, PublishError> {
        // What equals an earlier shard is served from there.
        let mut seen = HashSet::new();
        for (index, (digest, _)) in encoded.iter().enumerate() {
            let is_copy = !seen.insert(*digest);
            let path = staging.path().join(PARITY).join(index.to_string());
            if is_copy && index >= self.data_shards() && path.exists() {
                fs::remove_file(&path).map_err(|source| CacheError::io("remove", &path, source))?;
            }
        }
        let (manifest, index) = self.manifest(encoded)?;
        if let Some(index) = index {
            staging.write(PIECES, &index)?;
        }
        Ok(manifest)
    }

    /// The manifest of these shards, and its piece index.
    fn manifest(&self, encoded: Shards) -> Result<(Manifest, Option<Vec<u8>>), PublishError> {
        let data_shards = self.data_shards();
        let (digests, values): (Vec<Digest>, Vec<Values>) = encoded.into_iter().unzip();
        let size_of = |index: usize| {
            let layer = self.sources.list().get(index).filter(|_| self.is_layers);
            layer.map_or(self.row_bytes, |layer| layer.size_bytes)
        };
        let shard = |(index, digest): (usize, &Digest)| Shard {
            digest: *digest,
            size_bytes: size_of(index),
            is_parity: index >= data_shards,
        };
        let shards = digests.iter().enumerate().map(shard).collect();
        let index =
            self.options.piece_size_bytes.map(|size_bytes| (size_bytes, encode_index(size_bytes, &values)));
        let pieces = index
            .as_ref()
            .map(|(size_bytes, blob)| Pieces { size_bytes: *size_bytes, index: Digest::of(blob) });
        let Options { model_kind, data, parity, codec, .. } = self.options;
        let kind = model_kind.clone();
        let manifest = Manifest::new(kind, self.total_bytes, shards, *data, *parity, *codec, pieces)?;
        Ok((manifest, index.map(|(_, blob)| blob)))
    }

    fn warnings(&self) -> Vec<String> {
        let Options { data, parity, codec, .. } = *self.options;
        let mut warnings = Vec::new();
        if parity == 0 {
            return warnings;
        }
        if codec == Codec::Replica && parity < data {
            warnings.push(format!(
                "{parity} copies of {data} rows: the rows from {parity} on have none and cannot be rebuilt"
            ));
        }
        let rebuildable_bytes = u64::from(parity) * self.row_bytes;
        let too_long = |source: &&Source| codec == Codec::Rs && source.size_bytes > rebuildable_bytes;
        for layer in self.sources.list().iter().filter(too_long).filter(|_| self.is_layers) {
            warnings.push(format!(
                "layer {} has {} bytes, more than parity can rebuild ({rebuildable_bytes}): when nobody holds it, \
                 it is lost",
                layer.path().display(),
                layer.size_bytes,
            ));
        }
        warnings
    }
}

fn check_count(what: &'static str, found: u64, max: u64, hint: &'static str) -> Result<(), PublishError> {
    if found > max { Err(PublishError::TooMany { what, found, max, hint }) } else { Ok(()) }
}

fn create(path: &Path) -> Result<File, CacheError> {
    store::create_new(path).map_err(|source| CacheError::io("create", path, source))
}

fn no_thread(source: std::io::Error) -> CacheError {
    CacheError::io("start a thread for", Path::new("the files"), source)
}

/// Whether each file of a folder becomes a data shard: then it can be proven, and fetched, alone.
fn is_file_by_file(folder: &[FolderFile], options: &Options) -> bool {
    let sizes_bytes = || folder.iter().map(|file| file.size_bytes).filter(|bytes| *bytes > 0);
    let row_bytes = sizes_bytes().sum::<u64>().div_ceil(u64::from(options.data));
    let rebuildable_bytes = row_bytes.saturating_mul(u64::from(options.parity));
    match options.layout {
        FileLayout::Files => true,
        FileLayout::Rows => false,
        FileLayout::Auto => {
            sizes_bytes().count() <= MAX_FILE_SHARDS && sizes_bytes().all(|bytes| bytes <= rebuildable_bytes)
        }
    }
}

/// Fails when a file has not the size that it had when the folder was listed.
fn check_same(folder: &[FolderFile], sources: &Sources) -> Result<(), PublishError> {
    let listed = folder.iter().filter(|file| file.size_bytes > 0);
    for (file, source) in listed.zip(sources.list()) {
        if file.size_bytes != source.size_bytes {
            return Err(PublishError::Changed { path: source.path().to_owned() });
        }
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests;
