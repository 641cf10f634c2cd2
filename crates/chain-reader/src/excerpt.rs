//! Texts from outside: cut, on one line, and without our keys. Nothing else of an answer gets into a message, a log or a
//! status.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

/// The most that is shown of one text, in characters.
const MAX_CHARS: usize = 200;
/// So much of a text is looked at: what is shown of it, however much of that is keys.
const WINDOW_BYTES: usize = 4096;
/// What is shorter is no key: it would be found in any text.
const MIN_SECRET_BYTES: usize = 6;
/// So much of a key, before a cut, gives it away.
const MIN_PART_BYTES: usize = 4;
/// What stands in the place of a key.
const BLOT: &str = "***";
/// What stands in the place of a text that holds a key in a way in which it cannot be cut out.
const WITHHELD: &str = "(not shown: it repeats a key)";

/// The start of a text from outside, fit to be shown. Only [`RpcUrl::excerpt`](crate::RpcUrl) makes one.
#[derive(Clone, PartialEq, Eq)]
pub struct Excerpt(String);

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0)
    }
}

impl std::ops::Deref for Excerpt {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl From<Excerpt> for String {
    fn from(excerpt: Excerpt) -> Self {
        excerpt.0
    }
}

/// As the cause of another error: what a library said, which may repeat what came from outside.
impl std::error::Error for Excerpt {}

/// An error and what it came from, in a line.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    std::iter::successors(error.source(), |cause| (*cause).source())
        .fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// The start of a text, at most `max_chars` of it, on one line and safe to show on a terminal.
pub(crate) fn cut(text: &str, max_chars: usize) -> String {
    let (mut shown, mut count) = (String::new(), 0);
    for char in text.chars() {
        let escaped = char.escape_debug();
        count += escaped.len();
        if count > max_chars {
            shown.push('…');
            break;
        }
        shown.extend(escaped);
    }
    shown
}

/// The forms in which keys may come back.
pub(crate) struct Secrets {
    /// Those that are cut out of a text, in lower case, longest first.
    plain: Vec<String>,
    /// Those for which a text is withheld, as [`unwrapped`] has it.
    hidden: Vec<String>,
}

impl Secrets {
    /// Of these texts, each of which is a key unless it is too short to be one.
    pub(crate) fn new(keys: impl IntoIterator<Item = String>) -> Self {
        let (mut plain, mut hidden) = (Vec::new(), Vec::new());
        for key in keys.into_iter().filter(|key| key.len() >= MIN_SECRET_BYTES) {
            let base64 = STANDARD_NO_PAD.encode(&key);
            let forms = [key.clone(), percent_encoded(&key), hex(key.as_bytes()), url_safe(&base64), base64];
            plain.extend(forms.map(|form| form.to_ascii_lowercase()));
            hidden.push(unwrapped(&key));
            hidden.push(unwrapped(&hex(key.as_bytes())));
            hidden.extend((0..3).map(|before| unwrapped(&inside_base64(&key, before))));
        }
        for forms in [&mut plain, &mut hidden] {
            forms.retain(|form| form.len() >= MIN_SECRET_BYTES);
            forms.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
            forms.dedup();
        }
        Self { plain, hidden }
    }

    /// The start of a text, fit to be shown.
    pub(crate) fn excerpt(&self, text: &str) -> Excerpt {
        let mut end = text.len().min(WINDOW_BYTES);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let mut blotted = self.blot(&text[..end]);
        if end < text.len() {
            blotted.push('…');
        }
        Excerpt(cut(&blotted, MAX_CHARS))
    }

    /// A text without keys.
    pub(crate) fn blot(&self, text: &str) -> String {
        let lower = text.to_ascii_lowercase();
        let mut blotted = String::with_capacity(text.len());
        let mut at = 0;
        while let Some(char) = text[at..].chars().next() {
            match self.plain.iter().find_map(|key| length_of(key, &lower[at..])) {
                Some(length) => {
                    blotted.push_str(BLOT);
                    at += length;
                }
                None => {
                    blotted.push(char);
                    at += char.len_utf8();
                }
            }
        }
        let bare = unwrapped(&blotted);
        if self.hidden.iter().any(|key| bare.contains(key)) { WITHHELD.to_owned() } else { blotted }
    }
}

/// How much of the key a text begins with: all of it, or the part before a cut.
fn length_of(key: &str, text: &str) -> Option<usize> {
    let common = key.bytes().zip(text.bytes()).take_while(|(a, b)| a == b).count();
    let is_cut = || {
        common >= MIN_PART_BYTES
            && (common == text.len() || text.as_bytes()[common..].starts_with("…".as_bytes()))
    };
    (common == key.len() || is_cut() && text.is_char_boundary(common)).then_some(common)
}

/// A text without what may hide a key in it: encodings of its characters, line breaks, case, and the two alphabets of
/// base64.
fn unwrapped(text: &str) -> String {
    let mut bare = text.to_owned();
    // Twice: what is encoded twice, or in JSON in JSON, is no rarer than once.
    for _ in 0..2 {
        bare = unescaped(&bare);
    }
    let kept = bare.chars().filter(|char| char.is_alphanumeric() || char.is_ascii_graphic());
    let kept = kept.filter(|char| !matches!(char, '\\' | '"' | '\'')).map(|char| match char {
        '-' => '+',
        '_' => '/',
        char => char.to_ascii_lowercase(),
    });
    kept.collect()
}

/// A text with its `%xx`, `\xxx` and `\u00xx` read.
fn unescaped(text: &str) -> String {
    let bytes = text.as_bytes();
    let digits = |from: usize, count: usize| {
        let digits = bytes.get(from..from + count).and_then(|digits| std::str::from_utf8(digits).ok());
        digits.and_then(|digits| u32::from_str_radix(digits, 16).ok())
    };
    let (mut read, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        let (code, length) = match (bytes[at], bytes.get(at + 1)) {
            (b'%', _) => (digits(at + 1, 2), 3),
            (b'\\', Some(b'x')) => (digits(at + 2, 2), 4),
            (b'\\', Some(b'u')) => (digits(at + 2, 4), 6),
            _ => (None, 1),
        };
        match code.map(u8::try_from) {
            Some(Ok(byte)) => {
                read.push(byte);
                at += length;
            }
            _ => {
                read.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&read).into_owned()
}

/// A text with its `%xx` read.
pub(crate) fn percent_decoded(text: &str) -> String {
    let plain = text.replace('\\', "%5c");
    unescaped(&plain)
}

fn percent_encoded(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02x}"),
    };
    text.bytes().map(encode).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn url_safe(base64: &str) -> String {
    base64.replace('+', "-").replace('/', "_")
}

/// What of the base64 of a longer text this part of it decides, when so many bytes (modulo 3) stand before it.
fn inside_base64(part: &str, before: usize) -> String {
    let text = [&b"\0\0"[..before], part.as_bytes()].concat();
    let encoded = STANDARD_NO_PAD.encode(&text);
    let undecided = usize::from(text.len() % 3 != 0);
    encoded[(before * 8).div_ceil(6)..encoded.len() - undecided].to_owned()
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD, URL_SAFE};
    use proptest::prelude::*;

    use super::*;

    const KEY: &str = "Qx7~kE/y+30?";

    fn secrets() -> Secrets {
        Secrets::new([KEY.to_owned(), "v3".to_owned()])
    }

    #[test]
    fn a_key_is_known_in_every_form_and_the_rest_stays() {
        let forms = [
            KEY.to_owned(),
            KEY.to_uppercase(),
            KEY.to_lowercase(),
            percent_encoded(KEY),
            percent_encoded(KEY).to_uppercase(),
            hex(KEY.as_bytes()),
            hex(KEY.as_bytes()).to_uppercase(),
            STANDARD.encode(KEY),
            STANDARD_NO_PAD.encode(KEY),
            URL_SAFE.encode(KEY),
        ];
        for form in forms {
            let shown = secrets().excerpt(&format!("over v3, {form}, said"));
            assert!(shown.starts_with("over v3, ***") && shown.ends_with(", said"), "{form}: {shown}");
        }
    }

    #[test]
    fn a_text_that_hides_a_key_is_withheld() {
        let spelled = |form: fn(u8) -> String| KEY.bytes().map(form).collect::<String>();
        let mut hidden = vec![
            spelled(|byte| format!("%{byte:02X}")),
            spelled(|byte| format!("%25{byte:02x}")),
            spelled(|byte| format!("\\u{byte:04x}")),
            spelled(|byte| format!("\\x{byte:02x}")),
            spelled(|byte| format!("{}\n", char::from(byte))),
            spelled(|byte| format!("{}\u{200b}", char::from(byte))),
            spelled(|byte| format!("{byte:02x} ")),
            KEY.replace('/', "\\/"),
        ];
        // With three bytes before it, its own base64 would be there, and be cut out.
        for before in ["user:", "user12:"] {
            hidden.push(STANDARD.encode(format!("{before}{KEY} and more")));
            hidden.push(URL_SAFE.encode(format!("{before}{KEY}")));
        }
        for text in hidden {
            assert_eq!(&*secrets().excerpt(&format!("key {text}")), WITHHELD, "{text}");
        }
    }

    #[test]
    fn a_cut_shows_no_part_of_a_key() {
        for before in 0..300 {
            let text = format!("{}{KEY}{}", "a".repeat(before), "b".repeat(300));
            let shown = secrets().excerpt(&text);
            assert!(!shown.contains("Qx7~"), "{before}: {shown}");
            assert!(!secrets().blot(&format!("\"{}\" at", cut(&text, 200))).contains("Qx7~"), "{before}");
        }
        let text = KEY.repeat(10_000);
        assert!(!secrets().excerpt(&text).contains('Q'), "{}", secrets().excerpt(&text));
    }

    #[test]
    fn what_is_shown_is_short_and_on_one_line() {
        for text in ["x", "\u{1b}[31m", "\u{202e}", "\u{10ffff}", "\n", "é", "\0", "\u{2028}"] {
            let shown = secrets().excerpt(&text.repeat(1_000_000));
            assert!(shown.chars().count() <= MAX_CHARS + 1 && shown.ends_with('…'), "{shown}");
            let is_plain = |char: char| !char.is_control() && !matches!(char, '\u{202e}' | '\u{2028}');
            assert!(shown.chars().all(is_plain), "{shown:?}");
        }
        assert_eq!(&*secrets().excerpt(""), "");
    }

    proptest! {
        #[test]
        fn no_text_panics_or_shows_a_key(before in ".{0,40}", between in "[%\\\\ux0-9a-f]{0,12}", after in ".{0,40}") {
            let shown = secrets().excerpt(&format!("{before}{KEY}{between}{KEY}{after}"));
            prop_assert!(!shown.contains("Qx7"));
        }

        #[test]
        fn what_holds_no_key_is_left_as_it_is(text in "[a-zA-Z ]{0,150}") {
            prop_assert_eq!(&*secrets().excerpt(&text), text);
        }
    }
}
