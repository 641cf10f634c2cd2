//! `/autonet/blob/2.0.0`: pipelined requests for ranges. Frames are a `u32` length and a body; integers are big-endian.

use std::time::Duration;

use manifest::Digest;

use super::{FramingError, MAX_RANGE_BYTES, take};

/// The longest body of a request that a server reads.
pub(crate) const MAX_REQUEST_BYTES: usize = 1024;
/// How many requests of one stream may be unanswered.
pub(crate) const MAX_UNANSWERED: usize = 16;
/// The longest reason in a refusal.
pub(crate) const MAX_REASON_BYTES: usize = 256;
/// The longest body of a refusal.
pub(crate) const MAX_REFUSAL_BYTES: usize = 1 + MAX_REASON_BYTES;
/// The body of a GET answer before the bytes: status, blob size, length.
pub(crate) const GET_HEAD_BYTES: u32 = 1 + 8 + 4;

const GET: u8 = 0x01;
const HAVE: u8 = 0x02;
const PEERS: u8 = 0x03;

/// The first byte of an answer that has what was asked for.
pub(crate) const STATUS_OK: u8 = 0x00;
const STATUS_NOT_FOUND: u8 = 0x01;
const STATUS_BUSY: u8 = 0x02;
const STATUS_NOT_HELD: u8 = 0x03;
const STATUS_BAD_REQUEST: u8 = 0x04;

/// What a fetcher asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    /// `length` bytes of `blob` from `offset` on.
    Get { manifest: Option<Digest>, blob: Digest, offset: u64, length: u32 },
    /// The piece sets of the manifest's shards.
    Have { manifest: Digest, since: u64 },
    /// Other holders of the manifest's shards.
    Peers { manifest: Digest },
}

/// Why a well-framed request is refused; its text goes to the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RequestError {
    #[error("unknown request type {0:#04x}")]
    UnknownType(u8),
    #[error("a request of type {request_type:#04x} has {expected} bytes, found {found}")]
    Length { request_type: u8, found: usize, expected: usize },
    #[error("a range has 1 to {MAX_RANGE_BYTES} bytes, found {0}")]
    RangeLength(u32),
    #[error("the range ends at byte {end}, the blob has {size_bytes} bytes")]
    OutOfBounds { end: u64, size_bytes: u64 },
}

impl Request {
    /// The manifest that it is about.
    pub(crate) fn manifest(&self) -> Option<Digest> {
        match self {
            Self::Get { manifest, .. } => *manifest,
            Self::Have { manifest, .. } | Self::Peers { manifest } => Some(*manifest),
        }
    }

    /// The frame, its length included.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(96);
        match self {
            Self::Get { manifest, blob, offset, length } => {
                body.push(GET);
                body.extend_from_slice(manifest.unwrap_or(Digest::ZERO).as_bytes());
                body.extend_from_slice(blob.as_bytes());
                body.extend_from_slice(&offset.to_be_bytes());
                body.extend_from_slice(&length.to_be_bytes());
            }
            Self::Have { manifest, since } => {
                body.push(HAVE);
                body.extend_from_slice(manifest.as_bytes());
                body.extend_from_slice(&since.to_be_bytes());
            }
            Self::Peers { manifest } => {
                body.push(PEERS);
                body.extend_from_slice(manifest.as_bytes());
            }
        }
        frame(&body)
    }

    /// The request with this body, which has 1 to [`MAX_REQUEST_BYTES`] bytes.
    pub(crate) fn decode(body: &[u8]) -> Result<Self, RequestError> {
        let (&request_type, mut fields) = body.split_first().ok_or(RequestError::UnknownType(0))?;
        let expected = match request_type {
            GET => 1 + 32 + 32 + 8 + 4,
            HAVE => 1 + 32 + 8,
            PEERS => 1 + 32,
            unknown => return Err(RequestError::UnknownType(unknown)),
        };
        let wrong_length = || RequestError::Length { request_type, found: body.len(), expected };
        if body.len() != expected {
            return Err(wrong_length());
        }
        let manifest = take(&mut fields).map(Digest::from_bytes).ok_or_else(wrong_length)?;
        match request_type {
            GET => {
                let blob = take(&mut fields).map(Digest::from_bytes).ok_or_else(wrong_length)?;
                let offset = take(&mut fields).map(u64::from_be_bytes).ok_or_else(wrong_length)?;
                let length = take(&mut fields).map(u32::from_be_bytes).ok_or_else(wrong_length)?;
                if !(1..=MAX_RANGE_BYTES).contains(&length) {
                    return Err(RequestError::RangeLength(length));
                }
                Ok(Self::Get {
                    manifest: (manifest != Digest::ZERO).then_some(manifest),
                    blob,
                    offset,
                    length,
                })
            }
            HAVE => {
                let since = take(&mut fields).map(u64::from_be_bytes).ok_or_else(wrong_length)?;
                Ok(Self::Have { manifest, since })
            }
            _ => Ok(Self::Peers { manifest }),
        }
    }
}

/// An answer without what was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    NotFound,
    Busy { retry_after: Duration },
    NotHeld,
    BadRequest { reason: String },
}

impl Refusal {
    /// The frame, its length included. A long reason is cut.
    pub(crate) fn encode(&self) -> Vec<u8> {
        match self {
            Self::NotFound => frame(&[STATUS_NOT_FOUND]),
            Self::Busy { retry_after } => {
                let retry_after_ms = u32::try_from(retry_after.as_millis()).unwrap_or(u32::MAX);
                let mut body = vec![STATUS_BUSY];
                body.extend_from_slice(&retry_after_ms.to_be_bytes());
                frame(&body)
            }
            Self::NotHeld => frame(&[STATUS_NOT_HELD]),
            Self::BadRequest { reason } => {
                let cut = reason.floor_char_boundary(MAX_REASON_BYTES);
                let mut body = vec![STATUS_BAD_REQUEST];
                body.extend_from_slice(&reason.as_bytes()[..cut]);
                frame(&body)
            }
        }
    }

    /// How long the body of a refusal with this status may be, the status included.
    pub(crate) fn check_length(status: u8, body_bytes: u32) -> Result<usize, FramingError> {
        let expected = match status {
            STATUS_NOT_FOUND | STATUS_NOT_HELD => 1,
            STATUS_BUSY => 5,
            STATUS_BAD_REQUEST => MAX_REFUSAL_BYTES,
            found => return Err(FramingError::UnknownStatus { found }),
        };
        match usize::try_from(body_bytes) {
            Ok(length) if length == expected || (status == STATUS_BAD_REQUEST && length < expected) => {
                Ok(length)
            }
            _ => Err(FramingError::AnswerLength {
                status,
                found_bytes: u64::from(body_bytes),
                expected_bytes: expected as u64,
            }),
        }
    }

    /// The refusal with this status and the rest of the body after it.
    pub(crate) fn decode(status: u8, rest: &[u8]) -> Result<Self, FramingError> {
        let wrong_length = |expected_bytes| FramingError::AnswerLength {
            status,
            found_bytes: 1 + rest.len() as u64,
            expected_bytes,
        };
        match status {
            STATUS_NOT_FOUND if rest.is_empty() => Ok(Self::NotFound),
            STATUS_NOT_HELD if rest.is_empty() => Ok(Self::NotHeld),
            STATUS_NOT_FOUND | STATUS_NOT_HELD => Err(wrong_length(1)),
            STATUS_BUSY => {
                let retry_after_ms = u32::from_be_bytes(rest.try_into().map_err(|_| wrong_length(5))?);
                Ok(Self::Busy { retry_after: Duration::from_millis(u64::from(retry_after_ms)) })
            }
            STATUS_BAD_REQUEST if rest.len() > MAX_REASON_BYTES => {
                Err(wrong_length(MAX_REFUSAL_BYTES as u64))
            }
            STATUS_BAD_REQUEST => {
                let reason = std::str::from_utf8(rest).map_err(|_| FramingError::Reason)?;
                Ok(Self::BadRequest { reason: reason.to_owned() })
            }
            found => Err(FramingError::UnknownStatus { found }),
        }
    }
}

/// What comes before the bytes of a GET answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GetHead {
    /// The size of the whole blob.
    pub(crate) size_bytes: u64,
    /// How many bytes follow.
    pub(crate) length: u32,
}

impl GetHead {
    /// The start of the frame: its length, the status and the head.
    pub(crate) fn encode(&self) -> [u8; 4 + GET_HEAD_BYTES as usize] {
        let mut frame = [0; 4 + GET_HEAD_BYTES as usize];
        frame[..4].copy_from_slice(&(self.length + GET_HEAD_BYTES).to_be_bytes());
        frame[4] = STATUS_OK;
        frame[5..13].copy_from_slice(&self.size_bytes.to_be_bytes());
        frame[13..].copy_from_slice(&self.length.to_be_bytes());
        frame
    }

    /// The head from the bytes after the status.
    pub(crate) fn decode(rest: &[u8; GET_HEAD_BYTES as usize - 1]) -> Self {
        let [size @ .., a, b, c, d] = *rest;
        Self { size_bytes: u64::from_be_bytes(size), length: u32::from_be_bytes([a, b, c, d]) }
    }
}

/// A frame with this body, which is far shorter than 4 GiB.
pub(crate) fn frame(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let mut frame = Vec::with_capacity(4 + body.len());
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(body);
    frame
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn digest() -> impl Strategy<Value = Digest> {
        any::<[u8; 32]>().prop_map(Digest::from_bytes)
    }

    fn request() -> impl Strategy<Value = Request> {
        let manifest = digest().prop_map(|digest| (digest != Digest::ZERO).then_some(digest));
        prop_oneof![
            (prop_oneof![manifest, Just(None)], digest(), any::<u64>(), 1..=MAX_RANGE_BYTES)
                .prop_map(|(manifest, blob, offset, length)| Request::Get { manifest, blob, offset, length }),
            (digest(), any::<u64>()).prop_map(|(manifest, since)| Request::Have { manifest, since }),
            digest().prop_map(|manifest| Request::Peers { manifest }),
        ]
    }

    fn refusal() -> impl Strategy<Value = Refusal> {
        prop_oneof![
            Just(Refusal::NotFound),
            Just(Refusal::NotHeld),
            any::<u32>().prop_map(|ms| Refusal::Busy { retry_after: Duration::from_millis(ms.into()) }),
            ".{0,60}".prop_map(|reason| Refusal::BadRequest { reason }),
        ]
    }

    fn decode_refusal(frame: &[u8]) -> Result<Refusal, FramingError> {
        let length = u32::from_be_bytes(frame[..4].try_into().unwrap());
        assert_eq!(Refusal::check_length(frame[4], length)?, frame.len() - 4);
        Refusal::decode(frame[4], &frame[5..])
    }

    proptest! {
        #[test]
        fn requests_round_trip(request in request()) {
            let frame = request.encode();
            prop_assert!(frame.len() <= 4 + MAX_REQUEST_BYTES);
            prop_assert_eq!(frame[..4].to_vec(), u32::try_from(frame.len() - 4).unwrap().to_be_bytes().to_vec());
            prop_assert_eq!(Request::decode(&frame[4..]), Ok(request));
        }

        #[test]
        fn a_request_has_one_length(request in request(), more in 1usize..40) {
            let mut body = request.encode().split_off(4);
            let whole = body.clone();
            body.truncate(body.len().saturating_sub(more).max(1));
            prop_assert!(Request::decode(&body).is_err());
            body = whole;
            body.extend(vec![0; more]);
            prop_assert!(Request::decode(&body).is_err());
        }

        #[test]
        fn any_bytes_decode_or_are_refused(body in proptest::collection::vec(any::<u8>(), 0..MAX_REQUEST_BYTES)) {
            if let Ok(request) = Request::decode(&body) {
                prop_assert_eq!(&request.encode()[4..], &body[..]);
            }
            let status = body.first().copied().unwrap_or(9);
            if let Ok(refusal) = Refusal::decode(status, body.get(1..).unwrap_or(&[])) {
                prop_assert_eq!(&refusal.encode()[4..], &body[..]);
            }
        }

        #[test]
        fn refusals_round_trip(refusal in refusal()) {
            prop_assert_eq!(decode_refusal(&refusal.encode()), Ok(refusal));
        }

        #[test]
        fn get_heads_round_trip(size_bytes: u64, length in 1..=MAX_RANGE_BYTES) {
            let head = GetHead { size_bytes, length };
            let frame = head.encode();
            prop_assert_eq!(u32::from_be_bytes(frame[..4].try_into().unwrap()), 13 + length);
            prop_assert_eq!(frame[4], STATUS_OK);
            prop_assert_eq!(GetHead::decode(frame[5..].try_into().unwrap()), head);
        }
    }

    #[test]
    fn ranges_have_bounds() {
        for (length, good) in [(0, false), (1, true), (MAX_RANGE_BYTES, true), (MAX_RANGE_BYTES + 1, false)] {
            let request = Request::Get { manifest: None, blob: Digest::ZERO, offset: 0, length };
            assert_eq!(Request::decode(&request.encode()[4..]).is_ok(), good, "{length}");
        }
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let frame = Refusal::BadRequest { reason: "é".repeat(200) }.encode();
        assert_eq!(decode_refusal(&frame), Ok(Refusal::BadRequest { reason: "é".repeat(128) }));
    }

    #[test]
    fn refusals_of_a_wrong_length_are_refused() {
        for (status, length) in [(1, 2), (1, 0), (2, 4), (2, 6), (3, 2), (4, 258)] {
            assert!(
                matches!(Refusal::check_length(status, length), Err(FramingError::AnswerLength { .. })),
                "{status} {length}"
            );
        }
        assert_eq!(Refusal::check_length(5, 1), Err(FramingError::UnknownStatus { found: 5 }));
        assert_eq!(Refusal::decode(4, &[0xFF]), Err(FramingError::Reason));
    }
}
