//! Which files of a model are meant.

use std::fmt;

use glob::{MatchOptions, Pattern};

/// As in a shell's `case`, and in the tools of model hubs: `*` matches `/`, too.
const OPTIONS: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: false,
    require_literal_leading_dot: false,
};

/// Some files, by patterns for their paths, such as `*.json` or `text_encoder/*`. `*` matches any characters, `/` too; `?`
/// one; `[abc]` one of these.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    include: Vec<Pattern>,
    exclude: Vec<Pattern>,
}

/// A text that is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{pattern:?} is no pattern for files: {reason}; expected one such as '*.json'")]
pub struct PatternError {
    pattern: String,
    reason: &'static str,
}

impl Selection {
    /// Those that match any of `include`, or all when there are none, but for those that match any of `exclude`.
    ///
    /// # Errors
    /// When one is no pattern.
    pub fn new(include: &[String], exclude: &[String]) -> Result<Self, PatternError> {
        let all =
            |patterns: &[String]| patterns.iter().map(|pattern| parse(pattern)).collect::<Result<_, _>>();
        Ok(Self { include: all(include)?, exclude: all(exclude)? })
    }

    /// Whether all files are meant.
    pub fn is_all(&self) -> bool {
        self.include.is_empty() && self.exclude.is_empty()
    }

    /// Whether a file is meant.
    pub fn has(&self, path: &str) -> bool {
        (self.include.is_empty() || self.names(path)) && !matches(&self.exclude, path)
    }

    /// Whether a file is meant by a pattern, and not only because there is none.
    pub(crate) fn names(&self, path: &str) -> bool {
        matches(&self.include, path)
    }
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |patterns: &[Pattern]| patterns.iter().map(Pattern::as_str).collect::<Vec<_>>().join(", ");
        match (self.include.as_slice(), self.exclude.as_slice()) {
            ([], []) => f.write_str("all files"),
            (include, []) => f.write_str(&list(include)),
            ([], exclude) => write!(f, "all files but {}", list(exclude)),
            (include, exclude) => write!(f, "{} but {}", list(include), list(exclude)),
        }
    }
}

fn parse(pattern: &str) -> Result<Pattern, PatternError> {
    Pattern::new(pattern).map_err(|error| PatternError { pattern: pattern.to_owned(), reason: error.msg })
}

fn matches(patterns: &[Pattern], path: &str) -> bool {
    patterns.iter().any(|pattern| pattern.matches_with(path, OPTIONS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection(include: &[&str], exclude: &[&str]) -> Selection {
        let own = |patterns: &[&str]| patterns.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        Selection::new(&own(include), &own(exclude)).unwrap()
    }

    #[test]
    fn stars_match_folders_and_what_is_excluded_goes_first() {
        let json = selection(&["*.json", "vae/*"], &["*index*"]);
        for (path, expected) in [
            ("config.json", true),
            ("text_encoder/config.json", true),
            ("vae/weights.bin", true),
            ("model.safetensors.index.json", false),
            ("model.safetensors", false),
            (".hidden.json", true),
        ] {
            assert_eq!(json.has(path), expected, "{path}");
        }
        assert!(selection(&[], &[]).has("anything") && selection(&[], &[]).is_all());
        assert!(!selection(&[], &["*.py"]).has("modeling.py"));
        assert_eq!(json.to_string(), "*.json, vae/* but *index*");
    }

    #[test]
    fn what_is_no_pattern_is_refused_in_words() {
        let error = Selection::new(&["[a".to_owned()], &[]).unwrap_err().to_string();
        assert!(error.contains("\"[a\"") && error.contains("*.json"), "{error}");
    }
}
