//! `/autonet/blob/1.0.0`: one request and one whole blob per stream.

use manifest::Digest;

use super::FramingError;

/// A digest as text.
pub(crate) const REQUEST_BODY_BYTES: usize = 64;
/// A request with its length: always the same.
pub(crate) const REQUEST_BYTES: usize = 4 + REQUEST_BODY_BYTES;

/// The request for a blob, length included.
pub(crate) fn encode_request(blob: &Digest) -> Vec<u8> {
    let mut frame = Vec::with_capacity(REQUEST_BYTES);
    frame.extend_from_slice(&[0, 0, 0, 64]);
    frame.extend_from_slice(blob.to_string().as_bytes());
    frame
}

/// The blob that a request, length included, names.
pub(crate) fn decode_request(frame: &[u8; REQUEST_BYTES]) -> Result<Digest, FramingError> {
    let (length, text) = frame.split_at(4);
    if length != [0, 0, 0, 64] {
        let found_bytes = length.iter().fold(0, |value, byte| value << 8 | u64::from(*byte));
        return Err(FramingError::FrameLength { found_bytes, max_bytes: 64 });
    }
    let text = std::str::from_utf8(text).map_err(|_| FramingError::NotADigest)?;
    text.parse().map_err(|_| FramingError::NotADigest)
}

/// The four bytes before a blob of this size; `None`, and a size that 32 bits cannot tell, are "not found".
pub(crate) fn encode_size(size_bytes: Option<u64>) -> [u8; 4] {
    size_bytes.and_then(|size| u32::try_from(size).ok()).unwrap_or(0).to_be_bytes()
}

/// The size that an answer's first four bytes tell; `None` when not found.
pub(crate) fn decode_size(head: [u8; 4]) -> Option<u64> {
    match u32::from_be_bytes(head) {
        0 => None,
        size => Some(u64::from(size)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_round_trip() {
        let digest = Digest::of(b"x");
        let frame: [u8; REQUEST_BYTES] = encode_request(&digest).try_into().unwrap();
        assert_eq!(decode_request(&frame), Ok(digest));
    }

    #[test]
    fn wrong_requests_are_refused() {
        let good: [u8; REQUEST_BYTES] = encode_request(&Digest::of(b"x")).try_into().unwrap();
        let mut frame = good;
        frame[3] = 65;
        assert_eq!(decode_request(&frame), Err(FramingError::FrameLength { found_bytes: 65, max_bytes: 64 }));
        for byte in [b'A', b'g', 0xFF] {
            let mut frame = good;
            frame[20] = byte;
            assert_eq!(decode_request(&frame), Err(FramingError::NotADigest));
        }
    }

    #[test]
    fn sizes_over_32_bits_are_not_found() {
        let largest = u64::from(u32::MAX);
        for (size, told) in [
            (None, None),
            (Some(0), None),
            (Some(1), Some(1)),
            (Some(largest), Some(largest)),
            (Some(largest + 1), None),
        ] {
            assert_eq!(decode_size(encode_size(size)), told, "{size:?}");
        }
    }
}
