//! The pass over the rows: column by column, parity is encoded, and shards are hashed and written.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use manifest::piece_index::ShardHasher;
use manifest::{Codec, Digest};
use reed_solomon_erasure::galois_8::ReedSolomon;
use store::{CacheError, ModelFiles, Writeback};

use super::PublishError;
use super::pipeline::{self, SLABS, Values};
use super::source::ReadAt;

/// How much of each row is encoded at a time: all rows of a slice stay in the processor's cache, *measured* 1.7 times
/// as fast as whole shards.
const SLICE_BYTES: usize = 256 << 10;
/// What all slabs together may take.
const MEMORY_BYTES: usize = 48 << 20;

/// What is to be done in the pass.
pub(super) struct Job<'a> {
    pub(super) data: usize,
    pub(super) codec: Codec,
    pub(super) total_bytes: u64,
    pub(super) row_bytes: u64,
    pub(super) piece_size_bytes: u32,
    /// Whether the rows are shards, and are hashed.
    pub(super) hash_rows: bool,
    pub(super) read: &'a ReadAt<'a>,
    /// Where the rows are written to, unless they are there already.
    pub(super) weights: Option<&'a Arc<ModelFiles>>,
    /// Where each parity shard that is to be made is written to.
    pub(super) parity_files: &'a [(File, PathBuf)],
}

/// The same slice of every row and parity shard.
struct Slab {
    /// Where in the rows it begins.
    offset: u64,
    /// How long it is; buffers may be longer.
    len: usize,
    rows: Vec<Vec<u8>>,
    parity: Vec<Vec<u8>>,
}

impl Job<'_> {
    /// Digests and chaining values: of the rows, if they are hashed, then of the parity shards. `progress` is told how
    /// many bytes of weights are done.
    pub(super) fn run(&self, progress: &dyn Fn(u64)) -> Result<Vec<(Digest, Values)>, PublishError> {
        let code = self.code()?;
        let slice_bytes = self.slice_bytes();
        let buffers = |count| vec![vec![0; slice_bytes]; count];
        let slab =
            || Slab { offset: 0, len: 0, rows: buffers(self.data), parity: buffers(self.parity_files.len()) };
        let hashed_rows = if self.hash_rows { self.data } else { 0 };
        let hasher = || ShardHasher::new(self.row_bytes, self.piece_size_bytes);
        let mut hashers: Vec<_> = (0..hashed_rows + self.parity_files.len()).map(|_| hasher()).collect();
        let mut next = 0;
        let writeback = self.writeback()?;
        pipeline::run(
            [(); SLABS].map(|()| slab()),
            |slab| {
                slab.offset = next;
                slab.len = slice_bytes.min(usize::try_from(self.row_bytes - next).unwrap_or(usize::MAX));
                next += slab.len as u64;
                self.fill(slab, code.as_ref())?;
                Ok(slab.len > 0)
            },
            |slab| {
                let rows = slab.rows[..hashed_rows].iter().chain(&slab.parity);
                let slices: Vec<&[u8]> = rows.map(|row| &row[..slab.len]).collect();
                ShardHasher::update_all(&mut hashers, &slices);
                progress(((slab.offset + slab.len as u64) * self.data as u64).min(self.total_bytes));
                Ok(())
            },
            |slab| self.write(slab, &writeback),
        )?;
        writeback.finish()?;
        Ok(hashers.into_iter().map(ShardHasher::finish).collect())
    }

    /// Syncs what is written while the rest is encoded.
    fn writeback(&self) -> Result<Writeback, PublishError> {
        let weights = self.weights.map(Arc::clone);
        let mut parity = Vec::new();
        for (file, path) in self.parity_files {
            let file = file.try_clone().map_err(|source| CacheError::io("open", path, source))?;
            parity.push((file, path.clone()));
        }
        let sync = move || {
            weights.as_ref().map_or(Ok(()), |weights| weights.sync_written())?;
            parity.iter().try_for_each(|(file, path)| {
                file.sync_data().map_err(|source| CacheError::io("sync", path, source))
            })
        };
        Ok(Writeback::start(sync, None, Arc::new(()))?)
    }

    fn code(&self) -> Result<Option<ReedSolomon>, PublishError> {
        if self.codec == Codec::Replica || self.parity_files.is_empty() {
            return Ok(None);
        }
        ReedSolomon::new(self.data, self.parity_files.len()).map(Some).map_err(refused)
    }

    /// As much as the memory allows, in whole pages so that reading and writing stay aligned.
    fn slice_bytes(&self) -> usize {
        const PAGE_BYTES: usize = 4096;
        let share = MEMORY_BYTES / SLABS / (self.data + self.parity_files.len());
        let bytes = (share - share % PAGE_BYTES).clamp(PAGE_BYTES, SLICE_BYTES);
        bytes.min(usize::try_from(self.row_bytes).unwrap_or(usize::MAX))
    }

    fn fill(&self, slab: &mut Slab, code: Option<&ReedSolomon>) -> Result<(), PublishError> {
        for (row, buffer) in (0..).zip(&mut slab.rows) {
            let start = row * self.row_bytes + slab.offset;
            let stored = self.stored(start, slab.len);
            let (stored, padding) = buffer[..slab.len].split_at_mut(stored);
            padding.fill(0);
            if !stored.is_empty() {
                (self.read)(start, stored)?;
            }
        }
        if slab.len == 0 {
            return Ok(());
        }
        if let Some(code) = code {
            let rows: Vec<&[u8]> = slab.rows.iter().map(|row| &row[..slab.len]).collect();
            let mut parity: Vec<&mut [u8]> = slab.parity.iter_mut().map(|row| &mut row[..slab.len]).collect();
            let encoded = code.encode_sep(&rows, &mut parity);
            encoded.map_err(refused)?;
        } else {
            for (copy, row) in slab.parity.iter_mut().zip(&slab.rows) {
                copy[..slab.len].copy_from_slice(&row[..slab.len]);
            }
        }
        Ok(())
    }

    fn write(&self, slab: &Slab, writeback: &Writeback) -> Result<(), PublishError> {
        if let Some(weights) = self.weights {
            for (row, buffer) in (0..).zip(&slab.rows) {
                let start = row * self.row_bytes + slab.offset;
                weights.write_at(start, &buffer[..self.stored(start, slab.len)])?;
            }
        }
        for ((file, path), buffer) in self.parity_files.iter().zip(&slab.parity) {
            let written = files::write_all_at(file, &buffer[..slab.len], slab.offset);
            written.map_err(|source| CacheError::io("write", path, source))?;
        }
        let rows = if self.weights.is_some() { slab.rows.len() } else { 0 };
        writeback.wrote((rows + slab.parity.len()) * slab.len);
        Ok(())
    }

    /// How many of `len` bytes from `start` on are weights; the rest is padding.
    fn stored(&self, start: u64, len: usize) -> usize {
        usize::try_from(self.total_bytes.saturating_sub(start)).unwrap_or(usize::MAX).min(len)
    }
}

fn refused(error: reed_solomon_erasure::Error) -> PublishError {
    PublishError::Encoder { what: error.to_string() }
}
