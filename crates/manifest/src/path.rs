//! Paths of a model's files: which there may be, and which of them some file system takes for the same.

use std::fmt;
use std::str::FromStr;

use icu_casemap::CaseMapper;
use icu_normalizer::ComposingNormalizer;

/// Most bytes of a path.
pub const MAX_PATH_BYTES: usize = 1024;
/// Most parts of a path.
pub const MAX_PATH_PARTS: usize = 32;
/// Most bytes of one part: what file systems take.
pub const MAX_PART_BYTES: usize = 255;

/// The path of a file within its model: relative, with `/` between its parts. Safe to join to a folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FilePath(Box<str>);

impl FilePath {
    /// The path.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl AsRef<std::path::Path> for FilePath {
    fn as_ref(&self) -> &std::path::Path {
        std::path::Path::new(&*self.0)
    }
}

impl FromStr for FilePath {
    type Err = PathError;

    fn from_str(path: &str) -> Result<Self, PathError> {
        check(path).map(|()| Self(path.into()))
    }
}

/// Why a text is not a path of a model's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// More than [`MAX_PATH_BYTES`].
    #[error("{found_bytes} bytes, expected at most {MAX_PATH_BYTES}")]
    TooLong {
        /// How many it has.
        found_bytes: usize,
    },
    /// More than [`MAX_PATH_PARTS`].
    #[error("{found} parts, expected at most {MAX_PATH_PARTS}")]
    TooDeep {
        /// How many it has.
        found: usize,
    },
    /// It begins with `/`.
    #[error("an absolute path, expected a relative one")]
    Absolute,
    /// Nothing before, between or after two `/`.
    #[error("an empty part, expected 1 to {MAX_PART_BYTES} bytes between two `/`")]
    EmptyPart,
    /// A part of more than [`MAX_PART_BYTES`].
    #[error("a part of {found_bytes} bytes, expected at most {MAX_PART_BYTES}")]
    LongPart {
        /// How many it has.
        found_bytes: usize,
    },
    /// `.`, `..`, or `.git` in any case: they mean something to systems.
    #[error("the part `{part}`, which is no name of a file")]
    Reserved {
        /// Which.
        part: &'static str,
    },
    /// A control character, NUL among them, or a backslash.
    #[error("the character {found:?}, expected no control characters and no backslash")]
    Character {
        /// Which.
        found: char,
    },
}

fn check(path: &str) -> Result<(), PathError> {
    if path.len() > MAX_PATH_BYTES {
        return Err(PathError::TooLong { found_bytes: path.len() });
    }
    if path.starts_with('/') {
        return Err(PathError::Absolute);
    }
    if let Some(found) = path.chars().find(|found| found.is_control() || *found == '\\') {
        return Err(PathError::Character { found });
    }
    let parts = path.split('/').count();
    if parts > MAX_PATH_PARTS {
        return Err(PathError::TooDeep { found: parts });
    }
    for part in path.split('/') {
        let reserved = [".", "..", ".git"].into_iter().find(|reserved| key(part) == **reserved);
        match (part.len(), reserved) {
            (0, _) => return Err(PathError::EmptyPart),
            (found_bytes, _) if found_bytes > MAX_PART_BYTES => {
                return Err(PathError::LongPart { found_bytes });
            }
            (_, Some(part)) => return Err(PathError::Reserved { part }),
            _ => {}
        }
    }
    Ok(())
}

/// What is equal of names that some file system takes for the same: NFC, then simple case folding, of Unicode 17.
pub(crate) fn key(path: &str) -> String {
    let (nfc, fold) = (ComposingNormalizer::new_nfc(), CaseMapper::new());
    nfc.normalize(path).chars().map(|character| fold.simple_fold(character)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_folded_as_unicode_17_does() {
        for (one, other) in [
            ("A", "a"),
            ("\u{c4}", "a\u{308}"),
            ("STRASSE", "strasse"),
            ("\u{3a3}", "\u{3c2}"),
            ("\u{1e9e}", "\u{df}"),
            ("\u{212a}", "k"),
            // Came with Unicode 17.
            ("\u{a7ce}", "\u{a7cf}"),
        ] {
            assert_eq!(key(one), key(other), "{one} {other}");
        }
        // Full folding would make these equal; file systems do not.
        assert_ne!(key("\u{df}"), key("ss"));
        assert_ne!(key("\u{130}"), key("i"));
    }
}
