//! Naming a model of the cache.

use std::str::FromStr;

use manifest::{Digest, ParseDigestError};
use store::Cache;

use crate::exit::Usage;

/// So much of a digest names a model, if no other begins like it.
const MIN_PREFIX: usize = 4;

/// The digest of a manifest, or its beginning; also as others write digests: in capitals, after `0x` or `sha256:`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name(String);

impl FromStr for Name {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, ParseDigestError> {
        let text = text.to_ascii_lowercase();
        let text = ["sha256:", "0x"].iter().find_map(|start| text.strip_prefix(start)).unwrap_or(&text);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_understood_however_it_is_written() {
        let digest = Digest::of(b"abc");
        let text = digest.to_string();
        for form in [&text, &text.to_uppercase(), &format!("0x{text}"), &format!("sha256:{text}")] {
            assert_eq!(form.parse::<Name>().unwrap().digest(), Some(digest), "{form}");
        }
        assert_eq!("SHA256:BA78".parse::<Name>(), Ok(Name("ba78".to_owned())));
        for bad in ["", "abc", "0x", "sha256:", "sha512:ba7816", "ba7g", &format!("{text}0")] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
    }
}
