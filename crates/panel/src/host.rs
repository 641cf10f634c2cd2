//! Which `Host` a request may name. A page elsewhere that has its own name lead here (DNS rebinding) has the browser send
//! that name: IP addresses and `localhost` cannot be had by anybody, and probes of Kubernetes come by address.

use std::net::{IpAddr, Ipv6Addr};

use hyper::Uri;
use hyper::header::{HOST, HeaderMap};

/// The names that are this node's.
#[derive(Debug, Clone)]
pub(crate) struct Hosts(Vec<String>);

impl Hosts {
    pub(crate) fn new(names: Vec<String>) -> Self {
        Self(names.iter().map(|name| bare(name).to_owned()).collect())
    }

    /// Whether a request with this target and these headers is for this node.
    pub(crate) fn allow(&self, target: &Uri, headers: &HeaderMap) -> bool {
        let mut named = headers.get_all(HOST).iter();
        let (Some(host), None) = (named.next(), named.next()) else { return false };
        let of_target = target.authority().is_none_or(|authority| self.allows(authority.as_str()));
        of_target && host.to_str().is_ok_and(|host| self.allows(host))
    }

    fn allows(&self, host: &str) -> bool {
        let Some(name) = without_port(host) else { return false };
        if let Some(literal) = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            return literal.parse::<Ipv6Addr>().is_ok();
        }
        let name = bare(name);
        name.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv4())
            || name.eq_ignore_ascii_case("localhost")
            || self.0.iter().any(|one| one.eq_ignore_ascii_case(name))
    }
}

/// `None`: what follows the name is no port.
fn without_port(host: &str) -> Option<&str> {
    let end = host.rfind(']').map_or(0, |end| end + 1);
    match host[end..].find(':') {
        None => Some(host),
        Some(colon) => {
            let (name, port) = host.split_at(end + colon);
            port[1..].bytes().all(|byte| byte.is_ascii_digit()).then_some(name)
        }
    }
}

/// A name may end in a dot, that of the root.
fn bare(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(hosts: &[&str]) -> bool {
        let allowed = Hosts::new(vec!["Models.example.org.".to_owned()]);
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, host.parse().unwrap());
        }
        allowed.allow(&Uri::from_static("/"), &headers)
    }

    #[test]
    fn addresses_localhost_and_names_that_were_told_are_this_node() {
        for host in [
            "127.0.0.1",
            "10.1.2.3:9100",
            "[::1]:4300",
            "[2001:db8::1]",
            "localhost:4300",
            "LOCALHOST.",
            "models.example.org:4300",
            "models.example.org.",
        ] {
            assert!(allowed(&[host]), "{host}");
        }
    }

    #[test]
    fn other_names_are_not() {
        for host in [
            "",
            "example.org",
            "evil.models.example.org",
            "localhost.example.org",
            "127.0.0.1.nip.io",
            "[::1",
            "::1",
            "[example.org]",
            "127.0.0.1:80@example.org",
            "localhost:80:example.org",
            "2130706433.",
            "[::1]x",
        ] {
            assert!(!allowed(&[host]), "{host}");
        }
        assert!(!allowed(&[]), "HTTP/1.0 says none");
        assert!(!allowed(&["localhost", "localhost"]));
        let headers = HeaderMap::from_iter([(HOST, "localhost".parse().unwrap())]);
        assert!(!Hosts::new(Vec::new()).allow(&Uri::from_static("http://example.org/"), &headers));
    }
}
