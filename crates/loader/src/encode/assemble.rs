//! A manifest of layers that are blobs in a folder already: nothing is copied, and what the manifest needs beside them is put
//! there.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use manifest::{Digest, Manifest};
use store::{CacheError, require, reserve};
use tempfile::NamedTempFile;

use super::layers;
use super::rows::Job;
use super::shard_list::ShardList;
use super::{Input, Options, Plan, PublishError};

/// What was made of a list of shards.
#[derive(Debug)]
#[non_exhaustive]
pub struct Assembled {
    /// Digest of the manifest: what is written on chain.
    pub digest: Digest,
    /// The manifest.
    pub manifest: Manifest,
    /// What the list said that is not so, and what became of it, one sentence each.
    pub corrections: Vec<String>,
    /// What whoever publishes should know, one sentence each.
    pub warnings: Vec<String>,
}

/// Hashes the layers of a list, which are files of `dir` named `<digest>` or `<digest>.shard`, makes parity that rebuilds
/// them, and puts parity, piece index and manifest beside them, each named by its digest. The layers are the data shards, and
/// the model's files by their names. Blocks, and uses a few threads.
///
/// `progress` is told how many bytes of how many are done.
///
/// # Errors
/// Those of [`super::publish`]; [`PublishError::NotInFolder`] and [`PublishError::WrongDigest`] when a layer is not there, or
/// is something else. Nothing is left in `dir` then, but perhaps parity.
pub fn assemble(
    dir: &Path,
    list: &ShardList,
    options: &Options,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<Assembled, PublishError> {
    let paths = list.layers.iter().map(|layer| find(dir, &layer.digest)).collect::<Result<Vec<_>, _>>()?;
    let input = Input::Layers(paths);
    let plan = Plan::new(&input, options)?;
    let passes = if plan.encoded_parity() == 0 { 1 } else { 2 };
    let total_bytes = passes * plan.total_bytes;
    let hashed = |done| progress(done, total_bytes);
    let mut shards = layers::copy(&plan.sources, None, plan.piece_size_bytes(), &hashed)?;
    for ((layer, source), (found, _)) in list.layers.iter().zip(plan.sources.list()).zip(&shards) {
        if *found != layer.digest {
            let (path, expected) = (source.path().to_owned(), layer.digest);
            return Err(PublishError::WrongDigest { path, found: *found, expected });
        }
    }
    let parity = make_parity(dir, &plan)?;
    if !parity.is_empty() {
        let read = |offset, buffer: &mut [u8]| plan.sources.read_at(offset, buffer);
        let files = parity.iter().map(|file| Ok((clone_of(file)?, file.path().to_owned())));
        let files = files.collect::<Result<Vec<(File, PathBuf)>, PublishError>>()?;
        let job = Job { hash_rows: false, ..plan.job(&read, &files) };
        shards.extend(job.run(&|done| progress(plan.total_bytes + done, total_bytes))?);
    }
    plan.repeat_copies(&mut shards);
    plan.sources.check_unchanged()?;

    let sizes_bytes: Vec<u64> = plan.sources.list().iter().map(|source| source.size_bytes).collect();
    let mut corrections = list.corrections(&sizes_bytes);
    let made: Vec<Digest> = shards.iter().skip(list.layers.len()).map(|(digest, _)| *digest).collect();
    if list.parity.iter().any(|listed| !made.contains(listed)) {
        let (listed, made) = (list.parity.len(), made.len());
        corrections.push(format!(
            "parity: the {listed} listed shards rebuild nothing and are left out; {made} that do were made"
        ));
    }
    let (mut manifest, index) = plan.manifest(shards)?;
    match list.files(&sizes_bytes).and_then(|files| {
        manifest
            .clone()
            .with_files(files)
            .map_err(|error| format!("the layer names cannot be paths: {error}"))
    }) {
        Ok(named) => manifest = named,
        Err(why) => corrections.push(format!("files: the manifest names none, as {why}")),
    }
    for (file, digest) in parity.into_iter().zip(&made) {
        keep(file, dir, digest)?;
    }
    if let Some(index) = index {
        write(dir, &index)?;
    }
    let digest = write(dir, &manifest.to_json())?;
    Ok(Assembled { digest, manifest, corrections, warnings: plan.warnings() })
}

/// The blob of a folder, by either of the names that it may have.
fn find(dir: &Path, digest: &Digest) -> Result<PathBuf, PublishError> {
    let names = [dir.join(format!("{digest}.shard")), dir.join(digest.to_string())];
    let missing = || PublishError::NotInFolder { dir: dir.to_owned(), digest: *digest };
    names.into_iter().find(|path| path.exists()).ok_or_else(missing)
}

/// A file in `dir` for each parity shard, with room for it.
fn make_parity(dir: &Path, plan: &Plan<'_>) -> Result<Vec<NamedTempFile>, PublishError> {
    let count = plan.encoded_parity();
    require(&dir.join("parity"), u64::from(count).saturating_mul(plan.row_bytes))?;
    let made = (0..count).map(|_| {
        let file =
            NamedTempFile::new_in(dir).map_err(|source| CacheError::io("create a file in", dir, source))?;
        reserve(file.as_file(), file.path(), plan.row_bytes)?;
        Ok(file)
    });
    made.collect()
}

fn clone_of(file: &NamedTempFile) -> Result<File, PublishError> {
    let clone = file.as_file().try_clone();
    clone.map_err(|source| CacheError::io("open", file.path(), source).into())
}

/// Writes a blob under its digest.
fn write(dir: &Path, bytes: &[u8]) -> Result<Digest, PublishError> {
    let mut file =
        NamedTempFile::new_in(dir).map_err(|source| CacheError::io("create a file in", dir, source))?;
    file.write_all(bytes).map_err(|source| CacheError::io("write", file.path(), source))?;
    let digest = Digest::of(bytes);
    keep(file, dir, &digest)?;
    Ok(digest)
}

/// Gives a whole file its name, for others to read.
fn keep(file: NamedTempFile, dir: &Path, digest: &Digest) -> Result<(), PublishError> {
    use std::os::unix::fs::PermissionsExt as _;
    let path = dir.join(digest.to_string());
    let fail = |source| PublishError::from(CacheError::io("write", &path, source));
    file.as_file().set_permissions(std::fs::Permissions::from_mode(0o444)).map_err(fail)?;
    file.as_file().sync_all().map_err(fail)?;
    file.persist(&path).map_err(|error| fail(error.error))?;
    Ok(())
}
