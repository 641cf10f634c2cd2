//! What the crates name alike: byte ranges, sources, and who is at fault.

use std::fmt;
use std::sync::Arc;

/// A half-open range of bytes `[start, end)`, `start <= end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteRange {
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
}

impl ByteRange {
    /// The bytes from `start` up to, not including, `end`.
    ///
    /// # Panics
    /// When `start > end`: a range is made by our own arithmetic, never from outside.
    pub const fn new(start: u64, end: u64) -> Self {
        assert!(start <= end, "a byte range ends before it starts");
        Self { start, end }
    }

    /// How many bytes.
    pub const fn len(&self) -> u64 {
        self.end - self.start
    }

    /// Whether it has no bytes.
    pub const fn is_empty(&self) -> bool {
        self.start == self.end
    }
}

impl fmt::Display for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.start, self.end)
    }
}

/// Names something that blobs are fetched from: for a peer, the text form of its peer id.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceId(Arc<str>);

impl SourceId {
    /// The source with this name.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for SourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Who is at fault for an error. Decisions are made on this, never on message text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Blame {
    /// The other side broke the protocol or sent wrong bytes: do not ask it again for this.
    Peer,
    /// Nobody in particular: a connection, a time limit, a refusal. Worth a retry.
    Network,
    /// Whoever called asked for something impossible.
    Caller,
    /// This process or its machine: a full disk, a bug.
    Us,
}
