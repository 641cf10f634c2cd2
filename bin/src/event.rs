//! What is told on stderr as JSON: the events of `docs/cli.md`.

use serde::Serialize;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};

use crate::answer::Text;
use crate::visible::visible_json;

/// Something that has happened.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub(crate) enum Event<'a> {
    /// Told to a person.
    Note { message: &'a str },
    /// The command fails.
    Error { status: u8, message: &'a str, causes: &'a [String] },
    /// It is known what there is to fetch.
    Begin { manifest: Text, total_bytes: u64 },
    /// How far some work is.
    Progress(Progress),
    /// A source has connected.
    SourceUp { manifest: Option<Text>, source: &'a str },
    /// A source has disconnected, or could not be reached.
    SourceDown { manifest: Option<Text>, source: &'a str, reason: &'a str },
    /// Bytes came that are not what their digest says; `shard` is `null` for the manifest and the piece index.
    WrongBytes { manifest: Option<Text>, source: &'a str, shard: Option<u32>, bytes: u64 },
    /// Pieces of these shards were rebuilt since this was last told.
    Rebuilt { manifest: Option<Text>, shards: Vec<u32>, bytes: u64 },
    /// A shard that was checked as a whole is wrong, and is fetched again.
    ShardWrong { manifest: Option<Text>, shard: u32 },
    /// Another process fetches the model.
    Waiting { manifest: Option<Text>, holders: String },
    /// An earlier run has left so much, which is checked now.
    Claimed { manifest: Option<Text>, bytes: u64 },
    /// A model is ready.
    Done(Done),
}

/// How far some work is.
#[derive(Debug, Serialize)]
pub(crate) struct Progress {
    /// What is done: fetching, encoding, verifying or hashing.
    pub(crate) activity: &'static str,
    pub(crate) manifest: Option<Text>,
    pub(crate) done_bytes: u64,
    /// 0 while that is not known.
    pub(crate) total_bytes: u64,
    pub(crate) bytes_per_s: u64,
    /// Connected sources; `null` for work that has none.
    pub(crate) sources: Option<usize>,
}

/// What a load did.
#[derive(Debug, Serialize)]
pub(crate) struct Done {
    pub(crate) manifest: Text,
    pub(crate) total_bytes: u64,
    pub(crate) from_cache: bool,
    pub(crate) elapsed_ms: u64,
    /// Sources that gave something.
    pub(crate) sources: usize,
    pub(crate) fetched_bytes: u64,
    pub(crate) resumed_bytes: u64,
    pub(crate) reused_bytes: u64,
    pub(crate) rebuilt_bytes: u64,
    pub(crate) wasted_bytes: u64,
}

/// How much it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Level {
    Info,
    Warn,
    Error,
}

/// An event as it is written.
#[derive(Debug, Serialize)]
struct Line<'a> {
    timestamp: String,
    level: Level,
    #[serde(flatten)]
    event: &'a Event<'a>,
}

impl Event<'_> {
    /// The line of this event, which happens now.
    pub(crate) fn line(&self, level: Level) -> String {
        // It has no maps, and so nothing that JSON cannot say.
        let json = serde_json::to_string(&Line { timestamp: now(), level, event: self }).unwrap_or_default();
        visible_json(&json).into_owned()
    }
}

/// The time, as log lines have it: RFC 3339, in UTC.
pub(crate) fn now() -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = SystemTime.format_time(&mut Writer::new(&mut text));
    text
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn an_event_is_one_line_whatever_peers_say() {
        let reason = "gone\n{\"type\":\"done\"}\u{1b}[2J\u{202e}";
        let line = Event::SourceDown { manifest: None, source: "peer", reason }.line(Level::Warn);
        assert!(!line.contains(['\n', '\u{1b}', '\u{202e}']), "{line}");
        let read: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            (&read["type"], &read["level"], &read["reason"]),
            (&"source-down".into(), &"WARN".into(), &reason.into())
        );
        assert!(read["timestamp"].as_str().unwrap().ends_with('Z') && read["manifest"].is_null(), "{line}");
    }
}
