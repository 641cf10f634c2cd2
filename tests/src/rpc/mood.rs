//! How an endpoint behaves.

use std::time::Duration;

use serde_json::{Value, json};

/// The `truth` of a [`Mood::Lying`] that lies whatever the contract names.
pub const ANYTHING: &str = "";

/// How an endpoint behaves. In every text, `{target}` stands for the target that was asked, `{headers}` for the headers that
/// came, and `{decoded}` for what both say without percents and base64: keys included. `{request}` is all of that.
#[derive(Debug, Clone, Default)]
pub enum Mood {
    /// Passes everything on.
    #[default]
    Honest,
    /// Takes so long longer for each answer.
    Slow(Duration),
    /// Takes requests, and never answers.
    Silent,
    /// Closes the connection instead of answering.
    Closing,
    /// Answers with this HTTP status.
    Status {
        /// Such as 429.
        status: u16,
        /// What its `Retry-After` says.
        retry_after_s: Option<u64>,
        /// What stands below.
        text: String,
    },
    /// Answers with this text, which need not be JSON.
    Text(String),
    /// Answers with a result of so many bytes.
    Huge(u64),
    /// Answers with this JSON-RPC object, whose id becomes that of the request: see [`Mood::error`] and [`Mood::result`].
    Answer(Value),
    /// Passes the request on, and closes the connection instead of answering the first one of each method.
    Losing,
    /// Wherever the contract's string contains `truth`, it names `lie`. The price stays.
    Lying {
        /// What is lied about: everything contains [`ANYTHING`].
        truth: String,
        /// What is named instead.
        lie: String,
    },
    /// Claims that its newest, safe and finalized blocks have this height.
    Boasting(u64),
    /// Is so many blocks behind: all its answers are as of then, and what came later is not there.
    Lagging(u64),
    /// The same at this height, so that it does not move: [`Chain::height`](crate::Chain::height) makes one that is frozen.
    At(u64),
    /// Has this block under these tags, and answers truthfully about all others, newer ones included.
    Stuck {
        /// Such as `finalized`.
        tags: &'static [&'static str],
        /// The height of the block.
        height: u64,
    },
    /// Is on another branch: from this height on its blocks have other hashes, and those of others are unknown to it.
    Branch(u64),
    /// The mood for some methods only.
    On(&'static [&'static str], Box<Self>),
    /// Several moods at once. Of those that do not pass a request on, the first counts.
    All(Vec<Self>),
}

impl Mood {
    /// Answers with this JSON-RPC error.
    pub fn error(code: i64, message: &str) -> Self {
        Self::Answer(json!({"error": {"code": code, "message": message}}))
    }

    /// Answers with this result.
    pub fn result(result: impl Into<Value>) -> Self {
        Self::Answer(json!({"result": result.into()}))
    }

    /// Answers with this HTTP status and a text that repeats what came with the request.
    pub fn status(status: u16) -> Self {
        Self::Status { status, retry_after_s: None, text: "refused: {request}".to_owned() }
    }

    /// Names this model, whatever the contract names.
    pub fn naming(lie: &str) -> Self {
        Self::Lying { truth: ANYTHING.to_owned(), lie: lie.to_owned() }
    }

    /// The same for these methods only.
    #[must_use]
    pub fn on(self, methods: &'static [&'static str]) -> Self {
        Self::On(methods, Box::new(self))
    }

    /// Several moods at once.
    pub fn all(moods: impl IntoIterator<Item = Self>) -> Self {
        Self::All(moods.into_iter().collect())
    }

    /// The single moods that this one is made of, for a method.
    pub(super) fn parts(&self, method: &str) -> Vec<&Self> {
        match self {
            Self::On(methods, _) if !methods.contains(&method) => Vec::new(),
            Self::On(_, mood) => mood.parts(method),
            Self::All(moods) => moods.iter().flat_map(|mood| mood.parts(method)).collect(),
            _ => vec![self],
        }
    }
}
