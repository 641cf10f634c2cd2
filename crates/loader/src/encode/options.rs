//! What is published, and how.

use std::path::PathBuf;

use manifest::{Codec, MAX_PIECE_BYTES, MAX_ROWS, MODEL_KINDS, TRANSFER_PIECE_BYTES};

use super::PublishError;
use super::folder::Folder;

/// Smaller pieces cost more in requests, and in index, than they save.
pub(super) const MIN_PIECE_BYTES: u32 = 16 << 10;

/// What is published.
#[derive(Debug, Clone)]
pub enum Input {
    /// One file of weights without a name, cut into `data` shards of equal size.
    File(PathBuf),
    /// One file per layer, each a data shard; in this order they are the weights, which have no name.
    Layers(Vec<PathBuf>),
    /// A folder, or one file with its name.
    Folder(Folder),
}

/// How the files of a folder become data shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FileLayout {
    /// As files, if each of them can be rebuilt from parity and they are not too many, else as rows.
    #[default]
    Auto,
    /// Each file that is not empty is one, so that its SHA-256 is proven, and anybody can fetch it by that.
    Files,
    /// Together they are cut into shards of equal size.
    Rows,
}

/// How it is published.
#[derive(Debug, Clone)]
pub struct Options {
    pub(crate) model_kind: String,
    pub(crate) data: u32,
    pub(crate) parity: u32,
    pub(crate) codec: Codec,
    pub(crate) piece_size_bytes: Option<u32>,
    pub(crate) layout: FileLayout,
}

impl Default for Options {
    /// Reed-Solomon 10 + 4, pieces of 1 MiB.
    fn default() -> Self {
        Self {
            model_kind: MODEL_KINDS[0].to_owned(),
            data: 10,
            parity: 4,
            codec: Codec::Rs,
            piece_size_bytes: Some(TRANSFER_PIECE_BYTES),
            layout: FileLayout::Auto,
        }
    }
}

impl Options {
    /// One of [`MODEL_KINDS`].
    #[must_use]
    pub fn with_model_kind(self, model_kind: String) -> Self {
        Self { model_kind, ..self }
    }

    /// Number of rows: with one input file, of data shards. From 1 on.
    #[must_use]
    pub fn with_data(self, data: u32) -> Self {
        Self { data, ..self }
    }

    /// Number of parity shards, 0 for none. At most 256 together with the rows.
    #[must_use]
    pub fn with_parity(self, parity: u32) -> Self {
        Self { parity, ..self }
    }

    /// How parity is made.
    #[must_use]
    pub fn with_codec(self, codec: Codec) -> Self {
        Self { codec, ..self }
    }

    /// Size of the pieces, a multiple of 64 from 16 KiB to 4 MiB; `None` leaves out the piece index.
    #[must_use]
    pub fn with_piece_size_bytes(self, piece_size_bytes: impl Into<Option<u32>>) -> Self {
        Self { piece_size_bytes: piece_size_bytes.into(), ..self }
    }

    /// How the files of a folder become data shards.
    #[must_use]
    pub fn with_layout(self, layout: FileLayout) -> Self {
        Self { layout, ..self }
    }
}

pub(super) fn check_options(options: &Options) -> Result<(), PublishError> {
    let Options { model_kind, data, parity, piece_size_bytes, .. } = options;
    if !MODEL_KINDS.contains(&model_kind.as_str()) {
        return Err(PublishError::UnknownModelKind { found: model_kind.clone() });
    }
    if *data == 0 || data.checked_add(*parity).is_none_or(|rows| rows > MAX_ROWS) {
        return Err(PublishError::BadGeometry { data: *data, parity: *parity, max: MAX_ROWS });
    }
    match *piece_size_bytes {
        Some(bytes) if !(MIN_PIECE_BYTES..=MAX_PIECE_BYTES).contains(&bytes) || !bytes.is_multiple_of(64) => {
            let (min_bytes, max_bytes) = (MIN_PIECE_BYTES, MAX_PIECE_BYTES);
            Err(PublishError::BadPieceSize { found_bytes: bytes, min_bytes, max_bytes })
        }
        _ => Ok(()),
    }
}
