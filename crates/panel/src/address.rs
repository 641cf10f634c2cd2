//! Where to listen: a port alone means this machine only.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

/// An address to listen at: `4300`, `127.0.0.1:4300`, `[::1]:4300` or `0.0.0.0:9100`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address(SocketAddr);

/// It is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a port, such as 4300, or an IP address and a port, such as 0.0.0.0:9100 or [::]:9100")]
pub struct BadAddress;

impl Address {
    /// The address and the port.
    pub fn socket_addr(self) -> SocketAddr {
        self.0
    }
}

impl FromStr for Address {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let is_port = text.bytes().all(|byte| byte.is_ascii_digit());
        let address = match text.strip_prefix("localhost:") {
            Some(port) => {
                SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port.parse().map_err(|_| BadAddress)?)
            }
            None if is_port => {
                SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), text.parse().map_err(|_| BadAddress)?)
            }
            None => text.parse().map_err(|_| BadAddress)?,
        };
        Ok(Self(address))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_is_of_this_machine() {
        for (text, address) in [
            ("4300", "127.0.0.1:4300"),
            ("localhost:4300", "127.0.0.1:4300"),
            ("0.0.0.0:9100", "0.0.0.0:9100"),
            ("[::1]:0", "[::1]:0"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), address);
        }
        for text in ["", "65536", "example.org:80", "0.0.0.0", ":80", "-1", "::1:80:", "localhost:+80x"] {
            assert_eq!(text.parse::<Address>(), Err(BadAddress), "{text}");
        }
    }
}
