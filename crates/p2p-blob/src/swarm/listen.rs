//! Listening only on free ports.

use std::io;
use std::net::{IpAddr, SocketAddr};

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use socket2::{Domain, Socket, Type};

/// Fails when something listens at `addr` already, or nothing can. The TCP transport would share the port (`SO_REUSEPORT`) with another
/// node of the same user, which would get half of the inbound connections.
pub fn is_free(addr: &Multiaddr) -> io::Result<()> {
    let mut parts = addr.iter();
    let ip = match parts.next() {
        Some(Protocol::Ip4(ip)) => IpAddr::V4(ip),
        Some(Protocol::Ip6(ip)) => IpAddr::V6(ip),
        _ => return Ok(()),
    };
    let (kind, port) = match (parts.next(), parts.next()) {
        (Some(Protocol::Tcp(port)), None) => (Type::STREAM, port),
        (Some(Protocol::Udp(port)), Some(Protocol::QuicV1)) => (Type::DGRAM, port),
        _ => return Ok(()),
    };
    if port == 0 {
        return Ok(());
    }
    let at = SocketAddr::new(ip, port);
    let socket = Socket::new(Domain::for_address(at), kind, None)?;
    if ip.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if kind == Type::STREAM {
        // Connections of a node that has just ended do not count.
        socket.set_reuse_address(true)?;
    }
    socket.bind(&at.into())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn a_port_is_free_until_somebody_listens_there() {
        let (tcp, udp) = (TcpListener::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let at_tcp: Multiaddr =
            format!("/ip4/127.0.0.1/tcp/{}", tcp.local_addr().unwrap().port()).parse().unwrap();
        let at_udp: Multiaddr =
            format!("/ip4/127.0.0.1/udp/{}/quic-v1", udp.local_addr().unwrap().port()).parse().unwrap();
        for addr in [&at_tcp, &at_udp] {
            assert_eq!(is_free(addr).unwrap_err().kind(), io::ErrorKind::AddrInUse, "{addr}");
        }
        drop((tcp, udp));
        for addr in [at_tcp, at_udp, "/ip4/127.0.0.1/tcp/0".parse().unwrap()] {
            assert!(is_free(&addr).is_ok(), "{addr}");
        }
    }
}
