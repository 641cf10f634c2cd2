//! Text for terminals: what comes from file names and peers must not steer them.

use std::borrow::Cow;
use std::fmt::Write as _;

/// The text with control characters, and those that change the direction of writing, spelled out. Lines that are indented are
/// ours; any other new line is spelled out, too.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    spelled_out(text, |rest| !rest.starts_with("\n "))
}

/// The same for text of ours in lines.
pub(crate) fn visible_lines(text: &str) -> Cow<'_, str> {
    spelled_out(text, |_| false)
}

/// The same for JSON, whose writer spells out some of them only.
pub(crate) fn visible_json(json: &str) -> Cow<'_, str> {
    if !json.chars().any(is_steering) {
        return Cow::Borrowed(json);
    }
    let mut shown = String::with_capacity(json.len() + 16);
    for char in json.chars() {
        match is_steering(char) {
            // They stand in strings only, and all of them have four digits. Writing to a string cannot fail.
            true => {
                let _ = write!(shown, "\\u{:04x}", u32::from(char));
            }
            false => shown.push(char),
        }
    }
    Cow::Owned(shown)
}

/// `is_foreign` tells of a text that begins with a new line whether it is spelled out.
fn spelled_out(text: &str, is_foreign: impl Fn(&str) -> bool) -> Cow<'_, str> {
    if !text.chars().any(is_steering) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for (at, char) in text.char_indices() {
        match char {
            '\n' if !is_foreign(&text[at..]) => shown.push(char),
            '\t' => shown.push(' '),
            char if is_steering(char) => shown.extend(char.escape_default()),
            char => shown.push(char),
        }
    }
    Cow::Owned(shown)
}

fn is_steering(char: char) -> bool {
    let is_direction = matches!(char, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    char.is_control() || is_direction || matches!(char, '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_steers_a_terminal_is_left() {
        let every: String = (0..=u32::from(char::MAX)).filter_map(char::from_u32).collect();
        for shown in [visible(&every), visible_lines(&every)] {
            assert!(shown.chars().all(|char| char == '\n' || !is_steering(char)));
        }
        assert_eq!(visible("a\u{1b}[2Jb\u{9b}c\u{202e}d\re\tf"), "a\\u{1b}[2Jb\\u{9b}c\\u{202e}d\\re f");
        assert_eq!(visible("żółć 12 µ"), "żółć 12 µ");
    }

    #[test]
    fn a_file_name_makes_no_lines_of_its_own() {
        assert_eq!(
            visible("bad\nerror: all is lost\n  because: of us"),
            "bad\\nerror: all is lost\n  because: of us"
        );
        assert_eq!(visible_lines("one\ntwo"), "one\ntwo");
    }

    #[test]
    fn json_stays_the_same_to_who_reads_it() {
        let text = "a\u{7f}\u{9b}\u{202e}\u{2028}\u{1b}\n\"";
        let json = serde_json::to_string(text).unwrap();
        let shown = visible_json(&json);
        assert!(!shown.chars().any(is_steering), "{shown}");
        assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), text);
    }
}
