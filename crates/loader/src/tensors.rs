//! Where the tensors of a safetensors file are.
//!
//! Format: 8 bytes, little-endian, with the length of a JSON object, that object, then the data: for each tensor, by its
//! name, `dtype`, `shape`, and `data_offsets`, the half-open range of its bytes in the data.

use std::io;

use manifest::ByteRange;
use serde::Deserialize;

/// What a name of such a file ends with.
const EXTENSION: &str = ".safetensors";
/// Longer headers are not used to find tensors.
pub(crate) const MAX_HEADER_BYTES: u64 = 16 << 20;
const MAX_TENSORS: usize = 1_000_000;
/// Of the header's length.
pub(crate) const LENGTH_BYTES: u64 = 8;

/// What a tensor is, whatever its bytes are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Kind {
    pub(crate) name: String,
    pub(crate) dtype: String,
    pub(crate) shape: Vec<u64>,
}

/// A tensor, and which bytes of its file it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tensor {
    pub(crate) kind: Kind,
    pub(crate) range: ByteRange,
}

#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

/// Whether a file may have tensors, by its name. The weights of a model without names may, too.
pub(crate) fn may_have_tensors(path: &str) -> bool {
    path.ends_with(EXTENSION) || path == "weights"
}

/// Where the data begins, from the first 8 bytes of a file of this size; `None` when that cannot be, or is too far.
pub(crate) fn data_start(first: [u8; 8], size_bytes: u64) -> Option<u64> {
    let header_bytes = u64::from_le_bytes(first);
    let end = header_bytes.checked_add(LENGTH_BYTES)?;
    (header_bytes <= MAX_HEADER_BYTES && end <= size_bytes).then_some(end)
}

/// The tensors of a file of this size, in the order of their bytes; `None` when it is no safetensors file, or its header is
/// too long. `read` fills a buffer from an offset on.
pub(crate) fn read(
    size_bytes: u64,
    mut read: impl FnMut(u64, &mut [u8]) -> io::Result<()>,
) -> Option<Vec<Tensor>> {
    let mut first = [0; 8];
    if size_bytes < LENGTH_BYTES {
        return None;
    }
    read(0, &mut first).ok()?;
    let data_start = data_start(first, size_bytes)?;
    let mut header = vec![0; usize::try_from(data_start - LENGTH_BYTES).ok()?];
    read(LENGTH_BYTES, &mut header).ok()?;
    let entries: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&header).ok()?;
    if entries.len() > MAX_TENSORS {
        return None;
    }
    let mut tensors = Vec::with_capacity(entries.len());
    for (name, entry) in entries.into_iter().filter(|(name, _)| name != "__metadata__") {
        let Entry { dtype, shape, data_offsets: [start, end] } = serde_json::from_value(entry).ok()?;
        let (start, end) = (data_start.checked_add(start)?, data_start.checked_add(end)?);
        if start > end || end > size_bytes {
            return None;
        }
        tensors.push(Tensor { kind: Kind { name, dtype, shape }, range: ByteRange::new(start, end) });
    }
    tensors.sort_by_key(|tensor| (tensor.range.start, tensor.range.end));
    // Bytes of two tensors at once would be nobody's.
    let overlap = tensors.windows(2).any(|pair| pair[1].range.start < pair[0].range.end);
    (!overlap).then_some(tensors)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8]) -> Option<Vec<Tensor>> {
        read(bytes.len() as u64, |offset, buffer| {
            let start = usize::try_from(offset).unwrap();
            buffer
                .copy_from_slice(bytes.get(start..start + buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }

    fn file(header: &str, data: usize) -> Vec<u8> {
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; data]].concat()
    }

    #[test]
    fn tensors_are_found_in_the_order_of_their_bytes() {
        let header = r#"{"__metadata__":{"format":"pt"},"b":{"dtype":"F32","shape":[1],"data_offsets":[2,6]},
            "a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"none":{"dtype":"U8","shape":[0],"data_offsets":[6,6]}}"#;
        let tensors = of(&file(header, 6)).unwrap();
        let start = 8 + header.len() as u64;
        let found: Vec<_> = tensors.iter().map(|tensor| (tensor.kind.name.as_str(), tensor.range)).collect();
        let range = |from, to| ByteRange::new(start + from, start + to);
        assert_eq!(found, [("a", range(0, 2)), ("b", range(2, 6)), ("none", range(6, 6))]);
    }

    #[test]
    fn what_is_no_safetensors_file_has_none() {
        for bytes in [
            vec![],
            vec![0; 7],
            u64::MAX.to_le_bytes().to_vec(),
            (MAX_HEADER_BYTES + 1).to_le_bytes().to_vec(),
            file("{", 0),
            file("[]", 0),
            file(r#"{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,3]}}"#, 2),
            file(r#"{"a":{"dtype":"U8","shape":[2],"data_offsets":[2,0]}}"#, 2),
            file(r#"{"a":{"dtype":"U8","shape":[2]}}"#, 2),
            file(
                r#"{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}"#,
                3,
            ),
            file(
                r#"{"a":{"dtype":"U8","shape":[2],"data_offsets":[18446744073709551615,18446744073709551615]}}"#,
                2,
            ),
        ] {
            assert_eq!(of(&bytes), None, "{:?}", String::from_utf8_lossy(&bytes));
        }
    }
}
