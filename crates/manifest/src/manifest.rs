//! The manifest of a model: what its shards are and how they make the weights.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use crate::limits::{self, MAX_MANIFEST_BYTES, MAX_PIECES, MAX_SHARDS, TRANSFER_PIECE_BYTES};
use crate::parse::{self, Erasure, Parts};
use crate::parts::{Codec, Pieces, Shard};
use crate::{ByteRange, Digest, FileEntry, ManifestError, ModelFile, files, merkle};

/// The kinds of models that publish knows. The loader does not interpret them and loads any other.
pub const MODEL_KINDS: [&str; 3] = ["vl-jepa", "llm-backbone", "simplenet"];

/// How data shards make the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layout {
    /// The data shards are the rows, padded with zeros to equal size.
    Uniform,
    /// The data shards are the weights, one after the other, of any sizes; rows are cut across their borders.
    LayerWise,
}

/// A manifest, version 1. Always valid: every rule of `docs/manifest.md` was checked when it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    model_kind: String,
    total_size_bytes: u64,
    shards: Vec<Shard>,
    data: u32,
    parity: u32,
    codec: Codec,
    merkle_root: Digest,
    pieces: Option<Pieces>,
    layout: Layout,
    /// Where in the weights each data shard begins, before clipping to the weights' size.
    starts: Vec<u64>,
    /// For each shard, the first shard with its digest.
    canonical: Vec<u32>,
    /// None when the weights have no name.
    files: Vec<ModelFile>,
}

impl Manifest {
    /// Reads a manifest, strictly: `docs/manifest.md` has the rules.
    ///
    /// # Errors
    /// The first rule that is broken, with the field, what was found and what was expected.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        let Parts { model_kind, total_size_bytes, shards, erasure, merkle_root, pieces, files } =
            parse::parse(bytes)?;
        let mut manifest = Self::check(model_kind, total_size_bytes, shards, &erasure, pieces)?;
        if let Some(files) = files {
            manifest = manifest.cut_into(files)?;
        }
        match merkle_root {
            Some(found) if found != manifest.merkle_root => {
                Err(ManifestError::MerkleRoot { found, expected: manifest.merkle_root })
            }
            _ => Ok(manifest),
        }
    }

    /// Makes a manifest of these values, checked like [`Manifest::parse`], and computes its Merkle root.
    ///
    /// # Errors
    /// The first rule that is broken, as for [`Manifest::parse`].
    pub fn new(
        model_kind: String,
        total_size_bytes: u64,
        shards: Vec<Shard>,
        data: u32,
        parity: u32,
        codec: Codec,
        pieces: Option<Pieces>,
    ) -> Result<Self, ManifestError> {
        let erasure = Erasure { data, parity, codec };
        Self::check(model_kind, total_size_bytes, shards, &erasure, pieces)?.check_size()
    }

    /// The same, with the weights being these files, one after the other.
    ///
    /// # Errors
    /// The first rule of `docs/manifest.md`, "Files", that is broken.
    pub fn with_files(self, files: Vec<FileEntry>) -> Result<Self, ManifestError> {
        self.cut_into(files)?.check_size()
    }

    fn cut_into(mut self, files: Vec<FileEntry>) -> Result<Self, ManifestError> {
        self.files = files::place(files, self.total_size_bytes)?;
        for (file, entry) in (0..).zip(&self.files) {
            if let Some(shard) = self.shard_of_file(entry) {
                let expected = self.shards[shard as usize].digest;
                if *entry.sha256() != expected {
                    return Err(ManifestError::FileDigest { file, found: *entry.sha256(), expected });
                }
            }
        }
        Ok(self)
    }

    fn check_size(self) -> Result<Self, ManifestError> {
        let (found_bytes, max_bytes) = (self.to_json().len() as u64, MAX_MANIFEST_BYTES as u64);
        if found_bytes > max_bytes {
            return Err(ManifestError::TooLarge { found_bytes, max_bytes });
        }
        Ok(self)
    }

    fn check(
        model_kind: String,
        total_size_bytes: u64,
        shards: Vec<Shard>,
        &Erasure { data, parity, codec }: &Erasure,
        pieces: Option<Pieces>,
    ) -> Result<Self, ManifestError> {
        in_range("total_size", total_size_bytes, limits::SIZES)?;
        in_range("erasure.data", data, limits::DATA)?;
        in_range("erasure.parity", parity, limits::parity(data))?;
        check_shards(&shards, parity)?;
        let row_bytes = total_size_bytes.div_ceil(u64::from(data));
        let data_shards = &shards[..shards.len() - parity as usize];
        let layout = check_layout(total_size_bytes, data_shards, data, row_bytes)?;
        check_parity_sizes(&shards, data_shards.len(), row_bytes)?;
        if layout == Layout::Uniform {
            check_padding_rows(total_size_bytes, data_shards, row_bytes)?;
        }
        let starts = starts(data_shards);
        let canonical = canonical(&shards)?;
        check_pieces(&shards, pieces)?;
        let digests: Vec<Digest> = shards.iter().map(|shard| shard.digest).collect();
        // There is a shard, so there is a root.
        let merkle_root = merkle::root(&digests).unwrap_or(Digest::ZERO);
        Ok(Self {
            model_kind,
            total_size_bytes,
            shards,
            data,
            parity,
            codec,
            merkle_root,
            pieces,
            layout,
            starts,
            canonical,
            files: Vec::new(),
        })
    }

    /// What the model is; one of [`MODEL_KINDS`] or anything else.
    pub fn model_kind(&self) -> &str {
        &self.model_kind
    }

    /// Bytes of the weights, without padding or parity.
    pub fn total_size_bytes(&self) -> u64 {
        self.total_size_bytes
    }

    /// The shards in index order: the data shards, then the parity shards.
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// Number of all shards.
    #[expect(clippy::cast_possible_truncation, reason = "there are at most 65,536 shards")]
    pub fn shard_count(&self) -> u32 {
        self.shards.len() as u32
    }

    /// Number of data shards. In the layer-wise layout these are not the rows.
    pub fn data_shard_count(&self) -> u32 {
        self.shard_count() - self.parity
    }

    /// Number of rows.
    pub fn data(&self) -> u32 {
        self.data
    }

    /// Number of parity shards.
    pub fn parity(&self) -> u32 {
        self.parity
    }

    /// How the parity shards are made.
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// How the data shards make the weights.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The root of the Merkle tree over the shards' digests.
    pub fn merkle_root(&self) -> Digest {
        self.merkle_root
    }

    /// The files that the weights are, in their order; none when the weights have no name.
    pub fn files(&self) -> &[ModelFile] {
        &self.files
    }

    /// The data shard that is just this file of the manifest, if there is one: then the file's digest is proven.
    pub fn shard_of_file(&self, file: &ModelFile) -> Option<u32> {
        if file.size_bytes() == 0 || file.range().end > self.total_size_bytes {
            return None;
        }
        let (shard, offset) = self.shard_at(file.range().start);
        let is_it = offset == 0 && self.shards[shard as usize].size_bytes == file.size_bytes();
        is_it.then_some(shard)
    }

    /// The piece index, when there is one.
    pub fn pieces(&self) -> Option<Pieces> {
        self.pieces
    }

    /// *S*: bytes of a row and of each parity shard.
    pub fn row_size_bytes(&self) -> u64 {
        self.total_size_bytes.div_ceil(u64::from(self.data))
    }

    /// *P*: bytes of a piece; [`TRANSFER_PIECE_BYTES`] when there is no piece index.
    pub fn piece_size_bytes(&self) -> u32 {
        piece_size_bytes(self.pieces)
    }

    /// Number of pieces of a shard, at least 1.
    ///
    /// # Panics
    /// When there is no such shard.
    #[expect(clippy::cast_possible_truncation, reason = "a manifest has at most 2^24 pieces")]
    pub fn piece_count(&self, shard: u32) -> u32 {
        self.shards[shard as usize].size_bytes.div_ceil(u64::from(self.piece_size_bytes())) as u32
    }

    /// Which bytes of its shard a piece is; empty when the shard has no such piece.
    ///
    /// # Panics
    /// When there is no such shard.
    pub fn piece_range(&self, shard: u32, piece: u32) -> ByteRange {
        let (size_bytes, piece_bytes) = (self.shards[shard as usize].size_bytes, self.piece_size_bytes());
        let start = u64::from(piece) * u64::from(piece_bytes);
        ByteRange::new(start.min(size_bytes), (start + u64::from(piece_bytes)).min(size_bytes))
    }

    /// Which bytes of the weights a shard holds, without padding: empty for a row that is padding only, `None` for a
    /// parity shard or one that there is not.
    pub fn weights_range(&self, shard: u32) -> Option<ByteRange> {
        let start = self.weights_start(shard)?;
        let end = start + self.shards[shard as usize].size_bytes;
        Some(ByteRange::new(start.min(self.total_size_bytes), end.min(self.total_size_bytes)))
    }

    /// Where in the weights a data shard begins; past their end for a row that is padding only.
    pub(crate) fn weights_start(&self, shard: u32) -> Option<u64> {
        self.starts.get(shard as usize).copied()
    }

    /// The data shard that holds the byte `at` of the weights, and where in it that byte is.
    #[expect(clippy::cast_possible_truncation, reason = "a manifest has at most 65,536 shards")]
    pub(crate) fn shard_at(&self, at: u64) -> (u32, u64) {
        let shard = self.starts.partition_point(|start| *start <= at) - 1;
        (shard as u32, at - self.starts[shard])
    }

    /// The first shard that has the digest of this one; most often this one itself.
    ///
    /// # Panics
    /// When there is no such shard.
    pub fn canonical(&self, shard: u32) -> u32 {
        self.canonical[shard as usize]
    }

    /// Bytes of this manifest's piece index: 13, and 32 for each piece but the last of each shard.
    pub fn index_size_bytes(&self) -> u64 {
        let pieces = piece_total(&self.shards, self.piece_size_bytes());
        13 + 32 * (pieces - self.shards.len() as u64)
    }
}

fn in_range<T: Copy + Into<u64> + PartialOrd>(
    field: &str,
    found: T,
    range: RangeInclusive<T>,
) -> Result<(), ManifestError> {
    if range.contains(&found) {
        return Ok(());
    }
    Err(limits::out_of_range(field.to_owned(), found.into(), &range))
}

#[expect(clippy::cast_possible_truncation, reason = "the number of shards is checked first")]
fn check_shards(shards: &[Shard], parity: u32) -> Result<(), ManifestError> {
    let (found, min, max) = (shards.len() as u64, u64::from(parity) + 1, MAX_SHARDS as u64);
    if found < min || found > max {
        return Err(ManifestError::ShardCount { found, min, max });
    }
    let count = found as u32;
    for (index, shard) in (0..).zip(shards) {
        if !limits::SIZES.contains(&shard.size_bytes) {
            let field = format!("shards[{index}].size");
            return Err(limits::out_of_range(field, shard.size_bytes, &limits::SIZES));
        }
        if shard.is_parity != (index >= count - parity) {
            let found = shard.is_parity;
            return Err(ManifestError::MisplacedParity { shard: index, found, shards: count, parity });
        }
    }
    Ok(())
}

#[expect(clippy::cast_possible_truncation, reason = "there are at most 65,536 shards")]
fn check_layout(total: u64, data_shards: &[Shard], data: u32, row: u64) -> Result<Layout, ManifestError> {
    let found_shards = data_shards.len() as u32;
    if found_shards == data && data_shards.iter().all(|shard| shard.size_bytes == row) {
        return Ok(Layout::Uniform);
    }
    // At most 2^16 sizes of at most 2^48: no overflow.
    let found_bytes = data_shards.iter().map(|shard| shard.size_bytes).sum();
    if found_bytes == total {
        return Ok(Layout::LayerWise);
    }
    Err(ManifestError::DataSizes { found_shards, found_bytes, data, row_bytes: row, total_bytes: total })
}

fn check_parity_sizes(shards: &[Shard], data_count: usize, row_bytes: u64) -> Result<(), ManifestError> {
    match (0..).zip(shards).skip(data_count).find(|(_, shard)| shard.size_bytes != row_bytes) {
        None => Ok(()),
        Some((shard, &Shard { size_bytes: found_bytes, .. })) => {
            Err(ManifestError::ParitySize { shard, found_bytes, expected_bytes: row_bytes })
        }
    }
}

/// Rows of padding only exist when rows have fewer bytes than there are rows, so these are short.
fn check_padding_rows(total: u64, data_shards: &[Shard], row_bytes: u64) -> Result<(), ManifestError> {
    let mut zeros = None;
    for (index, shard) in (0_u32..).zip(data_shards) {
        if u64::from(index) * row_bytes < total {
            continue;
        }
        let expected = *zeros.get_or_insert_with(|| {
            let zeros: Vec<u8> = (0..row_bytes).map(|_| 0).collect();
            Digest::of(&zeros)
        });
        if shard.digest != expected {
            return Err(ManifestError::PaddingRow { shard: index, found: shard.digest, expected, row_bytes });
        }
    }
    Ok(())
}

fn starts(data_shards: &[Shard]) -> Vec<u64> {
    let mut next = 0;
    let start = |shard: &Shard| {
        let start = next;
        next += shard.size_bytes;
        start
    };
    data_shards.iter().map(start).collect()
}

fn canonical(shards: &[Shard]) -> Result<Vec<u32>, ManifestError> {
    let mut first_with: HashMap<Digest, u32> = HashMap::new();
    let mut canonical = Vec::with_capacity(shards.len());
    for (index, &Shard { digest, size_bytes, .. }) in (0..).zip(shards) {
        let first = *first_with.entry(digest).or_insert(index);
        let expected_bytes = shards[first as usize].size_bytes;
        if size_bytes != expected_bytes {
            let found_bytes = size_bytes;
            return Err(ManifestError::SizesOfDigest {
                digest,
                first,
                expected_bytes,
                shard: index,
                found_bytes,
            });
        }
        canonical.push(first);
    }
    Ok(canonical)
}

fn check_pieces(shards: &[Shard], pieces: Option<Pieces>) -> Result<(), ManifestError> {
    if let Some(Pieces { size_bytes, .. }) = pieces {
        in_range("pieces.size", size_bytes, limits::PIECE_SIZES)?;
        if !size_bytes.is_multiple_of(64) {
            return Err(ManifestError::PieceSize { found_bytes: size_bytes });
        }
    }
    let piece_bytes = piece_size_bytes(pieces);
    let found = piece_total(shards, piece_bytes);
    if found > MAX_PIECES {
        return Err(ManifestError::TooManyPieces { found, piece_bytes, max: MAX_PIECES });
    }
    Ok(())
}

fn piece_size_bytes(pieces: Option<Pieces>) -> u32 {
    pieces.map_or(TRANSFER_PIECE_BYTES, |pieces| pieces.size_bytes)
}

fn piece_total(shards: &[Shard], piece_bytes: u32) -> u64 {
    shards.iter().map(|shard| shard.size_bytes.div_ceil(u64::from(piece_bytes))).sum()
}
