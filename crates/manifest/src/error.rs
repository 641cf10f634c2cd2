//! What can be wrong with a manifest or a piece index.

use crate::{Blame, Digest, ParseDigestError, PathError};

/// Why bytes, or values, are not a manifest of version 1.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// More bytes than any manifest has.
    #[error("the manifest has {found_bytes} bytes, expected at most {max_bytes}")]
    TooLarge {
        /// Its size.
        found_bytes: u64,
        /// The limit.
        max_bytes: u64,
    },
    /// Not text.
    #[error("the manifest is not UTF-8 text")]
    NotUtf8 {
        /// Where and why.
        source: std::str::Utf8Error,
    },
    /// Text that begins with U+FEFF.
    #[error("the manifest begins with a byte order mark, expected `{{`")]
    ByteOrderMark,
    /// Not one JSON value.
    #[error("the manifest is not JSON")]
    NotJson {
        /// Where and why.
        source: serde_json::Error,
    },
    /// A value of another type than the field has.
    #[error("`{field}` is {found}, expected {expected}")]
    WrongType {
        /// The field, such as `shards[3].size`.
        field: String,
        /// What stands there.
        found: String,
        /// The type it should have.
        expected: &'static str,
    },
    /// A required field that is not there.
    #[error("`{field}` is missing")]
    Missing {
        /// The field.
        field: String,
    },
    /// A known field that is there twice.
    #[error("`{field}` is there twice, expected once")]
    Duplicate {
        /// The field.
        field: String,
    },
    /// A version that this library does not know.
    #[error("`version` is {found}, expected 1: this manifest needs a newer loader")]
    UnknownVersion {
        /// The version.
        found: u64,
    },
    /// A codec that this library does not know.
    #[error("`erasure.codec` is {found:?}, expected \"replica\" or \"rs\"")]
    UnknownCodec {
        /// The codec, cut after 80 characters.
        found: String,
    },
    /// A text that is not a digest.
    #[error("`{field}` is not a digest")]
    BadDigest {
        /// The field.
        field: String,
        /// What was found.
        source: ParseDigestError,
    },
    /// A number outside of its limits.
    #[error("`{field}` is {found}, expected {min} to {max}")]
    OutOfRange {
        /// The field.
        field: String,
        /// Its value.
        found: u64,
        /// The least it may be.
        min: u64,
        /// The most it may be.
        max: u64,
    },
    /// A number of shards that no manifest has.
    #[error("`shards` has {found} entries, expected {min} to {max}")]
    ShardCount {
        /// How many there are; while parsing, how many were read before giving up.
        found: u64,
        /// The least: one data shard and the parity shards.
        min: u64,
        /// The most.
        max: u64,
    },
    /// Shards that are not listed in index order, without gap or repeat.
    #[error("`shards[{position}].index` is {found}, expected {position}")]
    WrongIndex {
        /// Where in the list, from 0.
        position: u32,
        /// The index that stands there.
        found: u64,
    },
    /// Parity shards that are not exactly the last ones.
    #[error(
        "`shards[{shard}].is_parity` is {found}, expected {}: of {shards} shards the last {parity} are parity",
        !found
    )]
    MisplacedParity {
        /// The shard.
        shard: u32,
        /// How it is marked.
        found: bool,
        /// Number of shards.
        shards: u32,
        /// `erasure.parity`.
        parity: u32,
    },
    /// A parity shard that is not as long as a row.
    #[error(
        "`shards[{shard}].size` is {found_bytes}, expected {expected_bytes}, the size of a row, as it is parity"
    )]
    ParitySize {
        /// The shard.
        shard: u32,
        /// Its size.
        found_bytes: u64,
        /// The size of a row.
        expected_bytes: u64,
    },
    /// Data shards that are neither the rows nor the layers of the weights.
    #[error(
        "the {found_shards} data shards have {found_bytes} bytes, expected {data} shards of {row_bytes} bytes each, \
         or shards that add up to `total_size`, {total_bytes}"
    )]
    DataSizes {
        /// Number of data shards.
        found_shards: u32,
        /// The sum of their sizes.
        found_bytes: u64,
        /// `erasure.data`.
        data: u32,
        /// The size of a row.
        row_bytes: u64,
        /// `total_size`.
        total_bytes: u64,
    },
    /// A row that is padding only, with a digest of something else than zeros.
    #[error(
        "`shards[{shard}].hash` is {found}, expected {expected}, as it is padding only: {row_bytes} zero bytes"
    )]
    PaddingRow {
        /// The shard.
        shard: u32,
        /// Its digest.
        found: Digest,
        /// The digest of zeros.
        expected: Digest,
        /// The size of a row.
        row_bytes: u64,
    },
    /// One digest in two shards of different sizes.
    #[error(
        "`shards[{shard}].size` is {found_bytes}, expected {expected_bytes} as in `shards[{first}]`, which has the \
         same hash {digest}"
    )]
    SizesOfDigest {
        /// The digest.
        digest: Digest,
        /// The first shard that has it.
        first: u32,
        /// The size of that one.
        expected_bytes: u64,
        /// The other shard that has it.
        shard: u32,
        /// The size of that one.
        found_bytes: u64,
    },
    /// Another Merkle root than that of the shards' digests.
    #[error("`merkle_root` is {found}, expected {expected} for these shards")]
    MerkleRoot {
        /// What the manifest says.
        found: Digest,
        /// The root of its shards.
        expected: Digest,
    },
    /// A piece size that is not whole SHA-256 blocks.
    #[error("`pieces.size` is {found_bytes}, expected a multiple of 64")]
    PieceSize {
        /// The size.
        found_bytes: u32,
    },
    /// More pieces than a manifest has.
    #[error("the shards are {found} pieces of {piece_bytes} bytes, expected at most {max}")]
    TooManyPieces {
        /// How many pieces.
        found: u64,
        /// The size of a piece.
        piece_bytes: u32,
        /// The limit.
        max: u64,
    },
    /// A text that cannot be the path of a file.
    #[error("`{field}` is {found:?}, which is not the path of a file")]
    BadPath {
        /// The field.
        field: String,
        /// The text, cut after 80 characters.
        found: String,
        /// Why.
        source: PathError,
    },
    /// More files than a model has.
    #[error("`files` has {found} entries or more, expected at most {max}")]
    FileCount {
        /// How many there are; while parsing, how many were read before giving up.
        found: u64,
        /// The limit.
        max: u64,
    },
    /// More folders than a model has.
    #[error("the paths of `files` have more than {max} folders")]
    FolderCount {
        /// The limit.
        max: u64,
    },
    /// Files that are not the weights, cut.
    #[error("the sizes of `files` add up to {found_bytes}, expected `total_size`, {total_bytes}")]
    FileSizes {
        /// The sum of their sizes.
        found_bytes: u64,
        /// `total_size`.
        total_bytes: u64,
    },
    /// A file that is empty, or one whole shard, with another digest than that.
    #[error("`files[{file}].sha256` is {found}, expected {expected} for its bytes")]
    FileDigest {
        /// The file.
        file: u32,
        /// What the manifest says of it.
        found: Digest,
        /// What its bytes have.
        expected: Digest,
    },
    /// Two names that some file system takes for the same one, or a file that is the folder of another.
    #[error(
        "`files[{file}].path` has {found:?}, which is the same as {first:?} of `files[{first_file}]` where case and the \
         composition of characters do not count, expected other names"
    )]
    SameName {
        /// The file.
        file: u32,
        /// Its name, or that of a folder of it, cut after 80 characters.
        found: String,
        /// The file before it.
        first_file: u32,
        /// The name that it has, cut after 80 characters.
        first: String,
    },
}

impl ManifestError {
    /// Who is at fault: never the peer that sent it, since its bytes were checked against the digest asked for.
    pub fn blame(&self) -> Blame {
        match self {
            Self::TooLarge { .. }
            | Self::NotUtf8 { .. }
            | Self::ByteOrderMark
            | Self::NotJson { .. }
            | Self::WrongType { .. }
            | Self::Missing { .. }
            | Self::Duplicate { .. }
            | Self::UnknownVersion { .. }
            | Self::UnknownCodec { .. }
            | Self::BadDigest { .. }
            | Self::OutOfRange { .. }
            | Self::ShardCount { .. }
            | Self::WrongIndex { .. }
            | Self::MisplacedParity { .. }
            | Self::ParitySize { .. }
            | Self::DataSizes { .. }
            | Self::PaddingRow { .. }
            | Self::SizesOfDigest { .. }
            | Self::MerkleRoot { .. }
            | Self::PieceSize { .. }
            | Self::TooManyPieces { .. }
            | Self::BadPath { .. }
            | Self::FileCount { .. }
            | Self::FolderCount { .. }
            | Self::FileSizes { .. }
            | Self::FileDigest { .. }
            | Self::SameName { .. } => Blame::Caller,
        }
    }
}

/// Why bytes are not the piece index of a manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IndexError {
    /// The manifest has no `pieces`.
    #[error("the manifest has no piece index")]
    NoIndex,
    /// Not as long as the manifest's shards need.
    #[error("the piece index has {found_bytes} bytes, expected {expected_bytes}")]
    WrongSize {
        /// Its size.
        found_bytes: u64,
        /// The size it should have.
        expected_bytes: u64,
    },
    /// Not the bytes that the manifest names.
    #[error("the piece index has the sha256 {found}, expected {expected}")]
    WrongDigest {
        /// Its digest.
        found: Digest,
        /// The digest in the manifest.
        expected: Digest,
    },
    /// The right bytes, but not an index.
    #[error("the piece index begins with \"{}\", expected \"RPBX\"", found.escape_ascii())]
    NotAnIndex {
        /// Its first four bytes.
        found: [u8; 4],
    },
    /// The right bytes, but a version that this library does not know.
    #[error("the piece index has version {found}, expected 1")]
    UnknownVersion {
        /// The version.
        found: u8,
    },
    /// The right bytes, but made for other pieces than the manifest says.
    #[error(
        "the piece index is for pieces of {found_bytes} bytes, expected {expected_bytes} as in the manifest"
    )]
    PieceSize {
        /// Its piece size.
        found_bytes: u32,
        /// The piece size in the manifest.
        expected_bytes: u32,
    },
    /// The right bytes, but made for other shards than the manifest has.
    #[error("the piece index is for {found} shards, expected {expected} as in the manifest")]
    ShardCount {
        /// Its number of shards.
        found: u32,
        /// The number of shards in the manifest.
        expected: u32,
    },
}

impl IndexError {
    /// Who is at fault: the peer for bytes that are not those asked for, else whoever published them.
    pub fn blame(&self) -> Blame {
        match self {
            Self::WrongSize { .. } | Self::WrongDigest { .. } => Blame::Peer,
            Self::NoIndex
            | Self::NotAnIndex { .. }
            | Self::UnknownVersion { .. }
            | Self::PieceSize { .. }
            | Self::ShardCount { .. } => Blame::Caller,
        }
    }
}
