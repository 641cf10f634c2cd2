//! Keys that must not be seen, and every form in which they could be.

/// How much is told of what stands before a key.
const SHOWN_CHARS: usize = 300;

/// The keys of one endpoint. Each has characters that are written otherwise in a URL.
#[derive(Debug, Clone)]
pub struct Keys {
    /// Host and port.
    address: String,
    user: String,
    password: String,
    path: String,
    query: String,
    header: String,
}

impl Keys {
    pub(super) fn new(address: &str) -> Self {
        let port = address.rsplit(':').next().unwrap_or_default();
        let key = |part: &str| format!("{part}#{port}/Kéy+\"{part}");
        let (user, password, path, query) = (key("user"), key("pass:word"), key("path"), key("query"));
        // A header takes fewer characters.
        let header = format!("header{port}/Key+header==");
        Self { address: address.to_owned(), user, password, path, query, header }
    }

    /// The URL that holds all of them but the header's.
    pub(super) fn url(&self) -> String {
        let [user, password, path, query] =
            [&self.user, &self.password, &self.path, &self.query].map(|key| percent_encoded(key));
        format!("http://{user}:{password}@{}/v3/{path}/rpc?apikey={query}&id=1", self.address)
    }

    /// A value of `--rpc-header` that holds a key.
    pub fn header_flag(&self) -> String {
        format!("{} X-Api-Key: Bearer {}", self.address, self.header)
    }

    /// Every form of every key: as it is, encoded for URLs with hexadecimal digits of either case, escaped as in JSON and in
    /// Rust's debug output, in base64, alone and as user and password are sent, and in hexadecimal.
    pub fn forms(&self) -> Vec<String> {
        let Self { user, password, path, query, header, .. } = self;
        let pair = format!("{user}:{password}");
        let mut forms = Vec::new();
        for key in [user, password, path, query, header, &pair] {
            let encoded = percent_encoded(key);
            let hex: String = key.bytes().map(|byte| format!("{byte:02x}")).collect();
            let base64 = base64(key.as_bytes());
            // Without the end, which is another one when more follows.
            let base64 = base64[..key.len() / 3 * 4].to_owned();
            let in_json = serde_json::Value::from(key.as_str()).to_string().trim_matches('"').to_owned();
            let debug = key.escape_default().to_string();
            forms.extend([key.clone(), encoded.to_lowercase(), encoded, in_json, debug, base64]);
            forms.extend([hex.to_uppercase(), hex]);
        }
        forms
    }

    /// The first key, in whatever form, that a text shows, such as an output, with a few characters before it.
    pub fn shown_in(&self, text: &str) -> Option<String> {
        let form = self.forms().into_iter().find(|form| text.contains(form))?;
        let before = text.split(&form).next()?;
        let start = before.char_indices().rev().nth(SHOWN_CHARS).map_or(0, |(at, _)| at);
        Some(format!("{}>>>{form}<<<", &before[start..]))
    }
}

/// For any place in a URL.
fn percent_encoded(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

/// What a percent-encoded text says.
pub(super) fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let code = std::str::from_utf8(after.get(..2).unwrap_or_default());
        match code.ok().and_then(|code| u8::from_str_radix(code, 16).ok()).filter(|_| *first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Source: RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    let group = |chunk: &[u8]| {
        let bits = (0..3).fold(0, |bits, i| bits << 8 | u32::from(chunk.get(i).copied().unwrap_or(0)));
        let digit = |i: usize| match i <= chunk.len() {
            true => char::from(BASE64[(bits >> (18 - 6 * i)) as usize & 63]),
            false => '=',
        };
        (0..4).map(digit).collect::<String>()
    };
    bytes.chunks(3).map(group).collect()
}

/// What base64 says, as text; what is no base64 is left out.
pub(super) fn base64_decoded(text: &str) -> String {
    let digits = text.bytes().filter_map(|byte| BASE64.iter().position(|digit| *digit == byte));
    let digits: Vec<_> = digits.collect();
    let bytes = digits.chunks(4).flat_map(|chunk| {
        let bits = (0..4).fold(0, |bits, i| bits << 6 | chunk.get(i).copied().unwrap_or(0));
        [bits >> 16, bits >> 8, bits].map(|bits| bits.to_le_bytes()[0]).into_iter().take(chunk.len() - 1)
    });
    String::from_utf8_lossy(&bytes.collect::<Vec<_>>()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_encoded_and_decoded() {
        for (plain, encoded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")]
        {
            assert_eq!(base64(plain.as_bytes()), encoded);
            assert_eq!(base64_decoded(encoded), plain);
        }
        assert_eq!(percent_encoded("a/é"), "a%2F%C3%A9");
        assert_eq!(percent_decoded("a%2F%C3%A9%"), "a/é%");
    }

    #[test]
    fn a_key_is_found_in_every_form() {
        let keys = Keys::new("127.0.0.1:1");
        let password = "pass:word#1/Kéy+\"pass:word";
        let hidden = [
            password.to_owned(),
            format!("{password:?}"),
            keys.url(),
            format!("Basic {}", base64(format!("{}:{password}", keys.user).as_bytes())),
            keys.header_flag(),
        ];
        for text in hidden {
            let shown = keys.shown_in(&format!("before {text} after")).unwrap();
            assert!(shown.starts_with("before "), "{shown}");
        }
        assert_eq!(keys.shown_in("127.0.0.1:1 said pass"), None);
    }
}
