//! Headers of safetensors files: 8 bytes of length, then JSON that says where in the rest each tensor is.
//!
//! Source: the safetensors format, and what its library refuses.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::listing::short;

pub(super) const EXTENSION: &str = ".safetensors";
/// Most tensors that a model has.
pub(super) const MAX_TENSORS: usize = 1_000_000;
/// The library refuses longer headers.
const MAX_HEADER_BYTES: u64 = 100_000_000;
/// Of the header's length.
const LENGTH_BYTES: u64 = 8;

/// What a file's header says.
pub(super) struct Checked {
    /// What is wrong, each to be put after the file's path.
    pub(super) wrong: Vec<String>,
    /// Whether its metadata say what it was made for; also when they cannot be read.
    pub(super) has_format: bool,
}

/// Looks at a file's header; `read` gives that many bytes from its beginning.
pub(super) fn check(size_bytes: u64, read: &dyn Fn(u64) -> Option<Vec<u8>>) -> Checked {
    match read_header(size_bytes, read) {
        Err(wrong) => Checked { wrong: vec![wrong], has_format: true },
        Ok((header, data_bytes)) => Checked {
            wrong: [header.duplicate(), header.wrong_size(), header.wrong_place(data_bytes)]
                .into_iter()
                .flatten()
                .collect(),
            has_format: header.has_format,
        },
    }
}

/// The header, and how many bytes come after it.
fn read_header(size_bytes: u64, read: &dyn Fn(u64) -> Option<Vec<u8>>) -> Result<(Header, u64), String> {
    if size_bytes < LENGTH_BYTES {
        return Err(format!("has {size_bytes} bytes, too few for a safetensors file"));
    }
    let start = read(LENGTH_BYTES).ok_or("cannot be read")?;
    let length = start.first_chunk().map(|length| u64::from_le_bytes(*length)).ok_or("cannot be read")?;
    if length > MAX_HEADER_BYTES {
        return Err(format!(
            "has a header of {length} bytes, more than the {MAX_HEADER_BYTES} that are read"
        ));
    }
    let data_bytes = (size_bytes - LENGTH_BYTES)
        .checked_sub(length)
        .ok_or_else(|| format!("ends within its header: {length} bytes in a file of {size_bytes}"))?;
    let bytes = read(LENGTH_BYTES + length).ok_or("cannot be read")?;
    // Shorter than it was: somebody writes to it.
    let complete = bytes.len() as u64 == LENGTH_BYTES + length;
    let json = bytes.get(start.len()..).filter(|_| complete).ok_or("cannot be read")?;
    let text = str::from_utf8(json).map_err(|_| "has a header that is not UTF-8")?;
    let header: Result<Header, _> = serde_json::from_str(text);
    header
        .map(|header| (header, data_bytes))
        .map_err(|error| format!("has a bad header: {}", short(&error.to_string())))
}

/// Where a tensor is.
struct Tensor {
    name: Box<str>,
    /// Bytes of the data, half-open.
    start: u64,
    end: u64,
    /// What its shape and type take; `None` when that is no whole number of bytes, or too large.
    size_bytes: Option<u64>,
}

/// All that is checked. A name that is there twice is twice among the tensors.
struct Header {
    tensors: Vec<Tensor>,
    has_format: bool,
    has_metadata_twice: bool,
}

impl Header {
    fn duplicate(&self) -> Option<String> {
        if self.has_metadata_twice {
            return Some("has its metadata twice".to_owned());
        }
        let mut names: Vec<&str> = self.tensors.iter().map(|tensor| &*tensor.name).collect();
        names.sort_unstable();
        let twice = names.windows(2).find(|pair| pair[0] == pair[1])?;
        Some(format!("has the tensor \"{}\" twice", short(twice[0])))
    }

    fn wrong_size(&self) -> Option<String> {
        let is_wrong = |tensor: &&Tensor| tensor.end.checked_sub(tensor.start) != tensor.size_bytes;
        let tensor = self.tensors.iter().find(is_wrong)?;
        let expected = match tensor.size_bytes {
            Some(bytes) => format!("{bytes} bytes"),
            None => "no whole number of bytes".to_owned(),
        };
        let (name, start, end) = (short(&tensor.name), tensor.start, tensor.end);
        Some(format!(
            "has the tensor \"{name}\" from byte {start} to {end}, but its shape and type take {expected}"
        ))
    }

    /// Tensors follow each other, and take all of the data.
    fn wrong_place(&self, data_bytes: u64) -> Option<String> {
        let mut tensors: Vec<&Tensor> = self.tensors.iter().collect();
        tensors.sort_unstable_by_key(|tensor| (tensor.start, tensor.end));
        let mut end = 0;
        for tensor in tensors {
            let name = || short(&tensor.name);
            if tensor.end > data_bytes {
                return Some(format!("ends before its tensor \"{}\" does: it is not complete", name()));
            }
            if tensor.start < end {
                return Some(format!("has the tensor \"{}\" where another one is", name()));
            }
            if tensor.start > end {
                return Some(format!("has a hole before the tensor \"{}\"", name()));
            }
            // One that ends before it begins is told by its size.
            end = end.max(tensor.end);
        }
        (end < data_bytes).then(|| format!("has {} bytes after its last tensor", data_bytes - end))
    }
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        let mut header = Header { tensors: Vec::new(), has_format: false, has_metadata_twice: false };
        let mut has_metadata = false;
        while let Some(name) = map.next_key::<Box<str>>()? {
            if &*name == "__metadata__" {
                header.has_metadata_twice |= has_metadata;
                has_metadata = true;
                header.has_format |=
                    map.next_value::<Option<Metadata>>()?.is_some_and(|found| found.has_format);
                continue;
            }
            if header.tensors.len() == MAX_TENSORS {
                return Err(A::Error::custom(format_args!("more than {MAX_TENSORS} tensors")));
            }
            let Entry { dtype, shape, data_offsets: (start, end) } = map.next_value()?;
            let Some(bits) = bits(&dtype) else {
                return Err(A::Error::custom(format_args!("unknown dtype {}", short(&dtype))));
            };
            let bits = shape.0.and_then(|values| values.checked_mul(bits));
            let size_bytes = bits.filter(|bits| bits.is_multiple_of(8)).map(|bits| bits / 8);
            header.tensors.push(Tensor { name, start, end, size_bytes });
        }
        Ok(header)
    }
}

#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow)]
    dtype: Cow<'a, str>,
    shape: Shape,
    data_offsets: (u64, u64),
}

/// How many values there are; `None` when that is too large. The lengths are not kept: a header may have millions.
struct Shape(Option<u64>);

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ShapeVisitor)
    }
}

struct ShapeVisitor;

impl<'de> Visitor<'de> for ShapeVisitor {
    type Value = Shape;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a shape")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut lengths: A) -> Result<Shape, A::Error> {
        let mut values = Some(1_u64);
        while let Some(length) = lengths.next_element::<u64>()? {
            values = values.and_then(|values| values.checked_mul(length));
        }
        Ok(Shape(values))
    }
}

struct Metadata {
    has_format: bool,
}

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MetadataVisitor)
    }
}

struct MetadataVisitor;

impl<'de> Visitor<'de> for MetadataVisitor {
    type Value = Metadata;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("metadata of texts")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Metadata, A::Error> {
        let mut has_format = false;
        while let Some((key, _)) = map.next_entry::<String, String>()? {
            has_format |= key == "format";
        }
        Ok(Metadata { has_format })
    }
}

/// Bits of one value.
fn bits(dtype: &str) -> Option<u64> {
    Some(match dtype {
        "F4" => 4,
        "F6_E2M3" | "F6_E3M2" => 6,
        "BOOL" | "U8" | "I8" | "F8_E5M2" | "F8_E4M3" | "F8_E8M0" | "F8_E4M3FNUZ" | "F8_E5M2FNUZ" => 8,
        "I16" | "U16" | "F16" | "BF16" => 16,
        "I32" | "U32" | "F32" => 32,
        "I64" | "U64" | "F64" | "C64" => 64,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use crate::inspect::tests::{Memory, only, safetensors};

    fn file(bytes: &[u8]) -> Memory {
        Memory::new(&[("m.safetensors", bytes)])
    }

    /// With these tensors, and metadata.
    fn tensors(tensors: &str, data_bytes: usize) -> Memory {
        let header = format!(r#"{{"__metadata__": {{"format": "pt"}}, {tensors}}}"#);
        file(&safetensors(header.as_bytes(), data_bytes))
    }

    const A: &str = r#""a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}"#;

    fn after_a(tensor: &str) -> String {
        format!("{A}, {tensor}")
    }

    #[test]
    fn good_headers_are_fine() {
        let good = [
            (A.to_owned(), 24),
            // In any order, and with what takes no bytes.
            (format!(r#""b": {{"dtype": "F4", "shape": [2], "data_offsets": [24, 25]}}, {A}"#), 25),
            (after_a(r#""b": {"dtype": "U8", "shape": [0], "data_offsets": [24, 24]}"#), 24),
            (after_a(r#""b": {"dtype": "I64", "shape": [], "data_offsets": [24, 32], "more": null}"#), 32),
        ];
        for (header, data_bytes) in good {
            let troubles = tensors(&header, data_bytes).troubles();
            assert!(troubles.is_empty(), "{header}: {troubles:?}");
        }
    }

    #[test]
    fn files_that_end_too_soon_are_told() {
        for size in 0..8 {
            assert!(only(&file(&vec![0; size])).contains("too few for a safetensors file"));
        }
        assert!(only(&file(&[3, 0, 0, 0, 0, 0, 0, 0, b'{', b'}'])).contains("ends within its header"));
    }

    #[test]
    fn a_long_header_is_not_read() {
        let length = 100_000_001_u64.to_le_bytes();
        let long = file(&length).claiming("m.safetensors", 1 << 40);
        assert!(only(&long).contains("more than the 100000000"));
        assert!(only(&file(&[255; 8])).contains("more than the 100000000"));
    }

    #[test]
    fn a_file_that_cannot_be_read_is_told() {
        assert!(only(&tensors(A, 24).unreadable("m.safetensors")).contains("cannot be read"));
        // Nor one that is shorter than it was.
        let shrunk = file(&[2, 0, 0, 0, 0, 0, 0, 0, b'{']).claiming("m.safetensors", 10);
        assert!(only(&shrunk).contains("cannot be read"));
    }

    #[test]
    fn bad_headers_are_told() {
        for header in [
            &b""[..],
            b"[]",
            b"{",
            b"{} x",
            br#"{"a": 1}"#,
            br#"{"a": {"dtype": "F32", "shape": [1]}}"#,
            br#"{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}"#,
            br#"{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 8]}}"#,
            br#"{"a": {"dtype": "F32", "shape": 1, "data_offsets": [0, 4]}}"#,
            br#"{"__metadata__": {"format": 1}}"#,
            br#"{"__metadata__": 1}"#,
        ] {
            let trouble = only(&file(&safetensors(header, 0)));
            assert!(trouble.contains("has a bad header: "), "{trouble}");
        }
        assert!(only(&file(&safetensors(b"{\"\xff\": 1}", 0))).contains("not UTF-8"));
    }

    #[test]
    fn a_million_tensors_are_fine_and_not_one_more() {
        let header = |count: usize| {
            let tensor = |n| format!(r#""{n}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#);
            (0..count).map(tensor).collect::<Vec<_>>().join(",")
        };
        assert!(tensors(&header(1_000_000), 0).troubles().is_empty());
        assert!(only(&tensors(&header(1_000_001), 0)).contains("more than 1000000 tensors"));
    }

    #[test]
    fn unknown_types_are_told_short_and_escaped() {
        let header = A.replace("F32", &format!("\\u001b{}", "x".repeat(1000)));
        let trouble = only(&tensors(&header, 24));
        assert!(trouble.contains("unknown dtype \\") && trouble.len() < 400, "{trouble}");
        assert!(!trouble.contains('\u{1b}'));
    }

    #[test]
    fn duplicates_are_told() {
        let twice = after_a(r#""a": {"dtype": "U8", "shape": [1], "data_offsets": [24, 25]}"#);
        assert!(only(&tensors(&twice, 25)).contains("the tensor \"a\" twice"));
        let metadata = format!(r#"{A}, "__metadata__": {{}}"#);
        assert!(only(&tensors(&metadata, 24)).contains("metadata twice"));
    }

    #[test]
    fn tensors_in_wrong_places_are_told() {
        let b = |start, end| {
            let size = end - start;
            after_a(&format!(
                r#""b": {{"dtype": "U8", "shape": [{size}], "data_offsets": [{start}, {end}]}}"#
            ))
        };
        for (header, data_bytes, expected) in [
            (b(20, 30), 30, "\"b\" where another one is"),
            (b(0, 24), 24, "where another one is"),
            (b(26, 30), 30, "hole before the tensor \"b\""),
            (b(24, 31), 30, "ends before its tensor \"b\" does"),
            (b(24, 30), 31, "1 bytes after its last tensor"),
        ] {
            let trouble = only(&tensors(&header, data_bytes));
            assert!(trouble.contains(expected), "{trouble}");
        }
    }

    #[test]
    fn shapes_that_do_not_fit_are_told() {
        for (dtype, shape, end, expected) in [
            ("F32", "[2, 2]", 24, "take 16 bytes"),
            ("F6_E2M3", "[2]", 1, "no whole number of bytes"),
            ("U8", "[9223372036854775808, 2]", 4, "no whole number of bytes"),
            ("F64", "[9223372036854775807]", 4, "no whole number of bytes"),
        ] {
            let header =
                format!(r#""a": {{"dtype": "{dtype}", "shape": {shape}, "data_offsets": [0, {end}]}}"#);
            let trouble = only(&tensors(&header, end));
            assert!(trouble.contains(expected), "{trouble}");
        }
        // Backwards.
        let header = r#""a": {"dtype": "U8", "shape": [0], "data_offsets": [4, 0]}"#;
        assert!(tensors(header, 0).troubles()[0].contains("from byte 4 to 0"));
    }

    #[test]
    fn metadata_without_format_are_told_once() {
        let no_format = [
            safetensors(b"{}", 0),
            safetensors(br#"{"__metadata__": null}"#, 0),
            safetensors(br#"{"__metadata__": {"a": "b"}}"#, 0),
        ];
        for bytes in &no_format {
            assert!(only(&file(bytes)).contains("m.safetensors has no `format`"));
        }
        let files = ["a/m.safetensors", "b/m.safetensors", "c/m.safetensors", "d/m.safetensors"];
        let all = files.iter().fold(Memory::new(&[]), |folder, path| folder.with(path, &no_format[0]));
        assert!(only(&all).contains("c/m.safetensors and 1 more have no `format`"));
    }
}
