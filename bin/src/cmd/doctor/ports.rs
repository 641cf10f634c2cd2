//! Whether there is room where the node is to listen.

use std::net::{IpAddr, TcpListener};

use node::status::running;
use p2p_blob::Multiaddr;
use panel::Address;

use super::finding::{bad, ok};
use super::holder::holder;
use crate::answer::Checked;
use crate::config::Settings;

/// Also tells whether a node can listen at all of them now.
pub(super) fn checks(
    listen: &[Multiaddr],
    http: Option<Address>,
    settings: &Settings,
) -> (Vec<Checked>, bool) {
    let nodes = running(&settings.cache_dir).unwrap_or_default();
    let own: Vec<u32> = nodes.iter().flatten().map(|node| node.pid).collect();
    let (mut found, mut is_free) = (Vec::new(), true);
    for addr in listen {
        let taken = p2p_blob::is_free(addr).err();
        is_free &= taken.is_none();
        found.push(of_port(addr.to_string(), port(addr), taken, &own));
    }
    if let Some(addr) = http.map(Address::socket_addr) {
        let taken = TcpListener::bind(addr).err();
        found.push(of_port(format!("{addr} (--http)"), Some((addr.port(), true)), taken, &own));
    }
    (found, is_free)
}

fn of_port(
    subject: String,
    port: Option<(u16, bool)>,
    taken: Option<std::io::Error>,
    own: &[u32],
) -> Checked {
    let Some(error) = taken else { return ok("port", Some(subject), "free") };
    let holder = port.and_then(|(port, is_tcp)| holder(port, is_tcp));
    match holder {
        Some((pid, _)) if own.contains(&pid) => {
            ok("port", Some(subject), format!("process {pid}, a node of this cache, listens there"))
        }
        Some((pid, name)) => {
            let text = format!("process {pid} ({name}) listens there");
            bad("port", Some(subject), text, "end it, or listen elsewhere (--listen, --http)")
        }
        None => bad("port", Some(subject), error.to_string(), "listen elsewhere (--listen, --http)"),
    }
}

/// The port of an address, and whether it is one of TCP.
fn port(addr: &Multiaddr) -> Option<(u16, bool)> {
    let text = addr.to_string();
    let mut parts = text.split('/').skip(1);
    let _ip: IpAddr = parts.nth(1)?.parse().ok()?;
    let (kind, port) = (parts.next()?, parts.next()?.parse().ok()?);
    Some((port, kind == "tcp"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_of_an_address_is_known() {
        let of = |text: &str| port(&text.parse().unwrap());
        assert_eq!(of("/ip4/0.0.0.0/tcp/4201"), Some((4201, true)));
        assert_eq!(of("/ip6/::/udp/4202/quic-v1"), Some((4202, false)));
        assert_eq!(of("/dns4/h/tcp/1"), None);
    }
}
