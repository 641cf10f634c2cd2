//! Where an RPC endpoint is, and the keys it wants to see.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use crate::error::{ParseHeaderError, ParseRpcUrlError};
use crate::excerpt::{Excerpt, Secrets, percent_decoded};

/// The URL of an RPC endpoint, `http` or `https`, and further HTTP headers for it. Everything but its host and port may
/// be a key, so only those are shown, by [`Display`](fmt::Display) and [`Debug`](fmt::Debug) alike.
#[derive(Clone, PartialEq, Eq)]
pub struct RpcUrl {
    url: Url,
    headers: HeaderMap,
}

impl RpcUrl {
    /// The same endpoint, which wants this header, too: `NAME: VALUE`, such as `Authorization: Bearer …`.
    ///
    /// # Errors
    /// When it is not a header. The message does not repeat it.
    pub fn with_header(mut self, header: &str) -> Result<Self, ParseHeaderError> {
        let (name, value) = header.split_once(':').ok_or(ParseHeaderError)?;
        let name = HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_| ParseHeaderError)?;
        let mut value = HeaderValue::from_str(value.trim()).map_err(|_| ParseHeaderError)?;
        value.set_sensitive(true);
        self.headers.insert(name, value);
        Ok(self)
    }

    pub(crate) fn url(&self) -> &Url {
        &self.url
    }

    pub(crate) fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    pub(crate) fn is_https(&self) -> bool {
        self.url.scheme() == "https"
    }

    /// Whether both are at the same host and port, where one provider would be counted twice.
    pub(crate) fn is_beside(&self, other: &Self) -> bool {
        let place = |url: &Self| (url.url.host_str().map(str::to_owned), url.url.port_or_known_default());
        place(self) == place(other)
    }

    /// Whether the host is this machine by name or number, where no proxy can be meant.
    pub(crate) fn is_loopback(&self) -> bool {
        let host = self.url.host_str().unwrap_or_default();
        let number = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
        host == "localhost" || number.is_ok_and(|address| address.is_loopback())
    }

    /// The URL without a user, and the header that says who that is instead, if one was named.
    pub(crate) fn without_user(&self) -> (Url, Option<HeaderValue>) {
        let mut url = self.url.clone();
        // Neither fails for a URL that has a host.
        let _ = (url.set_username(""), url.set_password(None));
        let value = self.credentials().and_then(|credentials| {
            let mut value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(credentials))).ok()?;
            value.set_sensitive(true);
            Some(value)
        });
        (url, value)
    }

    /// `user:password`, as HTTP sends them, if the URL has any.
    fn credentials(&self) -> Option<String> {
        let (user, password) = (self.url.username(), self.url.password());
        let is_there = !user.is_empty() || password.is_some();
        is_there
            .then(|| format!("{}:{}", percent_decoded(user), percent_decoded(password.unwrap_or_default())))
    }

    /// The start of what the endpoint said, fit for a message: any key of ours that it repeats is blotted out.
    pub(crate) fn excerpt(&self, answer: &str) -> Excerpt {
        self.secrets().excerpt(answer)
    }

    /// A message about what the endpoint said, without any key of ours.
    pub(crate) fn blot(&self, message: &str) -> String {
        self.secrets().blot(message)
    }

    fn secrets(&self) -> Secrets {
        let mut parts: Vec<_> = self.url.path_segments().into_iter().flatten().collect();
        parts.extend(self.url.query().into_iter().flat_map(|query| query.split(['&', '='])));
        parts.extend([self.url.username(), self.url.password().unwrap_or_default()]);
        parts.extend(self.url.fragment());
        // Of `Bearer KEY`, too, only the key may be repeated.
        let headers = self.headers.values().filter_map(|value| value.to_str().ok());
        let mut keys: Vec<String> = headers.flat_map(|value| value.split(' ')).map(str::to_owned).collect();
        // That of `Basic KEY` is a user and a password.
        let basic = keys.iter().filter_map(|key| String::from_utf8(STANDARD.decode(key).ok()?).ok());
        let basic: Vec<_> = basic.chain(self.credentials()).collect();
        keys.extend(basic.iter().flat_map(|pair| pair.split(':')).map(str::to_owned));
        keys.extend(basic);
        keys.extend(parts.iter().flat_map(|part| [(*part).to_owned(), percent_decoded(part)]));
        Secrets::new(keys)
    }
}

impl fmt::Display for RpcUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.url.host_str().unwrap_or_default();
        match self.url.port() {
            Some(port) => f.pad(&format!("{host}:{port}")),
            None => f.pad(host),
        }
    }
}

impl fmt::Debug for RpcUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for RpcUrl {
    type Err = ParseRpcUrlError;

    fn from_str(text: &str) -> Result<Self, ParseRpcUrlError> {
        let url =
            Url::parse(text).map_err(|error| ParseRpcUrlError::Malformed { reason: error.to_string() })?;
        match url.scheme() {
            "http" | "https" => Ok(Self { url, headers: HeaderMap::new() }),
            "ws" | "wss" => Err(ParseRpcUrlError::WebSocket),
            _ => Err(ParseRpcUrlError::Scheme),
        }
    }
}

/// The URL of a WebSocket endpoint, `ws` or `wss`. Like an [`RpcUrl`], it shows its host and port only.
#[derive(Clone, PartialEq, Eq)]
pub struct HintUrl(pub(crate) RpcUrl);

impl HintUrl {
    /// The same endpoint, which wants this header, too: see [`RpcUrl::with_header`].
    ///
    /// # Errors
    /// When it is not a header. The message does not repeat it.
    pub fn with_header(self, header: &str) -> Result<Self, ParseHeaderError> {
        Ok(Self(self.0.with_header(header)?))
    }
}

impl FromStr for HintUrl {
    type Err = ParseRpcUrlError;

    fn from_str(text: &str) -> Result<Self, ParseRpcUrlError> {
        let rest = text.strip_prefix("ws").ok_or(ParseRpcUrlError::NotWebSocket)?;
        format!("http{rest}").parse().map(Self)
    }
}

impl fmt::Display for HintUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for HintUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_shows_its_host_and_port_only() {
        let text = "https://alice:password1@rpc.example.org:8545/v3/keyinpath?apikey=keyinquery";
        let url: RpcUrl = text.parse().unwrap();
        assert_eq!(url.to_string(), "rpc.example.org:8545");
        let url = url.with_header("X-Key:  Bearer keyinheader").unwrap();
        assert_eq!(format!("{url:?}"), url.to_string());
        let answer = "project keyinpath, key keyinquery, user password1, keyinheader: \u{1b}[31m over limit";
        assert_eq!(&*url.excerpt(answer), "project ***, key ***, user ***, ***: \\u{1b}[31m over limit");
    }

    #[test]
    fn no_part_of_a_url_or_header_comes_back_in_any_form() {
        let url: RpcUrl =
            "https://al%69ce1:pass%77ord@h/v3/key%2Fpath?a%70ikey=in+que%72y#fragment1".parse().unwrap();
        let url = url.with_header("X-Key: Bearer keyinheader").unwrap();
        let url = url.with_header("Authorization: Basic dXNlcm5hbWU6aHVudGVyMTI=").unwrap();
        for said in [
            "alice1",
            "al%69ce1",
            "password",
            "pass%77ord",
            "alice1:password",
            "key/path",
            "key%2Fpath",
            "key%2fpath",
            "in+query",
            "in+que%72y",
            "fragment1",
            "keyinheader",
            "KEYINHEADER",
            "dXNlcm5hbWU6aHVudGVyMTI=",
            "dXNlcm5hbWU6aHVudGVyMTI",
            "username",
            "hunter12",
            "YWxpY2UxOnBhc3N3b3Jk",
            "6b6579696e686561646572",
        ] {
            assert_eq!(&*url.excerpt(&format!("no: {said}.")), "no: ***.", "{said}");
            assert_eq!(url.blot(&format!("no: {said}.")), "no: ***.", "{said}");
        }
        assert_eq!(url.blot("v3 and https are no keys"), "v3 and https are no keys");
    }

    #[test]
    fn a_user_becomes_a_header() {
        let url = |text: &str| text.parse::<RpcUrl>().unwrap().without_user();
        let (plain, header) = url("http://us%65r:p%3Ass@h/p");
        assert_eq!((plain.as_str(), header.unwrap().to_str().unwrap()), ("http://h/p", "Basic dXNlcjpwOnNz"));
        assert_eq!(url("http://:pass@h").1.unwrap(), "Basic OnBhc3M=");
        assert!(url("http://h/p").1.is_none());
    }

    #[test]
    fn only_http_urls_are_endpoints() {
        for good in ["http://127.0.0.1:8545", "https://rpc.example.org", "http://[::1]:1/key"] {
            assert!(good.parse::<RpcUrl>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "rpc.example.org/secretkey",
            "ws://h/secretkey",
            "file:///secretkey",
            "http:///",
            "http://h:99999/secretkey",
        ] {
            let error = bad.parse::<RpcUrl>().unwrap_err();
            assert!(!format!("{error} {error:?}").contains("secretkey"), "{bad}: {error}");
        }
    }

    #[test]
    fn a_header_has_a_name_and_a_value() {
        let url: RpcUrl = "http://h".parse().unwrap();
        for bad in ["", "secretkey", "a b: secretkey", "x: secret\nkey"] {
            let error = url.clone().with_header(bad).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("secret"));
        }
        assert_eq!(url.with_header("x: y").unwrap().headers()["x"], "y");
    }

    #[test]
    fn one_provider_is_known_by_its_host_and_port() {
        let is_beside = |a: &str, b: &str| a.parse::<RpcUrl>().unwrap().is_beside(&b.parse().unwrap());
        assert!(is_beside("https://h/v3/a", "https://H:443/v3/b"));
        assert!(!is_beside("http://h:1", "http://h:2") && !is_beside("http://h", "http://i"));
    }

    #[test]
    fn loopback_is_known_by_name_and_number() {
        let is_loopback = |text: &str| text.parse::<RpcUrl>().unwrap().is_loopback();
        assert!(["http://localhost:1", "http://127.0.0.9", "http://[::1]:1"].into_iter().all(is_loopback));
        assert!(!["http://10.0.0.1", "http://localhost.example.org"].into_iter().any(is_loopback));
    }
}
