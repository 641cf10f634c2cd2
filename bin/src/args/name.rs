//! Naming a model of the cache.

use std::str::FromStr;

use manifest::{Digest, ParseDigestError};
use store::Cache;

use crate::exit::Usage;

/// So much of a digest names a model, if no other begins like it.
const MIN_PREFIX: usize = 4;

/// The digest of a manifest, or its beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name(String);

impl FromStr for Name {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, ParseDigestError> {
        let is_hex = text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        if !(is_hex && (MIN_PREFIX..64).contains(&text.len())) {
            text.parse::<Digest>()?;
        }
        Ok(Self(text.to_owned()))
    }
}

impl Name {
    /// The digest, where all of it was given.
    pub(crate) fn digest(&self) -> Option<Digest> {
        self.0.parse().ok()
    }

    /// The digest of the only model of the cache that is named so.
    pub(crate) fn find(&self, cache: Option<&Cache>) -> anyhow::Result<Digest> {
        match (self.digest(), cache) {
            (Some(digest), _) => Ok(digest),
            (None, Some(cache)) => Ok(cache.find(&self.0)?),
            (None, None) => {
                Err(Usage::new(format!("there is no cache in which {} could begin a digest", self.0)).into())
            }
        }
    }

    /// Those of several.
    pub(crate) fn find_all(names: &[Self], cache: Option<&Cache>) -> anyhow::Result<Vec<Digest>> {
        names.iter().map(|name| name.find(cache)).collect()
    }
}
