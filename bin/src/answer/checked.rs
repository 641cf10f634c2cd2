//! What is set, and what checks have found.

use serde::Serialize;

/// What a setting is, and who has said so.
#[derive(Debug, Serialize)]
pub(crate) struct Setting {
    pub(crate) key: String,
    pub(crate) values: Vec<String>,
    pub(crate) origin: &'static str,
    pub(crate) place: Option<String>,
    /// For which commands; none: for all that have it.
    pub(crate) commands: Vec<String>,
}

/// What a check has found.
#[derive(Debug, Serialize)]
pub(crate) struct Checked {
    pub(crate) check: &'static str,
    pub(crate) subject: Option<String>,
    pub(crate) state: State,
    pub(crate) text: String,
    /// What to do.
    pub(crate) advice: Option<String>,
}

/// How good that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum State {
    Ok,
    Warning,
    Bad,
}

impl Setting {
    pub(super) fn plain(&self) -> String {
        let Self { key, values, origin, place, commands } = self;
        let values = if values.is_empty() { "-".to_owned() } else { values.join(" ") };
        let place = place.as_ref().map_or(String::new(), |place| format!(" {place}"));
        let of = if commands.is_empty() { String::new() } else { format!("  of {}", commands.join(", ")) };
        format!("{key:<16}  {values}  ({origin}{place}){of}")
    }
}

impl Checked {
    pub(super) fn plain(&self) -> String {
        let Self { check, subject, state, text, advice } = self;
        let state = match state {
            State::Ok => "ok",
            State::Warning => "warning",
            State::Bad => "bad",
        };
        let subject = subject.as_ref().map_or(String::new(), |subject| format!(" {subject}"));
        let advice = advice.as_ref().map_or(String::new(), |advice| format!("; {advice}"));
        format!("{state:<7}  {check}{subject}: {text}{advice}")
    }
}
