//! What is not opened.

use std::fs::FileType;
use std::io;
use std::os::unix::fs::FileTypeExt as _;

/// Why something that is there is left alone; found inside of an [`io::Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// A symbolic link.
    #[error("it is a symbolic link, and nothing is opened through links here")]
    Link,
    /// Something that is no regular file.
    #[error("it is {0}, not a regular file")]
    Kind(&'static str),
    /// Writing to it would change what is known by other names.
    #[error("it has {names} names (hard links), and writing to it would change what the others name")]
    ManyNames {
        /// How many.
        names: u64,
    },
    /// Somebody else's.
    #[error("it belongs to user {owner}, and is not written to by user {user}")]
    Foreign {
        /// Whose it is.
        owner: u32,
        /// Who wants to write.
        user: u32,
    },
}

impl Refused {
    pub(crate) fn kind(found: FileType) -> Self {
        match found {
            found if found.is_symlink() => Self::Link,
            found if found.is_dir() => Self::Kind("a directory"),
            found if found.is_fifo() => Self::Kind("a FIFO"),
            found if found.is_socket() => Self::Kind("a socket"),
            _ => Self::Kind("a device"),
        }
    }
}

impl From<Refused> for io::Error {
    fn from(refused: Refused) -> Self {
        Self::other(refused)
    }
}
