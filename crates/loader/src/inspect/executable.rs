//! Files that a runtime, or whoever looks at a model, may execute.

use std::cell::Cell;
use std::fmt;
use std::num::NonZero;
use std::thread;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::listing::ModelFolder;

/// Larger ones are not looked through: they are vocabularies.
const MAX_JSON_BYTES: u64 = 16 << 20;
/// Enough for all signs that programs and pickles begin with.
const MAGIC_BYTES: u64 = 4;
/// A thread more is worth so many files.
const FILES_PER_THREAD: usize = 2000;
/// Keys of configurations whose values name Python to import, in the model or in any other one.
const CODE_KEYS: [&str; 2] = ["auto_map", "custom_pipelines"];

/// A file that may be executed. Shown as part of a sentence: `modeling_x.py is Python`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Executable {
    /// Its path in the model.
    pub path: String,
    /// What it is.
    pub kind: ExecutableKind,
}

impl fmt::Display for Executable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.path, self.kind)
    }
}

/// Why a file may be executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ExecutableKind {
    /// Loading it runs what is in it.
    Pickle,
    /// Source or bytecode.
    Python,
    /// A shared library.
    Library,
    /// A program.
    Program,
    /// Of a shell, or of what its first line says.
    Script,
    /// Of Jupyter.
    Notebook,
    /// Its Lambda layers are bytecode.
    Keras,
    /// A configuration that names code to import.
    RemoteCode,
    /// A configuration that could not be looked through, and may be any of these.
    Unread,
}

impl fmt::Display for ExecutableKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pickle => "is a pickle",
            Self::Python => "is Python",
            Self::Library => "is a shared library",
            Self::Program => "is a program",
            Self::Script => "is a script",
            Self::Notebook => "is a notebook",
            Self::Keras => "is a Keras model, which may have code in its layers",
            Self::RemoteCode => "names code to import",
            Self::Unread => "is a configuration that cannot be looked through",
        })
    }
}

/// What a runtime may execute, in the order of the files. Each file is there once at most.
///
/// By names, and where these leave it open by contents: a JSON file of less than 16 MiB is read, of others with open names
/// the first 4 bytes. Blocks for as long as that takes. That none is found is no proof.
pub fn executable(folder: &dyn ModelFolder) -> Vec<Executable> {
    let paths = folder.paths();
    let look = |file: usize| {
        let (path, size_bytes) = paths[file];
        let name = path.rsplit('/').next().unwrap_or(path).to_ascii_lowercase();
        let read = |limit_bytes| folder.read_start(file, limit_bytes);
        let kind = by_name(&name).or_else(|| by_content(&name, size_bytes, &read))?;
        Some(Executable { path: path.to_owned(), kind })
    };
    // To open thousands takes longer than anything else when a model is there already.
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(paths.len() / FILES_PER_THREAD);
    let share = paths.len().div_ceil(threads.max(1));
    let look_at_all = |part: usize| {
        let end = paths.len().min((part + 1) * share);
        (part * share..end).filter_map(look).collect::<Vec<_>>()
    };
    thread::scope(|scope| {
        let spawn =
            |part| thread::Builder::new().spawn_scoped(scope, move || look_at_all(part)).map_err(|_| part);
        let others: Vec<_> = (1..threads).map(spawn).collect();
        let mut found = look_at_all(0);
        for other in others {
            found.extend(match other {
                Ok(other) => other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
                Err(part) => look_at_all(part),
            });
        }
        found
    })
}

fn extension(name: &str) -> Option<&str> {
    name.rsplit_once('.').map(|(_, extension)| extension)
}

/// `name` is in lower case.
fn by_name(name: &str) -> Option<ExecutableKind> {
    let is_version = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if name.rsplit_once(".so.").is_some_and(|(_, version)| is_version(version)) {
        return Some(ExecutableKind::Library);
    }
    Some(match extension(name)? {
        "pkl" | "pickle" | "dill" | "pt" | "pth" | "ckpt" | "joblib" => ExecutableKind::Pickle,
        // Old ones begin with nothing that could be told.
        "bin" if name.contains("pytorch_model") => ExecutableKind::Pickle,
        "py" | "pyc" | "pyw" | "pyz" => ExecutableKind::Python,
        "so" | "pyd" | "dll" | "dylib" => ExecutableKind::Library,
        "exe" | "llamafile" => ExecutableKind::Program,
        "sh" | "bash" | "bat" | "cmd" | "ps1" => ExecutableKind::Script,
        "ipynb" => ExecutableKind::Notebook,
        "keras" | "h5" | "hdf5" => ExecutableKind::Keras,
        _ => return None,
    })
}

fn by_content(name: &str, size_bytes: u64, read: &dyn Fn(u64) -> Option<Vec<u8>>) -> Option<ExecutableKind> {
    match extension(name) {
        Some("json") => {
            let is_config = name.contains("config");
            let unread = is_config.then_some(ExecutableKind::Unread);
            if size_bytes >= MAX_JSON_BYTES {
                return unread;
            }
            read(MAX_JSON_BYTES).map_or(unread, |json| in_json(&json, is_config))
        }
        Some("bin") => by_magic(&read(MAGIC_BYTES)?),
        None => by_magic(&read(MAGIC_BYTES)?),
        Some(_) => None,
    }
}

fn by_magic(start: &[u8]) -> Option<ExecutableKind> {
    match start {
        [b'P', b'K', 3, 4, ..] | [0x80, ..] => Some(ExecutableKind::Pickle),
        [0x7f, b'E', b'L', b'F', ..] | [b'M', b'Z', ..] => Some(ExecutableKind::Program),
        [b'#', b'!', ..] => Some(ExecutableKind::Script),
        _ => None,
    }
}

/// Whether an object has one of [`CODE_KEYS`]; in a configuration, also one in it: models of several parts have
/// configurations of these.
fn in_json(json: &[u8], is_config: bool) -> Option<ExecutableKind> {
    let found = Cell::new(false);
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let read = Keys { found: &found, inner: is_config }.deserialize(&mut deserializer);
    if found.get() {
        return Some(ExecutableKind::RemoteCode);
    }
    // Python reads what is no JSON, such as NaN, and nests deeper; but nothing that ends too soon.
    read.err().filter(|error| !error.is_eof())?;
    let has = |text: &str| json.windows(text.len()).any(|window| window == text.as_bytes());
    if CODE_KEYS.iter().any(|key| has(key)) {
        return Some(ExecutableKind::RemoteCode);
    }
    (is_config && has("\\u")).then_some(ExecutableKind::Unread)
}

/// Looks for keys, and stops with an error at the first.
#[derive(Clone, Copy)]
struct Keys<'a> {
    found: &'a Cell<bool>,
    /// Also in values.
    inner: bool,
}

impl<'de> DeserializeSeed<'de> for Keys<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Keys<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            if CODE_KEYS.contains(&key.as_str()) {
                self.found.set(true);
                return Err(A::Error::custom("found"));
            }
            match self.inner {
                true => map.next_value_seed(self)?,
                false => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<(), A::Error> {
        match self.inner {
            true => while values.next_element_seed(self)?.is_some() {},
            false => while values.next_element::<IgnoredAny>()?.is_some() {},
        }
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::tests::Memory;

    fn kind(path: &str, bytes: &[u8]) -> Option<ExecutableKind> {
        let found = executable(&Memory::new(&[(path, bytes)]));
        assert!(found.len() <= 1 && found.iter().all(|found| found.path == path));
        found.first().map(|found| found.kind)
    }

    #[test]
    fn names_tell_in_any_case_and_at_any_depth() {
        use ExecutableKind::{Keras, Library, Notebook, Pickle, Program, Python, Script};
        for (extensions, expected) in [
            (&["pkl", "pickle", "pt", "pth", "ckpt", "joblib", "dill"][..], Pickle),
            (&["py", "pyc"], Python),
            (&["pyd", "so", "so.1", "so.1.2.3", "dll", "dylib"], Library),
            (&["exe", "llamafile"], Program),
            (&["sh", "bat", "ps1"], Script),
            (&["ipynb"], Notebook),
            (&["keras", "h5"], Keras),
        ] {
            for extension in extensions {
                assert_eq!(kind(&format!("a/x.{extension}"), b""), Some(expected), "{extension}");
                let upper = format!("X.{}", extension.to_uppercase());
                assert_eq!(kind(&upper, b""), Some(expected), "{upper}");
            }
        }
    }

    #[test]
    fn what_is_only_data_is_not_listed() {
        for path in [
            "a.npy",
            "a.npz",
            "a.safetensors",
            "a.gguf",
            "chat_template.jinja",
            "a.so.md",
            "a.py/b.txt",
            "py",
        ] {
            assert_eq!(kind(path, b"text"), None, "{path}");
        }
    }

    #[test]
    fn bin_is_a_pickle_by_its_content_or_its_usual_name() {
        assert_eq!(kind("x.bin", b"PK\x03\x04"), Some(ExecutableKind::Pickle));
        assert_eq!(kind("x.BIN", b"\x80\x02"), Some(ExecutableKind::Pickle));
        assert_eq!(kind("x/pytorch_model-1-of-2.bin", b"(dp0"), Some(ExecutableKind::Pickle));
        for start in [&b""[..], b"PK", b"GGUF", b"\0\0\0\0"] {
            assert_eq!(kind("x.bin", start), None, "{start:?}");
        }
    }

    #[test]
    fn files_without_an_extension_are_told_by_their_first_bytes() {
        assert_eq!(kind("bin/run", b"\x7fELF\x02"), Some(ExecutableKind::Program));
        assert_eq!(kind("run", b"MZ\x90"), Some(ExecutableKind::Program));
        assert_eq!(kind("run", b"#!/bin/sh"), Some(ExecutableKind::Script));
        assert_eq!(kind("x.bin", b"\x7fELF"), Some(ExecutableKind::Program));
        assert_eq!(kind("LICENSE", b"Copyright"), None);
    }

    #[test]
    fn json_with_a_key_that_names_code_is_listed() {
        for json in [
            r#"{"a": {"b": [1, -1, 0.5, "x", null, true]}, "auto_map": {"AutoModel": "x--y.Z"}}"#,
            r#"{"custom_pipelines": {}}"#,
            r#"{"\u0061uto_map": null}"#,
            // Python takes these.
            r#"{"a": NaN, "auto_map": {}}"#,
            r#"{"a": 1e999, "auto_map": {}}"#,
        ] {
            for path in ["config.json", "a/b/tokenizer_config.json", "other.JSON"] {
                assert_eq!(kind(path, json.as_bytes()), Some(ExecutableKind::RemoteCode), "{path} {json}");
            }
        }
        let deep = format!("{}{{\"auto_map\": 1}}{}", "[".repeat(500), "]".repeat(500));
        assert_eq!(kind("config.json", deep.as_bytes()), Some(ExecutableKind::RemoteCode));
    }

    #[test]
    fn parts_of_a_configuration_are_looked_at_but_not_vocabularies() {
        let json = br#"{"a": [{"text_config": {"auto_map": {}}}]}"#;
        assert_eq!(kind("config.json", json), Some(ExecutableKind::RemoteCode));
        assert_eq!(kind("tokenizer.json", json), None);
    }

    #[test]
    fn json_without_one_is_not_listed() {
        for json in [
            &b""[..],
            b"{}",
            b"[\"auto_map\"]",
            b"\"auto_map\"",
            br#"{"a": "auto_map"}"#,
            b"{\"a\": \"\\u00e9\"}\n{\"b\": 1}",
            b"{\"auto",
            b"{\"a\": NaN}",
        ] {
            assert_eq!(kind("config.json", json), None, "{}", String::from_utf8_lossy(json));
        }
    }

    #[test]
    fn configurations_that_cannot_be_looked_through_are_listed() {
        let escaped = br#"{"a": NaN, "\u0061uto_map": {}}"#;
        assert_eq!(kind("config.json", escaped), Some(ExecutableKind::Unread));
        assert_eq!(kind("tokenizer.json", escaped), None);
        for (path, expected) in [("a/config.json", 1), ("tokenizer.json", 0)] {
            let large = Memory::new(&[(path, b"{}")]).claiming(path, 16 << 20);
            assert_eq!(executable(&large).len(), expected);
            let gone = Memory::new(&[(path, b"{}")]).unreadable(path);
            assert_eq!(executable(&gone).len(), expected);
        }
    }

    #[test]
    fn thousands_are_found_in_their_order() {
        let paths: Vec<String> = (0..7 * FILES_PER_THREAD).map(|file| format!("{file}")).collect();
        let bytes = |file: usize| if file.is_multiple_of(1000) { &b"#!/bin/sh"[..] } else { b"none" };
        let files: Vec<_> =
            paths.iter().enumerate().map(|(file, path)| (path.as_str(), bytes(file))).collect();
        let found = executable(&Memory::new(&files));
        let expected: Vec<String> =
            (0..7 * FILES_PER_THREAD).step_by(1000).map(|file| file.to_string()).collect();
        assert_eq!(found.into_iter().map(|found| found.path).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn they_are_shown_as_parts_of_a_sentence() {
        let found = executable(&Memory::new(&[("modeling_x.py", b""), ("a/w.pt", b"")]));
        let shown: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["modeling_x.py is Python", "a/w.pt is a pickle"]);
    }
}
