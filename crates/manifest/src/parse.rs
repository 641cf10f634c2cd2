//! The fields of a manifest's JSON, and how many shards and files there may be.

use serde::de::{IgnoredAny, MapAccess, SeqAccess};

use crate::json::{
    At, Flag, Hex, Integer, Object, ObjectAt, Place, Reading, Scalar, Shape, Text, Value, read, wrong_type,
};
use crate::limits::{self, MAX_MANIFEST_BYTES, MAX_SHARDS};
use crate::{Codec, Digest, FileEntry, FilePath, MAX_FILES, ManifestError, Pieces, Shard};

/// A manifest's fields, each of the right type and in its own limits; how they fit together is not checked.
#[derive(Default)]
pub(crate) struct Parts {
    pub(crate) model_kind: String,
    pub(crate) total_size_bytes: u64,
    pub(crate) shards: Vec<Shard>,
    pub(crate) erasure: Erasure,
    pub(crate) merkle_root: Option<Digest>,
    pub(crate) pieces: Option<Pieces>,
    pub(crate) files: Option<Vec<FileEntry>>,
}

#[derive(Default)]
pub(crate) struct Erasure {
    pub(crate) data: u32,
    pub(crate) parity: u32,
    pub(crate) codec: Codec,
}

pub(crate) fn parse(bytes: &[u8]) -> Result<Parts, ManifestError> {
    if bytes.len() > MAX_MANIFEST_BYTES {
        let (found_bytes, max_bytes) = (bytes.len() as u64, MAX_MANIFEST_BYTES as u64);
        return Err(ManifestError::TooLarge { found_bytes, max_bytes });
    }
    let text = std::str::from_utf8(bytes).map_err(|source| ManifestError::NotUtf8 { source })?;
    if text.starts_with('\u{feff}') {
        return Err(ManifestError::ByteOrderMark);
    }
    // First the version alone: another version may have any other fields, and should be named whatever they are.
    let Version(version) = read(text)?;
    if version != 1 {
        return Err(ManifestError::UnknownVersion { found: version });
    }
    read(text)
}

#[derive(Default)]
struct Version(u64);

impl Object for Version {
    const REQUIRED: &'static [&'static str] = &["version"];

    fn take<'de, A: MapAccess<'de>>(&mut self, key: &str, value: Value<'_, A>) -> Result<(), A::Error> {
        match key {
            "version" => self.0 = value.read(Integer(0..=u64::MAX))?,
            _ => value.ignore()?,
        }
        Ok(())
    }
}

impl Object for Parts {
    const REQUIRED: &'static [&'static str] =
        &["version", "model_kind", "total_size", "shards", "erasure", "merkle_root"];
    const OPTIONAL: &'static [&'static str] = &["pieces", "files"];

    fn take<'de, A: MapAccess<'de>>(&mut self, key: &str, value: Value<'_, A>) -> Result<(), A::Error> {
        match key {
            "model_kind" => self.model_kind = value.read(Text)?,
            "total_size" => self.total_size_bytes = value.read(Integer(limits::SIZES))?,
            "shards" => self.shards = value.read(Shards)?,
            "files" => self.files = Some(value.read(Files)?),
            "erasure" => self.erasure = value.read(ObjectAt::new(Place::In("erasure")))?,
            "merkle_root" => self.merkle_root = Some(value.read(Hex)?),
            "pieces" => {
                let RawPieces { size_bytes, index } = value.read(ObjectAt::new(Place::In("pieces")))?;
                self.pieces = index.map(|index| Pieces { size_bytes, index });
            }
            _ => value.ignore()?,
        }
        Ok(())
    }
}

impl Object for Erasure {
    const REQUIRED: &'static [&'static str] = &["data", "parity", "codec"];

    fn take<'de, A: MapAccess<'de>>(&mut self, key: &str, value: Value<'_, A>) -> Result<(), A::Error> {
        match key {
            "data" => self.data = value.read(Integer(limits::DATA))?,
            "parity" => self.parity = value.read(Integer(limits::parity(1)))?,
            "codec" => self.codec = value.read(CodecName)?,
            _ => value.ignore()?,
        }
        Ok(())
    }
}

#[derive(Default)]
struct RawPieces {
    size_bytes: u32,
    index: Option<Digest>,
}

impl Object for RawPieces {
    const REQUIRED: &'static [&'static str] = &["size", "index"];

    fn take<'de, A: MapAccess<'de>>(&mut self, key: &str, value: Value<'_, A>) -> Result<(), A::Error> {
        match key {
            "size" => self.size_bytes = value.read(Integer(limits::PIECE_SIZES))?,
            "index" => self.index = Some(value.read(Hex)?),
            _ => value.ignore()?,
        }
        Ok(())
    }
}

#[derive(Default)]
struct RawShard {
    index: u64,
    hash: Option<Digest>,
    size_bytes: u64,
    is_parity: bool,
}

impl Object for RawShard {
    const REQUIRED: &'static [&'static str] = &["index", "hash", "size", "is_parity"];

    fn take<'de, A: MapAccess<'de>>(&mut self, key: &str, value: Value<'_, A>) -> Result<(), A::Error> {
        match key {
            "index" => self.index = value.read(Integer(0..=u64::MAX))?,
            "hash" => self.hash = Some(value.read(Hex)?),
            "size" => self.size_bytes = value.read(Integer(limits::SIZES))?,
            "is_parity" => self.is_parity = value.read(Flag)?,
            _ => value.ignore()?,
        }
        Ok(())
    }
}

struct CodecName;

impl Shape for CodecName {
    type Output = Codec;
    const EXPECTED: &'static str = "a text, \"replica\" or \"rs\"";

    fn scalar(self, found: Scalar<'_>, at: At<'_>) -> Result<Codec, ManifestError> {
        match found {
            Scalar::Text(text) => text.parse(),
            _ => Err(wrong_type::<Self>(at, &found.to_string())),
        }
    }
}

/// The list of shards: at most [`MAX_SHARDS`], in index order.
struct Shards;

impl Shape for Shards {
    type Output = Vec<Shard>;
    const EXPECTED: &'static str = "a list of objects";

    fn list<'de, A: SeqAccess<'de>>(self, mut list: A, at: At<'_>) -> Result<Vec<Shard>, A::Error> {
        let mut shards = Vec::new();
        for position in 0.. {
            if shards.len() == MAX_SHARDS {
                if list.next_element::<IgnoredAny>()?.is_none() {
                    break;
                }
                let (found, max) = (MAX_SHARDS as u64 + 1, MAX_SHARDS as u64);
                return Err(at.refuse(ManifestError::ShardCount { found, min: 1, max }));
            }
            let element = Reading::<ObjectAt<RawShard>>::element(at, Place::Shard(position));
            let Some(RawShard { index, hash, size_bytes, is_parity }) = list.next_element_seed(element)?
            else {
                break;
            };
            if index != u64::from(position) {
                return Err(at.refuse(ManifestError::WrongIndex { position, found: index }));
            }
            shards.extend(hash.map(|digest| Shard { digest, size_bytes, is_parity }));
        }
        Ok(shards)
    }
}

#[derive(Default)]
struct RawFile {
    path: Option<FilePath>,
    size_bytes: u64,
    sha256: Option<Digest>,
}

impl Object for RawFile {
    const REQUIRED: &'static [&'static str] = &["path", "size", "sha256"];

    fn take<'de, A: MapAccess<'de>>(&mut self, key: &str, value: Value<'_, A>) -> Result<(), A::Error> {
        match key {
            "path" => self.path = Some(value.read(PathText)?),
            "size" => self.size_bytes = value.read(Integer(0..=limits::MAX_SIZE_BYTES))?,
            "sha256" => self.sha256 = Some(value.read(Hex)?),
            _ => value.ignore()?,
        }
        Ok(())
    }
}

struct PathText;

impl Shape for PathText {
    type Output = FilePath;
    const EXPECTED: &'static str = "the path of a file, a text";

    fn scalar(self, found: Scalar<'_>, at: At<'_>) -> Result<FilePath, ManifestError> {
        match found {
            Scalar::Text(text) => text.parse().map_err(|source| {
                let found = limits::excerpt(text);
                ManifestError::BadPath { field: at.field(), found, source }
            }),
            _ => Err(wrong_type::<Self>(at, &found.to_string())),
        }
    }
}

/// The list of files: at most [`MAX_FILES`].
struct Files;

impl Shape for Files {
    type Output = Vec<FileEntry>;
    const EXPECTED: &'static str = "a list of objects";

    fn list<'de, A: SeqAccess<'de>>(self, mut list: A, at: At<'_>) -> Result<Vec<FileEntry>, A::Error> {
        let mut files = Vec::new();
        for position in 0.. {
            if files.len() == MAX_FILES {
                if list.next_element::<IgnoredAny>()?.is_none() {
                    break;
                }
                let (found, max) = (MAX_FILES as u64 + 1, MAX_FILES as u64);
                return Err(at.refuse(ManifestError::FileCount { found, max }));
            }
            let element = Reading::<ObjectAt<RawFile>>::element(at, Place::File(position));
            let Some(RawFile { path, size_bytes, sha256 }) = list.next_element_seed(element)? else { break };
            files.extend(path.zip(sha256).map(|(path, sha256)| FileEntry { path, size_bytes, sha256 }));
        }
        Ok(files)
    }
}
