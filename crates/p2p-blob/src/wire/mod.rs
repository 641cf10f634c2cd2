//! The bytes on a stream, without the stream. `docs/protocol.md` states every one of them.

pub(crate) mod capability;
#[cfg(test)]
mod examples;
pub(crate) mod have;
pub(crate) mod peers;
pub(crate) mod v1;
pub(crate) mod v2;

pub(crate) use peers::MAX_RECORD_BYTES;

/// The longest range of one request.
pub const MAX_RANGE_BYTES: u32 = 4 << 20;

/// A version of the blob protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// Whole blobs, one per stream.
    Blobs,
    /// Ranges, pipelined.
    Ranges,
}

impl Version {
    /// Its name in stream negotiation.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Blobs => "/autonet/blob/1.0.0",
            Self::Ranges => "/autonet/blob/2.0.0",
        }
    }
}

/// Why bytes are not a message of the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FramingError {
    /// A frame that is empty, or longer than any message it could be.
    #[error("a frame of {found_bytes} bytes, expected 1 to {max_bytes}")]
    FrameLength {
        /// The length in the frame's header.
        found_bytes: u64,
        /// The longest frame possible here.
        max_bytes: u64,
    },
    /// The first byte of an answer is none that is known.
    #[error("an answer of unknown status {found:#04x}")]
    UnknownStatus {
        /// The byte.
        found: u8,
    },
    /// An answer has not the size that its kind has.
    #[error("an answer of status {status:#04x} with {found_bytes} bytes, expected {expected_bytes}")]
    AnswerLength {
        /// Its first byte.
        status: u8,
        /// Its length.
        found_bytes: u64,
        /// The length such an answer has.
        expected_bytes: u64,
    },
    /// A reason that is not UTF-8.
    #[error("a reason that is not UTF-8")]
    Reason,
    /// A HAVE answer that does not fit the manifest.
    #[error("a HAVE answer whose {field} is {found}, expected {expected}")]
    Have {
        /// Which field.
        field: &'static str,
        /// Its value.
        found: u64,
        /// What fits.
        expected: String,
    },
    /// A PEERS answer that is not a list of records.
    #[error("a PEERS answer whose {field} is {found}, expected {expected}")]
    Peers {
        /// Which field.
        field: &'static str,
        /// Its value.
        found: u64,
        /// What fits.
        expected: String,
    },
    /// Bytes where none are due.
    #[error("bytes that answer no request")]
    Unsolicited,
    /// A request of 1.0.0 that is not 64 lower-case hexadecimal characters.
    #[error("a request that is not a digest in hexadecimal")]
    NotADigest,
}

/// Takes `N` bytes off the front of `bytes`.
fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*head)
}
