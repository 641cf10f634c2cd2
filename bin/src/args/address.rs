//! Addresses of peers, and what was meant by those that are none.

use std::net::{IpAddr, SocketAddr};

use p2p_blob::Multiaddr;

/// Parses a multiaddress.
///
/// # Errors
/// What is wrong, and for a host and a port how they are written here.
pub(crate) fn parse_address(text: &str) -> Result<Multiaddr, String> {
    text.parse().map_err(|error| match meant(text) {
        Some(meant) => format!("that is no multiaddress; write {meant}"),
        None => format!("{error}; a multiaddress is expected, such as /ip4/192.0.2.7/tcp/4201"),
    })
}

/// What somebody meant who wrote a socket address, or a host and a port.
fn meant(text: &str) -> Option<String> {
    let text = text.split_once("://").map_or(text, |(_, rest)| rest).trim_end_matches('/');
    if let Ok(address) = text.parse::<SocketAddr>() {
        let version = if address.is_ipv4() { "ip4" } else { "ip6" };
        return Some(format!("/{version}/{}/tcp/{}", address.ip(), address.port()));
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        let version = if ip.is_ipv4() { "ip4" } else { "ip6" };
        return Some(format!("/{version}/{ip}/tcp/4201"));
    }
    let (host, port) = text.rsplit_once(':')?;
    let port: u16 = port.parse().ok()?;
    let is_name =
        !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    is_name.then(|| format!("/dns/{host}/tcp/{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_writes_a_socket_address_is_told_how_it_is_written() {
        for (given, wanted) in [
            ("127.0.0.1:4201", "/ip4/127.0.0.1/tcp/4201"),
            ("[::1]:4201", "/ip6/::1/tcp/4201"),
            ("192.0.2.7", "/ip4/192.0.2.7/tcp/4201"),
            ("seed.example:4201", "/dns/seed.example/tcp/4201"),
            ("tcp://seed.example:4201/", "/dns/seed.example/tcp/4201"),
        ] {
            let told = parse_address(given).unwrap_err();
            assert!(told.ends_with(&format!("write {wanted}")), "{told}");
            parse_address(wanted).unwrap();
        }
        for other in ["/ip4/1.2.3", "/nothing", "seed.example", "a b:1", "seed.example:http"] {
            let told = parse_address(other).unwrap_err();
            assert!(told.contains("/ip4/192.0.2.7/tcp/4201"), "{told}");
        }
    }
}
