//! Writing a manifest as Python's `json.dumps(manifest, sort_keys=True)` does: keys in order, `", "` and `": "`
//! between them, everything but printable ASCII escaped.

use std::fmt::Write as _;

use crate::{Manifest, Pieces, Shard};

impl Manifest {
    /// The bytes of Python's `json.dumps(manifest, sort_keys=True)`: what a manifest is published as.
    ///
    /// The bytes that were parsed may have been others; a model keeps the name of those.
    pub fn to_json(&self) -> Vec<u8> {
        let mut shards = String::new();
        for (index, Shard { digest, size_bytes, is_parity }) in self.shards().iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            // Writing to a String cannot fail.
            let _ = write!(
                shards,
                r#"{comma}{{"hash": "{digest}", "index": {index}, "is_parity": {is_parity}, "size": {size_bytes}}}"#
            );
        }
        let mut files = String::new();
        for (index, file) in self.files().iter().enumerate() {
            let start = if index == 0 { r#""files": ["# } else { ", " };
            let (path, sha256, size_bytes) = (quoted(file.path().as_str()), file.sha256(), file.size_bytes());
            let _ = write!(files, r#"{start}{{"path": {path}, "sha256": "{sha256}", "size": {size_bytes}}}"#);
        }
        if !files.is_empty() {
            files.push_str("], ");
        }
        let pieces = match self.pieces() {
            Some(Pieces { size_bytes, index }) => {
                format!(r#""pieces": {{"index": "{index}", "size": {size_bytes}}}, "#)
            }
            None => String::new(),
        };
        format!(
            r#"{{"erasure": {{"codec": "{}", "data": {}, "parity": {}}}, {files}"merkle_root": "{}", "model_kind": {}, {pieces}"shards": [{shards}], "total_size": {}, "version": 1}}"#,
            self.codec(),
            self.data(),
            self.parity(),
            self.merkle_root(),
            quoted(self.model_kind()),
            self.total_size_bytes(),
        )
        .into_bytes()
    }
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for unit in text.encode_utf16() {
        match u8::try_from(unit) {
            Ok(b'"') => quoted.push_str("\\\""),
            Ok(b'\\') => quoted.push_str("\\\\"),
            Ok(b'\n') => quoted.push_str("\\n"),
            Ok(b'\r') => quoted.push_str("\\r"),
            Ok(b'\t') => quoted.push_str("\\t"),
            Ok(0x08) => quoted.push_str("\\b"),
            Ok(0x0c) => quoted.push_str("\\f"),
            Ok(ascii @ b' '..=b'~') => quoted.push(char::from(ascii)),
            _ => {
                let _ = write!(quoted, "\\u{unit:04x}");
            }
        }
    }
    quoted.push('"');
    quoted
}
