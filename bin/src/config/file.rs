//! The settings file. What is wrong with it is told by file, line, column and key: a value may be a key of somebody's.

use std::fmt::Display;
use std::fs;
use std::io::{ErrorKind, Read as _};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::Result;
use chain_reader::{Address, BlockTag, HintUrl, RpcUrl, U256};
use p2p_blob::{Multiaddr, PeerId};
use serde::{Deserialize, Deserializer};
use toml::de::DeTable;

use crate::exit::Usage;
use crate::units::{parse_duration, parse_rate, parse_size};

/// No settings file is longer.
const MAX_FILE_BYTES: usize = 1 << 20;

/// What each key takes.
const KEYS: [(&str, &str); 33] = [
    ("cache-dir", PATH),
    (
        "contract",
        "an address in quotes, 0x and 40 hexadecimal characters; in mixed case they carry a checksum",
    ),
    ("rpc-url", "a list of URLs in quotes, such as [\"https://rpc.example.org\"], each http:// or https://"),
    ("rpc-header", "a list of headers in quotes, such as [\"rpc.example.org NAME: VALUE\"]"),
    ("trusted-rpc", "a URL in quotes, http:// or https://"),
    ("quorum", "a whole number, such as 2"),
    ("verify-proof", FLAG),
    ("string-slot", "a number in quotes, decimal or 0x…, such as \"0\""),
    ("allow-stale", DURATION),
    ("max-block-age", DURATION),
    ("block-tag", "\"latest\", \"safe\" or \"finalized\""),
    ("chain-id", "a whole number, such as 1"),
    ("poll-interval", DURATION),
    ("ws-url", "a list of URLs in quotes, such as [\"wss://rpc.example.org/ws\"], each ws:// or wss://"),
    ("peer", ADDRESSES),
    ("bootstrap", ADDRESSES),
    ("psk-file", PATH),
    ("allow-peer", "a list of peer ids in quotes, such as [\"12D3KooW…\"]"),
    ("no-mdns", FLAG),
    ("dht-server", FLAG),
    ("upload-limit", RATE),
    ("download-limit", RATE),
    ("max-cache", "a size in quotes, such as \"500GiB\""),
    ("memory", "a size in quotes, such as \"128MiB\""),
    ("listen", ADDRESSES),
    ("external-addr", ADDRESSES),
    ("http", "a port or an address in quotes, such as \"4300\" or \"0.0.0.0:9100\""),
    ("http-host", "a list of names in quotes, such as [\"models.example.org\"]"),
    ("http-page", FLAG),
    ("blob-dir", "a list of paths in quotes"),
    ("single-blob", FLAG),
    ("max-size", "a size in quotes, such as \"64GiB\""),
    ("wait", DURATION),
];
const PATH: &str = "a path in quotes";
const FLAG: &str = "true or false";
const DURATION: &str = "a whole number and a unit (ms, s, m, h) in quotes, such as \"30s\"";
const RATE: &str = "bytes a second in quotes, such as \"20MiB\", more than 0";
const ADDRESSES: &str = "a list of multiaddrs in quotes, such as [\"/ip4/192.0.2.7/tcp/4201\"]";

/// What the settings file says. Its keys are the flags' names.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct File {
    pub(super) cache_dir: Option<PathBuf>,
    pub(super) contract: Option<Text<Address>>,
    pub(super) rpc_url: Vec<Text<RpcUrl>>,
    pub(super) rpc_header: Vec<String>,
    pub(super) trusted_rpc: Option<Text<RpcUrl>>,
    pub(super) quorum: Option<usize>,
    pub(super) verify_proof: bool,
    pub(super) string_slot: Option<Text<U256>>,
    #[serde(deserialize_with = "duration")]
    pub(super) allow_stale: Option<Duration>,
    #[serde(deserialize_with = "duration")]
    pub(super) max_block_age: Option<Duration>,
    pub(super) block_tag: Option<Text<BlockTag>>,
    pub(super) chain_id: Option<u64>,
    #[serde(deserialize_with = "duration")]
    pub(super) poll_interval: Option<Duration>,
    pub(super) ws_url: Vec<Text<HintUrl>>,
    pub(super) peer: Vec<Text<Multiaddr>>,
    pub(super) bootstrap: Vec<Text<Multiaddr>>,
    pub(super) psk_file: Option<PathBuf>,
    pub(super) allow_peer: Vec<Text<PeerId>>,
    pub(super) no_mdns: bool,
    pub(super) dht_server: bool,
    pub(super) upload_limit: Option<Rate>,
    pub(super) download_limit: Option<Rate>,
    #[serde(deserialize_with = "size")]
    pub(super) max_cache: Option<u64>,
    #[serde(deserialize_with = "size")]
    pub(super) memory: Option<u64>,
    pub(super) listen: Vec<Text<Multiaddr>>,
    pub(super) external_addr: Vec<Text<Multiaddr>>,
    pub(super) http: Option<Text<panel::Address>>,
    pub(super) http_host: Vec<String>,
    pub(super) http_page: bool,
    pub(super) blob_dir: Vec<PathBuf>,
    pub(super) single_blob: bool,
    #[serde(deserialize_with = "size")]
    pub(super) max_size: Option<u64>,
    #[serde(deserialize_with = "duration")]
    pub(super) wait: Option<Duration>,
}

/// Bytes a second, as the flags have them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rate(pub(super) NonZeroU64);

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_rate(&text).map(Self).map_err(serde::de::Error::custom)
    }
}

/// A value that the file has as text, in the form the flag has.
#[derive(Debug, Clone)]
pub(super) struct Text<T>(pub(super) T);

impl<'de, T: FromStr<Err: Display>> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(serde::de::Error::custom)
    }
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text).map(Some).map_err(serde::de::Error::custom)
}

fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_size(&text).map(Some).map_err(serde::de::Error::custom)
}

/// The file's settings; `None` when there is no file. Relative paths in it are relative to its directory.
pub(super) fn read(path: &Path) -> Result<Option<File>> {
    let mut bytes = Vec::new();
    let limit = MAX_FILE_BYTES as u64 + 1;
    match fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes)) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Usage::new(format!("cannot read {}: {error}", path.display())).into()),
    }
    let refuse = |why: &str| Usage::new(format!("{} is not a settings file: {why}", path.display()));
    if bytes.len() > MAX_FILE_BYTES {
        return Err(refuse(&format!("it has more than {MAX_FILE_BYTES} bytes")).into());
    }
    let text = String::from_utf8(bytes).map_err(|_| refuse("it is not text in UTF-8"))?;
    let mut file: File = toml::from_str(&text).map_err(|error| refuse(&explain(&text, &error)))?;
    let dir = path.parent().unwrap_or(Path::new(""));
    for path in file.cache_dir.iter_mut().chain(&mut file.psk_file).chain(&mut file.blob_dir) {
        *path = dir.join(&path);
    }
    Ok(Some(file))
}

/// What is wrong, and where. The words of the parser repeat what stands there: they are not used.
fn explain(text: &str, error: &toml::de::Error) -> String {
    let start = error.span().map_or(text.len(), |span| span.start);
    let Ok(table) = DeTable::parse(text) else {
        let place = place(text, start);
        return format!("{place}: expected KEY = VALUE on each line, every key once, and texts in quotes");
    };
    let unknown = table.get_ref().keys().filter(|key| expected(key.get_ref()).is_none());
    if let Some(key) = unknown.min_by_key(|key| key.span().start) {
        let place = place(text, key.span().start);
        return match similar(key.get_ref()) {
            Some(known) => format!("{place}: there is no such setting; did you mean {known}?"),
            None => format!("{place}: there is no such setting; they are named like the flags"),
        };
    }
    // A table's value begins with its heading, before its key.
    let is_in =
        |key: usize, value: std::ops::Range<usize>| (key.min(value.start)..=value.end).contains(&start);
    let wrong = table.get_ref().iter().find(|(key, value)| is_in(key.span().start, value.span()));
    let place = place(text, start);
    match wrong.and_then(|(key, _)| Some((key.get_ref(), expected(key.get_ref())?))) {
        Some((key, expected)) => format!("{place}, {key}: expected {expected}"),
        None => format!("{place}: the value is of another type than its key takes"),
    }
}

fn expected(key: &str) -> Option<&'static str> {
    KEYS.iter().find(|(known, _)| *known == key).map(|(_, expected)| *expected)
}

/// The key that was probably meant.
fn similar(key: &str) -> Option<&'static str> {
    let bare = |key: &str| key.to_lowercase().replace(['-', '_'], "").trim_end_matches('s').to_owned();
    KEYS.iter().map(|(known, _)| *known).find(|known| bare(known) == bare(key))
}

fn place(text: &str, at: usize) -> String {
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    let line = before.matches('\n').count() + 1;
    format!("line {line}, column {}", before[line_start..].chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn refusal(content: &[u8]) -> String {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content).unwrap();
        let error = read(file.path()).unwrap_err();
        assert!(error.is::<Usage>() && error.to_string().contains(file.path().to_str().unwrap()), "{error}");
        format!("{error:#} {error:?}")
    }

    #[test]
    fn paths_in_the_file_are_relative_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("loader.toml");
        fs::File::create(&path).unwrap().write_all(b"cache-dir = 'models'").unwrap();
        let file = read(&path).unwrap().unwrap();
        assert_eq!(file.cache_dir, Some(dir.path().join("models")));
        assert!(read(&dir.path().join("other.toml")).unwrap().is_none());
        assert!(read(dir.path()).unwrap_err().is::<Usage>());
    }

    #[test]
    fn every_key_is_explained() {
        let error = toml::from_str::<File>("x = 1").unwrap_err();
        let named: Vec<_> = error.message().split('`').skip(3).step_by(2).collect();
        assert_eq!(named, KEYS.map(|(key, _)| key));
    }

    #[test]
    fn what_is_wrong_is_told_by_its_place() {
        for (toml, part) in [
            ("cache_dir = '/f'", "line 1, column 1: there is no such setting; did you mean cache-dir?"),
            (
                "wait = '1s'\n  rpc-urls = []",
                "line 2, column 3: there is no such setting; did you mean rpc-url?",
            ),
            ("contract = '0x12'", "line 1, column 12, contract: expected an address"),
            ("wait = '5'", "line 1, column 8, wait: expected a whole number and a unit"),
            ("peer = '/ip4/192.0.2.1/tcp/1'", "line 1, column 8, peer: expected a list"),
            ("rpc-url = [\n  'http://a',\n  5,\n]", "line 3, column 3, rpc-url: expected a list of URLs"),
            ("rpc-url = [\n  'http://a',\n  'ws://a',\n]", "line 1, column 11, rpc-url: expected"),
            ("[quorum]\nx = 1", "quorum: expected a whole number"),
            ("quorum = -1", "line 1, column 10, quorum: expected a whole number"),
            ("wait = '1s'\nwait = '2s'", "line 2, column 1: expected KEY = VALUE"),
            ("é = 1 1", "line 1, column"),
        ] {
            let shown = refusal(toml.as_bytes());
            assert!(shown.contains(part), "{toml}: {shown}");
        }
    }

    #[test]
    fn no_mistake_shows_what_was_typed() {
        const KEY: &str = "https://user:Xk29fQw7@rpc.example.org/v3/Xk29fQw7";
        let mut mistakes: Vec<String> = [
            "rpc-url = KEY",
            "rpc-url = \"KEY",
            "rpc-url = 'KEY\nwait = '1s'",
            "rpc-url = [\"KEY\", KEY]",
            "KEY",
            "KEY = 1",
            "\"KEY\" = 1",
            "'KEY' = 'KEY'",
            "rpc-url = ['KEY']\nrpc-url = ['KEY']",
            "[KEY]",
            "['KEY']\nx = 1",
            "rpc-url.'KEY' = 1",
            "rpc-url = {'KEY' = 1}",
            "'KEY'.x = 1",
            "rpc-header = [['KEY']]",
            "rpc-url: KEY",
            "rpc-url = ['KEY'",
            "rpc-url = ['KEY' 'KEY']",
            "\u{feff}\u{feff}KEY",
            "rpc-url = [\"\\qKEY\"]",
            "[[KEY]]",
            "rpc-url = \"\"\"KEY",
            "export LOADER_RPC_URL=KEY",
            "rpc-url = ['ftp://KEY']",
            "rpc-url = ['KEY', 'KEY:99999/']",
        ]
        .map(|mistake| mistake.replace("KEY", KEY))
        .into();
        for (key, _) in KEYS {
            for value in [
                "'KEY'",
                "['KEY']",
                "[['KEY']]",
                "{a = 'KEY'}",
                "{'KEY' = 1}",
                "5",
                "KEY",
                "-1",
                "1.5",
                "1979-05-27",
            ] {
                mistakes.push(format!("{key} = {}", value.replace("KEY", &KEY.replace("http", "x"))));
            }
        }
        for mistake in mistakes {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(mistake.as_bytes()).unwrap();
            // Some are right: a path may be anything.
            let Err(error) = read(file.path()) else { continue };
            let shown = format!("{error:#} {error:?}");
            assert!(
                !shown.contains("Xk29") && !shown.contains("user:") && shown.contains("line "),
                "{mistake}: {shown}"
            );
        }
    }

    #[test]
    fn a_file_of_another_kind_is_told_by_its_kind() {
        assert!(refusal(b"wait = '\xff\xfe'").contains("not text in UTF-8"));
        assert!(refusal(&vec![b'#'; MAX_FILE_BYTES + 1]).contains("more than 1048576 bytes"));
        assert!(refusal(b"\x7fELF\0\0").contains("line 1"));
        assert!(refusal(&[b'['; 100_000]).contains("line 1"));
    }
}
