//! Which process listens at a port, as far as the system tells.
//!
//! Source: `man proc_pid_net`, `man proc_pid_fd`.

use std::collections::HashSet;
use std::fs;

/// The state of a TCP socket that listens; one of UDP has another, and always counts.
const LISTENING: &str = "0A";

/// Its id and name. Sockets of others are known to root only.
pub(super) fn holder(port: u16, is_tcp: bool) -> Option<(u32, String)> {
    let tables = if is_tcp { ["tcp", "tcp6"] } else { ["udp", "udp6"] };
    let sockets: HashSet<String> = tables
        .iter()
        .filter_map(|table| fs::read_to_string(format!("/proc/net/{table}")).ok())
        .flat_map(|table| sockets(&table, port, is_tcp))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let pid = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).find(|pid| {
        let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let mut targets = open.filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
        targets.any(|target| target.to_str().is_some_and(|target| sockets.contains(target)))
    })?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Some((pid, name.trim().to_owned()))
}

/// The inodes of the sockets in such a table that listen at the port.
fn sockets(table: &str, port: u16, is_tcp: bool) -> Vec<u64> {
    let of = |line: &str| {
        let mut fields = line.split_whitespace();
        let (_, local) = fields.nth(1)?.rsplit_once(':')?;
        let state = fields.nth(1)?;
        let is_it = u16::from_str_radix(local, 16) == Ok(port) && (!is_tcp || state == LISTENING);
        is_it.then(|| fields.nth(5)?.parse().ok()).flatten()
    };
    table.lines().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn who_listens_is_found() {
        let (tcp, udp) = (
            TcpListener::bind("[::1]:0").or_else(|_| TcpListener::bind("127.0.0.1:0")),
            UdpSocket::bind("127.0.0.1:0"),
        );
        let (tcp, udp) = (tcp.unwrap().local_addr().unwrap().port(), udp.unwrap());
        assert_eq!(holder(tcp, true), None, "it is gone");
        let (pid, _) = holder(udp.local_addr().unwrap().port(), false).unwrap();
        assert_eq!(pid, std::process::id());
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(holder(tcp.local_addr().unwrap().port(), true).unwrap().0, std::process::id());
    }
}
