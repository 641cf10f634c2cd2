//! What a check has found.

use crate::answer::{Checked, State};

/// A check that found what should be.
pub(super) fn ok(check: &'static str, subject: Option<String>, text: impl Into<String>) -> Checked {
    Checked { check, subject, state: State::Ok, text: text.into(), advice: None }
}

/// One that found what may be a mistake; `advice` says what to do.
pub(super) fn warning(
    check: &'static str,
    subject: Option<String>,
    text: impl Into<String>,
    advice: impl Into<String>,
) -> Checked {
    Checked { check, subject, state: State::Warning, text: text.into(), advice: Some(advice.into()) }
}

/// One that found what does not work.
pub(super) fn bad(
    check: &'static str,
    subject: Option<String>,
    text: impl Into<String>,
    advice: impl Into<String>,
) -> Checked {
    Checked { check, subject, state: State::Bad, text: text.into(), advice: Some(advice.into()) }
}
